//! The filter's answers to requests that it refuses by their head.

use crate::config::product::Product;
use crate::wire::http::{Headers, LocalReply};

/// HTTP 400: what the request says is ambiguous.
const BAD_REQUEST: u16 = 400;

/// HTTP 403: the address is none that is served.
const FORBIDDEN: u16 = 403;

/// HTTP 401: the caller's token or certificate, or the lack of one.
const UNAUTHORIZED: u16 = 401;

/// JSON-RPC 2.0: Invalid Request.
const INVALID_REQUEST: i32 = -32_600;

/// Answers a request to an address that no product has.
pub(super) fn refuse_unserved() -> LocalReply {
    refuse_address(FORBIDDEN, "forbidden", "this address is not served here")
}

/// Answers a request whose path two servers may read as those of two products.
pub(super) fn refuse_several() -> LocalReply {
    refuse_address(BAD_REQUEST, "bad_request", "the path can be read in several ways")
}

/// Answers a request by its address, before it is known whose it is.
fn refuse_address(status: u16, error: &str, reason: &str) -> LocalReply {
    json(status, format!(r#"{{"error":"{error}","error_description":"{reason}"}}"#))
}

/// Answers with 400, because what names the caller or the session is ambiguous.
pub(super) fn refuse_ambiguous(product: &Product, reason: &str) -> LocalReply {
    refuse(product, BAD_REQUEST, INVALID_REQUEST, "invalid_request", reason)
}

/// Answers with 401. The challenge tells the client with which token to come again.
pub(super) fn refuse_caller(product: &Product, headers: Headers<'_>, reason: &str) -> LocalReply {
    let code = product.product_type.traits().unauthorized_code;
    let mut reply = refuse(product, UNAUTHORIZED, code, "unauthorized", reason);
    let has_token = headers.get("authorization").is_some();
    reply.headers.push(("www-authenticate", product.identity.challenge.header(has_token)));
    reply
}

/// Answers as JSON-RPC to clients of MCP and A2A: without an id, as no body has been read.
fn refuse(product: &Product, status: u16, code: i32, error: &str, reason: &str) -> LocalReply {
    if product.is_json_rpc() {
        let error = format!(r#"{{"code":{code},"message":"{reason}"}}"#);
        json(status, format!(r#"{{"jsonrpc":"2.0","id":null,"error":{error}}}"#))
    } else {
        refuse_address(status, error, reason)
    }
}

fn json(status: u16, body: String) -> LocalReply {
    let headers = vec![("content-type", "application/json".to_owned())];
    LocalReply { status, headers, body }
}

/// The replies to requests that are refused by their head: what each is about, and the reply, to a
/// product of this type. For the reference.
#[cfg(feature = "schema")]
pub fn replies(
    product_type: crate::config::product::ProductType,
) -> Vec<(&'static str, LocalReply)> {
    let product = Product { product_type, ..Product::unknown() };
    let ambiguous = "what names the caller or the session is ambiguous";
    let unknown = "the identity of the caller is not known, or its token is not the one that the product asks for";
    vec![
        ("no product has the address, and `unmatched` is `reject`", refuse_unserved()),
        ("two servers may read the path as those of two products", refuse_several()),
        (ambiguous, refuse_ambiguous(&product, ambiguous)),
        (unknown, refuse_caller(&product, Headers(&Vec::new()), unknown)),
    ]
}

//! Decides on a request by its head alone: the filter ignores it, follows it, or answers it itself.

pub mod already_metered;
pub mod head;
pub mod identity;
pub mod session;

mod claims;

use std::rc::Rc;

use crate::admission::already_metered::{already_metered, matched_host};
use crate::admission::head::{RequestHead, is_session_ambiguous};
use crate::admission::identity::{Properties, Unusable, find};
use crate::admission::session::session_ref;
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Config, OnMismatch, without_query};
use crate::domain::session::SessionEnd;
use crate::fact::Fact;
use crate::host::counter::Counter;
use crate::wire::http::{Headers, LocalReply};

/// What the filter does with a request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, for as long as a head is read"
)]
pub enum Admission<'a> {
    /// It ignores the request, which belongs to no product or is excluded.
    Pass,
    /// It leaves the request to another filter, which meters it.
    Skip {
        /// The product to which it belongs.
        product: Rc<Product>,
        /// A counter for the stats.
        count: Counter,
    },
    /// It follows the request.
    Follow(Admitted<'a>),
    /// It answers the request itself.
    Answer {
        /// The response for the client.
        reply: LocalReply,
        /// A fact for the accountant.
        fact: Option<Box<Fact>>,
        /// A counter for the stats.
        count: Counter,
    },
}

/// A request that the filter follows.
#[derive(Clone, Debug)]
pub struct Admitted<'a> {
    /// The product to which it belongs.
    pub product: Rc<Product>,
    /// What its head contains.
    pub head: RequestHead<'a>,
    /// True if its credential is not the one that the product expects.
    pub(crate) is_credential_mismatch: bool,
}

/// Decides by the request's head and what Envoy knows about the stream.
pub fn admit<'a>(
    config: &Config,
    headers: Headers<'a>,
    properties: Properties<'_>,
    now: Timestamp,
) -> Admission<'a> {
    let Some(path) = headers.get(":path") else { return Admission::Pass };
    let authority = headers.get(":authority").unwrap_or_default();
    let host = matched_host(&config.already_metered, authority);
    let Some(product) = config.product_for(host, path, headers) else {
        return Admission::Pass;
    };
    let rules = &product.identity;
    let found = match find(rules, headers, &mut *properties) {
        Ok(found) => found,
        Err(Unusable { is_header, reason }) => {
            let status = if is_header { BAD_REQUEST } else { UNAUTHORIZED };
            return refuse(product, status, reason, Counter::IdentityUnusable);
        }
    };
    let has_prices = product.pricing.earns();
    if rules.rejects_missing(found.has_no_customer, found.has_no_agent, has_prices) {
        let reason = "the identity of the caller is not known";
        return refuse(product, UNAUTHORIZED, reason, Counter::RequestsRejected);
    }
    if found.is_credential_mismatch && rules.on_credential_mismatch == OnMismatch::Reject {
        let reason = "the token was not got in the way that this product expects";
        return refuse(product, UNAUTHORIZED, reason, Counter::RequestsRejected);
    }
    if is_session_ambiguous(product, headers) {
        let reason = "a header that names the session comes twice";
        return refuse(product, BAD_REQUEST, reason, Counter::IdentityUnusable);
    }
    if let Some(count) = already_metered(&config.already_metered, headers, properties) {
        return Admission::Skip { product: Rc::clone(product), count };
    }
    let is_credential_mismatch = found.is_credential_mismatch;
    let head = RequestHead::read(product, found.identity, headers, now);
    let is_close = !product.session.close_path.is_empty()
        && without_query(path) == product.session.close_path.as_bytes()
        && matches!(head.method, b"POST" | b"DELETE");
    if is_close {
        let session = session_ref(product, head.identity, head.session_key);
        return Admission::Answer {
            reply: LocalReply { status: 204, headers: Vec::new(), body: String::new() },
            fact: Some(Box::new(Fact::SessionEnd { session, reason: SessionEnd::Closed, at: now })),
            count: Counter::SessionsClosedByRequest,
        };
    }
    Admission::Follow(Admitted { product: Rc::clone(product), head, is_credential_mismatch })
}

/// HTTP 400: what the request says is ambiguous.
const BAD_REQUEST: u16 = 400;

/// HTTP 401: the caller's token or certificate, or the lack of one.
const UNAUTHORIZED: u16 = 401;

/// JSON-RPC 2.0: Invalid Request.
const INVALID_REQUEST: i32 = -32_600;

/// Answers with this status, as JSON-RPC to clients of MCP and A2A: without an id, as no body has
/// been read.
fn refuse(product: &Product, status: u16, reason: &str, count: Counter) -> Admission<'static> {
    let is_unauthorized = status == UNAUTHORIZED;
    let body = if product.is_json_rpc() {
        let unauthorized = product.product_type.traits().unauthorized_code;
        let code = if is_unauthorized { unauthorized } else { INVALID_REQUEST };
        format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{reason}"}}}}"#)
    } else {
        let error = if is_unauthorized { "unauthorized" } else { "invalid_request" };
        format!(r#"{{"error":"{error}","error_description":"{reason}"}}"#)
    };
    let mut headers = vec![("content-type", "application/json".to_owned())];
    if is_unauthorized {
        headers.push(("www-authenticate", "Bearer error=\"invalid_token\"".to_owned()));
    }
    let reply = LocalReply { status, headers, body };
    Admission::Answer { reply, fact: None, count }
}

//! Decides on a request by its head alone: the filter ignores it, follows it, or answers it itself.

pub mod head;
pub mod identity;
pub mod session;

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::identity::{IdentityResult, Properties, find};
use crate::admission::session::session_ref;
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Config, OnMismatch, OnMissing, without_query};
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
    let Some(product) = config.product_for(authority, path, headers) else {
        return Admission::Pass;
    };
    let IdentityResult { identity, is_missing, is_credential_mismatch } =
        find(&product.identity, headers, properties);
    if is_missing && product.identity.on_missing == OnMissing::Reject {
        return refuse(product, "the identity of the caller is not known");
    }
    if is_credential_mismatch && product.identity.on_credential_mismatch == OnMismatch::Reject {
        return refuse(product, "the token was not got in the way that this product expects");
    }
    let head = RequestHead::read(product, identity, headers, now);
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

/// Answers 401, as JSON-RPC to clients of MCP and A2A: without an id, as no body has been read.
fn refuse(product: &Product, reason: &str) -> Admission<'static> {
    let body = if product.is_json_rpc() {
        let code = product.product_type.traits().unauthorized_code;
        format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{reason}"}}}}"#)
    } else {
        format!(r#"{{"error":"unauthorized","error_description":"{reason}"}}"#)
    };
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("www-authenticate", "Bearer error=\"invalid_token\"".to_owned()),
    ];
    let reply = LocalReply { status: 401, headers, body };
    Admission::Answer { reply, fact: None, count: Counter::RequestsRejected }
}

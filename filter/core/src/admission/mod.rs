//! What becomes of a request by its head alone: it passes unseen, is followed, or is answered by the filter itself.

pub mod head;
pub mod identity;
pub mod session;

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::identity::{Found, Properties, find};
use crate::base::time::Timestamp;
use crate::config::product::{Product, ProductType};
use crate::config::{Config, OnMismatch, OnMissing, without_query};
use crate::domain::identity::Identity;
use crate::domain::session::SessionEnd;
use crate::fact::Fact;
use crate::host::counter::Counter;
use crate::wire::http::{Headers, LocalReply};

/// What becomes of a request.
#[derive(Debug)]
pub enum Admission {
    /// It belongs to no product, or is excluded: it is not looked at again.
    Pass,
    /// It is followed.
    Follow {
        /// The product that it belongs to.
        product: Rc<Product>,
        /// Who it is for.
        identity: Identity,
        /// Its credential is not the one that the product expects.
        is_credential_mismatch: bool,
    },
    /// The filter answers it.
    Answer {
        /// What the client gets.
        reply: LocalReply,
        /// For the accountant.
        fact: Option<Box<Fact>>,
        /// For the stats.
        count: Counter,
    },
}

/// Decides by the request's head and what Envoy knows of the stream.
pub fn admit(
    config: &Config,
    headers: Headers<'_>,
    properties: Properties<'_>,
    now: Timestamp,
) -> Admission {
    let Some(path) = headers.get(":path") else { return Admission::Pass };
    let authority = headers.get(":authority").unwrap_or_default();
    let Some(product) = config.product_for(authority, path, headers) else {
        return Admission::Pass;
    };
    let Found { identity, is_missing, is_credential_mismatch } =
        find(&product.identity, headers, properties);
    if is_missing && product.identity.on_missing == OnMissing::Reject {
        return refuse(product, "the identity of the caller is not known");
    }
    if is_credential_mismatch && product.identity.on_credential_mismatch == OnMismatch::Reject {
        return refuse(product, "the token was not got in the way that this product expects");
    }
    let method = headers.get(":method").unwrap_or_default();
    let is_close = !product.session.close_path.is_empty()
        && without_query(path) == product.session.close_path.as_bytes()
        && matches!(method, b"POST" | b"DELETE");
    if is_close {
        let RequestHead { session, .. } = RequestHead::read(product, identity, headers);
        return Admission::Answer {
            reply: LocalReply { status: 204, headers: Vec::new(), body: String::new() },
            fact: Some(Box::new(Fact::SessionEnd { session, reason: SessionEnd::Closed, at: now })),
            count: Counter::SessionsClosedByRequest,
        };
    }
    Admission::Follow { product: Rc::clone(product), identity, is_credential_mismatch }
}

/// 401: as JSON-RPC to clients of MCP and A2A, without an id, as no body has been read.
fn refuse(product: &Product, reason: &str) -> Admission {
    let body = if product.is_json_rpc() {
        let code = unauthorized(product.product_type);
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

/// The JSON-RPC error code. MCP leaves -32000 to -32019 to implementations (2026-07-28), of which -32001 and -32002
/// have a meaning already; in A2A -32001 to -32009 have one, -32005 that of an unsupported media type.
const fn unauthorized(product_type: ProductType) -> i32 {
    match product_type {
        ProductType::McpServer => -32_005,
        ProductType::AiAgent | ProductType::AgenticApi | ProductType::StandardApi => -32_000,
    }
}

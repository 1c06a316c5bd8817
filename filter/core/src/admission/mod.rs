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
use crate::config::{Config, OnMismatch, OnMissing, Owner, Unmatched};
use crate::domain::session::SessionEnd;
use crate::fact::Fact;
use crate::host::counter::Counter;
use crate::wire::http::{Headers, LocalReply};
use crate::wire::target::{Target, trim_slash};

/// Headers by which some servers replace the path.
const REWRITES: [&str; 3] = ["x-original-url", "x-rewrite-url", "x-override-url"];

/// What the filter does with a request.
#[derive(Debug)]
pub enum Admission<'a> {
    /// It ignores the request, which a product excludes.
    Pass,
    /// It ignores the request, which belongs to no product.
    Unmatched,
    /// It follows the request.
    Follow(Box<Admitted<'a>>),
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
    let authority = headers.get(":authority").unwrap_or_default();
    let path = headers.get(":path");
    let target = Target::read(authority, path.unwrap_or_default());
    // Only a tunnel (`CONNECT`) has no path.
    let owner = path.map_or(Owner::Nobody, |_| config.owner(&target, headers));
    let (owner, target) = match owner {
        Owner::Nobody => by_header(config, authority, headers).unwrap_or((Owner::Nobody, target)),
        owner => (owner, target),
    };
    let product = match owner {
        Owner::Product(product) => product,
        Owner::Excluded => return Admission::Pass,
        Owner::Nobody if config.unmatched == Unmatched::Pass => return Admission::Unmatched,
        Owner::Nobody => {
            let reason = "this address is not served here";
            return refuse_address(403, "forbidden", reason, Counter::RequestsUnmatched);
        }
        Owner::Several => {
            let reason = "the path can be read in several ways";
            return refuse_address(400, "bad_request", reason, Counter::RequestsAmbiguous);
        }
    };
    let IdentityResult { identity, is_missing, is_credential_mismatch } =
        find(&product.identity, headers, properties);
    if is_missing && product.identity.on_missing == OnMissing::Reject {
        return refuse(product, "the identity of the caller is not known");
    }
    if is_credential_mismatch && product.identity.on_credential_mismatch == OnMismatch::Reject {
        return refuse(product, "the token was not got in the way that this product expects");
    }
    let head = RequestHead::read(product, identity, target, headers);
    let is_close = !product.session.close_path.is_empty()
        && trim_slash(head.target.path()) == trim_slash(&product.session.close_path)
        && matches!(head.method, b"POST" | b"DELETE");
    if is_close {
        let session = session_ref(product, head.identity, head.session_key);
        return Admission::Answer {
            reply: LocalReply { status: 204, headers: Vec::new(), body: String::new() },
            fact: Some(Box::new(Fact::SessionEnd { session, reason: SessionEnd::Closed, at: now })),
            count: Counter::SessionsClosedByRequest,
        };
    }
    Admission::Follow(Box::new(Admitted {
        product: Rc::clone(product),
        head,
        is_credential_mismatch,
    }))
}

/// Whose a request is by a header that replaces its path in some servers, if it is any product's.
fn by_header<'a, 'c>(
    config: &'c Config,
    authority: &'a [u8],
    headers: Headers<'a>,
) -> Option<(Owner<'c>, Target<'a>)> {
    REWRITES.iter().flat_map(|name| headers.all(name)).find_map(|value| {
        let behind = value.windows(3).position(|window| window == b"://");
        let path = match behind.and_then(|at| value.get(at.saturating_add(3)..)) {
            Some(rest) => rest.iter().position(|byte| *byte == b'/').and_then(|at| rest.get(at..)),
            None => Some(value),
        };
        let target = Target::read(authority, path.unwrap_or(b"/"));
        let owner = config.owner(&target, headers);
        matches!(owner, Owner::Product(_) | Owner::Several).then_some((owner, target))
    })
}

/// Answers a request by its address, before it is known whose it is.
fn refuse_address(status: u16, error: &str, reason: &str, count: Counter) -> Admission<'static> {
    let body = format!(r#"{{"error":"{error}","error_description":"{reason}"}}"#);
    let headers = vec![("content-type", "application/json".to_owned())];
    Admission::Answer { reply: LocalReply { status, headers, body }, fact: None, count }
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

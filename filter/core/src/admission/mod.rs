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
use crate::config::{Config, OnMismatch, Owner, Unmatched};
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
    /// It leaves the request to another filter, which meters it.
    Skip {
        /// The product to which it belongs.
        product: Rc<Product>,
        /// A counter for the stats.
        count: Counter,
    },
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
    let authority = matched_host(&config.already_metered, authority);
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
    let head = RequestHead::read(product, found.identity, target, headers, now);
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

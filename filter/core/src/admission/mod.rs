//! Decides on a request by its head alone: the filter ignores it, follows it, or answers it itself.

pub mod already_metered;
pub mod head;
pub mod identity;
pub mod session;

mod claims;
mod exempt;
#[cfg(not(feature = "schema"))]
mod refusal;
#[cfg(feature = "schema")]
pub mod refusal;

use std::rc::Rc;

use crate::admission::already_metered::{already_metered, matched_host};
use crate::admission::exempt::{is_exempt, is_for_metadata};
use crate::admission::head::{RequestHead, is_session_ambiguous};
use crate::admission::identity::{IdentityResult, Properties, Unusable, find};
use crate::admission::refusal::{refuse_ambiguous, refuse_caller, refuse_several, refuse_unserved};
use crate::admission::session::session_ref;
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Config, OnMismatch, Owner, Unmatched};
use crate::domain::session::SessionEnd;
use crate::fact::Fact;
use crate::host::counter::Counter;
use crate::wire::http::{Headers, LocalReply};
use crate::wire::target::{REWRITES, Target, trim_slash};

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
    /// It ignores a request of this product that carries no identity by design.
    Exempt(Rc<Product>),
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

impl Admission<'_> {
    fn refuse(reply: LocalReply, count: Counter) -> Self {
        Self::Answer { reply, fact: None, count }
    }
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

/// Decides by the request's head and what Envoy knows about the stream. `is_whole` is true if the
/// request ends with its head.
pub fn admit<'a>(
    config: &Config,
    headers: Headers<'a>,
    is_whole: bool,
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
            let is_for =
                |product: &&Rc<Product>| is_for_metadata(product, &target, headers, is_whole);
            if let Some(product) = config.products.iter().find(is_for) {
                return Admission::Exempt(Rc::clone(product));
            }
            return Admission::refuse(refuse_unserved(), Counter::RequestsUnmatched);
        }
        Owner::Several => {
            return Admission::refuse(refuse_several(), Counter::RequestsAmbiguous);
        }
    };
    if is_exempt(product, &target, headers, is_whole) {
        return Admission::Exempt(Rc::clone(product));
    }
    let found = match identified(product, headers, &mut *properties) {
        Ok(found) => found,
        Err(refused) => return refused,
    };
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

/// Finds who a request is for, or refuses it.
fn identified(
    product: &Product,
    headers: Headers<'_>,
    properties: Properties<'_>,
) -> Result<IdentityResult, Admission<'static>> {
    let rules = &product.identity;
    let found = find(rules, headers, properties).map_err(|Unusable { is_header, reason }| {
        let reply = if is_header {
            refuse_ambiguous(product, reason)
        } else {
            refuse_caller(product, headers, reason)
        };
        Admission::refuse(reply, Counter::IdentityUnusable)
    })?;
    let has_prices = product.pricing.earns();
    let refuse_caller = |reason| {
        let reply = refuse_caller(product, headers, reason);
        Err(Admission::refuse(reply, Counter::RequestsRejected))
    };
    if found.fails_required
        || rules.rejects_missing(found.has_no_customer, found.has_no_agent, has_prices)
    {
        return refuse_caller("the identity of the caller is not known");
    }
    if found.is_credential_mismatch && rules.on_credential_mismatch == OnMismatch::Reject {
        return refuse_caller("the token was not got in the way that this product expects");
    }
    if is_session_ambiguous(product, headers) {
        let reply = refuse_ambiguous(product, "a header that names the session comes twice");
        return Err(Admission::refuse(reply, Counter::IdentityUnusable));
    }
    Ok(found)
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

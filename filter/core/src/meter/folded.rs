//! Calls that are alike, added up to one fact: what a worker refuses within a second, and what it
//! cannot write of a customer whose facts are more than its share. So who hammers makes one event
//! a second, not one each, and no call is lost.

use std::collections::BTreeMap;

use crate::base::hash::hash;
use crate::base::limits::{FOLD_MS, FOLDED_CALLS_MAX, FOLDED_CALLS_PER_CUSTOMER_MAX, OTHER};
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::domain::call::Certainty;
use crate::fact::call::{CallEnded, CallKind, FoldedCalls};

#[derive(Debug)]
struct Fold {
    calls: FoldedCalls,
    since: Timestamp,
}

/// The customer, and a hash of what makes calls alike.
type FoldKey = (String, [u8; 16]);

/// Calls that wait to be written as a few facts.
#[derive(Debug, Default)]
pub(super) struct Folds {
    folds: BTreeMap<FoldKey, Fold>,
}

impl Folds {
    /// Adds a call that must be counted at once, unless it is like one of the last second. Returns
    /// it if the caller must write it.
    pub(super) fn add_further(
        &mut self,
        config: &Config,
        call: CallEnded,
        now: Timestamp,
    ) -> Option<CallEnded> {
        let key = self.key(config, &call);
        if self.is_added(&key, &call) {
            return None;
        }
        if self.folds.len() < FOLDED_CALLS_MAX {
            self.insert(key, call.clone(), 0, now);
        }
        Some(call)
    }

    /// Adds a call. Returns it if there is no room.
    pub(super) fn add(
        &mut self,
        config: &Config,
        call: CallEnded,
        now: Timestamp,
    ) -> Option<CallEnded> {
        let key = self.key(config, &call);
        if self.is_added(&key, &call) {
            return None;
        }
        if self.folds.len() >= FOLDED_CALLS_MAX {
            return Some(call);
        }
        self.insert(key, call, 1, now);
        None
    }

    /// Adds a call to those that are like it, if there are any. Returns whether it did.
    fn is_added(&mut self, key: &FoldKey, call: &CallEnded) -> bool {
        self.folds.get_mut(key).map(|fold| fold.add(call)).is_some()
    }

    fn insert(&mut self, key: FoldKey, call: CallEnded, quantity: u64, now: Timestamp) {
        let is_other = self.count(&call) >= FOLDED_CALLS_PER_CUSTOMER_MAX;
        let calls = FoldedCalls { call, quantity, priced_as: None };
        let calls = if is_other { calls.of_other() } else { calls };
        self.folds.insert(key, Fold { calls, since: now });
    }

    /// The sums of the seconds that are over; with `is_all` of all.
    pub(super) fn take_due(&mut self, now: Timestamp, is_all: bool) -> Vec<FoldedCalls> {
        let mut due = Vec::new();
        self.folds.retain(|_, fold| {
            // A clock that was set back must hold nothing back.
            let is_over =
                is_all || now < fold.since || now.saturating_since(fold.since).0 >= FOLD_MS;
            if !is_over {
                return true;
            }
            fold.since = now;
            if fold.calls.quantity == 0 {
                return false;
            }
            due.push(fold.calls.clone());
            fold.calls.quantity = 0;
            true
        });
        due
    }

    fn count(&self, call: &CallEnded) -> usize {
        let customer = call.session.identity.customer.clone();
        let of_customer = (customer.clone(), [0; 16])..=(customer, [u8::MAX; 16]);
        self.folds.range(of_customer).take(FOLDED_CALLS_PER_CUSTOMER_MAX).count()
    }

    /// What makes calls alike: the session and the tool; beyond the customer's share only the
    /// product and the price.
    fn key(&self, config: &Config, call: &CallEnded) -> FoldKey {
        let customer = call.session.identity.customer.clone();
        let status = call.http_status.to_be_bytes();
        let kind: &[u8] = match &call.kind {
            CallKind::Tool => b"tool",
            CallKind::Api(api) => api.method.as_bytes(),
            CallKind::Step => b"step",
        };
        let certainty: &[u8] =
            if call.certainty == Certainty::Inferred { b"inferred" } else { b"certain" };
        let product_id = call.session.product_id.as_bytes();
        let outcome = call.status.name().as_bytes();
        let is_sent: &[u8] = if call.is_request_sent { b"sent" } else { b"" };
        // Each payment has its receipt.
        let receipt = call.payment.as_ref().and_then(|payment| payment.receipt.as_deref());
        let receipt = receipt.unwrap_or_default().as_bytes();
        let of_all = [kind, certainty, product_id, outcome, &status, is_sent, receipt];
        let own = [&of_all[..], &[&call.session.key, call.tool.as_bytes()]].concat();
        let own = (customer, hash(&own));
        if self.folds.contains_key(&own) || self.count(call) < FOLDED_CALLS_PER_CUSTOMER_MAX {
            return own;
        }
        let charge = config
            .product(&call.session.product_id)
            .map(|product| product.pricing.charge(&call.tool, call.status, call.is_request_sent));
        let price = charge.as_ref().map_or_else(String::new, |charge| charge.price.to_string());
        let tier = charge.map_or("", |charge| charge.cost_tier);
        (
            own.0,
            hash(&[&of_all[..], &[OTHER.as_bytes(), price.as_bytes(), tier.as_bytes()]].concat()),
        )
    }
}

impl Fold {
    fn add(&mut self, more: &CallEnded) {
        let FoldedCalls { call, quantity, .. } = &mut self.calls;
        if *quantity == 0 {
            call.call_id.clone_from(&more.call_id);
        }
        if let (CallKind::Api(sum), CallKind::Api(more)) = (&mut call.kind, &more.kind) {
            let is_first = *quantity == 0;
            let add = |sum: &mut u64, more: u64| {
                *sum = if is_first { more } else { sum.saturating_add(more) };
            };
            add(&mut sum.request_bytes, more.request_bytes);
            add(&mut sum.response_bytes, more.response_bytes);
        }
        *quantity = quantity.saturating_add(1);
        call.ended_at = call.ended_at.max(more.ended_at);
        // They did not run from the first to the last.
        call.started_at = call.ended_at;
    }
}

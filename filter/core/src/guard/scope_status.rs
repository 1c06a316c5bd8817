//! What workers read in shared data about a scope, and what they write there themselves.
//!
//! Scopes hash to a bounded set of keys, because shared data cannot delete. The accountant writes
//! the *scope status* with its commit, and workers read it. Workers write the *counter* with
//! compare-and-swap: it contains the reserved headroom and the requests that passed.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::encoded::encoded;
use crate::base::limits::{COUNTER_TRIES_MAX, GUARD_BUCKETS, RESERVATION_COUNTERS_MAX};
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::domain::level::Level;
use crate::domain::scope_totals::ScopeKey;
use crate::host::{Expect, Host};
use crate::shared_data::commit::read_slot;

/// The status that the accountant publishes about one scope. A scope without one is within limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// The scope's key.
    pub key: ScopeKey,
    /// Its level.
    pub level: Level,
    /// When the period ends.
    pub resets_at: Option<Timestamp>,
    /// How far calls may go, if the guard reserves.
    pub(crate) headroom: Option<Headroom>,
}

/// Where the guard blocks, and how much of that is spent: provider cost, calls or tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Headroom {
    /// Where the guard blocks.
    #[serde(with = "rust_decimal::serde::str")]
    pub limit: Decimal,
    /// What is known to be spent.
    #[serde(with = "rust_decimal::serde::str")]
    pub spent: Decimal,
    /// How much of everything that workers ever reserved was spent or released.
    #[serde(with = "rust_decimal::serde::str")]
    pub settled: Decimal,
}

/// What workers count about one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationCounter {
    /// The scope's key.
    pub key: ScopeKey,
    /// The sum of all reservations so far, less those of refused requests.
    #[serde(with = "rust_decimal::serde::str")]
    pub reserved: Decimal,
    /// When the next request may pass if requests come evenly, in microseconds; GCRA calls it the
    /// theoretical arrival time.
    pub(crate) next_pass_us: u64,
}

/// The number of the bucket to which a scope hashes.
pub fn bucket(key: &ScopeKey) -> u32 {
    let [a, b, ..] = *key;
    u32::from(u16::from_be_bytes([a, b])) % GUARD_BUCKETS
}

/// The key of a bucket of statuses.
pub(crate) fn statuses_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}v{bucket}")
}

fn counters_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}y{bucket}")
}

/// The key of a bucket of the last calls' costs.
pub(crate) fn costs_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}x{bucket}")
}

/// The status that the accountant has published about a scope.
pub fn scope_status(host: &mut impl Host, prefix: &str, key: &ScopeKey) -> Option<ScopeStatus> {
    let bytes = read_slot(host, &statuses_key(prefix, bucket(key)))?;
    let statuses: Vec<ScopeStatus> = postcard::from_bytes(&bytes).ok()?;
    statuses.into_iter().find(|scope_status| scope_status.key == *key)
}

/// The cost of the last call of a tool, by [`tool_key`].
pub fn last_cost(host: &mut impl Host, prefix: &str, tool: &ScopeKey) -> Option<Decimal> {
    let bytes = read_slot(host, &costs_key(prefix, bucket(tool)))?;
    let costs: Vec<LastCost> = postcard::from_bytes(&bytes).ok()?;
    costs.into_iter().find(|last| last.tool == *tool).map(|last| last.cost)
}

/// The cost of the last call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastCost {
    /// See [`tool_key`].
    pub tool: ScopeKey,
    /// In the currency of the rate cards.
    #[serde(with = "rust_decimal::serde::str")]
    pub cost: Decimal,
}

/// The key of a product's tool.
pub(crate) fn tool_key(product_id: &str, tool: &str) -> ScopeKey {
    crate::base::hash::hash(&[b"tool", product_id.as_bytes(), tool.as_bytes()])
}

/// The counters of one bucket.
pub fn counters(host: &mut impl Host, prefix: &str, bucket: u32) -> Vec<ReservationCounter> {
    let found = host.get(&counters_key(prefix, bucket));
    found.map(|(bytes, _)| read_counters(&bytes)).unwrap_or_default()
}

/// Changes the counter of a scope, if `change` agrees to it. Returns whether it agreed; `None` if
/// other workers wrote all the time, so that this one could not.
pub(crate) fn update_counter(
    host: &mut impl Host,
    prefix: &str,
    key: &ScopeKey,
    mut change: impl FnMut(&mut ReservationCounter) -> bool,
) -> Option<bool> {
    let name = counters_key(prefix, bucket(key));
    for _ in 0..COUNTER_TRIES_MAX {
        let found = host.get(&name);
        let expect =
            found.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        let mut counters = found.map(|(bytes, _)| read_counters(&bytes)).unwrap_or_default();
        let at = counters.iter().position(|counter| counter.key == *key);
        let new = ReservationCounter { key: *key, reserved: Decimal::ZERO, next_pass_us: 0 };
        let mut counter = at.and_then(|at| counters.get(at).cloned()).unwrap_or(new);
        if !change(&mut counter) {
            return Some(false);
        }
        match at.and_then(|at| counters.get_mut(at)) {
            Some(place) => *place = counter,
            None => {
                if counters.len() >= RESERVATION_COUNTERS_MAX {
                    // The oldest goes: the accountant finds its amounts missing, and settles them.
                    let _ = counters.remove(0);
                }
                counters.push(counter);
            }
        }
        if host.set(&name, &encoded(&counters), expect).is_ok() {
            return Some(true);
        }
    }
    None
}

fn read_counters(bytes: &[u8]) -> Vec<ReservationCounter> {
    postcard::from_bytes(bytes).unwrap_or_default()
}

impl ReservationCounter {
    /// Whether a request may pass at `requests` in `per`, however they are spread. Counts it if so.
    pub fn pass(&mut self, requests: u32, per: Millis, now: Timestamp) -> bool {
        let now_us = now.0.saturating_mul(1000);
        let per_us = per.0.saturating_mul(1000);
        let interval_us = per_us.checked_div(u64::from(requests)).unwrap_or(per_us);
        // A clock that was set back must not stop all requests.
        if self.next_pass_us > now_us.saturating_add(per_us).saturating_add(interval_us) {
            self.next_pass_us = now_us;
        }
        let next = self.next_pass_us.max(now_us).saturating_add(interval_us);
        if next > now_us.saturating_add(per_us) {
            return false;
        }
        self.next_pass_us = next;
        true
    }
}

/// The bytes of a bucket; empty for a bucket without entries.
pub(crate) fn encoded_bucket<T: Serialize>(entries: &[T]) -> Vec<u8> {
    if len_u64(entries.len()) == 0 { Vec::new() } else { encoded(&entries) }
}

#[cfg(test)]
mod tests {
    use super::{Decimal, Millis, ReservationCounter, Timestamp};

    #[test]
    fn as_many_pass_as_the_rate_says_however_they_come() {
        let mut counter =
            ReservationCounter { key: [0; 16], reserved: Decimal::ZERO, next_pass_us: 0 };
        let mut passes = |at: u64| counter.pass(5, Millis(1000), Timestamp(at));
        let burst = (0..20).filter(|_| passes(10_000)).count();
        assert_eq!(burst, 5, "at once");
        let next: Vec<bool> = [10_100, 10_200, 10_201, 10_400].map(&mut passes).into();
        assert_eq!(next, [false, true, false, true]);
        let second = (11_000..12_000).filter(|at| passes(*at)).count();
        assert!((5..=7).contains(&second), "{second}");
        assert!(passes(3_000), "a clock that was set back");
    }
}

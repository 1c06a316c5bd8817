//! What workers find in shared data about a scope, and what they write there themselves.
//!
//! Scopes hash to a bounded set of keys, as shared data has no delete. A *scope_status* is the accountant's: written with
//! its commit, read by workers. A *counter* is the workers': headroom taken and requests passed, written with compare-and-swap.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::limits::{COUNTER_TRIES_MAX, GUARD_BUCKETS, RESERVATION_COUNTERS_MAX};
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::domain::level::Level;
use crate::domain::scope_totals::ScopeKey;
use crate::host::{Expect, Host};
use crate::shared_data::commit::{encoded, read_slot};

/// What the accountant says of one scope. No scope_status means that it is at ease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// The scope.
    pub key: ScopeKey,
    /// Its level.
    pub level: Level,
    /// The end of the period.
    pub resets_at: Option<Timestamp>,
    /// How far calls may go, where the guard reserves.
    pub headroom: Option<Headroom>,
}

/// The cost at which requests are blocked, and how much of it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// The cost at which requests are blocked.
    #[serde(with = "rust_decimal::serde::str")]
    pub limit: Decimal,
    /// The cost that is known.
    #[serde(with = "rust_decimal::serde::str")]
    pub spent: Decimal,
    /// Of what workers have ever reserved, what has become cost or was given back.
    #[serde(with = "rust_decimal::serde::str")]
    pub settled: Decimal,
}

/// What workers note of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationCounter {
    /// The scope.
    pub key: ScopeKey,
    /// Everything that was ever reserved.
    #[serde(with = "rust_decimal::serde::str")]
    pub reserved: Decimal,
    /// When the next request may pass if they come evenly, in microseconds: the theoretical arrival time of GCRA.
    pub next_pass_us: u64,
}

/// The number of the bucket that a scope hashes to.
pub fn bucket(key: &ScopeKey) -> u32 {
    let [a, b, ..] = *key;
    u32::from(u16::from_be_bytes([a, b])) % GUARD_BUCKETS
}

/// The key of a bucket of statuses.
pub fn statuses_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}v{bucket}")
}

fn counters_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}y{bucket}")
}

/// The key of the costs of the last calls.
pub fn costs_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}x{bucket}")
}

/// What the accountant says of a scope.
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

/// What the last call of a tool cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCost {
    /// See [`tool_key`].
    pub tool: ScopeKey,
    /// In the currency of the rate cards.
    #[serde(with = "rust_decimal::serde::str")]
    pub cost: Decimal,
}

/// Names a tool of a product.
pub fn tool_key(product_id: &str, tool: &str) -> ScopeKey {
    crate::base::hash::hash(&[b"tool", product_id.as_bytes(), tool.as_bytes()])
}

/// What is noted of the scopes of one bucket.
pub fn counters(host: &mut impl Host, prefix: &str, bucket: u32) -> Vec<ReservationCounter> {
    let found = host.get(&counters_key(prefix, bucket));
    found.map(|(bytes, _)| read_counters(&bytes)).unwrap_or_default()
}

/// Changes what is noted of a scope, if `change` agrees when it sees what is there; gives whether it did. `None` if it
/// could not be written because others wrote all the time.
pub fn update_counter(
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
                    // The oldest goes: what was reserved there is noticed as missing, and settled.
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
    /// Lets a request pass if no more than `requests` have in `per`, however they were spread.
    pub fn pass(&mut self, requests: u32, per: Millis, now: Timestamp) -> bool {
        let now_us = now.0.saturating_mul(1000);
        let per_us = per.0.saturating_mul(1000);
        let interval_us = per_us.checked_div(u64::from(requests)).unwrap_or(per_us);
        // A clock that was set back must not stop everything.
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

/// The bytes of a bucket; nothing for an empty one.
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

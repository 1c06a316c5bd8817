//! Reservations: headroom that calls hold for what they may cost or use, until that is known.

use std::collections::{BTreeSet, HashMap, VecDeque};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::limits::RESERVATION_READINGS;
use crate::base::time::Timestamp;
use crate::config::Unit;
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::shared_data::slots::Slots;

/// The reservation of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenReservation {
    /// The id of the call, or of the generation that belongs to no call.
    pub call_id: String,
    /// The tool's key, by [`crate::guard::scope_status::tool_key`].
    pub tool: ScopeKey,
    /// What remains reserved, by scope.
    pub parts: Vec<Part>,
    /// The cost of the call so far.
    #[serde(with = "rust_decimal::serde::str")]
    pub used: Decimal,
    /// When the accountant releases the reservation even if the call's end does not arrive.
    pub(crate) expires_at: Timestamp,
    /// True if the call has ended.
    pub(crate) is_ended: bool,
}

/// What remains reserved in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The scope's key.
    pub key: ScopeKey,
    /// What it is an amount of.
    pub unit: Unit,
    /// The amount that remains.
    #[serde(with = "rust_decimal::serde::str")]
    pub left: Decimal,
}

/// All open reservations.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    pub(crate) slots: Slots<OpenReservation>,
    by_call: HashMap<String, u32>,
    by_expiry: BTreeSet<(Timestamp, u32)>,
    /// Ended calls, by slot, and the number of the reading of all journals that releases each.
    ending: VecDeque<(u64, u32)>,
    readings: u64,
}

impl Reservations {
    /// Restores a slot from shared data.
    pub(crate) fn restore(&mut self, slot: u32, hold: Option<OpenReservation>) {
        if let Some(hold) = &hold {
            self.index(slot, hold);
        }
        self.slots.restore(slot, hold);
    }

    /// Adds the reservation of a call.
    pub(crate) fn insert(&mut self, hold: &OpenReservation) {
        let slot = self.slots.insert(hold.clone());
        self.index(slot, hold);
    }

    fn index(&mut self, slot: u32, hold: &OpenReservation) {
        self.by_call.insert(hold.call_id.clone(), slot);
        self.by_expiry.insert((hold.expires_at, slot));
        if hold.is_ended {
            self.ending.push_back((self.readings.saturating_add(RESERVATION_READINGS), slot));
        }
    }

    /// Adds what a call has cost and used, and takes it from the call's reservation as far as that
    /// goes. Returns the amounts taken, by scope.
    pub(crate) fn spend(&mut self, call_id: &str, spent: &ScopeTotals) -> Vec<Part> {
        let slot = self.by_call.get(call_id).copied();
        let Some(hold) = slot.and_then(|slot| self.slots.get_mut(slot)) else { return Vec::new() };
        hold.used = hold.used.saturating_add(spent.provider_cost);
        let take = |part: &mut Part| {
            let amount = match part.unit {
                Unit::Cost => spent.provider_cost,
                Unit::Calls => Decimal::from(spent.calls),
                Unit::Tokens => Decimal::from(spent.tokens),
            };
            let taken = part.left.min(amount);
            part.left = part.left.saturating_sub(taken);
            Part { left: taken, ..part.clone() }
        };
        hold.parts.iter_mut().map(take).collect()
    }

    /// Marks a call as ended. `all_read` releases its reservation once its whole cost is known.
    pub(crate) fn end(&mut self, call_id: &str) {
        let Some(slot) = self.by_call.get(call_id).copied() else { return };
        if let Some(hold) = self.slots.get_mut(slot)
            && !core::mem::replace(&mut hold.is_ended, true)
        {
            self.ending.push_back((self.readings.saturating_add(RESERVATION_READINGS), slot));
        }
    }

    /// Counts a complete reading of all journals. Returns the reservations that it releases.
    pub(crate) fn all_read(&mut self, now: Timestamp) -> Vec<OpenReservation> {
        self.readings = self.readings.saturating_add(1);
        let mut released = Vec::new();
        while let Some((reading, slot)) = self.ending.front().copied()
            && reading <= self.readings
        {
            self.ending.pop_front();
            released.extend(self.remove(slot));
        }
        while let Some((expires_at, slot)) = self.by_expiry.first().copied()
            && expires_at <= now
        {
            self.by_expiry.pop_first();
            released.extend(self.remove(slot));
        }
        released
    }

    /// The reserved amounts, by scope.
    pub(crate) fn open(&self) -> HashMap<ScopeKey, Decimal> {
        let mut open = HashMap::new();
        for part in self.slots.iter().flat_map(|(_, hold)| &hold.parts) {
            let sum: &mut Decimal = open.entry(part.key).or_default();
            *sum = sum.saturating_add(part.left);
        }
        open
    }

    fn remove(&mut self, slot: u32) -> Option<OpenReservation> {
        let hold = self.slots.remove(slot)?;
        self.by_call.remove(&hold.call_id);
        self.by_expiry.remove(&(hold.expires_at, slot));
        Some(hold)
    }
}

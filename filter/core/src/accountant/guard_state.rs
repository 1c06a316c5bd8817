//! The state that the accountant keeps for the guards.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rust_decimal::Decimal;

use crate::base::limits::LAST_COSTS_MAX;
use crate::config::{Config, Guard};
use crate::domain::scope_totals::ScopeKey;
use crate::guard::reservations::Reservations;
use crate::guard::scope_status::{LastCost, bucket};
use crate::guard::table::ScopeTable;

/// The scopes, the reservations and the last costs of all guards.
#[derive(Debug, Default)]
pub(super) struct Guards {
    pub(super) scopes: ScopeTable,
    pub(super) reservations: Reservations,
    /// Scopes whose totals the collector does not know yet.
    pub(super) unreported: BTreeSet<u32>,
    /// Scopes with reservations that belong to no call: the reserved total at the last check, and
    /// how many checks in a row have found the same total.
    pub(super) missing: BTreeMap<u32, (Decimal, u32)>,
    /// The last costs of tools, by bucket.
    pub(super) last_costs: BTreeMap<u32, Vec<LastCost>>,
    pub(super) dirty_costs: BTreeSet<u32>,
    pub(super) ticks: u64,
    pub(super) answered_at: u64,
    pub(super) is_collector_lost: bool,
}

impl Guards {
    /// Whether the accountant has just taken over.
    pub(super) const fn is_new(&self) -> bool {
        self.ticks == 0
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.scopes.remove(slot);
        self.unreported.remove(&slot);
        self.missing.remove(&slot);
    }

    pub(super) fn remember_cost(&mut self, config: &Config, tool: ScopeKey, cost: Decimal) {
        let remembers =
            |guard: &Rc<Guard>| guard.reserve.as_ref().is_some_and(|reserve| reserve.last_cost);
        if !config.guards.iter().any(remembers) {
            return;
        }
        let number = bucket(&tool);
        let costs = self.last_costs.entry(number).or_default();
        if costs.iter().any(|last| last.tool == tool && last.cost == cost) {
            return;
        }
        costs.retain(|last| last.tool != tool);
        costs.push(LastCost { tool, cost });
        if costs.len() > LAST_COSTS_MAX {
            costs.remove(0);
        }
        self.dirty_costs.insert(number);
    }

    /// Marks the totals of every fleet guard as unreported, because a new accountant does not know
    /// what the collector knows.
    pub(super) fn resumed(&mut self, config: &Config) {
        let of_fleet = |guard_id: &str| config.guard(guard_id).is_some_and(|guard| guard.fleet);
        let scopes = self.scopes.slots.iter();
        let of_fleet_slots =
            scopes.filter(|(_, state)| of_fleet(&state.guard_id)).map(|(slot, _)| slot);
        self.unreported = of_fleet_slots.collect();
    }
}

pub(super) fn scope_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}k{slot}")
}

pub(super) fn reservation_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}l{slot}")
}

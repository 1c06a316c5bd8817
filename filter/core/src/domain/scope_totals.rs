//! The totals that a guard keeps for a scope, and the key of the scope.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::money::{add_money, take_money};

/// Names a scope of a guard; every Envoy uses the same key.
pub type ScopeKey = [u8; 16];

/// Running totals of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeTotals {
    /// The amount that the operator pays to providers.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
    /// The amount that the operator earned, by the prices of calls.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
    /// Calls, without those that were refused.
    pub calls: u64,
    /// Tokens, input and output together.
    pub tokens: u64,
}

impl ScopeTotals {
    /// Adds `more`. Returns `false` if an amount does not fit a decimal; that amount does not
    /// change.
    #[must_use]
    pub fn add(&mut self, more: &Self) -> bool {
        self.calls = self.calls.saturating_add(more.calls);
        self.tokens = self.tokens.saturating_add(more.tokens);
        let fits_cost = add_money(&mut self.provider_cost, more.provider_cost);
        add_money(&mut self.revenue, more.revenue) && fits_cost
    }

    /// Takes off `less`, as far as there is that much.
    pub(crate) fn take(&mut self, less: &Self) {
        self.calls = self.calls.saturating_sub(less.calls);
        self.tokens = self.tokens.saturating_sub(less.tokens);
        take_money(&mut self.provider_cost, less.provider_cost);
        take_money(&mut self.revenue, less.revenue);
    }

    /// Takes the larger value of each member. Totals only grow: that is the later of two reports.
    pub(crate) fn grow_to(&mut self, later: &Self) {
        self.provider_cost = self.provider_cost.max(later.provider_cost);
        self.revenue = self.revenue.max(later.revenue);
        self.calls = self.calls.max(later.calls);
        self.tokens = self.tokens.max(later.tokens);
    }
}

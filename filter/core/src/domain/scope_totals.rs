//! What a guard adds up for a scope, and what names the scope.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::money::add_money;

/// Names a scope of a guard: the same in every Envoy.
pub type ScopeKey = [u8; 16];

/// What is added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeTotals {
    /// What the operator pays to providers.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
    /// What was earned: prices.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
    /// Calls that were not refused.
    pub calls: u64,
    /// Tokens, input and output.
    pub tokens: u64,
}

impl ScopeTotals {
    /// Adds; `false` if an amount no longer fits a decimal, and is left as it was.
    #[must_use]
    pub fn add(&mut self, more: &Self) -> bool {
        self.calls = self.calls.saturating_add(more.calls);
        self.tokens = self.tokens.saturating_add(more.tokens);
        let fits_cost = add_money(&mut self.provider_cost, more.provider_cost);
        add_money(&mut self.revenue, more.revenue) && fits_cost
    }

    /// The larger of both, each by itself: totals only grow, so that is the later of two reports.
    pub(crate) fn grow_to(&mut self, later: &Self) {
        self.provider_cost = self.provider_cost.max(later.provider_cost);
        self.revenue = self.revenue.max(later.revenue);
        self.calls = self.calls.max(later.calls);
        self.tokens = self.tokens.max(later.tokens);
    }
}

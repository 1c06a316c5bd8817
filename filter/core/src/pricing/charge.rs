//! What a call or a generation costs the operator, and what the customer is charged for it.

use rust_decimal::Decimal;

use crate::pricing::{Line, Unpriced};

/// What one call is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCharge<'a> {
    /// Whether its outcome is charged.
    pub is_billable: bool,
    /// The amount: zero when it is not billable.
    pub price: Decimal,
    /// The label of the price.
    pub cost_tier: &'a str,
}

/// What a generation costs the operator, and what the customer is charged for it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCharge<'a> {
    /// The cost of each kind of token, and the version of the rate card; or why no cost is claimed.
    pub cost: Result<(Vec<Line>, &'a str), Unpriced>,
    /// The sum of the lines; zero where no cost is claimed.
    pub total: Decimal,
    /// What the customer is charged.
    pub price: Decimal,
}

impl TokenCharge<'_> {
    /// What is claimed to be the cost.
    pub fn cost(&self) -> Decimal {
        self.total
    }
}

//! The costs of calls and generations for the operator, and their prices for the customer.

use rust_decimal::Decimal;

use crate::pricing::{Line, Unpriced};

/// The charge of one call to the customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCharge<'a> {
    /// True if the customer pays for its outcome.
    pub is_billable: bool,
    /// How many calls it is for.
    pub calls: u64,
    /// The amount: zero if the call is not billable.
    pub price: Decimal,
    /// The label of the price.
    pub cost_tier: &'a str,
}

/// The cost of a generation for the operator, and its price for the customer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCharge<'a> {
    /// The cost of each kind of token, and the version of the rate card; or why the filter claims
    /// no cost.
    pub cost: Result<(Vec<Line>, &'a str), Unpriced>,
    /// The sum of the lines; zero if the filter claims no cost.
    pub total: Decimal,
    /// What guards count: the total, or the list price where only the tier or a modifier has no
    /// rate.
    pub at_least: Decimal,
    /// The amount that the customer pays.
    pub price: Decimal,
    /// True if the counts contradict each other.
    pub is_inconsistent: bool,
}

impl TokenCharge<'_> {
    /// The operator's cost; zero if the filter claims none.
    pub fn cost(&self) -> Decimal {
        self.total
    }
}

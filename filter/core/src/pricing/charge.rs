//! The costs of calls and generations for the operator, and their prices for the customer.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::domain::units::UnitName;
use crate::domain::usage::Usage;
use crate::pricing::card_age::CardAge;
use crate::pricing::{Line, UnitLine, Unpriced};

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

impl CallCharge<'_> {
    /// The same for a call that the customer does not pay for.
    pub(crate) fn free(self) -> Self {
        Self { is_billable: false, price: Decimal::ZERO, ..self }
    }
}

/// The cost of a generation for the operator, and its price for the customer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCharge<'a> {
    /// What the cost is made of, or why the filter claims none.
    pub cost: Result<Cost<'a>, Unpriced>,
    /// The sum of the lines; zero if the filter claims no cost.
    pub total: Decimal,
    /// What guards count: the total, or the list price where only the tier or a modifier has no
    /// rate.
    pub at_least: Decimal,
    /// The amount that the customer pays.
    pub price: Decimal,
    /// True if the counts contradict each other.
    pub is_inconsistent: bool,
    /// True if the computed cost and the one that the provider reports differ by more than the product
    /// allows.
    pub is_disputed: bool,
}

/// Stands for the version of a rate card if the cost is the one that the provider reports.
pub const REPORTED: &str = "reported";

/// What a generation's cost is made of. If the provider reports it, it has no lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost<'a> {
    /// The cost of each kind of token.
    pub lines: Vec<Line>,
    /// The cost of each unit beside tokens.
    pub unit_lines: Vec<UnitLine>,
    /// Units that are told and have no rate: the cost is too low for them.
    pub unpriced_units: Vec<UnitName>,
    /// The version of the rate card, or [`REPORTED`].
    pub rate_card: &'a str,
    /// How old its prices were; `None` if the provider reports the cost.
    pub rate_card_age: Option<CardAge>,
}

impl TokenCharge<'_> {
    /// The operator's cost; zero if the filter claims none.
    pub fn cost(&self) -> Decimal {
        self.total
    }
}

/// What remains of a charge that may be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charged {
    /// The tokens.
    pub usage: Usage,
    /// See [`TokenCharge::cost`].
    pub lines: Option<Vec<Line>>,
    /// See [`TokenCharge::total`].
    #[serde(with = "rust_decimal::serde::str")]
    pub total: Decimal,
    /// See [`TokenCharge::at_least`].
    #[serde(with = "rust_decimal::serde::str")]
    pub at_least: Decimal,
    /// See [`TokenCharge::price`].
    #[serde(with = "rust_decimal::serde::str")]
    pub price: Decimal,
}

impl Charged {
    pub(crate) fn new(charge: TokenCharge<'_>, usage: Usage) -> Self {
        let TokenCharge { cost, total, at_least, price, .. } = charge;
        Self { usage, lines: cost.ok().map(|cost| cost.lines), total, at_least, price }
    }
}

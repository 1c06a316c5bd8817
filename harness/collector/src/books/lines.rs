//! What is billed, line by line, and the difference between two times.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::invoice::{Line, ProductUse, TokenLine};
use crate::money;

/// What a line is about. Two lines of the same are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) currency: String,
    pub(super) customer: String,
    pub(super) product: String,
    pub(super) product_type: String,
    /// `tool_invocation`, `api_call`, `agent_step`, or `tokens` for those of a model.
    pub(super) kind: String,
    /// The tool, the route or the operation; of tokens, the provider and the model.
    pub(super) name: String,
    /// Empty for tokens.
    pub(super) tier: String,
    /// `None` for tokens, whose price is the sum over their kinds, and for calls that are not billed.
    #[serde(with = "money::optional")]
    pub(super) unit_price: Option<Decimal>,
}

/// A line of an invoice, or of the difference of two: then its numbers may be below zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BilledLine {
    #[serde(flatten)]
    pub(super) about: About,
    /// Calls, or generations.
    pub count: i64,
    /// Those of them that are charged; of generations, all.
    pub billable_count: i64,
    /// In the currency of the line.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub amount: Decimal,
}

impl BilledLine {
    /// The customer who used it, the product, and the tool or the model.
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.about.customer, &self.about.product, &self.about.name)
    }

    /// ISO 4217.
    pub fn currency(&self) -> &str {
        &self.about.currency
    }
}

/// Lines by what they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lines(BTreeMap<About, (i64, i64, Decimal)>);

impl Lines {
    /// Adds what is used of a product.
    pub(super) fn add_product(&mut self, product: &ProductUse) {
        let calls = product.lines.iter().map(|line| of_calls(product, line));
        let tokens = product.token_lines.iter().map(|line| of_tokens(product, line));
        calls.chain(tokens).for_each(|line| self.add(line));
    }

    pub(super) fn add(&mut self, line: BilledLine) {
        let BilledLine { about, count, billable_count, amount } = line;
        let sums = self.0.entry(about).or_default();
        sums.0 = sums.0.saturating_add(count);
        sums.1 = sums.1.saturating_add(billable_count);
        sums.2 = money::sum(sums.2, amount);
    }

    /// What these come to more than others, line by line, without those that are the same.
    pub(super) fn less(mut self, others: &[BilledLine]) -> Vec<BilledLine> {
        for other in others {
            let BilledLine { about, count, billable_count, amount } = other.clone();
            let (count, billable_count) = (count.saturating_neg(), billable_count.saturating_neg());
            self.add(BilledLine { about, count, billable_count, amount: -amount });
        }
        self.into_lines()
    }

    /// In the order of what they are about, without those that are nothing.
    pub(super) fn into_lines(self) -> Vec<BilledLine> {
        let is_something = |sums: &(i64, i64, Decimal)| *sums != (0, 0, Decimal::ZERO);
        let lines = self.0.into_iter().filter(|(_, sums)| is_something(sums));
        let line = |(about, (count, billable_count, amount))| BilledLine {
            about,
            count,
            billable_count,
            amount,
        };
        lines.map(line).collect()
    }
}

fn about(product: &ProductUse, kind: &str, name: String, tier: &str) -> About {
    About {
        currency: product.currency.clone(),
        customer: product.customer.clone(),
        product: product.product.clone(),
        product_type: product.product_type.clone(),
        kind: kind.to_owned(),
        name,
        tier: tier.to_owned(),
        unit_price: None,
    }
}

/// A count of an invoice: none is so large that it does not fit.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn of_calls(product: &ProductUse, line: &Line) -> BilledLine {
    let about = about(product, &line.kind, line.tool.clone(), &line.tier);
    BilledLine {
        about: About { unit_price: line.unit_price, ..about },
        count: signed(line.calls),
        billable_count: signed(line.billable_calls),
        amount: line.amount,
    }
}

fn of_tokens(product: &ProductUse, line: &TokenLine) -> BilledLine {
    BilledLine {
        about: about(product, "tokens", format!("{} {}", line.provider, line.model), ""),
        count: signed(line.generations),
        billable_count: signed(line.generations),
        amount: line.amount,
    }
}

//! What customers used and are not billed for, and why, as far as the ledger knows: outcomes that
//! cost nothing, free tools, generations without a price, and what was voided.
//!
//! The hours have the numbers; the reason of a generation is in its row alone. So rows are read only
//! where the hours count a generation without a cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::invoice::ProductUse;
use crate::invoice::read::{Key, product_of};
use crate::ledger::tables::{CALLS, CORRECTED_CALLS, CORRECTED_GENERATIONS, GENERATIONS};
use crate::query::{Conditions, Period, count};
use crate::sql::Transaction;

/// What is not billed of a product, in numbers by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NotBilled {
    /// Calls without a charge, for each `execution_status` that occurred.
    #[serde(rename = "not_billed")]
    pub calls: BTreeMap<String, u64>,
    /// Billable calls whose price is 0.
    pub free_calls: u64,
    /// Calls that a correction voids.
    pub voided_calls: u64,
    /// Generations that a correction voids.
    pub voided_generations: u64,
    /// Generations without a cost, for each `unpriced_reason`.
    pub unpriced_by_reason: BTreeMap<String, u64>,
    /// Those of them without a price too: where cost is passed through, they are billed by nothing.
    pub uncharged_generations: u64,
}

/// How many of something are not billed for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotBilledLine {
    /// Who used it.
    pub customer: String,
    /// The product.
    pub product: String,
    /// `calls` or `generations`.
    pub unit: String,
    /// An `execution_status`, `free`, `voided` or `unpriced`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl NotBilledLine {
    /// What the reason means.
    pub(crate) fn why(&self) -> &'static str {
        match self.reason.as_str() {
            "SUCCESS" => "not charged for, or paid with the call",
            "ERROR" => "failed",
            "VALIDATION_FAILED" => "had arguments that were refused",
            "BLOCKED" => "refused",
            "PAYMENT_REQUIRED" => "asked for a payment first",
            "TIMEOUT" => "not answered in time",
            "CANCELLED" => "cancelled",
            "HITL_REQUIRED" => "waited for a person",
            "PENDING" => "not finished",
            "UNKNOWN" => "ended without an answer",
            "free" => "free of charge",
            "voided" => "taken back by a correction",
            "unpriced" => "have no price, because what they cost is not known",
            _ => "not charged for",
        }
    }
}

impl NotBilled {
    /// One line for each reason, for whoever is billed: of generations only those of models whose
    /// tokens are charged, `uncharged` without a price. What runs behind a tool is the operator's.
    pub(crate) fn lines(
        &self,
        customer: &str,
        product: &str,
        uncharged: u64,
    ) -> Vec<NotBilledLine> {
        let statuses = self.calls.iter().map(|(status, calls)| ("calls", status.as_str(), *calls));
        let others = [
            ("calls", "free", self.free_calls),
            ("calls", "voided", self.voided_calls),
            ("generations", "voided", self.voided_generations),
            ("generations", "unpriced", uncharged),
        ];
        let lines = statuses.chain(others).filter(|(_, _, count)| *count > 0);
        lines
            .map(|(unit, reason, count)| NotBilledLine {
                customer: customer.to_owned(),
                product: product.to_owned(),
                unit: unit.to_owned(),
                reason: reason.to_owned(),
                count,
            })
            .collect()
    }

    /// The same for the operator, in one sentence.
    pub(super) fn sentence(&self) -> String {
        let lines = self.lines("", "", self.uncharged_generations);
        let told = lines.iter().map(|NotBilledLine { unit, reason, count, .. }| {
            let is_status = self.calls.contains_key(reason);
            if is_status { format!("{reason} {count}") } else { format!("{reason} {unit} {count}") }
        });
        let told: Vec<String> = told.collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    }
}

const KEY: &str = "customer, product, product_type, currency";

fn conditions(customers: Option<&[String]>, period: Period) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.and_one_of("customer", customers);
    conditions.and_within("time_ms", period);
    conditions
}

/// Reads why generations have no cost, and how many of those have no price. The token lines of
/// `products` have those of all models.
pub(super) fn read_unpriced(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    if products.values().all(|product| product.generations.unpriced_generations == 0) {
        return Ok(());
    }
    let conditions = conditions(customers, period);
    let and = if conditions.sql().is_empty() { " WHERE" } else { " AND" };
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT {KEY}, provider, model, unpriced_reason, count(*),
         count(*) FILTER (WHERE price = '0') FROM generations{}{and} provider_cost IS NULL
         GROUP BY {KEY}, provider, model, unpriced_reason",
        conditions.sql()
    ))?;
    let mut rows = statement.query(&conditions.values)?;
    while let Some(row) = &rows.next_row()? {
        let product = product_of(products, row)?;
        let (provider, model): (String, String) = (row.get(4)?, row.get(5)?);
        // Older ledgers may lack it.
        let reason: Option<String> = row.get(6)?;
        let (generations, uncharged) = (count(row, 7)?, count(row, 8)?);
        let reason = reason.unwrap_or_else(|| "unknown".to_owned());
        let by_reason = product.not_billed.unpriced_by_reason.entry(reason).or_default();
        *by_reason = by_reason.saturating_add(generations);
        product.not_billed.uncharged_generations += uncharged;
        let is_it = |line: &&mut crate::invoice::TokenLine| {
            (&line.provider, &line.model) == (&provider, &model)
        };
        if let Some(line) = product.token_lines.iter_mut().find(is_it) {
            line.uncharged_generations += uncharged;
        }
    }
    Ok(())
}

/// Reads how many calls and generations are voided.
pub(super) fn read_voided(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let conditions = conditions(customers, period);
    let and = if conditions.sql().is_empty() { " WHERE" } else { " AND" };
    let absent = |table: &str| {
        format!("NOT EXISTS (SELECT 1 FROM {table} WHERE {table}.position = came.position)")
    };
    // What counts no more as it came, and in no other way either, is void; what another generation
    // takes the place of is not.
    let calls = (CORRECTED_CALLS.name, "count_sum(quantity)", absent(CALLS.name));
    let no_generation = format!("{} AND {}", absent(GENERATIONS.name), absent("superseded"));
    let generations = (CORRECTED_GENERATIONS.name, "count(*)", no_generation);
    for (table, counted, is_void) in [calls, generations] {
        let mut statement = ledger.prepare_cached(&format!(
            "SELECT {KEY}, {counted} FROM {table} AS came{}{and} {is_void} GROUP BY {KEY}",
            conditions.sql()
        ))?;
        let mut rows = statement.query(&conditions.values)?;
        while let Some(row) = &rows.next_row()? {
            let voided = count(row, 4)?;
            let not_billed = &mut product_of(products, row)?.not_billed;
            if table == CORRECTED_CALLS.name {
                not_billed.voided_calls = voided;
            } else {
                not_billed.voided_generations = voided;
            }
        }
    }
    Ok(())
}

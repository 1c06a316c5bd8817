//! What the generations of a session add up to.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::limits::{MODELS_PER_SESSION_MAX, OTHER};
use crate::base::money::add_money;
use crate::domain::usage::Usage;
use crate::fact::generation::GenerationEnded;
use crate::pricing::charge::TokenCharge;
use crate::protocol::llm::provider::Provider;

/// Sums over generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationTotals {
    /// All of them, and their tokens.
    pub all: ModelTotals,
    /// By provider and model, bounded.
    pub by_model: BTreeMap<(Provider, String), ModelTotals>,
    /// Provider cost that belongs to no tool call.
    #[serde(with = "rust_decimal::serde::str")]
    pub unattributed_cost: Decimal,
}

/// What was counted of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTotals {
    /// Generations.
    pub generations: u64,
    /// Of these, without a cost, for whatever reason.
    pub unpriced: u64,
    /// Of these, whose usage is unknown.
    pub unknown_usage: u64,
    /// Tokens read, by the normal form.
    pub input: u64,
    /// Tokens made.
    pub output: u64,
    /// Of `output`.
    pub reasoning: u64,
    /// Of `input`.
    pub cache_read: u64,
    /// Of `input`, of any lifetime.
    pub cache_write: u64,
    /// What the operator pays.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
    /// What the customer is charged.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
}

impl ModelTotals {
    fn add(&mut self, usage: &Usage, charge: &TokenCharge<'_>) -> bool {
        let Usage { cache_write_5m, cache_write_1h, .. } = *usage;
        let cache_write = cache_write_5m.unwrap_or(0).saturating_add(cache_write_1h.unwrap_or(0));
        for (sum, by) in [
            (&mut self.generations, 1),
            (&mut self.unpriced, u64::from(charge.cost.is_err())),
            (&mut self.unknown_usage, u64::from(usage.is_unknown())),
            (&mut self.input, usage.input.unwrap_or(0)),
            (&mut self.output, usage.output.unwrap_or(0)),
            (&mut self.reasoning, usage.reasoning.unwrap_or(0)),
            (&mut self.cache_read, usage.cache_read.unwrap_or(0)),
            (&mut self.cache_write, cache_write),
        ] {
            *sum = sum.saturating_add(by);
        }
        let fits = add_money(&mut self.provider_cost, charge.cost());
        add_money(&mut self.revenue, charge.price) && fits
    }
}

impl GenerationTotals {
    /// Adds a generation; `false` if a sum no longer fits a decimal, and is left as it was.
    pub fn add(&mut self, generation: &GenerationEnded, charge: &TokenCharge<'_>) -> bool {
        let mut key = (generation.provider, generation.model_name().to_owned());
        if self.by_model.len() >= MODELS_PER_SESSION_MAX && !self.by_model.contains_key(&key) {
            OTHER.clone_into(&mut key.1);
        }
        let fits = self.all.add(&generation.usage, charge);
        self.by_model.entry(key).or_default().add(&generation.usage, charge) && fits
    }
}

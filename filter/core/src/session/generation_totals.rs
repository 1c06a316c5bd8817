//! The totals of a session's generations.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::limits::{MODELS_PER_SESSION_MAX, OTHER};
use crate::base::money::{add_money, take_money};
use crate::domain::seller::Seller;
use crate::domain::usage::TokenTotals;
use crate::fact::generation::GenerationEnded;
use crate::pricing::charge::{Charged, TokenCharge};

/// Totals over generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationTotals {
    /// All generations, with their tokens.
    pub all: ModelTotals,
    /// By provider and model; the number of models is bounded.
    pub by_model: BTreeMap<(Seller, String), ModelTotals>,
    /// Provider cost that is not attributed to a tool call.
    #[serde(with = "rust_decimal::serde::str")]
    pub(crate) unattributed_cost: Decimal,
}

/// Totals over the generations of one model, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTotals {
    /// The number of generations.
    pub generations: u64,
    /// How many of them have no cost, for whatever reason.
    pub unpriced: u64,
    /// How many of them have unknown usage.
    pub unknown_usage: u64,
    /// Their tokens, in the normal form.
    pub tokens: TokenTotals,
    /// What the operator pays.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
    /// What the customer is charged.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
}

impl ModelTotals {
    fn add(&mut self, generation: &GenerationEnded, charge: &TokenCharge<'_>) -> bool {
        for (sum, by) in [
            (&mut self.generations, 1),
            (&mut self.unpriced, u64::from(charge.cost.is_err())),
            (&mut self.unknown_usage, u64::from(generation.is_unknown())),
        ] {
            *sum = sum.saturating_add(by);
        }
        self.tokens.add(&generation.usage);
        let fits = add_money(&mut self.provider_cost, charge.cost());
        add_money(&mut self.revenue, charge.price) && fits
    }

    fn take(&mut self, generation: &GenerationEnded, charged: &Charged) {
        for (sum, by) in [
            (&mut self.generations, 1),
            (&mut self.unpriced, u64::from(charged.lines.is_none())),
            (&mut self.unknown_usage, u64::from(generation.is_unknown())),
        ] {
            *sum = sum.saturating_sub(by);
        }
        self.tokens.take(&generation.usage);
        take_money(&mut self.provider_cost, charged.total);
        take_money(&mut self.revenue, charged.price);
    }
}

impl GenerationTotals {
    /// Adds a generation; `false` if a sum no longer fits a decimal. Such a sum stays as it was.
    pub fn add(&mut self, generation: &GenerationEnded, charge: &TokenCharge<'_>) -> bool {
        let fits = self.all.add(generation, charge);
        self.of_model(generation).add(generation, charge) && fits
    }

    /// Takes back a generation that was added. Its model keeps its place, so that all generations
    /// of a model are in the same one.
    pub(crate) fn take(&mut self, generation: &GenerationEnded, charged: &Charged) {
        self.all.take(generation, charged);
        self.of_model(generation).take(generation, charged);
    }

    fn of_model(&mut self, generation: &GenerationEnded) -> &mut ModelTotals {
        let mut key = (generation.provider.seller, generation.model_name().to_owned());
        if self.by_model.len() >= MODELS_PER_SESSION_MAX && !self.by_model.contains_key(&key) {
            OTHER.clone_into(&mut key.1);
        }
        self.by_model.entry(key).or_default()
    }
}

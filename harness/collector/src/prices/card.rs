//! A rate card, as it is written.

use std::collections::BTreeMap;
use std::path::Path;

use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::TokenKind;
use agent_meter_core::pricing::RateCard;
use anyhow::anyhow;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A rate card, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Card {
    pub(super) version: String,
    pub(super) source: &'static str,
    pub(super) date: String,
    pub(super) currency: &'static str,
    pub(super) rates: Vec<Entry>,
}

/// The rates of one model of one seller.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) provider: Seller,
    pub(super) model: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) aliases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_to: Option<String>,
    #[serde(skip_serializing_if = "When::is_always")]
    pub(super) when: When,
    #[serde(flatten)]
    pub(super) table: Table,
}

/// Conditions of a rate, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct When {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<String>,
    /// Such as `16:30-00:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hours_utc: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) weekdays: Vec<&'static str>,
}

impl When {
    fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

/// Of a million tokens, by kind.
pub(super) type Rates = BTreeMap<TokenKind, Decimal>;

/// Of one unit, by name with variant.
pub(super) type Units = BTreeMap<String, Decimal>;

/// What a model, or a service tier of it, costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Table {
    #[serde(flatten)]
    pub(super) rates: Rates,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) units: Units,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) context_tiers: Vec<ContextTier>,
    /// By name; empty in a service tier's own table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) service_tiers: BTreeMap<&'static str, Table>,
    /// Factors of all rates, by modifier and word; empty in a service tier's own table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) multipliers: BTreeMap<&'static str, BTreeMap<&'static str, Decimal>>,
}

/// The rates of requests with more input tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ContextTier {
    pub(super) above_input_tokens: u64,
    #[serde(flatten)]
    pub(super) rates: Rates,
}

impl Table {
    /// Takes out what says nothing.
    pub(super) fn tidy(&mut self) {
        self.context_tiers.retain(|tier| !tier.rates.is_empty());
        for table in self.service_tiers.values_mut() {
            table.tidy();
            if table.rates.is_empty() && !table.context_tiers.is_empty() {
                table.rates.clone_from(&self.rates);
            }
        }
        self.service_tiers.retain(|_, table| !table.is_empty());
    }

    /// Whether it has no price of its own.
    pub(super) fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.units.is_empty()
    }

    /// How many prices it has; zero is one too.
    pub(super) fn prices(&self) -> usize {
        let of_context: usize = self.context_tiers.iter().map(|tier| tier.rates.len()).sum();
        let of_tiers: usize = self.service_tiers.values().map(Self::prices).sum();
        let factors: usize = self.multipliers.values().map(BTreeMap::len).sum();
        self.rates.len() + self.units.len() + of_context + of_tiers + factors
    }

    /// Whether tokens of this kind cost something.
    pub(super) fn charges(&self, kind: TokenKind) -> bool {
        self.rates.get(&kind).is_some_and(|rate| !rate.is_zero())
    }
}

impl Card {
    /// The card in the form of the plugin's configuration.
    ///
    /// # Errors
    ///
    /// Names the place that the filter would refuse.
    pub fn to_rate_card(&self) -> anyhow::Result<RateCard> {
        let card = RateCard::deserialize(serde_json::to_value(self)?)?;
        card.validate("").map_err(|refused| anyhow!("{refused}"))?;
        Ok(card)
    }

    /// The file's text: JSON if its name ends so, else YAML.
    ///
    /// # Errors
    ///
    /// If `out` ends in neither `.json`, `.yaml` nor `.yml`.
    pub fn to_text(&self, out: Option<&Path>) -> anyhow::Result<String> {
        let extension = out.map(|out| out.extension().unwrap_or_default().to_string_lossy());
        match extension.as_deref() {
            None | Some("yaml" | "yml") => Ok(serde_yaml_ng::to_string(self)?),
            Some("json") => Ok(serde_json::to_string_pretty(self)? + "\n"),
            Some(_) => Err(anyhow!("--out: expected a name that ends in .yaml or .json")),
        }
    }
}

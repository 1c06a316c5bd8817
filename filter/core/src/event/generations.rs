//! Events about generations.

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::domain::price_factors::{Modifiers, ServiceTier, Word};
use crate::domain::units::{UnitName, Units};
use crate::domain::usage::{Completeness, Usage, UsageSource};
use crate::event::common::{Common, money};
use crate::fact::generation::Attribution;
use crate::pricing::card_age::CardAge;
use crate::pricing::charge::{Cost, REPORTED};

#[derive(Serialize)]
pub(super) struct TokenConsumption<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) metric_id: &'static str,
    pub(super) quantity: u64,
    pub(super) generation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) supersedes: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_name: Option<&'a str>,
    pub(super) attribution: Attribution,
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_requested: Option<&'a str>,
    pub(super) service_tier: ServiceTier,
    #[serde(skip_serializing_if = "has_none", serialize_with = "special")]
    pub(super) modifiers: Modifiers,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<Word>,
    pub(super) usage_source: UsageSource,
    pub(super) completeness: Completeness,
    pub(super) estimated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) purpose: Option<&'a str>,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub(super) inconsistent: bool,
    pub(super) tokens: KnownTokens,
    #[serde(skip_serializing_if = "Units::is_empty", serialize_with = "told")]
    pub(super) units: &'a Units,
    pub(super) cost_lines: Vec<CostLine>,
    pub(super) priced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unpriced_reason: Option<&'static str>,
    pub(super) total_provider_cost: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) unpriced_units: &'a [UnitName],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reported_cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_card: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_card_age: Option<CardAge>,
    pub(super) price: String,
    pub(super) currency: &'a str,
    pub(super) http_status: u16,
    pub(super) duration_ms: u64,
    pub(super) streamed: bool,
}

/// The known token counts. The event leaves out unknown ones.
#[derive(Serialize)]
pub(super) struct KnownTokens(#[serde(serialize_with = "known")] pub(super) Usage);

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum CostLine {
    Tokens { kind: &'static str, tokens: u64, rate_per_million: String, cost: String },
    Units { kind: UnitName, quantity: String, rate: String, cost: String },
    Reported { kind: &'static str, cost: String },
}

fn has_none(modifiers: &Modifiers) -> bool {
    modifiers.special().next().is_none()
}

fn special<S: Serializer>(modifiers: &Modifiers, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(modifiers.special().map(|(modifier, word)| (modifier.name(), word)))
}

pub(super) fn known<S: Serializer>(usage: &Usage, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(usage.counts().filter_map(|(name, count)| Some((name, count?))))
}

fn told<S: Serializer>(units: &&Units, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(units.iter().map(|told| (told.name, money(told.quantity))))
}

/// The lines of a cost.
pub(super) fn cost_lines(cost: &Cost<'_>, total: Decimal) -> Vec<CostLine> {
    if cost.rate_card == REPORTED {
        return vec![CostLine::Reported { kind: "reported_cost", cost: money(total) }];
    }
    let of_tokens = cost.lines.iter().map(|line| CostLine::Tokens {
        kind: line.kind.name(),
        tokens: line.tokens,
        rate_per_million: money(line.rate),
        cost: money(line.cost),
    });
    let of_units = cost.unit_lines.iter().map(|line| CostLine::Units {
        kind: line.name,
        quantity: money(line.quantity),
        rate: money(line.rate),
        cost: money(line.cost),
    });
    of_tokens.chain(of_units).collect()
}

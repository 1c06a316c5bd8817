//! How the filter meters a product's generations.

use rust_decimal::Decimal;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Deserializer};

use crate::base::invalid::{ConfigError, error};
use crate::base::text::Share;
use crate::domain::price_factors::Word;
use crate::domain::seller::Seller;
use crate::protocol::llm::provider::{Asked, Family, OwnPath};

/// How the filter meters generations.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LlmRules {
    /// Who sells the models, by which rates, events, the ledger and invoices go; `auto` means that the
    /// host decides, else the format, else the path.
    #[serde(deserialize_with = "or_auto")]
    #[cfg_attr(
        feature = "schema",
        serde(serialize_with = "schema::or_auto"),
        schemars(schema_with = "schema::of_name_or_auto::<Seller>")
    )]
    pub provider: Option<Seller>,
    /// How requests and responses look; `auto` means that the provider's name decides, else the host,
    /// else the path.
    #[serde(deserialize_with = "or_auto")]
    #[cfg_attr(
        feature = "schema",
        serde(serialize_with = "schema::or_auto"),
        schemars(schema_with = "schema::of_name_or_auto::<Family>")
    )]
    pub format: Option<Family>,
    /// Paths that the server has for itself, and what a request to each does.
    pub paths: Vec<OwnPath>,
    /// The `version` of the rate card that alone has the rates of this product; null means all cards,
    /// in their order.
    pub rate_card: Option<Box<str>>,
    /// Where the models run, such as `eu`, which rates may depend on; `auto` means that the host tells
    /// it, or the path.
    #[serde(deserialize_with = "or_auto")]
    #[cfg_attr(
        feature = "schema",
        serde(serialize_with = "schema::or_auto"),
        schemars(schema_with = "schema::of_name_or_auto::<Word>")
    )]
    pub location: Option<Word>,
    /// True if the filter asks streams of OpenAI's kind for their usage. It removes from the
    /// response what only this brings.
    pub ask_for_usage: bool,
    /// What to bill where the provider's own counts are not complete.
    pub incomplete_usage: IncompleteUsage,
    /// Which cost counts, where the provider itself reports one.
    pub cost: CostSource,
    /// The computed cost and the reported one may differ by this share of the reported one.
    pub cost_difference_above: Share,
    /// True if the accountant attributes a generation without a known trace to the only tool call
    /// that runs in this Envoy.
    pub infer_when_unambiguous: bool,
    /// True if the filter uses what Envoy's `ai_protocol_manager` extracted, where it is complete.
    pub envoy_metadata: bool,
    /// What the filter does with requests that may make a generation unseen. It counts each and names
    /// each form of their paths in the log once; it refuses with 403.
    pub unseen: OnUnseen,
    /// What it does with requests for a WebSocket on which generations are made.
    pub websocket: OnWebSocket,
}

impl Default for LlmRules {
    fn default() -> Self {
        Self {
            provider: None,
            format: None,
            paths: Vec::new(),
            rate_card: None,
            location: None,
            ask_for_usage: false,
            incomplete_usage: IncompleteUsage::default(),
            cost: CostSource::default(),
            cost_difference_above: Share(Decimal::new(5, 2)),
            infer_when_unambiguous: false,
            envoy_metadata: true,
            unseen: OnUnseen::default(),
            websocket: OnWebSocket::default(),
        }
    }
}

/// The currency of the costs that providers report.
pub(crate) const REPORTED_CURRENCY: &str = "USD";

/// Which cost of a generation counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum CostSource {
    /// The one that the rate cards give.
    #[default]
    Computed,
    /// The one that the provider reports; a generation without one has no cost.
    Reported,
    /// The one that the provider reports, else the one that the rate cards give.
    ReportedElseComputed,
}

/// What to bill where the provider's own counts are not complete, as when the client left early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum IncompleteUsage {
    /// Bill the reported counts.
    BillObserved,
    /// Bill the reported counts. Estimate missing ones from the bytes transferred, and mark them as
    /// estimated.
    #[default]
    Estimate,
    /// Bill nothing; the provider cost stands.
    Waive,
}

/// What the filter does with a request that may make a generation unseen: a `POST`, an upgrade, a
/// tunnel or a call of gRPC that is neither metered nor known to be free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnUnseen {
    /// It passes.
    #[default]
    Pass,
    /// The filter refuses it.
    Reject,
}

/// What the filter does with a request for a WebSocket on which generations are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnWebSocket {
    /// Let it pass and meter what is said on it.
    #[default]
    Meter,
    /// Answer it with 426, so that the client sends its requests by HTTP.
    Reject,
}

impl LlmRules {
    /// Who is asked, as far as these rules say it.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { seller: self.provider, family: self.format, paths: &self.paths }
    }

    pub(super) fn validate(&self, path: &str, currency: &str) -> Result<(), ConfigError> {
        if self.cost != CostSource::Computed && currency != REPORTED_CURRENCY {
            let reason = format!(
                "expected `computed`, because providers report costs in {REPORTED_CURRENCY} and the product's prices are in {currency}"
            );
            return Err(error(&format!("{path}.cost"), &reason));
        }
        if self.cost_difference_above.0.is_sign_negative() {
            let reason = "expected a share of zero or more";
            return Err(error(&format!("{path}.cost_difference_above"), reason));
        }
        for (at, own) in self.paths.iter().enumerate() {
            own.validate(&format!("{path}.paths[{at}]"))?;
        }
        let Some(provider) = self.provider.filter(|_| self.format.is_none()) else { return Ok(()) };
        if Family::of(provider).is_some() {
            return Ok(());
        }
        let names = Family::ALL.iter().map(|family| format!("`{}`", family.name()));
        let names = names.collect::<Vec<_>>().join(", ");
        let reason = format!(
            "expected the format of {:?}, whose name tells none, found `auto`: one of {names}",
            provider.name()
        );
        Err(error(&format!("{path}.format"), &reason))
    }
}

/// Reads a name, or `auto` for none.
fn or_auto<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let name = String::deserialize(from)?;
    if name == "auto" {
        return Ok(None);
    }
    T::deserialize(name.into_deserializer()).map(Some)
}

#[cfg(feature = "schema")]
mod schema {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Serialize, Serializer};

    /// The schema of what [`super::or_auto`] reads.
    pub(super) fn of_name_or_auto<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string", "const": "auto" }, name] })
    }

    /// Writes a name as [`super::or_auto`] reads it.
    pub(super) fn or_auto<T: Serialize, S: Serializer>(
        name: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match name {
            Some(name) => name.serialize(to),
            None => to.serialize_str("auto"),
        }
    }
}

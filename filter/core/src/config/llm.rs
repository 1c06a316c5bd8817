//! How a product's generations are metered.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::protocol::llm::provider::Provider;

/// How generations are metered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmRules {
    /// Who runs the models; `None`, written `auto`: the host tells, else the path.
    #[serde(deserialize_with = "provider")]
    pub provider: Option<Provider>,
    /// Streams of OpenAI's kind are asked for their usage, and what only that brings is taken out of the response.
    pub ask_for_usage: bool,
    /// What is charged where the provider's own counts are not complete.
    pub incomplete_usage: IncompleteUsage,
    /// A generation without a known trace belongs to the only tool call that runs in this Envoy, if it is the only one.
    pub infer_when_unambiguous: bool,
    /// What Envoy's filter `ai_protocol_manager` has extracted is used where it is complete.
    pub envoy_metadata: bool,
}

impl Default for LlmRules {
    fn default() -> Self {
        Self {
            provider: None,
            ask_for_usage: false,
            incomplete_usage: IncompleteUsage::default(),
            infer_when_unambiguous: false,
            envoy_metadata: true,
        }
    }
}

/// What is charged where the provider's own counts are not complete, as when the client left in the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncompleteUsage {
    /// What was told.
    #[default]
    BillObserved,
    /// What was told, and for what was not an estimate by the bytes that passed, marked as such.
    Estimate,
    /// Nothing; the provider cost stands.
    Waive,
}

fn provider<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Provider>, D::Error> {
    let name = String::deserialize(from)?;
    if name == "auto" {
        return Ok(None);
    }
    let found = Provider::ALL.iter().find(|provider| provider.name() == name);
    found.copied().map(Some).ok_or_else(|| {
        let names = Provider::ALL.iter().map(|provider| format!("`{}`", provider.name()));
        let names = names.collect::<Vec<_>>().join(", ");
        D::Error::custom(format!("expected `auto`, or one of {names}"))
    })
}

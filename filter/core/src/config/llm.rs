//! How the filter meters a product's generations.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::protocol::llm::provider::Provider;

/// How the filter meters generations.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmRules {
    /// Who runs the models. `None`, written `auto`, means that the host decides, else the path.
    #[serde(deserialize_with = "provider")]
    pub provider: Option<Provider>,
    /// True if the filter asks streams of OpenAI's kind for their usage. It removes from the
    /// response what only this brings.
    pub ask_for_usage: bool,
    /// What to bill where the provider's own counts are not complete.
    pub incomplete_usage: IncompleteUsage,
    /// True if the accountant attributes a generation without a known trace to the only tool call
    /// that runs in this Envoy.
    pub infer_when_unambiguous: bool,
    /// True if the filter uses what Envoy's `ai_protocol_manager` extracted, where it is complete.
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

/// What to bill where the provider's own counts are not complete, as when the client left early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

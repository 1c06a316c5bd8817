//! By which members a request names its model and its tier, in each wire format. A server looks at
//! no others, so they say nothing.

use crate::protocol::paths::{Field, Paths};

/// OpenAI, Anthropic and most others; Gemini's Interactions too.
pub(super) const MODEL: &Paths = &[("model", Field::Model), ("service_tier", Field::Tier)];

/// Gemini and Vertex AI, whose paths name the model. Both spellings of a member are read there.
pub(super) const GEMINI: &Paths = &[("serviceTier", Field::Tier), ("service_tier", Field::Tier)];

/// Bedrock, whose paths name the model, except that of asynchronous invocations. Bodies of Anthropic
/// have a tier of their own.
pub(super) const BEDROCK: &Paths =
    &[("modelId", Field::Model), ("serviceTier.type", Field::Tier), ("service_tier", Field::Tier)];

/// watsonx.
pub(super) const WATSONX: &Paths = &[("model_id", Field::Model)];

/// OCI.
pub(super) const OCI: &Paths =
    &[("servingMode.modelId", Field::Model), ("chatRequest.serviceTier", Field::Tier)];

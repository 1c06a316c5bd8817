//! Facts about generations of large language models.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::ids::{Link, TraceId};
use crate::domain::session::SessionRef;
use crate::domain::usage::{Completeness, ServiceTier, Usage, UsageSource};
use crate::protocol::llm::provider::Provider;

/// How it is known what caused a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// By a trace.
    Trace,
    /// By being the only call that ran.
    Inferred,
    /// The call's own result told of it.
    Result,
    /// It is not known, or nothing did.
    None,
}

/// A generation that has been asked for, told where it may have to be joined with the call that causes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStarted {
    /// See [`GenerationEnded::generation_id`].
    pub generation_id: String,
    /// The traces that the request names.
    pub traces: Vec<TraceId>,
    /// The call may be inferred from being the only one that runs.
    pub may_infer: bool,
    /// The request's head.
    pub at: Timestamp,
}

/// One generation of a large language model that has ended, however it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationEnded {
    /// Unique within the source.
    pub generation_id: String,
    /// The session it belongs to if no tool call caused it.
    pub session: SessionRef,
    /// The product whose rules it is metered by.
    pub product_id: String,
    /// The tool call that told of it, and the tool.
    pub told_by: Option<(String, String)>,
    /// Who ran the model.
    pub provider: Provider,
    /// The model, as the response names it.
    pub model: Option<String>,
    /// The model, as the request names it.
    pub model_requested: Option<String>,
    /// The tier that decides the rate.
    pub service_tier: ServiceTier,
    /// The tokens.
    pub usage: Usage,
    /// How much of them is known.
    pub completeness: Completeness,
    /// Some of them are an estimate.
    pub is_estimated: bool,
    /// Where they were read.
    pub source: UsageSource,
    /// What names the generation if another response may tell of it again, and when it was asked for by the
    /// provider's clock, in seconds since 1970.
    pub told_again: Option<(Link, Option<u64>)>,
    /// The response's HTTP status.
    pub http_status: u16,
    /// The response came as a stream of documents.
    pub is_streamed: bool,
    /// The request's head.
    pub started_at: Timestamp,
    /// The end of the response.
    pub ended_at: Timestamp,
}

impl GenerationEnded {
    /// The model as the response names it, else as the request does.
    pub fn model_name(&self) -> &str {
        let model = self.model.as_deref().or(self.model_requested.as_deref());
        model.unwrap_or(UNKNOWN_MODEL)
    }
}

/// What stands for a model that neither the request nor the response names.
pub const UNKNOWN_MODEL: &str = "__unknown__";

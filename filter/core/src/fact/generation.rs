//! Facts about generations of large language models.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::correlation::Correlation;
use crate::domain::ids::{Link, TraceId};
use crate::domain::price_factors::{Modifiers, ServiceTier, Word};
use crate::domain::session::SessionRef;
use crate::domain::units::Units;
use crate::domain::usage::{Completeness, FurtherRun, Usage, UsageSource};
use crate::protocol::llm::provider::Provider;

/// How the accountant knows the cause of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// By a trace.
    Trace,
    /// The cause was the only call that ran.
    Inferred,
    /// The call's own result reported it.
    Result,
    /// The cause is unknown, or there is none.
    None,
}

/// A generation that a client has requested. A worker reports it only if the generation may have to
/// be attributed to the call that causes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStarted {
    /// See [`GenerationEnded::generation_id`].
    pub generation_id: String,
    /// The customer, if the request itself proves who that is.
    pub(crate) customer: Option<String>,
    /// The call proof that the request presents.
    pub(crate) proof: Option<TraceId>,
    /// The traces that the request names.
    pub traces: Vec<TraceId>,
    /// True if the accountant may infer the cause from a call that is the only one running.
    pub(crate) may_infer: bool,
    /// When the request's head arrived.
    pub at: Timestamp,
}

/// How far a response tells the truth about its generation, the least first. What tells more takes
/// the place of what was billed for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// It told no counts.
    Nothing,
    /// Some of the counts are estimates.
    Estimate,
    /// It was cut behind some of its counts.
    Part,
    /// It told everything, but stopped before the end that the client wanted, and may go on.
    Stopped,
    /// It told everything.
    Whole,
}

/// One generation of a large language model that has ended, for whatever reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationEnded {
    /// Unique within the source.
    pub generation_id: String,
    /// The session it belongs to if no tool call caused it.
    pub session: SessionRef,
    /// The product whose rules apply to it.
    pub product_id: String,
    /// The id and the tool of the call that reported it.
    pub(crate) caused_by: Option<(String, String)>,
    /// Who ran the model.
    pub provider: Provider,
    /// The model, as the response names it.
    pub model: Option<String>,
    /// The model, as the request names it.
    pub model_requested: Option<String>,
    /// Names of which the request asks for one, if it is not certain for which: then
    /// `model_requested` is none of them.
    pub(crate) models_in_doubt: Vec<String>,
    /// The tier that decides the rate.
    pub service_tier: ServiceTier,
    /// What else moves the rate.
    pub(crate) modifiers: Modifiers,
    /// Where the model ran, if the host, the path or the configuration tells it.
    pub location: Option<Word>,
    /// True if the model thought before it answered, as far as the request or the counts tell it.
    pub(crate) is_thinking: bool,
    /// The tokens.
    pub usage: Usage,
    /// What the provider bills beside tokens.
    pub units: Units,
    /// What the provider itself says that the generation cost, in US dollars.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub reported_cost: Option<Decimal>,
    /// How much of the usage is known.
    pub completeness: Completeness,
    /// True if some of the counts are estimates.
    pub(crate) is_estimated: bool,
    /// True if the provider stopped before the end that the client wanted, and may go on.
    pub(crate) may_go_on: bool,
    /// True if the counts contradict each other.
    pub(crate) is_inconsistent: bool,
    /// Runs of models beside the one that `usage` is about.
    pub(crate) further: Vec<FurtherRun>,
    /// Where the filter read them.
    pub source: UsageSource,
    /// If another response may report the generation again: the link that identifies it, and, if
    /// this response does so, when the client requested it by the provider's clock, in seconds since
    /// 1970.
    pub(crate) seen_as: Option<(Link, Option<u64>)>,
    /// True if it is a result of a batch.
    pub(crate) is_of_batch: bool,
    /// The ids by which it is joined with other systems.
    #[serde(default)]
    pub(crate) correlation: Option<Box<Correlation>>,
    /// The response's HTTP status.
    pub http_status: u16,
    /// True if the response was a stream of documents.
    pub is_streamed: bool,
    /// The request's head.
    pub started_at: Timestamp,
    /// The end of the response.
    pub ended_at: Timestamp,
}

impl GenerationEnded {
    /// How far it tells the truth.
    pub(crate) fn told(&self) -> Told {
        match self.completeness {
            _ if self.is_unknown() => Told::Nothing,
            _ if self.is_estimated => Told::Estimate,
            Completeness::Complete if self.may_go_on => Told::Stopped,
            Completeness::Complete => Told::Whole,
            Completeness::Partial | Completeness::Failed | Completeness::Missing => Told::Part,
        }
    }

    /// Whether both are billed alike.
    pub(crate) fn tells_the_same(&self, other: &Self) -> bool {
        let facts = |generation: &Self| {
            let Self { usage, further, service_tier, modifiers, .. } = generation;
            (*usage, further.clone(), *service_tier, *modifiers)
        };
        let units = (&self.units, &self.reported_cost) == (&other.units, &other.reported_cost);
        units && self.completeness == other.completeness && facts(self) == facts(other)
    }

    /// What this response, a later one, tells of a generation that was estimated.
    pub(crate) fn instead_of(&self, estimated: &Self) -> Self {
        let mut replaced = estimated.clone();
        replaced.usage = self.usage;
        replaced.units.clone_from(&self.units);
        replaced.reported_cost = self.reported_cost;
        replaced.completeness = self.completeness;
        replaced.is_estimated = self.is_estimated;
        replaced.may_go_on = self.may_go_on;
        replaced.is_inconsistent = self.is_inconsistent;
        replaced.further.clone_from(&self.further);
        replaced.source = self.source;
        replaced.service_tier = self.service_tier;
        replaced.modifiers = self.modifiers;
        replaced.is_thinking |= self.is_thinking;
        replaced.model = self.model.clone().or(replaced.model);
        replaced
    }

    /// The further runs as generations of their own, each with what it was for.
    pub(crate) fn further_generations(&self) -> impl Iterator<Item = (&str, Self)> {
        (1_u32..).zip(&self.further).map(|(number, run)| {
            let mut generation = self.clone();
            generation.generation_id = format!("{}.{number}", self.generation_id);
            generation.model.clone_from(&run.model);
            generation.model_requested = None;
            generation.models_in_doubt = Vec::new();
            generation.usage = run.usage;
            // What is beside the tokens, and the whole cost, belong to the response's own run.
            generation.units = Units::default();
            generation.reported_cost = self.reported_cost.map(|_| Decimal::ZERO);
            generation.further = Vec::new();
            (run.purpose.as_str(), generation)
        })
    }

    /// True if its tokens are unknown, and what is billed beside them is not all that there is.
    pub(crate) fn is_unknown(&self) -> bool {
        let is_by_units = self.completeness == Completeness::Complete && !self.units.is_empty();
        self.usage.is_unknown() && !is_by_units
    }

    /// The model as the response names it, else as the request does.
    pub(crate) fn model_name(&self) -> &str {
        let model = self.model.as_deref().or(self.model_requested.as_deref());
        model.unwrap_or(UNKNOWN_MODEL)
    }
}

/// Stands for a model that neither the request nor the response names.
pub(crate) const UNKNOWN_MODEL: &str = "__unknown__";

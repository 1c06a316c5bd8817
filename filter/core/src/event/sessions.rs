//! Events about sessions.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::domain::seller::Seller;
use crate::domain::status::ExecutionStatus;
use crate::domain::usage::TokenTotals;
use crate::event::common::{Common, money};
use crate::session::Totals;
use crate::session::generation_totals::ModelTotals;

#[derive(Serialize)]
pub(super) struct SessionChanged<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) session_state: &'static str,
    pub(super) session_started_at: String,
}

#[derive(Serialize)]
pub(super) struct SessionClosed<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) session_state: &'static str,
    pub(super) close_reason: &'static str,
    pub(super) session_started_at: String,
    pub(super) session_ended_at: String,
    pub(super) total_tool_calls: u64,
    pub(super) billable_tool_calls: u64,
    pub(super) calls_by_status: &'a BTreeMap<ExecutionStatus, u64>,
    pub(super) calls_by_tool: Vec<ToolTotals<'a>>,
    pub(super) generations: u64,
    pub(super) unpriced_generations: u64,
    pub(super) unknown_usage_generations: u64,
    pub(super) usage_by_model: Vec<ModelUsage<'a>>,
    pub(super) total_tokens: Tokens,
    pub(super) unattributed_provider_cost: String,
    pub(super) wall_duration_ms: u64,
    pub(super) active_duration_ms: u64,
    pub(super) total_provider_cost: String,
    pub(super) total_revenue: String,
    pub(super) currency: &'a str,
}

#[derive(Serialize)]
pub(super) struct ToolTotals<'a> {
    tool_name: &'a str,
    calls: u64,
    billable_calls: u64,
    revenue: String,
    provider_cost: String,
}

#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Tokens(#[serde(serialize_with = "by_name")] pub(super) TokenTotals);

fn by_name<S: Serializer>(totals: &TokenTotals, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(totals.iter())
}

#[derive(Serialize)]
pub(super) struct ModelUsage<'a> {
    provider: &'a str,
    model: &'a str,
    generations: u64,
    unpriced_generations: u64,
    unknown_usage_generations: u64,
    #[serde(flatten)]
    tokens: Tokens,
    provider_cost: String,
    revenue: String,
}

pub(super) fn tool_totals<'a>((tool_name, totals): (&'a String, &Totals)) -> ToolTotals<'a> {
    ToolTotals {
        tool_name,
        calls: totals.calls,
        billable_calls: totals.billable_calls,
        revenue: money(totals.revenue),
        provider_cost: money(totals.provider_cost),
    }
}

/// The models of which a generation counts.
pub(super) fn used_models(
    by_model: &BTreeMap<(Seller, String), ModelTotals>,
) -> Vec<ModelUsage<'_>> {
    by_model.iter().filter(|(_, totals)| totals.generations > 0).map(model_usage).collect()
}

fn model_usage<'a>(
    ((seller, model), totals): (&'a (Seller, String), &ModelTotals),
) -> ModelUsage<'a> {
    ModelUsage {
        provider: seller.name(),
        model,
        generations: totals.generations,
        unpriced_generations: totals.unpriced,
        unknown_usage_generations: totals.unknown_usage,
        tokens: Tokens(totals.tokens),
        provider_cost: money(totals.provider_cost),
        revenue: money(totals.revenue),
    }
}

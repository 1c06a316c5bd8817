//! Reads the data of the four events of a session; the last one has its final totals.

use std::collections::BTreeMap;

use crate::event::call::STATUSES;
use crate::event::identity::{Identity, identity};
use crate::event::members::Members;
use crate::event::tokens::TokenTotals;
use crate::event::totals::{ModelTotals, SessionState, ToolTotals, Totals};

/// A session that went to another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChange {
    /// Whose it is.
    pub identity: Identity,
    /// The new state.
    pub state: SessionState,
    /// RFC 3339, as it came.
    pub started_at: String,
    /// `Some` exactly when `state` is [`SessionState::Closed`].
    pub closing: Option<Closing>,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// RFC 3339, as it came.
    pub ended_at: String,
    /// The same in milliseconds since 1970, UTC.
    pub ended_ms: i64,
    /// Such as `session_timeout`.
    pub close_reason: String,
    /// The final totals.
    pub totals: Totals,
}

/// Reads one change of a session; an error begins with the path of the member.
pub(crate) fn session(data: &Members<'_>, state: SessionState) -> Result<SessionChange, String> {
    let identity = identity(data)?;
    data.exactly("session_state", state.name())?;
    let (started_at, _) = data.time("session_started_at")?;
    let closing = if state == SessionState::Closed { Some(closing(data)?) } else { None };
    Ok(SessionChange { identity, state, started_at, closing })
}

fn closing(data: &Members<'_>) -> Result<Closing, String> {
    let (ended_at, ended_ms) = data.time("session_ended_at")?;
    let totals = Totals {
        total_tool_calls: data.total("total_tool_calls")?,
        billable_tool_calls: data.total("billable_tool_calls")?,
        calls_by_status: calls_by_status(&data.members("calls_by_status")?)?,
        calls_by_tool: calls_by_tool(data)?,
        total_tokens: token_totals(&data.members("total_tokens")?)?,
        wall_duration_ms: Some(data.total("wall_duration_ms")?),
        active_duration_ms: Some(data.total("active_duration_ms")?),
        total_provider_cost: Some(data.money("total_provider_cost")?),
        total_revenue: Some(data.money("total_revenue")?),
        currency: Some(data.currency("currency")?),
        ..Totals::new()
    };
    // A filter that meters no tokens sends none of these.
    let metered = GENERATION_TOTALS.iter().any(|member| data.object.contains_key(*member));
    let totals = if metered {
        Totals {
            generations: data.total("generations")?,
            unpriced_generations: data.total("unpriced_generations")?,
            unknown_usage_generations: data.total("unknown_usage_generations")?,
            usage_by_model: usage_by_model(data)?,
            unattributed_provider_cost: Some(data.money("unattributed_provider_cost")?),
            ..totals
        }
    } else {
        totals
    };
    Ok(Closing { ended_at, ended_ms, close_reason: data.name("close_reason")?, totals })
}

const GENERATION_TOTALS: [&str; 5] = [
    "generations",
    "unpriced_generations",
    "unknown_usage_generations",
    "usage_by_model",
    "unattributed_provider_cost",
];

fn token_totals(tokens: &Members<'_>) -> Result<TokenTotals, String> {
    TokenTotals::try_from_counts(|kind| tokens.total(kind))
}

fn usage_by_model(data: &Members<'_>) -> Result<Vec<ModelTotals>, String> {
    let entries = data.list("usage_by_model")?;
    let mut models = entries.iter().map(model_totals).collect::<Result<Vec<_>, _>>()?;
    let key = |model: &ModelTotals| (model.provider.clone(), model.model.clone());
    models.sort_by_cached_key(key);
    Ok(models)
}

fn model_totals(model: &Members<'_>) -> Result<ModelTotals, String> {
    Ok(ModelTotals {
        provider: model.name("provider")?,
        model: model.name("model")?,
        generations: model.total("generations")?,
        unpriced_generations: model.total("unpriced_generations")?,
        tokens: token_totals(model)?,
        provider_cost: Some(model.money("provider_cost")?),
        revenue: Some(model.money("revenue")?),
    })
}

fn calls_by_status(members: &Members<'_>) -> Result<BTreeMap<String, u64>, String> {
    let mut calls = BTreeMap::new();
    for status in members.object.keys() {
        if !STATUSES.contains(&status.as_str()) {
            return Err(format!("{}{status}: unknown status", members.path));
        }
        let count = members.total(status)?;
        if count > 0 {
            calls.insert(status.clone(), count);
        }
    }
    Ok(calls)
}

fn calls_by_tool(data: &Members<'_>) -> Result<Vec<ToolTotals>, String> {
    let entries = data.list("calls_by_tool")?;
    let mut tools = entries.iter().map(tool_totals).collect::<Result<Vec<_>, _>>()?;
    tools.sort_by(|left, right| left.tool_name.cmp(&right.tool_name));
    Ok(tools)
}

fn tool_totals(tool: &Members<'_>) -> Result<ToolTotals, String> {
    Ok(ToolTotals {
        tool_name: tool.text("tool_name")?,
        calls: tool.total("calls")?,
        billable_calls: tool.total("billable_calls")?,
        revenue: Some(tool.money("revenue")?),
        provider_cost: Some(tool.money("provider_cost")?),
    })
}

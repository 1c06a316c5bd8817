//! The totals of a session, as its final event has them and as the ledger adds them up.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::event::tokens::TokenTotals;
use crate::money;
use crate::money::known::CostKnown;

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionState {
    /// Its first call came.
    Created,
    /// Further calls came, or calls are all that the ledger has of it.
    Active,
    /// No call for a while.
    Idle,
    /// Over, with final totals.
    Closed,
}

impl SessionState {
    pub(crate) const ALL: [SessionState; 4] =
        [SessionState::Created, SessionState::Active, SessionState::Idle, SessionState::Closed];

    /// The name on the wire, such as `CLOSED`.
    pub fn name(self) -> &'static str {
        match self {
            SessionState::Created => "CREATED",
            SessionState::Active => "ACTIVE",
            SessionState::Idle => "IDLE",
            SessionState::Closed => "CLOSED",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<SessionState> {
        SessionState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The totals of a session: the final ones if it is closed, else the sums of the calls and
/// generations stored so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Calls of all outcomes.
    pub total_tool_calls: u64,
    /// Calls whose price is charged.
    pub billable_tool_calls: u64,
    /// Calls for each `execution_status` that occurred.
    pub calls_by_status: BTreeMap<String, u64>,
    /// Sorted by name; a tool without calls has cost that came later than its calls.
    pub calls_by_tool: Vec<ToolTotals>,
    /// Generations, whether priced or not.
    pub generations: u64,
    /// Generations whose cost is not known, for any reason.
    pub unpriced_generations: u64,
    /// Generations whose input and output are both unknown.
    pub unknown_usage_generations: u64,
    /// Sorted by provider and model.
    pub usage_by_model: Vec<ModelTotals>,
    /// Tokens of all generations.
    pub total_tokens: TokenTotals,
    /// Milliseconds from the first call's start to the last call's end; `None` before the close.
    pub wall_duration_ms: Option<u64>,
    /// Milliseconds during which at least one call ran; `None` before the close.
    pub active_duration_ms: Option<u64>,
    /// In `currency`; `None` when the session has several currencies.
    #[serde(with = "money::optional")]
    pub total_provider_cost: Option<Decimal>,
    /// The part of it that belongs to no tool call.
    #[serde(with = "money::optional")]
    pub unattributed_provider_cost: Option<Decimal>,
    /// Of calls and tokens, in `currency`; `None` when the session has several currencies.
    #[serde(with = "money::optional")]
    pub total_revenue: Option<Decimal>,
    /// ISO 4217; `None` when there is no call or generation yet, or there are several currencies.
    pub currency: Option<String>,
}

impl Totals {
    /// As JSON.
    pub(crate) fn to_json(&self) -> String {
        // Counts, texts and decimal strings by string keys: there is nothing that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The totals of a session in which nothing has happened yet.
    pub(crate) fn new() -> Totals {
        Totals {
            total_provider_cost: Some(Decimal::ZERO),
            unattributed_provider_cost: Some(Decimal::ZERO),
            total_revenue: Some(Decimal::ZERO),
            ..Totals::default()
        }
    }

    /// How much of `total_provider_cost` is known.
    pub(crate) fn cost_known(&self) -> CostKnown {
        CostKnown::of(self.generations, self.unpriced_generations, 0)
    }

    /// `None` also where nothing is known of the cost.
    pub(crate) fn margin(&self) -> Option<Decimal> {
        let (revenue, cost) = self.total_revenue.zip(self.total_provider_cost)?;
        self.cost_known().told(money::difference(revenue, cost))
    }

    /// Takes sums away that say nothing, so that no reader takes an unknown cost for 0.
    pub(crate) fn hide_unknown_costs(&mut self) {
        let known = self.cost_known();
        self.total_provider_cost = self.total_provider_cost.and_then(|cost| known.told(cost));
        for model in &mut self.usage_by_model {
            let known = CostKnown::of(model.generations, model.unpriced_generations, 0);
            model.provider_cost = model.provider_cost.and_then(|cost| known.told(cost));
        }
    }
}

/// The totals of one tool in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolTotals {
    /// As the client named it.
    pub tool_name: String,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls whose price is charged.
    pub billable_calls: u64,
    /// The prices of the calls, in the session's currency; `None` when it has several.
    #[serde(with = "money::optional")]
    pub revenue: Option<Decimal>,
    /// The cost of the generations that were made for its calls, in the session's currency; `None`
    /// when it has several.
    #[serde(with = "money::optional")]
    pub provider_cost: Option<Decimal>,
}

impl ToolTotals {
    pub(crate) fn new(tool_name: String) -> ToolTotals {
        let (revenue, provider_cost) = (Some(Decimal::ZERO), Some(Decimal::ZERO));
        ToolTotals { tool_name, calls: 0, billable_calls: 0, revenue, provider_cost }
    }
}

/// The totals of one model in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTotals {
    /// Who runs the model, such as `openai`.
    pub provider: String,
    /// The model, as answered.
    pub model: String,
    /// Generations, whether priced or not.
    pub generations: u64,
    /// Generations whose cost is not known.
    pub unpriced_generations: u64,
    /// Their tokens.
    #[serde(flatten)]
    pub tokens: TokenTotals,
    /// What they cost, in the session's currency; `None` when it has several.
    #[serde(with = "money::optional")]
    pub provider_cost: Option<Decimal>,
    /// What is charged for their tokens, in the session's currency; `None` when it has several.
    #[serde(with = "money::optional")]
    pub revenue: Option<Decimal>,
}

impl ModelTotals {
    pub(crate) fn new(provider: String, model: String) -> ModelTotals {
        ModelTotals {
            provider,
            model,
            generations: 0,
            unpriced_generations: 0,
            tokens: TokenTotals::default(),
            provider_cost: Some(Decimal::ZERO),
            revenue: Some(Decimal::ZERO),
        }
    }
}

/// Adds to a sum that exists only while all amounts have one currency.
pub(crate) fn add(sum: &mut Option<Decimal>, amount: Option<Decimal>) {
    *sum = sum.zip(amount).map(|(sum, amount)| money::sum(sum, amount));
}

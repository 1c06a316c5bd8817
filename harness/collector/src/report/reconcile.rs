//! Checks the totals in the final events of closed sessions against the sums of their calls and
//! generations.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;

use crate::event::totals::{ModelTotals, SessionState, ToolTotals, Totals, add};
use crate::ledger::Ledger;
use crate::query::Conditions;
use crate::report::sessions::{Session, select, until_closing};

/// The sessions that [`Ledger::reconcile_latest`] looks at.
const LATEST_MAX: u32 = 1000;

/// The result of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Closed sessions compared.
    pub sessions: u64,
    /// Empty when all agree.
    pub mismatches: Vec<Mismatch>,
}

/// One total on which the final event and the stored events differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The member of `session_closed`.
    pub field: &'static str,
    /// The session.
    pub session_id: String,
    /// The source that closed it.
    pub source: String,
    /// The total in the final event.
    pub event: Value,
    /// The sum of the stored calls and generations.
    pub calls: Value,
}

impl Ledger {
    /// Compares each closed session's final totals with the sum of its stored calls and
    /// generations.
    pub fn reconcile(&self) -> anyhow::Result<Reconciliation> {
        self.compare("ORDER BY position")
    }

    /// The same for the sessions of late, so that it takes the same time however large the ledger
    /// is.
    pub(crate) fn reconcile_latest(&self) -> anyhow::Result<Reconciliation> {
        self.compare(&format!("ORDER BY position DESC LIMIT {LATEST_MAX}"))
    }

    fn compare(&self, tail: &str) -> anyhow::Result<Reconciliation> {
        self.read(|ledger| {
            let mut conditions = Conditions::default();
            conditions.and_equal("state", Some(SessionState::Closed.name()));
            let mut reconciliation = Reconciliation { sessions: 0, mismatches: Vec::new() };
            for (_, (session, totals)) in select(ledger, &conditions, tail)? {
                // The session of a lost source has told no totals.
                let Some(mut stated) = totals else { continue };
                let mut calls = until_closing(ledger, &session)?;
                fold_unnamed_tools(&stated, &mut calls);
                fold_unnamed_models(&stated, &mut calls);
                stated.calls_by_tool.retain(is_used);
                calls.calls_by_tool.retain(is_used);
                reconciliation.sessions += 1;
                reconciliation.mismatches.extend(mismatches(&session, &stated, &calls)?);
            }
            Ok(reconciliation)
        })
    }
}

/// True if there is anything to compare: a final event may name a tool for a generation that cost
/// nothing.
fn is_used(tool: &ToolTotals) -> bool {
    tool.calls > 0 || tool.provider_cost != Some(Decimal::ZERO)
}

/// The name under which a final event adds up the tools, or the models, of a session that used too
/// many.
const OTHER: &str = "__other__";

/// Adds up the tools that the final event does not name, as it does.
fn fold_unnamed_tools(stated: &Totals, calls: &mut Totals) {
    let named = |name: &str| stated.calls_by_tool.iter().any(|tool| tool.tool_name == name);
    if !named(OTHER) {
        return;
    }
    let (mut tools, unnamed): (Vec<_>, Vec<_>) = core::mem::take(&mut calls.calls_by_tool)
        .into_iter()
        .partition(|tool: &ToolTotals| tool.tool_name != OTHER && named(&tool.tool_name));
    let mut other = ToolTotals::new(OTHER.to_owned());
    for tool in unnamed {
        other.calls = other.calls.saturating_add(tool.calls);
        other.billable_calls = other.billable_calls.saturating_add(tool.billable_calls);
        add(&mut other.revenue, tool.revenue);
        add(&mut other.provider_cost, tool.provider_cost);
    }
    let at = tools.partition_point(|tool| tool.tool_name.as_str() < OTHER);
    tools.insert(at, other);
    calls.calls_by_tool = tools;
}

/// Adds up the models of each provider that the final event does not name, as it does.
fn fold_unnamed_models(stated: &Totals, calls: &mut Totals) {
    if !stated.usage_by_model.iter().any(|model| model.model == OTHER) {
        return;
    }
    let mut folded: BTreeMap<(String, String), ModelTotals> = BTreeMap::new();
    for model in core::mem::take(&mut calls.usage_by_model) {
        let is_named = stated
            .usage_by_model
            .iter()
            .any(|named| (&named.provider, &named.model) == (&model.provider, &model.model));
        let name = if is_named { &model.model } else { OTHER };
        let key = (model.provider.clone(), name.to_owned());
        let sum = folded.entry(key.clone()).or_insert_with(|| ModelTotals::new(key.0, key.1));
        sum.generations += model.generations;
        sum.unpriced_generations += model.unpriced_generations;
        sum.tokens.add(model.tokens);
        add(&mut sum.provider_cost, model.provider_cost);
        add(&mut sum.revenue, model.revenue);
    }
    calls.usage_by_model = folded.into_values().collect();
}

fn mismatches(session: &Session, stated: &Totals, calls: &Totals) -> anyhow::Result<Vec<Mismatch>> {
    let (event, stored) = (serde_json::to_value(stated)?, serde_json::to_value(calls)?);
    let mut mismatches = Vec::new();
    for field in [
        "total_tool_calls",
        "billable_tool_calls",
        "calls_by_status",
        "calls_by_tool",
        "generations",
        "unpriced_generations",
        "unknown_usage_generations",
        "usage_by_model",
        "total_tokens",
        "total_provider_cost",
        "unattributed_provider_cost",
        "total_revenue",
        "currency",
    ] {
        // A session without calls and generations has no currency to compare.
        let nothing = field == "currency" && calls.total_tool_calls == 0 && calls.generations == 0;
        if event[field] != stored[field] && !nothing {
            mismatches.push(Mismatch {
                field,
                session_id: session.session_id.clone(),
                source: session.source.clone(),
                event: event[field].clone(),
                calls: stored[field].clone(),
            });
        }
    }
    Ok(mismatches)
}

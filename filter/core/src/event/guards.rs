//! Events about guards. They belong to a scope, not to a session.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::base::hash::hex;
use crate::config::{Action, Budget, Guard};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::period::Period;
use crate::event::EventStamp;
use crate::event::common::{money, stored_about};
use crate::guard::level::Remaining;
use crate::guard::scope_state::{LevelChangeReason, Position, ScopeState};
use crate::sink::stored_event::StoredEvent;

#[derive(Serialize)]
struct Scope<'a> {
    event_type: &'static str,
    guard_id: &'a str,
    guard_kind: &'static str,
    mode: &'static str,
    scope: &'static str,
    scope_key: String,
    customer_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'static str>,
    period: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_ends_at: Option<String>,
    level: &'static str,
    currency: &'a str,
}

#[derive(Serialize)]
struct Totals<'a> {
    #[serde(flatten)]
    scope: Scope<'a>,
    total_provider_cost: String,
    total_revenue: String,
    calls: u64,
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<&'static str>,
}

#[derive(Serialize)]
struct LevelChanged<'a> {
    #[serde(flatten)]
    scope: Scope<'a>,
    previous_level: &'static str,
    reason: &'static str,
    margin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_provider_cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_revenue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    action: &'static str,
    notify: &'a [String],
}

fn scope<'a>(
    event_type: &'static str,
    guard: Option<&Guard>,
    state: &'a ScopeState,
    level: Level,
) -> Scope<'a> {
    let name = &state.name;
    let of_kind = |kind| name.identity.as_deref().filter(|_| name.kind == kind);
    let is_timed = state.period_ends_at.is_some();
    Scope {
        event_type,
        guard_id: &state.guard_id,
        guard_kind: guard.map_or("margin", Guard::kind),
        mode: guard.map(|guard| guard.mode).unwrap_or_default().name(),
        scope: name.kind.name(),
        scope_key: hex(&state.key),
        customer_id: &name.customer,
        product_id: name.product_id.as_deref(),
        agent_id: name.agent.as_deref(),
        team_id: of_kind(ScopeKind::Team),
        user_id: of_kind(ScopeKind::User),
        api_key_hash: of_kind(ScopeKind::ApiKey),
        tool_name: name.tool.as_deref(),
        session_key: name.session.as_ref().map(|key| hex(key)),
        metric: guard.and_then(|guard| guard.metric).map(|metric| metric.name()),
        period: guard.map_or(Period::Session, |guard| guard.period).name(),
        period_started_at: is_timed.then(|| state.period_started_at.to_rfc3339()),
        period_ends_at: state.period_ends_at.map(|end| end.to_rfc3339()),
        level: level.name(),
        currency: &state.currency,
    }
}

/// Makes a `guard_totals` event.
pub(super) fn totals(stamp: EventStamp, guard: &Guard, state: &ScopeState) -> StoredEvent {
    let data = Totals {
        scope: scope("guard_totals", Some(guard), state, state.level),
        total_provider_cost: money(state.own.provider_cost),
        total_revenue: money(state.own.revenue),
        calls: state.own.calls,
        tokens: state.own.tokens,
        basis: guard.is_prepaid().then_some(PREPAID),
    };
    stored_about(stamp, "guard_totals", &state.name.customer, data)
}

/// Makes a `margin_level_changed`, `budget_level_changed` or `loop_level_changed` event.
pub(super) fn level_changed(
    stamp: EventStamp,
    guard: Option<&Guard>,
    state: &ScopeState,
    [from, to]: [Level; 2],
    reason: LevelChangeReason,
    position: &Position,
    threshold: Option<Decimal>,
) -> StoredEvent {
    let budget = guard.and_then(|guard| guard.budget);
    let loop_rule = guard.and_then(|guard| guard.loop_rule);
    let event_type = match (&loop_rule, &budget) {
        (Some(_), _) => "loop_level_changed",
        (None, Some(_)) => "budget_level_changed",
        (None, None) => "margin_level_changed",
    };
    let rule = guard.and_then(|guard| guard.rule(to));
    let is_margin = budget.is_none() && loop_rule.is_none();
    let mut scope = scope(event_type, guard, state, to);
    let repeated = loop_rule.and_then(|rule| state.loop_window.most(&rule, stamp.time));
    scope.tool_name = scope.tool_name.or(repeated.map(|repeated| repeated.tool));
    let counted = (!is_margin).then_some(position);
    let data = LevelChanged {
        scope,
        previous_level: from.name(),
        reason: reason.name(),
        margin: match position.remaining {
            Remaining::Share(share) if loop_rule.is_none() => {
                Some(money(share.round_dp(MARGIN_PLACES)))
            }
            Remaining::Share(_) | Remaining::Unguarded | Remaining::Worst => None,
        },
        threshold: threshold.filter(|_| loop_rule.is_none()).map(money),
        total_provider_cost: is_margin.then(|| money(position.spent)),
        total_revenue: is_margin.then(|| money(position.basis)),
        used: counted.map(|position| money(position.spent)),
        limit: counted.map(|position| money(position.basis)),
        unit: loop_rule.map(|_| "repeated_calls").or(budget.map(unit)),
        action: match to {
            Level::None => "none",
            Level::Alert => "alert",
            Level::Throttle => "throttle",
            Level::Block if guard.is_some_and(Guard::pauses) => "pause",
            Level::Block if guard.is_some_and(|guard| guard.does(Action::Block)) => "block",
            Level::Block => "alert",
        },
        notify: rule.map(|rule| rule.notify.as_slice()).unwrap_or_default(),
    };
    stored_about(stamp, event_type, &state.name.customer, data)
}

const fn unit(budget: Budget) -> &'static str {
    match budget {
        Budget { calls: Some(_), .. } => "calls",
        Budget { tokens: Some(_), .. } => "tokens",
        Budget { prepaid_balance: true, .. } => PREPAID,
        Budget { .. } => "provider_cost",
    }
}

/// What a guard goes by that goes by a balance.
const PREPAID: &str = "prepaid_balance";

/// Decimal places of a margin in events; a division may yield 28.
const MARGIN_PLACES: u32 = 6;

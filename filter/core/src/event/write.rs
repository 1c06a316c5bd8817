//! Writes an event's `data`. `filter/EVENTS.md` describes its members.

use crate::config::product::ProductType;
use crate::event::calls::{agent_step, api_call, tool_invocation};
use crate::event::common::{Common, common, money, of_session, stored};
use crate::event::generations::{KnownTokens, TokenConsumption, cost_lines};
use crate::event::guards::{level_changed, totals};
use crate::event::heartbeat::heartbeat;
use crate::event::sessions::{SessionChanged, SessionClosed, Tokens, tool_totals, used_models};
use crate::event::{Event, EventStamp};
use crate::fact::call::CallKind;
use crate::fact::generation::{Attribution, GenerationEnded};
use crate::pricing::Unpriced;
use crate::pricing::charge::TokenCharge;
use crate::session::{CloseReason, Session, SessionState};
use crate::sink::stored_event::StoredEvent;

/// Writes an event in the form in which the outbox stores it.
pub fn write(stamp: EventStamp, event: &Event<'_>) -> StoredEvent {
    match event {
        Event::CallEnded { session, product_type, call, charge } => match &call.kind {
            CallKind::Tool => tool_invocation(stamp, session, *product_type, call, charge),
            CallKind::Api(api) => api_call(stamp, session, *product_type, call, api, charge),
            CallKind::Step => agent_step(stamp, session, *product_type, call, charge),
        },
        Event::TokenConsumption {
            session,
            product_id,
            product_type,
            generation,
            supersedes,
            purpose,
            attribution,
            call,
            charge,
        } => {
            let common = common("token_consumption", session, product_id, *product_type);
            let common = common.joined(generation.correlation.as_deref());
            let data = token_consumption(
                common,
                generation,
                *supersedes,
                *purpose,
                *attribution,
                *call,
                charge,
                session,
            );
            stored(stamp, "token_consumption", session, data)
        }
        Event::SessionChanged { session, product_type, state } => {
            let event_type = match state {
                SessionState::Created => "session_created",
                SessionState::Active => "session_active",
                SessionState::Idle => "session_idle",
                SessionState::Closed => "session_closed",
            };
            let data = SessionChanged {
                common: of_session(event_type, session, *product_type),
                session_state: state.name(),
                session_started_at: session.started_at.to_rfc3339(),
            };
            stored(stamp, event_type, session, data)
        }
        Event::SessionClosed { session, product_type, reason } => {
            session_closed(stamp, session, *product_type, *reason)
        }
        Event::GuardLevel { guard, scope, from, to, reason, position, threshold } => {
            level_changed(stamp, *guard, scope, [*from, *to], *reason, position, *threshold)
        }
        Event::GuardTotals { guard, scope } => totals(stamp, guard, scope),
        Event::Heartbeat { interval, open_sessions, calls, is_last } => {
            heartbeat(stamp, *interval, *open_sessions, *calls, *is_last)
        }
    }
}

fn session_closed(
    stamp: EventStamp,
    session: &Session,
    product_type: ProductType,
    reason: CloseReason,
) -> StoredEvent {
    let data = SessionClosed {
        common: of_session("session_closed", session, product_type),
        session_state: SessionState::Closed.name(),
        close_reason: reason.name(),
        session_started_at: session.started_at.to_rfc3339(),
        session_ended_at: session.ended_at.to_rfc3339(),
        total_tool_calls: session.totals.calls,
        billable_tool_calls: session.totals.billable_calls,
        calls_by_status: &session.by_status,
        calls_by_tool: session.by_tool.iter().map(tool_totals).collect(),
        generations: session.generations.all.generations,
        unpriced_generations: session.generations.all.unpriced,
        unknown_usage_generations: session.generations.all.unknown_usage,
        usage_by_model: used_models(&session.generations.by_model),
        total_tokens: Tokens(session.generations.all.tokens),
        unattributed_provider_cost: money(session.generations.unattributed_cost),
        wall_duration_ms: session.ended_at.saturating_since(session.started_at).0,
        active_duration_ms: session.active.total().0,
        total_provider_cost: money(session.totals.provider_cost),
        total_revenue: money(session.totals.revenue),
        currency: &session.currency,
    };
    stored(stamp, "session_closed", session, data)
}

#[expect(clippy::too_many_arguments, reason = "an event has all members that there are")]
fn token_consumption<'a>(
    common: Common<'a>,
    generation: &'a GenerationEnded,
    supersedes: Option<&'a str>,
    purpose: Option<&'a str>,
    attribution: Attribution,
    call: Option<&'a (String, String)>,
    charge: &'a TokenCharge<'a>,
    session: &'a Session,
) -> TokenConsumption<'a> {
    let cost = charge.cost.as_ref().ok();
    let rate_card = cost.map(|cost| cost.rate_card);
    TokenConsumption {
        common,
        metric_id: "ai_tokens",
        quantity: generation.usage.total(),
        generation_id: &generation.generation_id,
        supersedes,
        call_id: call.map(|(id, _)| id.as_str()),
        tool_name: call.map(|(_, tool)| tool.as_str()),
        attribution,
        provider: generation.provider.seller.name(),
        model: generation.model_name(),
        model_requested: generation.model_requested.as_deref(),
        service_tier: generation.service_tier,
        modifiers: generation.modifiers,
        location: generation.location,
        usage_source: generation.source,
        completeness: generation.completeness,
        estimated: generation.is_estimated,
        purpose,
        inconsistent: charge.is_inconsistent,
        tokens: KnownTokens(generation.usage),
        units: &generation.units,
        cost_lines: cost.map(|cost| cost_lines(cost, charge.total)).unwrap_or_default(),
        priced: rate_card.is_some(),
        unpriced_reason: charge.cost.as_ref().err().map(Unpriced::name),
        total_provider_cost: rate_card.map(|_| money(charge.total)),
        unpriced_units: cost.map(|cost| cost.unpriced_units.as_slice()).unwrap_or_default(),
        reported_cost: generation.reported_cost.map(money),
        rate_card,
        rate_card_age: cost.and_then(|cost| cost.rate_card_age),
        price: money(charge.price),
        currency: &session.currency,
        http_status: generation.http_status,
        duration_ms: generation.ended_at.saturating_since(generation.started_at).0,
        streamed: generation.is_streamed,
    }
}

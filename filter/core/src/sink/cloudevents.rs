//! CloudEvents 1.0.2, JSON event format, batched content mode, with the `sequence` extension.
//! The members are described in `filter/EVENTS.md`.

mod guards;

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::attribution::Attribution;
use crate::config::{Credential, ProductType};
use crate::event::{Event, Stamp};
use crate::fact::{ApiCall, CallEnded, CallKind, Transport, UsageSource};
use crate::pricing::Charge;
use crate::rates::{Line, Unpriced};
use crate::session::{Session, SessionState, Totals};
use crate::session_key::hex;
use crate::session_tokens::ModelTotals;
use crate::status::ExecutionStatus;
use crate::usage::{Completeness, Provider, ServiceTier, Usage};

/// The media type of a batch; some collectors compare it to the letter.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

#[derive(Serialize)]
struct Envelope<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    time: String,
    subject: &'a str,
    sequence: &'a str,
    datacontenttype: &'static str,
    data: D,
}

#[derive(Serialize)]
struct Common<'a> {
    event_type: &'static str,
    product_id: &'a str,
    product_type: &'static str,
    customer_id: &'a str,
    team_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_type: Option<Credential>,
    session_id: String,
    session_key: String,
}

#[derive(Serialize)]
struct ToolInvocation<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    call_id: &'a str,
    tool_name: &'a str,
    execution_status: ExecutionStatus,
    execution_duration_ms: u64,
    http_status: u16,
    transport: Transport,
    cost_tier: &'a str,
    billable: bool,
    price: String,
    currency: &'a str,
}

#[derive(Serialize)]
struct ApiCallData<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    call_id: &'a str,
    method: &'a str,
    route: &'a str,
    execution_status: ExecutionStatus,
    http_status: u16,
    execution_duration_ms: u64,
    request_bytes: u64,
    response_bytes: u64,
    cost_tier: &'a str,
    billable: bool,
    price: String,
    currency: &'a str,
}

#[derive(Serialize)]
struct AgentStep<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    call_id: &'a str,
    operation: &'a str,
    execution_status: ExecutionStatus,
    execution_duration_ms: u64,
    http_status: u16,
    transport: Transport,
    cost_tier: &'a str,
    billable: bool,
    price: String,
    currency: &'a str,
}

#[derive(Serialize)]
struct SessionChanged<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    session_state: &'static str,
    session_started_at: String,
}

#[derive(Serialize)]
struct SessionClosed<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    session_state: &'static str,
    close_reason: &'static str,
    session_started_at: String,
    session_ended_at: String,
    total_tool_calls: u64,
    billable_tool_calls: u64,
    calls_by_status: &'a BTreeMap<ExecutionStatus, u64>,
    calls_by_tool: Vec<ToolTotals<'a>>,
    generations: u64,
    unpriced_generations: u64,
    unknown_usage_generations: u64,
    usage_by_model: Vec<ModelUsage<'a>>,
    total_tokens: Tokens,
    unattributed_provider_cost: String,
    wall_duration_ms: u64,
    active_duration_ms: u64,
    total_provider_cost: String,
    total_revenue: String,
    currency: &'a str,
}

#[derive(Serialize)]
struct ToolTotals<'a> {
    tool_name: &'a str,
    calls: u64,
    billable_calls: u64,
    revenue: String,
    provider_cost: String,
}

#[derive(Serialize)]
struct Tokens {
    input: u64,
    output: u64,
    reasoning: u64,
    cache_read: u64,
    cache_write: u64,
}

#[derive(Serialize)]
struct ModelUsage<'a> {
    provider: &'static str,
    model: &'a str,
    generations: u64,
    unpriced_generations: u64,
    unknown_usage_generations: u64,
    #[serde(flatten)]
    tokens: Tokens,
    provider_cost: String,
    revenue: String,
}

#[derive(Serialize)]
struct TokenConsumption<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    generation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
    attribution: Attribution,
    provider: &'static str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_requested: Option<&'a str>,
    service_tier: ServiceTier,
    usage_source: UsageSource,
    completeness: Completeness,
    estimated: bool,
    tokens: KnownTokens,
    cost_lines: Vec<CostLine>,
    priced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unpriced_reason: Option<&'static str>,
    total_provider_cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_card: Option<&'a str>,
    price: String,
    currency: &'a str,
    http_status: u16,
    duration_ms: u64,
    streamed: bool,
}

/// Only what is known.
#[derive(Serialize)]
struct KnownTokens(#[serde(serialize_with = "known")] Usage);

#[derive(Serialize)]
struct CostLine {
    kind: &'static str,
    tokens: u64,
    rate_per_million: String,
    cost: String,
}

fn known<S: Serializer>(usage: &Usage, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(usage.counts().into_iter().filter_map(|(name, count)| Some((name, count?))))
}

/// One event as JSON, without line breaks.
pub fn encode(stamp: &Stamp<'_>, event: &Event<'_>) -> String {
    match event {
        Event::CallEnded { session, product_type, call, charge } => {
            match &call.kind {
                CallKind::Tool => {}
                CallKind::Api(api) => {
                    return api_call(stamp, session, *product_type, call, api, charge);
                }
                CallKind::Step => return agent_step(stamp, session, *product_type, call, charge),
            }
            let common =
                common("tool_invocation", session, &call.session.product_id, *product_type);
            let data = ToolInvocation {
                common,
                metric_id: "tool_invocations",
                quantity: 1,
                call_id: &call.call_id,
                tool_name: &call.tool,
                execution_status: call.status,
                execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
                http_status: call.http_status,
                transport: call.transport,
                cost_tier: charge.cost_tier,
                billable: charge.is_billable,
                price: money(charge.price),
                currency: &session.currency,
            };
            envelope(stamp, "tool_invocation", session, data)
        }
        Event::TokenConsumption {
            session,
            product_id,
            product_type,
            generation,
            attribution,
            call,
            charge,
        } => {
            let common = common("token_consumption", session, product_id, *product_type);
            let (lines, rate_card) = match &charge.cost {
                Ok((lines, rate_card)) => (lines.as_slice(), Some(*rate_card)),
                Err(_) => (&[][..], None),
            };
            let data = TokenConsumption {
                common,
                metric_id: "ai_tokens",
                quantity: generation.usage.total(),
                generation_id: &generation.generation_id,
                call_id: call.map(|(id, _)| id.as_str()),
                tool_name: call.map(|(_, tool)| tool.as_str()),
                attribution: *attribution,
                provider: generation.provider.name(),
                model: generation.model_name(),
                model_requested: generation.model_requested.as_deref(),
                service_tier: generation.service_tier,
                usage_source: generation.source,
                completeness: generation.completeness,
                estimated: generation.is_estimated,
                tokens: KnownTokens(generation.usage),
                cost_lines: lines.iter().map(cost_line).collect(),
                priced: rate_card.is_some(),
                unpriced_reason: charge.cost.as_ref().err().map(Unpriced::name),
                total_provider_cost: rate_card.map(|_| money(charge.total)),
                rate_card,
                price: money(charge.price),
                currency: &session.currency,
                http_status: generation.http_status,
                duration_ms: generation.ended_at.saturating_since(generation.started_at).0,
                streamed: generation.is_streamed,
            };
            envelope(stamp, "token_consumption", session, data)
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
            envelope(stamp, event_type, session, data)
        }
        Event::SessionClosed { session, product_type, reason } => {
            let data = SessionClosed {
                common: of_session("session_closed", session, *product_type),
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
                usage_by_model: session.generations.by_model.iter().map(model_usage).collect(),
                total_tokens: tokens(&session.generations.all),
                unattributed_provider_cost: money(session.generations.unattributed_cost),
                wall_duration_ms: session.ended_at.saturating_since(session.started_at).0,
                active_duration_ms: session.active.total().0,
                total_provider_cost: money(session.totals.provider_cost),
                total_revenue: money(session.totals.revenue),
                currency: &session.currency,
            };
            envelope(stamp, "session_closed", session, data)
        }
        Event::GuardLevel { guard, scope, from, to, reason, standing, threshold } => {
            guards::level_changed(stamp, *guard, scope, [*from, *to], *reason, standing, *threshold)
        }
        Event::GuardTotals { guard, scope } => guards::totals(stamp, guard, scope),
    }
}

fn api_call(
    stamp: &Stamp<'_>,
    session: &Session,
    product_type: ProductType,
    call: &CallEnded,
    api: &ApiCall,
    charge: &Charge<'_>,
) -> String {
    let data = ApiCallData {
        common: common("api_call", session, &call.session.product_id, product_type),
        metric_id: "api_calls",
        quantity: 1,
        call_id: &call.call_id,
        method: &api.method,
        route: call.tool.split_once(' ').map_or("", |(_, route)| route),
        execution_status: call.status,
        http_status: call.http_status,
        execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
        request_bytes: api.request_bytes,
        response_bytes: api.response_bytes,
        cost_tier: charge.cost_tier,
        billable: charge.is_billable,
        price: money(charge.price),
        currency: &session.currency,
    };
    envelope(stamp, "api_call", session, data)
}

fn agent_step(
    stamp: &Stamp<'_>,
    session: &Session,
    product_type: ProductType,
    call: &CallEnded,
    charge: &Charge<'_>,
) -> String {
    let data = AgentStep {
        common: common("agent_step", session, &call.session.product_id, product_type),
        metric_id: "agent_steps",
        quantity: 1,
        call_id: &call.call_id,
        operation: &call.tool,
        execution_status: call.status,
        execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
        http_status: call.http_status,
        transport: call.transport,
        cost_tier: charge.cost_tier,
        billable: charge.is_billable,
        price: money(charge.price),
        currency: &session.currency,
    };
    envelope(stamp, "agent_step", session, data)
}

/// Events as the body of one request.
pub fn batch<'a>(events: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut body = String::from("[");
    for event in events {
        if body.len() > 1 {
            body.push(',');
        }
        body.push_str(event);
    }
    body.push(']');
    body.into_bytes()
}

fn envelope(
    stamp: &Stamp<'_>,
    event_type: &str,
    session: &Session,
    data: impl Serialize,
) -> String {
    envelope_about(stamp, event_type, &session.session.identity.customer, data)
}

fn envelope_about(
    stamp: &Stamp<'_>,
    event_type: &str,
    subject: &str,
    data: impl Serialize,
) -> String {
    let sequence = format!("{:020}", stamp.sequence);
    let envelope = Envelope {
        specversion: "1.0",
        id: &sequence,
        source: stamp.source,
        r#type: format!("agent-meter.{event_type}"),
        time: stamp.time.to_rfc3339(),
        subject,
        sequence: &sequence,
        datacontenttype: "application/json",
        data,
    };
    // Strings and numbers with string keys: serialising cannot fail.
    serde_json::to_string(&envelope).unwrap_or_default()
}

/// Of the session itself: of the product that it was opened by.
fn of_session<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_type: ProductType,
) -> Common<'a> {
    common(event_type, session, &session.session.product_id, product_type)
}

fn common<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_id: &'a str,
    product_type: ProductType,
) -> Common<'a> {
    let identity = &session.session.identity;
    let is_app = matches!(product_type, ProductType::StandardApi | ProductType::AgenticApi);
    Common {
        event_type,
        product_id,
        product_type: product_type.name(),
        customer_id: &identity.customer,
        team_id: &identity.team,
        agent_id: (!is_app).then_some(identity.agent.as_str()),
        app_id: is_app.then_some(identity.agent.as_str()),
        api_key_hash: identity.api_key.as_deref(),
        credential_type: identity.credential,
        session_id: hex(&session.id),
        session_key: hex(&session.session.key),
    }
}

fn tool_totals<'a>((tool_name, totals): (&'a String, &Totals)) -> ToolTotals<'a> {
    ToolTotals {
        tool_name,
        calls: totals.calls,
        billable_calls: totals.billable_calls,
        revenue: money(totals.revenue),
        provider_cost: money(totals.provider_cost),
    }
}

fn model_usage<'a>(
    ((provider, model), totals): (&'a (Provider, String), &ModelTotals),
) -> ModelUsage<'a> {
    ModelUsage {
        provider: provider.name(),
        model,
        generations: totals.generations,
        unpriced_generations: totals.unpriced,
        unknown_usage_generations: totals.unknown_usage,
        tokens: tokens(totals),
        provider_cost: money(totals.provider_cost),
        revenue: money(totals.revenue),
    }
}

fn tokens(totals: &ModelTotals) -> Tokens {
    let ModelTotals { input, output, reasoning, cache_read, cache_write, .. } = *totals;
    Tokens { input, output, reasoning, cache_read, cache_write }
}

fn cost_line(line: &Line) -> CostLine {
    CostLine {
        kind: line.kind.name(),
        tokens: line.tokens,
        rate_per_million: money(line.rate),
        cost: money(line.cost),
    }
}

/// A decimal string without trailing zeros.
fn money(amount: Decimal) -> String {
    amount.normalize().to_string()
}

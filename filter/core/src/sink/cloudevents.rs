//! CloudEvents 1.0.2, JSON event format, batched content mode, with the `sequence` extension.
//! The members are described in `filter/EVENTS.md`.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::config::ProductType;
use crate::event::{Event, Stamp};
use crate::fact::Transport;
use crate::session::{Session, SessionState, Totals};
use crate::session_key::hex;
use crate::status::ExecutionStatus;

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
    agent_id: &'a str,
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
    provider_cost: String,
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
    total_tokens: Tokens,
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

#[derive(Default, Serialize)]
struct Tokens {
    input: u64,
    output: u64,
    reasoning: u64,
    cache_read: u64,
    cache_write: u64,
}

/// One event as JSON, without line breaks.
pub fn encode(stamp: &Stamp<'_>, event: &Event<'_>) -> String {
    match event {
        Event::ToolInvocation { session, product_type, call, call_id, charge } => {
            let common = common("tool_invocation", session, *product_type);
            let data = ToolInvocation {
                common,
                metric_id: "tool_invocations",
                quantity: 1,
                call_id,
                tool_name: &call.tool,
                execution_status: call.status,
                execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
                http_status: call.http_status,
                transport: call.transport,
                cost_tier: charge.cost_tier,
                billable: charge.is_billable,
                price: money(charge.price),
                currency: &session.currency,
                provider_cost: money(Decimal::ZERO),
            };
            envelope(stamp, "tool_invocation", session, data)
        }
        Event::SessionChanged { session, product_type, state } => {
            let event_type = match state {
                SessionState::Created => "session_created",
                SessionState::Active => "session_active",
                SessionState::Idle => "session_idle",
                SessionState::Closed => "session_closed",
            };
            let data = SessionChanged {
                common: common(event_type, session, *product_type),
                session_state: state.name(),
                session_started_at: session.started_at.to_rfc3339(),
            };
            envelope(stamp, event_type, session, data)
        }
        Event::SessionClosed { session, product_type, reason } => {
            let data = SessionClosed {
                common: common("session_closed", session, *product_type),
                session_state: SessionState::Closed.name(),
                close_reason: reason.name(),
                session_started_at: session.started_at.to_rfc3339(),
                session_ended_at: session.ended_at.to_rfc3339(),
                total_tool_calls: session.totals.calls,
                billable_tool_calls: session.totals.billable_calls,
                calls_by_status: &session.by_status,
                calls_by_tool: session.by_tool.iter().map(tool_totals).collect(),
                total_tokens: Tokens::default(),
                wall_duration_ms: session.ended_at.saturating_since(session.started_at).0,
                active_duration_ms: session.active.total().0,
                total_provider_cost: money(session.totals.provider_cost),
                total_revenue: money(session.totals.revenue),
                currency: &session.currency,
            };
            envelope(stamp, "session_closed", session, data)
        }
    }
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
    let sequence = format!("{:020}", stamp.sequence);
    let envelope = Envelope {
        specversion: "1.0",
        id: &sequence,
        source: stamp.source,
        r#type: format!("agent-meter.{event_type}"),
        time: stamp.time.to_rfc3339(),
        subject: &session.session.identity.customer,
        sequence: &sequence,
        datacontenttype: "application/json",
        data,
    };
    // Strings and numbers with string keys: serialising cannot fail.
    serde_json::to_string(&envelope).unwrap_or_default()
}

fn common<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_type: ProductType,
) -> Common<'a> {
    let identity = &session.session.identity;
    Common {
        event_type,
        product_id: &session.session.product_id,
        product_type: product_type.name(),
        customer_id: &identity.customer,
        team_id: &identity.team,
        agent_id: &identity.agent,
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

/// A decimal string without trailing zeros.
fn money(amount: Decimal) -> String {
    amount.normalize().to_string()
}

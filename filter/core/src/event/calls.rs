//! Events about calls.

use serde::Serialize;

use crate::config::product::ProductType;
use crate::domain::call::{Certainty, Transport};
use crate::domain::payment::{Payment, PaymentProtocol};
use crate::domain::status::ExecutionStatus;
use crate::event::EventStamp;
use crate::event::common::{Common, common, money, stored};
use crate::fact::call::{ApiCall, CallEnded};
use crate::pricing::charge::CallCharge;
use crate::session::Session;
use crate::sink::stored_event::StoredEvent;

/// What became of a call that a message answers.
#[derive(Serialize)]
struct Outcome {
    execution_status: ExecutionStatus,
    execution_duration_ms: u64,
    http_status: u16,
    transport: Transport,
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<Certainty>,
}

impl Outcome {
    fn of(call: &CallEnded) -> Self {
        Self {
            execution_status: call.status,
            execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
            http_status: call.http_status,
            transport: call.transport,
            certainty: Some(call.certainty).filter(|found| *found != Certainty::Certain),
        }
    }
}

/// What the customer is charged for a call.
#[derive(Serialize)]
struct Charged<'a> {
    cost_tier: &'a str,
    billable: bool,
    price: String,
    currency: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<Paid<'a>>,
}

impl<'a> Charged<'a> {
    fn of(charge: &CallCharge<'a>, session: &'a Session, call: &'a CallEnded) -> Self {
        Self {
            cost_tier: charge.cost_tier,
            billable: charge.is_billable,
            price: money(charge.price),
            currency: &session.currency,
            payment: Paid::of(call),
        }
    }
}

/// What was paid on the wire.
#[derive(Serialize)]
struct Paid<'a> {
    protocol: PaymentProtocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_atomic: Option<&'a str>,
    receipt: &'a str,
}

impl<'a> Paid<'a> {
    fn of(call: &'a CallEnded) -> Option<Self> {
        let Payment { protocol, network, currency, amount_atomic, receipt } =
            call.payment.as_deref()?;
        Some(Self {
            protocol: *protocol,
            network: network.as_deref(),
            currency: currency.as_deref(),
            amount_atomic: amount_atomic.as_deref(),
            receipt: receipt.as_deref()?,
        })
    }
}

#[derive(Serialize)]
struct ToolInvocation<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    call_id: &'a str,
    tool_name: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(flatten)]
    charged: Charged<'a>,
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
    #[serde(flatten)]
    charged: Charged<'a>,
}

#[derive(Serialize)]
struct AgentStep<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    metric_id: &'static str,
    quantity: u64,
    call_id: &'a str,
    operation: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(flatten)]
    charged: Charged<'a>,
}

/// What a call's event shares with others.
fn common_of<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_type: ProductType,
    call: &'a CallEnded,
) -> Common<'a> {
    let common = common(event_type, session, &call.session.product_id, product_type);
    common.joined(call.correlation.as_deref())
}

pub(super) fn tool_invocation(
    stamp: EventStamp,
    session: &Session,
    product_type: ProductType,
    call: &CallEnded,
    charge: &CallCharge<'_>,
) -> StoredEvent {
    let common = common_of("tool_invocation", session, product_type, call);
    let data = ToolInvocation {
        common,
        metric_id: "tool_invocations",
        quantity: charge.calls,
        call_id: &call.call_id,
        tool_name: &call.tool,
        outcome: Outcome::of(call),
        charged: Charged::of(charge, session, call),
    };
    stored(stamp, "tool_invocation", session, data)
}

pub(super) fn api_call(
    stamp: EventStamp,
    session: &Session,
    product_type: ProductType,
    call: &CallEnded,
    api: &ApiCall,
    charge: &CallCharge<'_>,
) -> StoredEvent {
    let data = ApiCallData {
        common: common_of("api_call", session, product_type, call),
        metric_id: "api_calls",
        quantity: charge.calls,
        call_id: &call.call_id,
        method: &api.method,
        route: call.tool.split_once(' ').map_or("", |(_, route)| route),
        execution_status: call.status,
        http_status: call.http_status,
        execution_duration_ms: call.ended_at.saturating_since(call.started_at).0,
        request_bytes: api.request_bytes,
        response_bytes: api.response_bytes,
        charged: Charged::of(charge, session, call),
    };
    stored(stamp, "api_call", session, data)
}

pub(super) fn agent_step(
    stamp: EventStamp,
    session: &Session,
    product_type: ProductType,
    call: &CallEnded,
    charge: &CallCharge<'_>,
) -> StoredEvent {
    let data = AgentStep {
        common: common_of("agent_step", session, product_type, call),
        metric_id: "agent_steps",
        quantity: charge.calls,
        call_id: &call.call_id,
        operation: &call.tool,
        outcome: Outcome::of(call),
        charged: Charged::of(charge, session, call),
    };
    stored(stamp, "agent_step", session, data)
}

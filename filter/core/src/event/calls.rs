//! Events about calls.

use serde::Serialize;

use crate::config::product::ProductType;
use crate::domain::call::Transport;
use crate::domain::status::ExecutionStatus;
use crate::event::EventStamp;
use crate::event::common::{Common, common, money, stored};
use crate::fact::call::{ApiCall, CallEnded};
use crate::pricing::charge::CallCharge;
use crate::session::Session;
use crate::sink::stored_event::StoredEvent;

#[derive(Serialize)]
pub(super) struct ToolInvocation<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) metric_id: &'static str,
    pub(super) quantity: u64,
    pub(super) call_id: &'a str,
    pub(super) tool_name: &'a str,
    pub(super) execution_status: ExecutionStatus,
    pub(super) execution_duration_ms: u64,
    pub(super) http_status: u16,
    pub(super) transport: Transport,
    pub(super) cost_tier: &'a str,
    pub(super) billable: bool,
    pub(super) price: String,
    pub(super) currency: &'a str,
}

#[derive(Serialize)]
pub(super) struct ApiCallData<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) metric_id: &'static str,
    pub(super) quantity: u64,
    pub(super) call_id: &'a str,
    pub(super) method: &'a str,
    pub(super) route: &'a str,
    pub(super) execution_status: ExecutionStatus,
    pub(super) http_status: u16,
    pub(super) execution_duration_ms: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) cost_tier: &'a str,
    pub(super) billable: bool,
    pub(super) price: String,
    pub(super) currency: &'a str,
}

#[derive(Serialize)]
pub(super) struct AgentStep<'a> {
    #[serde(flatten)]
    pub(super) common: Common<'a>,
    pub(super) metric_id: &'static str,
    pub(super) quantity: u64,
    pub(super) call_id: &'a str,
    pub(super) operation: &'a str,
    pub(super) execution_status: ExecutionStatus,
    pub(super) execution_duration_ms: u64,
    pub(super) http_status: u16,
    pub(super) transport: Transport,
    pub(super) cost_tier: &'a str,
    pub(super) billable: bool,
    pub(super) price: String,
    pub(super) currency: &'a str,
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
    stored(stamp, "agent_step", session, data)
}

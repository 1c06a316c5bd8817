//! Reads the data of `tool_invocation`, `api_call` and `agent_step`: one call and its price.

use rust_decimal::Decimal;

use crate::event::identity::{Identity, identity};
use crate::event::members::Members;

/// The names an outcome of a call may have.
pub(crate) const STATUSES: [&str; 9] = [
    "SUCCESS",
    "ERROR",
    "VALIDATION_FAILED",
    "BLOCKED",
    "TIMEOUT",
    "CANCELLED",
    "HITL_REQUIRED",
    "PENDING",
    "UNKNOWN",
];

/// What a call is a call of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Tool,
    Api,
    Step,
}

impl CallKind {
    /// The name of its event, in the ledger and in answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CallKind::Tool => "tool_invocation",
            CallKind::Api => "api_call",
            CallKind::Step => "agent_step",
        }
    }

    fn metric(self) -> &'static str {
        match self {
            CallKind::Tool => "tool_invocations",
            CallKind::Api => "api_calls",
            CallKind::Step => "agent_steps",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) identity: Identity,
    pub(crate) kind: CallKind,
    pub(crate) call_id: String,
    /// The tool; of an API its method and route; of an agent the operation.
    pub(crate) tool: String,
    pub(crate) status: &'static str,
    pub(crate) duration_ms: i64,
    pub(crate) http_status: i64,
    /// Not of an API call.
    pub(crate) transport: Option<String>,
    /// Of the request and the response; of an API call only.
    pub(crate) bytes: Option<(i64, i64)>,
    pub(crate) tier: String,
    pub(crate) billable: bool,
    pub(crate) price: Decimal,
    pub(crate) currency: String,
}

pub(crate) fn call(data: &Members<'_>, kind: CallKind) -> Result<Call, String> {
    let identity = identity(data)?;
    data.exactly("metric_id", kind.metric())?;
    if data.count("quantity")? != 1 {
        return Err(data.wrong("quantity", "1"));
    }
    let billable = data.flag("billable")?;
    let price = data.money("price")?;
    if !billable && !price.is_zero() {
        return Err(data.wrong("price", "\"0\" when billable is false"));
    }
    let call_id = data.name("call_id")?;
    let tool = match kind {
        CallKind::Tool => data.text("tool_name")?,
        CallKind::Api => format!("{} {}", data.name("method")?, data.text("route")?),
        CallKind::Step => data.text("operation")?,
    };
    let (transport, bytes) = match kind {
        CallKind::Api => {
            (None, Some((data.count("request_bytes")?, data.count("response_bytes")?)))
        }
        CallKind::Tool | CallKind::Step => (Some(data.text("transport")?), None),
    };
    Ok(Call {
        identity,
        kind,
        call_id,
        tool,
        status: data.one_of("execution_status", &STATUSES)?,
        duration_ms: data.count("execution_duration_ms")?,
        http_status: data.count("http_status")?,
        transport,
        bytes,
        tier: data.text("cost_tier")?,
        billable,
        price,
        currency: data.currency("currency")?,
    })
}

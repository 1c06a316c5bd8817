//! Reads the data of `tool_invocation`, `api_call` and `agent_step`: one call and its price.

use rust_decimal::Decimal;

use crate::event::identity::{Identity, identity};
use crate::event::members::Members;

/// The outcomes of a call.
pub(crate) const STATUSES: [&str; 10] = [
    "SUCCESS",
    "ERROR",
    "VALIDATION_FAILED",
    "BLOCKED",
    "PAYMENT_REQUIRED",
    "TIMEOUT",
    "CANCELLED",
    "HITL_REQUIRED",
    "PENDING",
    "UNKNOWN",
];

/// Calls in one event: far more than pass an Envoy in the second that one event stands for, and few
/// enough that no sum of a ledger overflows.
const QUANTITY_MAX: i64 = 1_000_000_000;

/// What a call is a call of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A tool of an MCP server.
    Tool,
    /// A route of an API.
    Api,
    /// An operation of an agent.
    Step,
}

impl CallKind {
    /// The name of its event, in the ledger and in answers, such as `tool_invocation`.
    pub fn name(self) -> &'static str {
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

/// One call, as far as the ledger has columns for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whose it is.
    pub identity: Identity,
    /// What it is a call of.
    pub kind: CallKind,
    /// How many calls it stands for: alike, and more than one only where a customer overflows.
    pub quantity: i64,
    /// Unique with the event's source.
    pub call_id: String,
    /// The tool; of an API its method and route; of an agent the operation.
    pub tool: String,
    /// The `execution_status`, such as `SUCCESS`.
    pub status: &'static str,
    /// How long it ran, in milliseconds.
    pub duration_ms: i64,
    /// The status of the response; 0 if there was none.
    pub http_status: i64,
    /// Such as `json`; `None` for an API call.
    pub transport: Option<String>,
    /// Bytes of the bodies of the request and the response; `Some` for an API call only.
    pub bytes: Option<(i64, i64)>,
    /// Cost tier of the price list.
    pub tier: String,
    /// True if its price is charged.
    pub billable: bool,
    /// What the customer is charged for all of them, in `currency`; 0 if it is not billable.
    pub price: Decimal,
    /// ISO 4217.
    pub currency: String,
}

/// Checks the ids by which an event is joined with other systems. They are read from its text.
pub(crate) fn joined(data: &Members<'_>) -> Result<(), String> {
    for member in ["request_id", "trace_id", "rpc_id"] {
        data.optional(member, |data, member| data.name(member))?;
    }
    Ok(())
}

/// Checks what was paid on the wire. The ledger has no columns for it: the event is kept as it came.
fn payment(paid: &Members<'_>) -> Result<(), String> {
    paid.one_of("protocol", &["x402", "mpp"])?;
    paid.name("receipt")?;
    for member in ["network", "currency", "amount_atomic"] {
        paid.optional(member, |paid, member| paid.name(member))?;
    }
    Ok(())
}

/// Reads one call; an error begins with the path of the member.
pub(crate) fn call(data: &Members<'_>, kind: CallKind) -> Result<Call, String> {
    let identity = identity(data)?;
    data.exactly("metric_id", kind.metric())?;
    let quantity = data.count("quantity")?;
    if !(1..=QUANTITY_MAX).contains(&quantity) {
        return Err(data.wrong("quantity", "an integer of at least 1, and at most 1000000000"));
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
    joined(data)?;
    data.optional("payment", |data, member| payment(&data.members(member)?))?;
    data.optional("certainty", |data, member| data.exactly(member, "inferred"))?;
    Ok(Call {
        identity,
        kind,
        quantity,
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

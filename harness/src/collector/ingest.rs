//! Decodes and validates one POST of CloudEvents 1.0 as `filter/EVENTS.md` describes them.
//! It is written from that document alone and shares no type with the filter, so that the format
//! is read twice, independently. It stores nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::generation::{Generation, generation};
use super::guard::{self, GuardTotals, LevelChange};
use super::members::{Members, shown};
use super::sessions::{ModelTotals, SessionState, TokenTotals, ToolTotals, Totals};
use super::verdict::ScopeStatus;

/// What became of one POST, and the body of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Events stored now.
    pub accepted: u64,
    /// Events that had been stored before with the same content.
    pub duplicates: u64,
    /// Events that were not stored.
    pub rejected: Vec<Rejected>,
    /// What the other sources told of each scope that the valid events are about, told again with
    /// a batch that is sent again. Left out where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<ScopeStatus>,
}

/// One event that was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Its `id`; empty when it has none.
    pub id: String,
    /// What is wrong, opening with the path of the member.
    pub reason: String,
}

/// Why a whole POST was refused; nothing of it is stored.
#[derive(Debug)]
pub enum IngestError {
    /// The content type is none of those accepted (HTTP 415).
    MediaType(String),
    /// The body is not JSON, or not of the shape its content type promises (HTTP 400).
    Malformed(String),
    /// The ledger failed; the same bytes may be sent again (HTTP 500).
    Ledger(anyhow::Error),
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IngestError::MediaType(found) => write!(
                f,
                "content-type: must be application/cloudevents-batch+json, \
                 application/cloudevents+json or application/json, found {found:?}"
            ),
            IngestError::Malformed(reason) => write!(f, "body: {reason}"),
            IngestError::Ledger(error) => write!(f, "ledger: {error:#}"),
        }
    }
}

impl std::error::Error for IngestError {}

impl From<rusqlite::Error> for IngestError {
    fn from(error: rusqlite::Error) -> IngestError {
        IngestError::Ledger(error.into())
    }
}

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

const PRODUCT_TYPES: [&str; 4] = ["STANDARD_API", "AGENTIC_API", "AI_AGENT", "MCP_SERVER"];
const CREDENTIAL_TYPES: [&str; 2] = ["CLIENT_CREDENTIALS", "BEARER_TOKEN"];

/// One valid event.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// The event's bytes as they came.
    pub(super) raw: &'a str,
    pub(super) source: String,
    pub(super) id: String,
    pub(super) sequence: i64,
    pub(super) event_type: String,
    pub(super) time: String,
    pub(super) time_ms: i64,
    pub(super) subject: String,
    pub(super) session_id: Option<String>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Call(Box<Call>),
    Generation(Box<Generation>),
    Session(Box<SessionChange>),
    GuardTotals(Box<GuardTotals>),
    LevelChange(Box<LevelChange>),
    /// A type this collector does not know: kept as raw text, counted in nothing.
    Unknown,
}

/// The common members of `data`.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) product: String,
    pub(super) product_type: &'static str,
    pub(super) customer: String,
    pub(super) team: String,
    /// The agent, or the app of an API.
    pub(super) agent: String,
    pub(super) api_key_hash: Option<String>,
    pub(super) credential_type: Option<&'static str>,
    pub(super) session_id: String,
    pub(super) session_key: String,
}

/// What a call is a call of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Tool,
    Api,
    Step,
}

impl CallKind {
    /// The name of its event, in the ledger and in answers.
    pub(super) fn name(self) -> &'static str {
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
pub(super) struct Call {
    pub(super) identity: Identity,
    pub(super) kind: CallKind,
    pub(super) call_id: String,
    /// The tool; of an API its method and route; of an agent the operation.
    pub(super) tool: String,
    pub(super) status: &'static str,
    pub(super) duration_ms: i64,
    pub(super) http_status: i64,
    /// Not of an API call.
    pub(super) transport: Option<String>,
    /// Of the request and the response; of an API call only.
    pub(super) bytes: Option<(i64, i64)>,
    pub(super) tier: String,
    pub(super) billable: bool,
    pub(super) price: Decimal,
    pub(super) currency: String,
}

#[derive(Debug)]
pub(super) struct SessionChange {
    pub(super) identity: Identity,
    pub(super) state: SessionState,
    pub(super) started_at: String,
    /// Present exactly when `state` is CLOSED.
    pub(super) closing: Option<Closing>,
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) ended_at: String,
    pub(super) ended_ms: i64,
    pub(super) close_reason: String,
    pub(super) totals: Totals,
}

/// Splits a body into the exact bytes of each event.
pub(super) fn split<'a>(
    body: &'a [u8],
    content_type: &str,
) -> Result<Vec<&'a RawValue>, IngestError> {
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let (one, batch) = match media_type.as_str() {
        "application/cloudevents-batch+json" => (false, true),
        "application/cloudevents+json" => (true, false),
        "application/json" => (true, true),
        _ => return Err(IngestError::MediaType(content_type.to_owned())),
    };
    let malformed = |error: serde_json::Error| IngestError::Malformed(format!("not JSON: {error}"));
    let whole: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
    match whole.get().as_bytes().first() {
        Some(b'[') if batch => serde_json::from_str(whole.get()).map_err(malformed),
        Some(b'{') if one => Ok(vec![whole]),
        first => {
            let expected = match (one, batch) {
                (_, false) => "an object, one event",
                (false, true) => "an array of events",
                (true, true) => "an array of events or an object, one event",
            };
            let found = match first {
                Some(b'[') => "an array",
                Some(b'{') => "an object",
                Some(b'"') => "a string",
                Some(b'n') => "null",
                Some(b't' | b'f') => "a boolean",
                _ => "a number",
            };
            Err(IngestError::Malformed(format!("must be {expected}, found {found}")))
        }
    }
}

/// Reads one event; on failure tells its id, as far as it has one, and the reason.
pub(super) fn read(raw: &RawValue) -> Result<Event<'_>, (String, String)> {
    let value: Value = serde_json::from_str(raw.get())
        .map_err(|error| (String::new(), format!("event: not JSON: {error}")))?;
    let Value::Object(object) = &value else {
        return Err((String::new(), format!("event: must be an object, found {}", shown(&value))));
    };
    event(raw.get(), object).map_err(|reason| {
        (object.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(), reason)
    })
}

fn event<'a>(raw: &'a str, object: &Map<String, Value>) -> Result<Event<'a>, String> {
    let attributes = Members { path: Cow::Borrowed(""), object };
    attributes.exactly("specversion", "1.0")?;
    let id = attributes.name("id")?;
    let source = attributes.name("source")?;
    let event_type = attributes.name("type")?;
    let (time, time_ms) = attributes.time("time")?;
    let sequence = attributes.sequence("sequence")?;
    attributes.exactly("sequence", &id)?;
    if object.contains_key("datacontenttype") {
        attributes.exactly("datacontenttype", "application/json")?;
    }
    let kind = event_type.strip_prefix("agent-meter.").unwrap_or_default();
    let subject = match kind {
        // A guard of a product watches all its customers, and is about none of them.
        "guard_totals" | "margin_level_changed" | "budget_level_changed" | "loop_level_changed" => {
            attributes.optional("subject", Members::text)?.unwrap_or_default()
        }
        _ => attributes.name("subject")?,
    };
    let body = match kind {
        "tool_invocation" => call(&attributes.members("data")?, CallKind::Tool)?,
        "api_call" => call(&attributes.members("data")?, CallKind::Api)?,
        "agent_step" => call(&attributes.members("data")?, CallKind::Step)?,
        "token_consumption" => {
            Body::Generation(Box::new(generation(&attributes.members("data")?)?))
        }
        "session_created" => session(&attributes.members("data")?, SessionState::Created)?,
        "session_active" => session(&attributes.members("data")?, SessionState::Active)?,
        "session_idle" => session(&attributes.members("data")?, SessionState::Idle)?,
        "session_closed" => session(&attributes.members("data")?, SessionState::Closed)?,
        "guard_totals" => Body::GuardTotals(Box::new(guard::totals(&attributes.members("data")?)?)),
        "margin_level_changed" => level_change(&attributes.members("data")?, "margin")?,
        "budget_level_changed" => level_change(&attributes.members("data")?, "budget")?,
        "loop_level_changed" => level_change(&attributes.members("data")?, "loop")?,
        _ => Body::Unknown,
    };
    let session_id = match &body {
        Body::Unknown => object.get("data").and_then(|data| data.get("session_id")?.as_str()),
        Body::Call(call) => Some(call.identity.session_id.as_str()),
        Body::Generation(generation) => Some(generation.identity.session_id.as_str()),
        Body::Session(change) => Some(change.identity.session_id.as_str()),
        Body::GuardTotals(_) | Body::LevelChange(_) => None,
    };
    let session_id = session_id.map(str::to_owned);
    if !matches!(body, Body::Unknown) {
        let data = attributes.members("data")?;
        data.exactly("event_type", kind)?;
        data.exactly("customer_id", &subject)?;
    }
    Ok(Event { raw, source, id, sequence, event_type, time, time_ms, subject, session_id, body })
}

fn level_change(data: &Members<'_>, kind: &'static str) -> Result<Body, String> {
    Ok(Body::LevelChange(Box::new(guard::level_change(data, kind)?)))
}

pub(super) fn identity(data: &Members<'_>) -> Result<Identity, String> {
    let product = data.text("product_id")?;
    let product_type = data.one_of("product_type", &PRODUCT_TYPES)?;
    Ok(Identity {
        product,
        product_type,
        customer: data.text("customer_id")?,
        team: data.text("team_id")?,
        agent: agent(data, product_type)?,
        api_key_hash: data.has("api_key_hash").then(|| data.hex32("api_key_hash")).transpose()?,
        credential_type: data
            .has("credential_type")
            .then(|| data.one_of("credential_type", &CREDENTIAL_TYPES))
            .transpose()?,
        session_id: data.hex32("session_id")?,
        session_key: data.hex32("session_key")?,
    })
}

/// The agent, or of an API the app, exactly one of which there is.
fn agent(data: &Members<'_>, product_type: &str) -> Result<String, String> {
    let (member, other) = match product_type {
        "STANDARD_API" => ("app_id", "agent_id"),
        // Filters that knew no apps named an agent here; what they sent stays billed.
        "AGENTIC_API" if !data.has("app_id") && data.has("agent_id") => ("agent_id", "app_id"),
        "AGENTIC_API" => ("app_id", "agent_id"),
        _ => ("agent_id", "app_id"),
    };
    if data.has(other) {
        return Err(data.wrong(other, &format!("absent, with {member} in its place")));
    }
    data.text(member)
}

fn call(data: &Members<'_>, kind: CallKind) -> Result<Body, String> {
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
    Ok(Body::Call(Box::new(Call {
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
    })))
}

fn session(data: &Members<'_>, state: SessionState) -> Result<Body, String> {
    let identity = identity(data)?;
    data.exactly("session_state", state.name())?;
    let (started_at, _) = data.time("session_started_at")?;
    let closing = if state == SessionState::Closed { Some(closing(data)?) } else { None };
    Ok(Body::Session(Box::new(SessionChange { identity, state, started_at, closing })))
}

fn closing(data: &Members<'_>) -> Result<Closing, String> {
    let (ended_at, ended_ms) = data.time("session_ended_at")?;
    let totals = Totals {
        total_tool_calls: data.total("total_tool_calls")?,
        billable_tool_calls: data.total("billable_tool_calls")?,
        calls_by_status: calls_by_status(&data.members("calls_by_status")?)?,
        calls_by_tool: calls_by_tool(data)?,
        total_tokens: token_totals(&data.members("total_tokens")?)?,
        wall_duration_ms: Some(data.total("wall_duration_ms")?),
        active_duration_ms: Some(data.total("active_duration_ms")?),
        total_provider_cost: Some(data.money("total_provider_cost")?),
        total_revenue: Some(data.money("total_revenue")?),
        currency: Some(data.currency("currency")?),
        ..Totals::new()
    };
    // A filter that meters no tokens tells none of these.
    let metered = GENERATION_TOTALS.iter().any(|member| data.object.contains_key(*member));
    let totals = if metered {
        Totals {
            generations: data.total("generations")?,
            unpriced_generations: data.total("unpriced_generations")?,
            unknown_usage_generations: data.total("unknown_usage_generations")?,
            usage_by_model: usage_by_model(data)?,
            unattributed_provider_cost: Some(data.money("unattributed_provider_cost")?),
            ..totals
        }
    } else {
        totals
    };
    Ok(Closing { ended_at, ended_ms, close_reason: data.name("close_reason")?, totals })
}

const GENERATION_TOTALS: [&str; 5] = [
    "generations",
    "unpriced_generations",
    "unknown_usage_generations",
    "usage_by_model",
    "unattributed_provider_cost",
];

fn token_totals(tokens: &Members<'_>) -> Result<TokenTotals, String> {
    Ok(TokenTotals {
        input: tokens.total("input")?,
        output: tokens.total("output")?,
        reasoning: tokens.total("reasoning")?,
        cache_read: tokens.total("cache_read")?,
        cache_write: tokens.total("cache_write")?,
    })
}

fn usage_by_model(data: &Members<'_>) -> Result<Vec<ModelTotals>, String> {
    let entries = data.list("usage_by_model")?;
    let mut models = entries.iter().map(model_totals).collect::<Result<Vec<_>, _>>()?;
    let key = |model: &ModelTotals| (model.provider.clone(), model.model.clone());
    models.sort_by_cached_key(key);
    Ok(models)
}

fn model_totals(model: &Members<'_>) -> Result<ModelTotals, String> {
    Ok(ModelTotals {
        provider: model.name("provider")?,
        model: model.name("model")?,
        generations: model.total("generations")?,
        unpriced_generations: model.total("unpriced_generations")?,
        tokens: token_totals(model)?,
        provider_cost: Some(model.money("provider_cost")?),
        revenue: Some(model.money("revenue")?),
    })
}

fn calls_by_status(members: &Members<'_>) -> Result<BTreeMap<String, u64>, String> {
    let mut calls = BTreeMap::new();
    for status in members.object.keys() {
        if !STATUSES.contains(&status.as_str()) {
            return Err(format!("{}{status}: unknown status", members.path));
        }
        let count = members.total(status)?;
        if count > 0 {
            calls.insert(status.clone(), count);
        }
    }
    Ok(calls)
}

fn calls_by_tool(data: &Members<'_>) -> Result<Vec<ToolTotals>, String> {
    let entries = data.list("calls_by_tool")?;
    let mut tools = entries.iter().map(tool_totals).collect::<Result<Vec<_>, _>>()?;
    tools.sort_by(|left, right| left.tool_name.cmp(&right.tool_name));
    Ok(tools)
}

fn tool_totals(tool: &Members<'_>) -> Result<ToolTotals, String> {
    Ok(ToolTotals {
        tool_name: tool.text("tool_name")?,
        calls: tool.total("calls")?,
        billable_calls: tool.total("billable_calls")?,
        revenue: Some(tool.money("revenue")?),
        provider_cost: Some(tool.money("provider_cost")?),
    })
}

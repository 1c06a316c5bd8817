//! OpenTelemetry's names for what events say, and the log record of an event. The filter and the
//! collector's ledger both write with this file, so one event has the same record from either.
//!
//! The names are those of semantic-conventions-genai 0.1.0 (GenAI and MCP) and, for HTTP, of
//! semantic-conventions 1.45.0. What has no name there is under `agent_meter`. Money has none: its
//! attributes are text, and are left out unless the configuration asks for them.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::hash::hex;
use crate::sink::members::{self, member as member_of};

/// What the model or the tool was asked for, such as `chat` or `execute_tool`.
pub const OPERATION_NAME: &str = "gen_ai.operation.name";
/// Who sells the model; see [`provider_name`].
pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
/// The model that the request names.
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
/// The model that answered.
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
/// Input or output, of counted tokens.
pub const TOKEN_TYPE: &str = "gen_ai.token.type";
/// The tool that was called.
pub const TOOL_NAME: &str = "gen_ai.tool.name";
/// The method of the Model Context Protocol.
pub const MCP_METHOD: &str = "mcp.method.name";
/// What went wrong; see [`error_type`].
pub const ERROR_TYPE: &str = "error.type";

/// The attributes whose value is that of a member of `data`, in the order in which they are written.
const MEMBERS: [(&str, &str); 38] = [
    ("product_id", "agent_meter.product_id"),
    ("product_type", "agent_meter.product_type"),
    ("team_id", "agent_meter.team_id"),
    ("user_id", "agent_meter.user_id"),
    ("agent_id", "agent_meter.agent_id"),
    ("app_id", "agent_meter.app_id"),
    ("session_id", "agent_meter.session_id"),
    ("request_id", "agent_meter.request_id"),
    ("tool_name", TOOL_NAME),
    ("route", "http.route"),
    ("request_bytes", "http.request.body.size"),
    ("response_bytes", "http.response.body.size"),
    ("operation", "agent_meter.operation"),
    ("call_id", "agent_meter.call_id"),
    ("execution_status", "agent_meter.execution_status"),
    ("execution_duration_ms", "agent_meter.execution_duration_ms"),
    ("certainty", "agent_meter.certainty"),
    ("cost_tier", "agent_meter.cost_tier"),
    ("billable", "agent_meter.billable"),
    ("model_requested", REQUEST_MODEL),
    ("streamed", "gen_ai.request.stream"),
    ("generation_id", "agent_meter.generation_id"),
    ("supersedes", "agent_meter.supersedes"),
    ("attribution", "agent_meter.attribution"),
    ("service_tier", "agent_meter.service_tier"),
    ("location", "agent_meter.location"),
    ("completeness", "agent_meter.completeness"),
    ("estimated", "agent_meter.estimated"),
    ("duration_ms", "agent_meter.duration_ms"),
    ("session_state", "agent_meter.session_state"),
    ("close_reason", "agent_meter.close_reason"),
    ("guard_id", "agent_meter.guard_id"),
    ("guard_kind", "agent_meter.guard_kind"),
    ("scope", "agent_meter.scope"),
    ("level", "agent_meter.level"),
    ("previous_level", "agent_meter.previous_level"),
    ("action", "agent_meter.action"),
    ("sequence_max", "agent_meter.sequence_max"),
];

/// The attributes of tokens, each with the members of `data.tokens` that it is the sum of.
const TOKENS: [(&str, &[&str]); 8] = [
    ("gen_ai.usage.input_tokens", &["input"]),
    ("gen_ai.usage.output_tokens", &["output"]),
    ("gen_ai.usage.cache_read.input_tokens", &["cache_read"]),
    ("gen_ai.usage.cache_write.input_tokens", &["cache_write_5m", "cache_write_1h"]),
    ("gen_ai.usage.reasoning.output_tokens", &["reasoning"]),
    ("gen_ai.usage.audio.input_tokens", &["input_audio"]),
    ("gen_ai.usage.audio.output_tokens", &["output_audio"]),
    ("gen_ai.usage.audio.cache_read.input_tokens", &["cache_read_audio"]),
];

/// The attributes of money, each with its member of `data`.
const COSTS: [(&str, &str); 3] = [
    ("price", "agent_meter.price"),
    ("total_provider_cost", "agent_meter.provider_cost"),
    ("currency", "agent_meter.currency"),
];

/// What stands before the records of a request with logs; commas stand between them.
pub const LOGS_BEFORE: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"agent-meter"}}]},"scopeLogs":[{"scope":{"name":"agent-meter"},"logRecords":["#;
/// What stands behind them.
pub const LOGS_AFTER: &str = "]}]}]}";

/// An event of which a log record is written.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The event's source, which is unique to one life of an Envoy process.
    pub source: &'a str,
    /// The event's number within the source, in 20 digits.
    pub id: &'a str,
    /// When it happened, in milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// The CloudEvents type, such as `agent-meter.tool_invocation`.
    pub event_type: &'a str,
    /// The customer; empty if it concerns none.
    pub subject: &'a str,
    /// What it says: an object, which `filter/EVENTS.md` describes.
    pub data: &'a Value,
    /// The whole event as JSON text.
    pub text: &'a str,
    /// Whether the record has the attributes of money.
    pub with_costs: bool,
}

/// The log record of an event, in OTLP's JSON.
pub fn log_record(told: &Told<'_>) -> String {
    let Told { time_ms, event_type, data, text, .. } = told;
    let trace_id = match members::text(data, "trace_id") {
        Some(id) => format!(r#","traceId":{}"#, Value::from(id)),
        None => String::new(),
    };
    format!(
        r#"{{"timeUnixNano":"{time_ms}000000","observedTimeUnixNano":"{time_ms}000000","severityNumber":9,"severityText":"INFO","eventName":{name},"body":{{"stringValue":{text}}},"attributes":[{attributes}]{trace_id}}}"#,
        name = Value::from(*event_type),
        text = Value::from(*text),
        attributes = attributes(told),
    )
}

fn attributes(told: &Told<'_>) -> String {
    let data = told.data;
    let kind = kind(told.event_type);
    let mut all = Attributes::default();
    all.text("agent_meter.event.id", &event_id(told.source, told.id));
    all.text("agent_meter.event.source", told.source);
    all.text("agent_meter.event.sequence", told.id);
    all.text("agent_meter.customer_id", told.subject);
    all.text("agent_meter.event_type", kind);
    if let Some(operation) = operation_name(kind, data) {
        all.text(OPERATION_NAME, operation);
    }
    if is_mcp(kind, data) {
        all.text(MCP_METHOD, "tools/call");
        all.text("network.protocol.name", "http");
        all.member("mcp.session.id", member_of(data, "session_key"));
    }
    // Of an id that is a text the event has a hash, which is not the id.
    let rpc_id = members::text(data, "rpc_id");
    if let Some(id) = rpc_id {
        let is_hash = id.starts_with("sha256:");
        all.text(if is_hash { "agent_meter.rpc_id" } else { "jsonrpc.request.id" }, id);
    }
    if let Some(method) = members::text(data, "method") {
        all.text("http.request.method", if method == "OTHER" { "_OTHER" } else { method });
    }
    let status = member_of(data, "http_status").filter(|status| status.as_u64() != Some(0));
    all.member("http.response.status_code", status);
    if let Some(error) = error_type(kind, data) {
        all.text(ERROR_TYPE, &error);
    }
    if let Some(provider) = members::text(data, "provider") {
        all.text(PROVIDER_NAME, provider_name(provider));
    }
    all.member(RESPONSE_MODEL, response_model(data));
    for (member, name) in MEMBERS {
        all.member(name, member_of(data, member));
    }
    let counted =
        if kind == "token_consumption" { "agent_meter.tokens" } else { "agent_meter.calls" };
    all.member(counted, member_of(data, "quantity"));
    for (name, kinds) in TOKENS {
        if let Some(sum) = members::tokens(data, kinds) {
            all.value(name, "intValue", &format!("\"{sum}\""));
        }
    }
    for (member, name) in COSTS.into_iter().filter(|_| told.with_costs) {
        all.member(name, member_of(data, member));
    }
    all.0
}

/// The type of an event without its prefix.
pub fn kind(event_type: &str) -> &str {
    event_type.strip_prefix("agent-meter.").unwrap_or(event_type)
}

/// Names an event for receivers: 35 letters, digits and `_`, the same at each try. It is a hash,
/// because a source may be longer than they take.
pub fn event_id(source: &str, id: &str) -> String {
    let hash = Sha256::digest(format!("{source}\n{id}").as_bytes());
    format!("am_{}", hex(hash.get(..16).unwrap_or_default()))
}

/// Whether the event is of a call of a tool by the Model Context Protocol.
pub fn is_mcp(kind: &str, data: &Value) -> bool {
    kind == "tool_invocation" && members::text(data, "product_type") == Some("MCP_SERVER")
}

/// The operation of an event, as the conventions name it. Events do not tell chats from other
/// generations, but for embeddings, which are the generations that have no output.
pub fn operation_name(kind: &str, data: &Value) -> Option<&'static str> {
    match kind {
        "tool_invocation" => Some("execute_tool"),
        "agent_step" => Some("invoke_agent"),
        "token_consumption" => {
            let is_complete = members::text(data, "completeness") == Some("COMPLETE");
            let is_known = |name| members::tokens(data, &[name]).is_some();
            let is_embedding = is_complete && is_known("input") && !is_known("output");
            Some(if is_embedding { "embeddings" } else { "chat" })
        }
        _ => None,
    }
}

/// The well-known name of a provider; one that has none is its own.
pub fn provider_name(provider: &str) -> &str {
    match provider {
        "azure_openai" => "azure.ai.openai",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "bedrock" => "aws.bedrock",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "moonshot" => "moonshot_ai",
        other => other,
    }
}

/// The model that answered, unless nobody named one.
pub fn response_model(data: &Value) -> Option<&Value> {
    member_of(data, "model").filter(|model| model.as_str() != Some("__unknown__"))
}

/// What went wrong; `None` if nothing did, or it is not known yet. A tool that fails by its own
/// account is `tool_error`, as is one that answers by a JSON-RPC error: events do not tell these
/// apart. A status of HTTP is its number.
pub fn error_type(kind: &str, data: &Value) -> Option<String> {
    let text = |name: &str| members::text(data, name);
    let http = members::count(data, "http_status").filter(|status| *status >= 300);
    let of_http = || http.map(|status| status.to_string());
    if kind == "token_consumption" {
        let is_failed = text("completeness") == Some("FAILED");
        return of_http().or_else(|| is_failed.then(|| "_OTHER".to_owned()));
    }
    let other = if kind == "tool_invocation" { "tool_error" } else { "_OTHER" };
    match text("execution_status")? {
        "SUCCESS" | "PENDING" | "HITL_REQUIRED" => None,
        "ERROR" => of_http().or_else(|| Some(other.to_owned())),
        status => Some(status.to_ascii_lowercase()),
    }
}

/// Attributes in OTLP's JSON, with commas in between.
#[derive(Debug, Default)]
struct Attributes(String);

impl Attributes {
    /// Adds one whose value has this type and is written so.
    #[inline(never)]
    fn value(&mut self, name: &str, of_type: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        for part in [r#"{"key":""#, name, r#"","value":{""#, of_type, r#"":"#, value, "}}"] {
            self.0.push_str(part);
        }
    }

    #[inline(never)]
    fn text(&mut self, name: &str, text: &str) {
        self.value(name, "stringValue", &Value::from(text).to_string());
    }

    /// Adds one with the value of a member. What is no text, no whole number and no flag is left out.
    #[inline(never)]
    fn member(&mut self, name: &str, member: Option<&Value>) {
        match member {
            Some(Value::String(text)) => self.text(name, text),
            // 64-bit numbers are text in OTLP's JSON.
            Some(Value::Number(number)) if !number.is_f64() => {
                self.value(name, "intValue", &format!("\"{number}\""));
            }
            Some(Value::Bool(flag)) => {
                self.value(name, "boolValue", if *flag { "true" } else { "false" });
            }
            _ => {}
        }
    }
}

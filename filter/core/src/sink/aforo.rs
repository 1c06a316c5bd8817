//! Aforo: usage events in camelCase, as the production ingestor takes them (`POST
//! /v1/ingest/batch`). It prices them by catalogues of its own.
//!
//! A call becomes one event of quantity 1 or more, a generation one of as many tokens as it read and
//! wrote. Sessions, guards and heartbeats are not told, nor calls that are not billed. A generation
//! of no tokens is not, because the ingestor refuses a quantity of 0 and the whole request with it;
//! one that takes the place of an earlier one is not, because the ingestor can only add and the
//! filter no longer has the earlier one. These are counted, as somebody may be charged too little.
//!
//! The keys of the events are those that the collector's sink has, so an event that both send
//! counts once.

use serde_json::Value;

use crate::sink::format::{Format, Limits, Options, Sends, joined};
use crate::sink::members::{self, member};
use crate::sink::otel::event_id;
use crate::sink::reply::{HttpReply, Refused, Reply};
use crate::sink::stored_event::StoredEvent;

/// The most events of one request.
const EVENTS_MAX: u32 = 1000;
/// The longest `toolName`, in UTF-16 code units. The metadata have the whole name.
const TOOL_NAME_UNITS_MAX: usize = 64;

/// The names of our units, as events tell them in `metric_id`.
pub const METRICS: [&str; 4] = ["tool_invocations", "api_calls", "agent_steps", "ai_tokens"];

/// Aforo's format.
#[derive(Debug)]
pub struct Aforo;

impl Format for Aforo {
    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn limits(&self) -> Limits {
        Limits { events: EVENTS_MAX, bytes: usize::MAX }
    }

    fn sends(&self, event: &StoredEvent) -> Sends {
        let data = || members::read(event.data.as_bytes());
        match &*event.event_type {
            "tool_invocation" | "api_call" | "agent_step" => {
                let is_billable = data().get("billable").and_then(Value::as_bool) == Some(true);
                if is_billable { Sends::Yes } else { Sends::No }
            }
            "token_consumption" => {
                let data = data();
                let is_some = members::count(&data, "quantity") > Some(0);
                let is_first = data.get("supersedes").is_none();
                if is_some && is_first { Sends::Yes } else { Sends::Withheld }
            }
            _ => Sends::No,
        }
    }

    fn event(&self, options: Options<'_>, source: &str, event: &StoredEvent) -> String {
        let data = members::read(event.data.as_bytes());
        let metric = members::text(&data, "metric_id").unwrap_or_default();
        let named = options.metric_names.reveal().find(|(ours, _)| *ours == metric);
        let metric = named.map_or(metric, |(_, theirs)| theirs);
        let mut all = Members::default();
        all.text("customerId", &event.subject);
        all.text("metricName", metric);
        all.member("quantity", member(&data, "quantity"));
        all.text("idempotencyKey", &event_id(source, &event.id()));
        all.text("occurredAt", &event.time.to_rfc3339());
        all.member("productType", member(&data, "product_type"));
        all.member("agentId", agent(&data));
        all.member("sessionId", member(&data, "session_id"));
        let tool = called(&data);
        if let Some(status) = members::text(&data, "execution_status") {
            all.text("toolName", tool_name(tool.as_deref().unwrap_or_default()));
            all.text("executionStatus", execution_status(status));
            all.member("executionDurationMs", member(&data, "execution_duration_ms"));
        }
        all.member("traceId", member(&data, "trace_id"));
        all.raw("metadata", &metadata(&data, tool.as_deref()));
        all.end()
    }

    fn batch(&self, events: &mut dyn Iterator<Item = String>) -> Vec<u8> {
        joined(r#"{"events":["#, events, ",", "]}")
    }

    /// A success lists the events that it refuses by their places in the request. Newer ingestors
    /// wrap it in `data`; older ones answer nothing.
    fn reply(&self, reply: &HttpReply<'_>) -> Reply {
        let told = Reply::parse(reply);
        if !matches!(told, Reply::Taken { .. }) {
            return told;
        }
        let answer = members::read(reply.body);
        let answer = answer.get("data").filter(|data| data.is_object()).unwrap_or(&answer);
        let entries = |name: &str| answer.get(name).and_then(Value::as_array);
        let count = |name: &str| members::count(answer, name);
        let places = entries("errors").into_iter().flatten();
        let places: Vec<u64> =
            places.filter_map(|error| error.get("index").and_then(Value::as_u64)).collect();
        let failed = count("failed").unwrap_or(0);
        let is_each_named = u64::try_from(places.len()).is_ok_and(|named| named >= failed);
        let accounted = count("accepted").map(|accepted| {
            accepted.saturating_add(count("duplicates").unwrap_or(0)).saturating_add(failed)
        });
        Reply::Taken {
            accounted,
            refused: if is_each_named { Refused::Places(places) } else { Refused::Unnamed(failed) },
            sessions_to_end: entries("killedSessionIds").map_or(0, Vec::len),
            verdicts: Vec::new(),
        }
    }
}

/// What a call called, by one name: of an API its method and its route.
fn called(data: &Value) -> Option<String> {
    let of_api =
        || Some(format!("{} {}", members::text(data, "method")?, members::text(data, "route")?));
    let name = members::text(data, "tool_name").or_else(|| members::text(data, "operation"));
    name.map(str::to_owned).or_else(of_api)
}

/// Who called: an agent or an app.
fn agent(data: &Value) -> Option<&Value> {
    member(data, "agent_id").or_else(|| member(data, "app_id"))
}

/// The name of a tool, cut to what the ingestor takes.
pub fn tool_name(name: &str) -> &str {
    let mut units = 0_usize;
    let end = name.char_indices().find(|(_, letter)| {
        units = units.saturating_add(letter.len_utf16());
        units > TOOL_NAME_UNITS_MAX
    });
    end.and_then(|(at, _)| name.get(..at)).unwrap_or(name)
}

/// The ingestor's name of an outcome; it refuses events with any other.
pub fn execution_status(status: &str) -> &str {
    match status {
        "PAYMENT_REQUIRED" => "BLOCKED",
        "UNKNOWN" => "FAILED",
        known => known,
    }
}

/// What the catalogue's units may read besides, in the collector's order.
fn metadata(data: &Value, tool: Option<&str>) -> String {
    let mut all = Members::default();
    for name in ["event_type", "product_id", "team_id"] {
        all.member(name, member(data, name));
    }
    all.member("agent_id", agent(data));
    all.member("session_id", member(data, "session_id"));
    if let Some(tool) = tool {
        all.text("tool_name", tool);
    }
    if let Some(status) = members::text(data, "execution_status") {
        all.text("execution_status", execution_status(status));
    }
    for name in ["execution_duration_ms", "cost_tier", "billable", "provider", "model"] {
        all.member(name, member(data, name));
    }
    for name in ["service_tier", "completeness"] {
        all.member(name, member(data, name));
    }
    for (name, kinds) in [
        ("input_tokens", &["input"][..]),
        ("output_tokens", &["output"]),
        ("cache_read_tokens", &["cache_read"]),
        ("cache_write_tokens", &["cache_write_5m", "cache_write_1h"]),
        ("reasoning_tokens", &["reasoning"]),
    ] {
        if let Some(sum) = members::tokens(data, kinds) {
            all.raw(name, &sum.to_string());
        }
    }
    all.member("price", member(data, "price"));
    all.member("provider_cost", member(data, "total_provider_cost"));
    all.member("currency", member(data, "currency"));
    all.end()
}

/// An object that is being written, its members in their order.
#[derive(Debug, Default)]
struct Members(String);

impl Members {
    #[inline(never)]
    fn raw(&mut self, name: &str, json: &str) {
        for part in [if self.0.is_empty() { "{\"" } else { ",\"" }, name, "\":", json] {
            self.0.push_str(part);
        }
    }

    #[inline(never)]
    fn text(&mut self, name: &str, text: &str) {
        self.raw(name, &Value::from(text).to_string());
    }

    /// Adds one that there is.
    #[inline(never)]
    fn member(&mut self, name: &str, value: Option<&Value>) {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            self.raw(name, &value.to_string());
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Aforo, execution_status, tool_name};
    use crate::base::time::Timestamp;
    use crate::domain::status::ExecutionStatus;
    use crate::sink::format::{Format, Sends};
    use crate::sink::stored_event::StoredEvent;

    #[test]
    fn what_adds_nothing_and_what_would_add_too_much_is_not_sent() {
        for (event_type, data, expected) in [
            ("tool_invocation", r#"{"billable":true}"#, Sends::Yes),
            ("tool_invocation", r#"{"billable":false}"#, Sends::No),
            ("api_call", r#"{"billable":true}"#, Sends::Yes),
            ("agent_step", r#"{"billable":true}"#, Sends::Yes),
            ("token_consumption", r#"{"quantity":1}"#, Sends::Yes),
            ("token_consumption", r#"{"quantity":0}"#, Sends::Withheld),
            ("token_consumption", r#"{"quantity":1,"supersedes":"0.1.1"}"#, Sends::Withheld),
            ("session_closed", "{}", Sends::No),
            ("guard_totals", "{}", Sends::No),
            ("heartbeat", "{}", Sends::No),
        ] {
            let (event_type, subject, data) = (event_type.into(), "acme".into(), data.into());
            let time = Timestamp::default();
            let event = StoredEvent { sequence: 1, time, event_type, subject, data };
            assert_eq!(Aforo.sends(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn each_outcome_has_a_name_that_the_ingestor_takes() {
        let known = "SUCCESS, PARTIAL, TIMEOUT, ERROR, VALIDATION_FAILED, FAILED, FAILURE, CANCELLED, PENDING, BLOCKED, HITL_REQUIRED";
        for status in ExecutionStatus::ALL {
            let name = execution_status(status.name());
            assert!(known.split(", ").any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn the_name_of_a_tool_is_cut_between_characters() {
        for (letter, kept) in [("a", 64), ("é", 64), ("😀", 32)] {
            for count in [1, kept - 1, kept, kept + 1, 200] {
                let expected = letter.repeat(count.min(kept));
                assert_eq!(tool_name(&letter.repeat(count)), expected, "{count} of {letter}");
            }
        }
    }
}

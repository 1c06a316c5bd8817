//! OpenTelemetry logs: OTLP over HTTP in JSON, a log record for each event.
//!
//! Source: opentelemetry.io/docs/specs/otlp 1.9.0 and opentelemetry-proto: `POST /v1/logs`; 64-bit
//! numbers are text. 200 may have `partialSuccess` with a number of records that were rejected: the
//! client must not send these again, so they are counted and lost to this receiver. OTLP knows no
//! ids, so what is sent again after a cut connection is there twice, with the same
//! `agent_meter.event.id`.
//!
//! Names of attributes are those of the GenAI conventions where they have one; money has none there,
//! and is text under `agent_meter`. The body is the event as it came.

use crate::event::Body;
use crate::handover::json::{Object, quoted};
use crate::handover::sink::{
    BODY_BYTES, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_status, json_headers,
};
use crate::handover::usage::{Property, Usage};

#[derive(Debug)]
pub(crate) struct OtlpLogs;

impl Sink for OtlpLogs {
    fn limits(&self) -> Limits {
        let bytes = 4 * BODY_BYTES;
        Limits { records: 500, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn takes_all(&self) -> bool {
        true
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let nanoseconds = format!("{}000000", usage.event.time_ms);
        let mut attributes = vec![
            string("agent_meter.event.id", &usage.id),
            string("agent_meter.event.source", &usage.event.source),
            string("agent_meter.event.sequence", &usage.event.id),
            string("agent_meter.customer_id", &usage.event.subject),
        ];
        let is_call = matches!(usage.event.body, Body::Call(_));
        for (name, value) in usage.properties() {
            attributes.push(attribute(&named(name, is_call), &value));
        }
        let body = Object::new()
            .text("timeUnixNano", &nanoseconds)
            .text("observedTimeUnixNano", &nanoseconds)
            .raw("severityNumber", "9")
            .text("severityText", "INFO")
            .text("eventName", &usage.event.event_type)
            .raw("body", &Object::new().text("stringValue", usage.event.raw).end())
            .raw("attributes", &format!("[{}]", attributes.join(",")))
            .end();
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame {
            before: "{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\
                     \"value\":{\"stringValue\":\"agent-meter\"}}]},\"scopeLogs\":[{\"scope\":\
                     {\"name\":\"agent-meter\"},\"logRecords\":[",
            between: ",",
            after: "]}]}]}",
        }
    }

    fn path(&self) -> String {
        "/v1/logs".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        json_headers(key)
    }

    fn read(&self, reply: &Reply, _: &[Record]) -> Verdict {
        partial(reply, "rejectedLogRecords")
    }
}

/// Reads a reply of OTLP, which may tell how many were rejected, but not which ones.
pub(super) fn partial(reply: &Reply, member: &str) -> Verdict {
    if !reply.status.is_success() {
        return by_status(reply);
    }
    let partial = &reply.json()["partialSuccess"];
    let rejected = &partial[member];
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
    if rejected > 0 {
        tracing::warn!(rejected, reason = %partial["errorMessage"], "OTLP: partial success");
    }
    Verdict::Taken { unnamed: rejected }
}

/// The name of the conventions for a property.
fn named(property: &str, is_call: bool) -> String {
    let name = match property {
        "tool_name" => "gen_ai.tool.name",
        "provider" => "gen_ai.provider.name",
        "model" => "gen_ai.response.model",
        "input_tokens" => "gen_ai.usage.input_tokens",
        "output_tokens" => "gen_ai.usage.output_tokens",
        "cache_read_tokens" => "gen_ai.usage.cache_read.input_tokens",
        "cache_write_tokens" => "gen_ai.usage.cache_creation.input_tokens",
        "reasoning_tokens" => "gen_ai.usage.reasoning.output_tokens",
        "quantity" if is_call => "agent_meter.calls",
        "quantity" => "agent_meter.tokens",
        other => return format!("agent_meter.{other}"),
    };
    name.to_owned()
}

fn attribute(name: &str, value: &Property) -> String {
    match value {
        Property::Count(count) => {
            let value = Object::new().text("intValue", &count.to_string()).end();
            Object::new().text("key", name).raw("value", &value).end()
        }
        Property::Flag(flag) => {
            let value = Object::new().raw("boolValue", &flag.to_string()).end();
            Object::new().text("key", name).raw("value", &value).end()
        }
        value => string(name, &value.text()),
    }
}

pub(super) fn string(name: &str, value: &str) -> String {
    format!("{{\"key\":{},\"value\":{{\"stringValue\":{}}}}}", quoted(name), quoted(value))
}

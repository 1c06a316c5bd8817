//! OpenTelemetry metrics: OTLP over HTTP in JSON, with calls and tokens as sums of deltas.
//!
//! Source: opentelemetry.io/docs/specs/otlp 1.9.0 and opentelemetry-proto: `POST /v1/metrics`; a
//! reply may have `partialSuccess.rejectedDataPoints`, which are counted. `asInt` is a number and not
//! text, which decoders must take as well: some that are made of Rust's `opentelemetry-proto` lose
//! the text without a word. Money is not told: OTLP has
//! floats for it. An event that takes the place of another lowers what was told, so the sums are not
//! monotonic. OTLP knows no ids: after a cut connection a batch may count twice, so bill by another
//! sink.

use crate::event::Body;
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Frame, Headers, Limits, Record, Reply, Sink, Verdict, json_headers,
};
use crate::handover::sinks::otlp_logs::{partial, string};
use crate::handover::usage::Usage;

#[derive(Debug)]
pub(crate) struct OtlpMetrics;

impl Sink for OtlpMetrics {
    fn limits(&self) -> Limits {
        let bytes = 4 * BODY_BYTES;
        Limits { records: 500, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let (Some(amounts), false) = (&usage.amounts, usage.is_nothing()) else {
            return Ok(Vec::new());
        };
        let mut shared = vec![string("agent_meter.customer_id", &usage.event.subject)];
        let points: Vec<(&str, &str, String, i64)> = match &usage.event.body {
            Body::Call(call) => {
                shared.push(string("agent_meter.product_id", &call.identity.product));
                shared.push(string("gen_ai.tool.name", &call.tool));
                shared.push(string("agent_meter.execution_status", call.status));
                vec![("agent_meter.calls", "{call}", String::new(), amounts.quantity)]
            }
            Body::Generation(generation) => {
                shared.push(string("agent_meter.product_id", &generation.identity.product));
                shared.push(string("gen_ai.provider.name", &generation.provider));
                shared.push(string("gen_ai.response.model", &generation.model));
                let kind = |name: &str| string("agent_meter.token.type", name);
                let counts = amounts.counts().filter(|(_, count)| *count != 0);
                let counts = counts.map(|(name, count)| {
                    let name = name.trim_end_matches("_tokens");
                    ("agent_meter.tokens", "{token}", kind(name), count)
                });
                counts.collect()
            }
            _ => Vec::new(),
        };
        let record = |(name, unit, more, count): (&str, &str, String, i64)| {
            let mut attributes = shared.clone();
            attributes.extend((!more.is_empty()).then_some(more));
            let nanoseconds = format!("{}000000", usage.event.time_ms);
            let point = Object::new()
                .text("startTimeUnixNano", &nanoseconds)
                .text("timeUnixNano", &nanoseconds)
                .raw("asInt", &count.to_string())
                .raw("attributes", &format!("[{}]", attributes.join(",")))
                .end();
            let sum = Object::new()
                .raw("aggregationTemporality", "1")
                .raw("isMonotonic", "false")
                .raw("dataPoints", &format!("[{point}]"))
                .end();
            let body = Object::new().text("name", name).text("unit", unit).raw("sum", &sum).end();
            Record { position: usage.position, id: usage.id.clone(), body }
        };
        Ok(points.into_iter().map(record).collect())
    }

    fn frame(&self) -> Frame {
        Frame {
            before: "{\"resourceMetrics\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\
                     \"value\":{\"stringValue\":\"agent-meter\"}}]},\"scopeMetrics\":[{\"scope\":\
                     {\"name\":\"agent-meter\"},\"metrics\":[",
            between: ",",
            after: "]}]}]}",
        }
    }

    fn path(&self) -> String {
        "/v1/metrics".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        json_headers(key)
    }

    fn read(&self, reply: &Reply, _: &[Record]) -> Verdict {
        partial(reply, "rejectedDataPoints")
    }
}

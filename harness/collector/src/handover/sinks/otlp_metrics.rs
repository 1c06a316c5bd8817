//! OpenTelemetry metrics: OTLP over HTTP in JSON. Calls and tokens are sums of deltas of our own;
//! durations and tokens are histograms of the GenAI and MCP conventions.
//!
//! Source: opentelemetry.io/docs/specs/otlp 1.9.0 and opentelemetry-proto: `POST /v1/metrics`; a
//! reply may have `partialSuccess.rejectedDataPoints`, which are counted. `asInt` is a number and not
//! text, which decoders must take as well: some that are made of Rust's `opentelemetry-proto` lose
//! the text without a word; counts of histograms are text, which these read. Money is not told: OTLP
//! has floats for it. OTLP knows no ids: after a cut connection a batch may count twice, so bill by
//! another sink.
//!
//! An event that takes the place of another lowers what was told, so the sums are not monotonic. The
//! conventions' counters are, so they are not sent. Nobody can take an operation out of a histogram:
//! there an operation is what was told of it first.
//!
//! The names of histograms: those of semantic-conventions-genai 0.1.0, and the two that these took
//! the place of (semantic-conventions 1.41.0), which dashboards still ask for.

use agent_meter_core::sink::otel;
use serde_json::Value;

use crate::event::Body;
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Frame, Headers, Limits, Record, Reply, Sink, Verdict, json_headers,
};
use crate::handover::sinks::otlp_logs::{partial, string};
use crate::handover::usage::Usage;

/// The upper bounds of the buckets of tokens.
const TOKEN_BOUNDS: [u64; 14] = [
    1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    67_108_864,
];
/// The upper bounds of the buckets of a generation's duration, in milliseconds.
const INFERENCE_BOUNDS_MS: [u64; 14] =
    [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920];
/// The upper bounds of the buckets of an MCP operation's duration, in milliseconds.
const MCP_BOUNDS_MS: [u64; 14] =
    [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000];

#[derive(Debug)]
pub(crate) struct OtlpMetrics;

/// What a histogram observes.
#[derive(Debug, Clone, Copy)]
enum Observed {
    Tokens(u64),
    /// In milliseconds; told in seconds.
    Duration(u64, [u64; 14]),
}

impl Sink for OtlpMetrics {
    fn limits(&self) -> Limits {
        let bytes = 4 * BODY_BYTES;
        Limits { records: 500, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if usage.is_nothing() {
            return Ok(Vec::new());
        }
        let data = usage.data();
        let mut metrics = sums(usage);
        if !usage.is_superseded && usage.replaced.is_empty() {
            metrics.extend(histograms(usage, &data));
        }
        let record = |body| Record { position: usage.position, id: usage.id.clone(), body };
        Ok(metrics.into_iter().map(record).collect())
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

/// The sums that an event adds to.
fn sums(usage: &Usage<'_>) -> Vec<String> {
    let Some(amounts) = &usage.amounts else { return Vec::new() };
    let mut shared = vec![string("agent_meter.customer_id", &usage.event.subject)];
    let points: Vec<(&str, &str, String, i64)> = match &usage.event.body {
        Body::Call(call) => {
            shared.push(string("agent_meter.product_id", &call.identity.product));
            shared.push(string(otel::TOOL_NAME, &call.tool));
            shared.push(string("agent_meter.execution_status", call.status));
            vec![("agent_meter.calls", "{call}", String::new(), amounts.quantity)]
        }
        Body::Generation(generation) => {
            shared.push(string("agent_meter.product_id", &generation.identity.product));
            shared.push(string(otel::PROVIDER_NAME, otel::provider_name(&generation.provider)));
            shared.push(string(otel::RESPONSE_MODEL, &generation.model));
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
    let metric = |(name, unit, more, count): (&str, &str, String, i64)| {
        let mut attributes = shared.clone();
        attributes.extend((!more.is_empty()).then_some(more));
        let point = point(usage)
            .raw("asInt", &count.to_string())
            .raw("attributes", &format!("[{}]", attributes.join(",")))
            .end();
        let sum = Object::new()
            .raw("aggregationTemporality", "1")
            .raw("isMonotonic", "false")
            .raw("dataPoints", &format!("[{point}]"))
            .end();
        Object::new().text("name", name).text("unit", unit).raw("sum", &sum).end()
    };
    points.into_iter().map(metric).collect()
}

/// The histograms that observe an event: of an event for several calls, which are refused, none.
fn histograms(usage: &Usage<'_>, data: &Value) -> Vec<String> {
    let kind = usage.kind();
    let count = |name: &str| data.get(name).and_then(Value::as_u64);
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let mut shared = Vec::new();
    if let Some(operation) = otel::operation_name(kind, data) {
        shared.push(string(otel::OPERATION_NAME, operation));
    }
    let error = otel::error_type(kind, data).map(|error| string(otel::ERROR_TYPE, &error));
    if otel::is_mcp(kind, data) && count("quantity") == Some(1) {
        let Some(ms) = count("execution_duration_ms") else { return Vec::new() };
        shared.push(string(otel::MCP_METHOD, "tools/call"));
        shared.push(string(otel::TOOL_NAME, text("tool_name").unwrap_or_default()));
        shared.extend(error);
        let observed = Observed::Duration(ms, MCP_BOUNDS_MS);
        return vec![histogram(usage, "mcp.server.operation.duration", observed, &shared)];
    }
    if kind != "token_consumption" {
        return Vec::new();
    }
    let provider = text("provider").unwrap_or_default();
    shared.push(string(otel::PROVIDER_NAME, otel::provider_name(provider)));
    if let Some(model) = text("model_requested") {
        shared.push(string(otel::REQUEST_MODEL, model));
    }
    if let Some(model) = otel::response_model(data).and_then(Value::as_str) {
        shared.push(string(otel::RESPONSE_MODEL, model));
    }
    let mut all = Vec::new();
    for kind in ["input", "output"] {
        let tokens = data.get("tokens").and_then(|tokens| tokens.get(kind)?.as_u64());
        let Some(tokens) = tokens.map(Observed::Tokens) else { continue };
        let newer = format!("gen_ai.client.inference.operation.{kind}_tokens");
        all.push(histogram(usage, &newer, tokens, &shared));
        let mut with_kind = shared.clone();
        with_kind.push(string(otel::TOKEN_TYPE, kind));
        all.push(histogram(usage, "gen_ai.client.token.usage", tokens, &with_kind));
    }
    // A further run of a response has no duration of its own.
    if let Some(ms) = count("duration_ms").filter(|_| text("purpose").is_none()) {
        shared.extend(error);
        for name in ["gen_ai.client.inference.duration", "gen_ai.client.operation.duration"] {
            let observed = Observed::Duration(ms, INFERENCE_BOUNDS_MS);
            all.push(histogram(usage, name, observed, &shared));
        }
    }
    all
}

/// The beginning of a data point, with the time of the event.
fn point(usage: &Usage<'_>) -> Object {
    let nanoseconds = format!("{}000000", usage.event.time_ms);
    Object::new().text("startTimeUnixNano", &nanoseconds).text("timeUnixNano", &nanoseconds)
}

/// A histogram of one observation.
fn histogram(usage: &Usage<'_>, name: &str, observed: Observed, attributes: &[String]) -> String {
    let (unit, value, bounds) = match observed {
        Observed::Tokens(tokens) => ("{token}", tokens, TOKEN_BOUNDS),
        Observed::Duration(ms, bounds) => ("s", ms, bounds),
    };
    let number = |value: u64| match observed {
        Observed::Tokens(_) => value.to_string(),
        Observed::Duration(..) => seconds(value),
    };
    // A bucket has its upper bound in it.
    let bucket = bounds.iter().filter(|bound| value > **bound).count();
    let counts = (0..=bounds.len()).map(|at| if at == bucket { "\"1\"" } else { "\"0\"" });
    let point = point(usage)
        .text("count", "1")
        .raw("sum", &number(value))
        .raw("bucketCounts", &format!("[{}]", counts.collect::<Vec<_>>().join(",")))
        .raw("explicitBounds", &format!("[{}]", bounds.map(number).join(",")))
        .raw("min", &number(value))
        .raw("max", &number(value))
        .raw("attributes", &format!("[{}]", attributes.join(",")))
        .end();
    let histogram = Object::new()
        .raw("aggregationTemporality", "1")
        .raw("dataPoints", &format!("[{point}]"))
        .end();
    Object::new().text("name", name).text("unit", unit).raw("histogram", &histogram).end()
}

/// Milliseconds in seconds, digit by digit.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

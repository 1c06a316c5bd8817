//! OpenTelemetry logs: OTLP over HTTP in JSON, one log record for each event.
//!
//! Source: opentelemetry.io/docs/specs/otlp 1.9.0 and opentelemetry-proto: `POST /v1/logs`; 64-bit
//! numbers are text. 200 may have `partialSuccess` with a number of records that were rejected: the
//! client must not send these again, so they are counted and lost to this receiver. OTLP knows no
//! ids, so what is sent again after a cut connection is there twice, with the same
//! `agent_meter.event.id`.
//!
//! The filter writes the same records where it has no collector: `agent_meter_core::sink::otel` does
//! it for both. Only an event that takes the place of another has the difference of tokens and money
//! here, while the filter, which no longer has the other, tells the whole.

use agent_meter_core::sink::otel::{LOGS_AFTER, LOGS_BEFORE, Told, log_record};
use serde_json::json;

use crate::handover::sink::{
    BODY_BYTES, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_status, json_headers,
};
use crate::handover::usage::Usage;

#[derive(Debug)]
pub(crate) struct OtlpLogs {
    /// Whether records have the attributes of money.
    pub(crate) with_costs: bool,
}

impl Sink for OtlpLogs {
    fn limits(&self) -> Limits {
        let bytes = 4 * BODY_BYTES;
        Limits { records: 500, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn takes_all(&self) -> bool {
        true
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let event = usage.event;
        let body = log_record(&Told {
            source: &event.source,
            id: &event.id,
            time_ms: event.time_ms.unsigned_abs(),
            event_type: &event.event_type,
            subject: &event.subject,
            data: &usage.data(),
            text: event.raw,
            with_costs: self.with_costs,
        });
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame { before: LOGS_BEFORE, between: ",", after: LOGS_AFTER }
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

pub(super) fn string(name: &str, value: &str) -> String {
    format!("{{\"key\":{},\"value\":{{\"stringValue\":{}}}}}", json!(name), json!(value))
}

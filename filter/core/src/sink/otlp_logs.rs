//! OpenTelemetry logs: OTLP over HTTP in JSON, one record for each event of any type. Its attributes
//! are those of [`otel`](crate::sink::otel), its body is the event in CloudEvents.
//!
//! Source: OTLP 1.9.0. A success may say that records were rejected, by their number alone, and that
//! nobody may send them again. OTLP knows no ids, so what is sent again after a cut connection is
//! there twice, with the same `agent_meter.event.id`.

use crate::sink::cloudevents;
use crate::sink::format::{Format, Limits, Options, joined};
use crate::sink::members;
use crate::sink::otel::{LOGS_AFTER, LOGS_BEFORE, Told, log_record};
use crate::sink::reply::{HttpReply, Refused, Reply};
use crate::sink::stored_event::StoredEvent;

/// The most events of one request: a record takes about three times the bytes of its event.
const EVENTS_MAX: u32 = 1000;
/// The most bytes of events in one request, before they become records.
const EVENT_BYTES_MAX: usize = 512 * 1024;

/// The format of OpenTelemetry logs.
#[derive(Debug)]
pub struct OtlpLogs;

impl Format for OtlpLogs {
    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn limits(&self) -> Limits {
        Limits { events: EVENTS_MAX, bytes: EVENT_BYTES_MAX }
    }

    fn event(&self, options: Options<'_>, source: &str, event: &StoredEvent) -> String {
        // The filter has written the data itself, as JSON.
        let data = members::read(event.data.as_bytes());
        log_record(&Told {
            source,
            id: &event.id(),
            time_ms: event.time.0,
            event_type: &format!("agent-meter.{}", event.event_type),
            subject: &event.subject,
            data: &data,
            text: &cloudevents::event(source, event),
            with_costs: options.cost_attributes,
        })
    }

    fn batch(&self, events: &mut dyn Iterator<Item = String>) -> Vec<u8> {
        joined(LOGS_BEFORE, events, ",", LOGS_AFTER)
    }

    fn reply(&self, reply: &HttpReply<'_>) -> Reply {
        let told = Reply::parse(reply);
        if !matches!(told, Reply::Taken { .. }) {
            return told;
        }
        let answer = members::read(reply.body);
        let rejected = answer.pointer("/partialSuccess/rejectedLogRecords");
        let count =
            rejected.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
        Reply::taken(Refused::unnamed(count.unwrap_or(0)))
    }
}

//! Metronome: a JSON array of usage events.
//!
//! Source: docs.metronome.com/api-reference/usage/ingest-events and the reference of its SDKs
//! (`v1.usage.ingest`, read 2026-11): `POST /v1/ingest`, 1 to 100 events, whose `transaction_id` it
//! knows for 34 days; an event may be as old, and 24 h ahead. Properties are text, because it
//! computes with decimals. A request with a wrong event is refused as a whole.
//!
//! An event that takes the place of another has the difference: sum up, and count no events.

use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{BODY_BYTES, DAY, Frame, Headers, Limits, Record, Sink, json_headers};
use crate::handover::usage::Usage;

#[derive(Debug)]
pub(crate) struct Metronome(pub(crate) Billing);

impl Sink for Metronome {
    fn limits(&self) -> Limits {
        Limits {
            records: 100,
            records_max: 100,
            bytes: BODY_BYTES,
            dedup: Some(34 * DAY),
            oldest: Some(34 * DAY),
        }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.0.takes(usage) {
            return Ok(Vec::new());
        }
        let properties = usage.properties().into_iter();
        let properties =
            properties.fold(Object::new(), |all, (name, value)| all.text(name, &value.text()));
        let body = Object::new()
            .text("transaction_id", &usage.id)
            .text("customer_id", self.0.customer(usage)?)
            .text("event_type", self.0.meter(usage))
            .text("timestamp", &usage.time())
            .raw("properties", &properties.end())
            .end();
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame::ARRAY
    }

    fn path(&self) -> String {
        "/v1/ingest".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        json_headers(key)
    }
}

//! Orb: usage events with an idempotency key.
//!
//! Source: docs.withorb.com/api-reference/event/ingest-events and orbcorp/orb-python
//! (`events.ingest`, `EventIngestResponse`, read 2026-11): `POST /v1/ingest`. Exactly one of
//! `customer_id` and `external_customer_id` names the customer. Times are UTC. It tells no bound of
//! a request; 500 events are what others send. A reply of 4xx lists in `validation_failed` each
//! wrong event by its key; whether it took the others is not told, so they are sent again, which its
//! keys make harmless. It takes an event, and knows its key, within the account's grace period.
//!
//! Amounts are numbers, because it adds up numbers only. An event that takes the place of another
//! has the difference; nothing is amended, so an event never changes in Orb.

use serde_json::Value;

use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Fate, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_fates, by_status,
    json_headers,
};
use crate::handover::usage::{Property, Usage};

#[derive(Debug)]
pub(crate) struct Orb(pub(crate) Billing);

impl Sink for Orb {
    fn limits(&self) -> Limits {
        Limits { records: 100, records_max: 500, bytes: BODY_BYTES, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.0.takes(usage) {
            return Ok(Vec::new());
        }
        let properties = usage.properties().into_iter();
        let properties = properties.fold(Object::new(), |all, (name, value)| match value {
            Property::Text(text) => all.text(name, &text),
            value => all.raw(name, &value.text()),
        });
        let body = Object::new()
            .text("event_name", self.0.meter(usage))
            .text("external_customer_id", self.0.customer(usage)?)
            .text("timestamp", &usage.time())
            .text("idempotency_key", &usage.id)
            .raw("properties", &properties.end())
            .end();
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame::EVENTS
    }

    fn path(&self) -> String {
        "/v1/ingest".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        json_headers(key)
    }

    fn read(&self, reply: &Reply, records: &[Record]) -> Verdict {
        let body = reply.json();
        let failed = body.get("validation_failed").and_then(Value::as_array);
        let failed = failed.map_or(&[][..], Vec::as_slice);
        if failed.is_empty() || reply.status.is_server_error() {
            return by_status(reply);
        }
        let reason = |record: &Record| {
            let is_it = |entry: &&Value| entry["idempotency_key"] == record.id.as_str();
            failed.iter().find(is_it).map(|entry| entry["validation_errors"].to_string())
        };
        let fates: Vec<Fate> = records
            .iter()
            .map(|record| match reason(record) {
                Some(errors) => Fate::Refused(format!("answered {}: {errors}", reply.status)),
                None if reply.status.is_success() => Fate::Taken,
                None => Fate::Again,
            })
            .collect();
        by_fates(reply, fates)
    }
}

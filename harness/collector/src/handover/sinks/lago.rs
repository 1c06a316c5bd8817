//! Lago: up to 100 events for subscriptions.
//!
//! Source: getlago/lago-openapi (`EventInputObject`, read 2026-11) and getlago/lago-api,
//! `Events::CreateBatchService`: `POST /api/v1/events/batch`. A refusal is 422 with
//! `error_details`, which has an entry for each wrong event by its index. Lago has then taken none
//! of the batch: with one event that it knows already, `value_already_exist`, it refuses all others
//! too, so these are sent again without it.
//! An event is known by its `transaction_id` within the subscription, where Lago keeps events in
//! ClickHouse also by its timestamp. It never forgets one.
//!
//! `customers` gives the external id of each customer's subscription. An event that takes the place
//! of another has the difference: use `sum_agg` of `quantity` and the like, not `count_agg`.

use chrono::DateTime;
use serde_json::Value;

use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Fate, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_fates, by_status,
    json_headers,
};
use crate::handover::usage::{Property, Usage};

#[derive(Debug)]
pub(crate) struct Lago(pub(crate) Billing);

impl Sink for Lago {
    fn limits(&self) -> Limits {
        Limits { records: 100, records_max: 100, bytes: BODY_BYTES, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.0.takes(usage) {
            return Ok(Vec::new());
        }
        let properties = usage.properties().into_iter();
        let properties = properties.fold(Object::new(), |all, (name, value)| match value {
            Property::Count(_) => all.raw(name, &value.text()),
            value => all.text(name, &value.text()),
        });
        let body = Object::new()
            .text("transaction_id", &usage.id)
            .text("external_subscription_id", self.0.customer(usage)?)
            .text("code", self.0.meter(usage))
            .text("timestamp", &seconds(usage.event.time_ms))
            .raw("properties", &properties.end())
            .end();
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame::EVENTS
    }

    fn path(&self) -> String {
        "/api/v1/events/batch".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        json_headers(key)
    }

    fn read(&self, reply: &Reply, records: &[Record]) -> Verdict {
        let body = reply.json();
        let details = body.get("error_details").and_then(Value::as_object);
        let (422, Some(details)) = (reply.status.as_u16(), details) else {
            return by_status(reply);
        };
        let fates: Vec<Fate> = (0..records.len())
            .map(|index| match details.get(&index.to_string()) {
                None => Fate::Again,
                Some(errors) if is_known(errors) => Fate::Taken,
                Some(errors) => Fate::Refused(format!("answered {}: {errors}", reply.status)),
            })
            .collect();
        by_fates(reply, fates)
    }
}

/// Whether all that is wrong is that Lago has the event.
fn is_known(errors: &Value) -> bool {
    *errors == serde_json::json!({ "transaction_id": ["value_already_exist"] })
}

/// Seconds since 1970, with milliseconds.
fn seconds(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(String::new, |time| {
        format!("{}.{:03}", time.timestamp(), time.timestamp_subsec_millis())
    })
}

//! Amberflo: an array of meter records.
//!
//! Source: docs.amberflo.io/reference/ingest-meter-records (read 2026-11): `POST /ingest` with the
//! header `x-api-key`. A record is known by its `uniqueId`; for how long is not told, so no retry is
//! given up. It tells no bound of a request; its SDK for TypeScript sends 20 by default.
//!
//! Each meter has one value, so one event is a record for each of its meters. An event that takes
//! the place of another has the difference, which may be negative: use meters that sum up.

use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{BODY_BYTES, Frame, Headers, Limits, Record, Sink};
use crate::handover::usage::{Property, Usage};

#[derive(Debug)]
pub(crate) struct Amberflo(pub(crate) Billing);

impl Sink for Amberflo {
    fn limits(&self) -> Limits {
        Limits { records: 100, records_max: 1000, bytes: BODY_BYTES, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.0.takes(usage) {
            return Ok(Vec::new());
        }
        let dimensions = usage.properties().into_iter().filter_map(|(name, value)| match value {
            Property::Text(text) => Some((name, text)),
            _ => None,
        });
        let dimensions = dimensions.fold(Object::new(), |all, (name, text)| all.text(name, &text));
        let (dimensions, customer) = (dimensions.end(), self.0.customer(usage)?);
        let record = |(meter, what, value): (&str, &str, _)| {
            let id = match what {
                "quantity" => usage.id.clone(),
                what => format!("{}_{what}", usage.id),
            };
            let body = Object::new()
                .text("uniqueId", &id)
                .text("meterApiName", meter)
                .text("customerId", customer)
                .number("meterValue", value)
                .raw("meterTimeInMillis", &usage.event.time_ms.to_string())
                .raw("dimensions", &dimensions)
                .end();
            Record { position: usage.position, id, body }
        };
        Ok(self.0.values(usage).into_iter().map(record).collect())
    }

    fn frame(&self) -> Frame {
        Frame::ARRAY
    }

    fn path(&self) -> String {
        "/ingest".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let media_type = ("content-type", "application/json".to_owned());
        [media_type].into_iter().chain(key.map(|key| ("x-api-key", key.to_owned()))).collect()
    }
}

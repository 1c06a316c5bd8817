//! OpenMeter, and Konnect Metering & Billing, which runs it: a batch of CloudEvents.
//!
//! Source: openmeterio/openmeter 7e57a39 (2026-08-18), `api/spec`, `POST /api/v1/events`; of Konnect
//! `POST /v3/openmeter/events`. The media type must be exactly this. An event is known by `source`
//! and `id`, by default for 32 days. It answers 204, and 400 for the batch as a whole. It tells no
//! bound; its own collector sends 100.
//!
//! Meters add up `$.quantity`, `$.input_tokens`, `$.price` and the like of events whose `type` they
//! name. An event that takes the place of another has the difference, so count with SUM.

use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{BODY_BYTES, DAY, Frame, Headers, Limits, Record, Sink, bearer};
use crate::handover::usage::{Property, Usage};

#[derive(Debug)]
pub(crate) struct OpenMeter {
    pub(crate) billing: Billing,
    /// Where it takes events.
    pub(crate) path: String,
}

impl Sink for OpenMeter {
    fn limits(&self) -> Limits {
        Limits {
            records: 100,
            records_max: 1000,
            bytes: BODY_BYTES,
            dedup: Some(32 * DAY),
            oldest: None,
        }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.billing.takes(usage) {
            return Ok(Vec::new());
        }
        let event = usage.event;
        let data =
            usage.properties().into_iter().fold(Object::new(), |data, (name, value)| match value {
                Property::Count(_) | Property::Flag(_) => data.raw(name, &value.text()),
                value => data.text(name, &value.text()),
            });
        let body = Object::new()
            .text("specversion", "1.0")
            .text("id", &event.id)
            .text("source", &event.source)
            .text("type", self.billing.meter(usage))
            .text("subject", self.billing.customer(usage)?)
            .text("time", &usage.time())
            .text("datacontenttype", "application/json")
            .raw("data", &data.end())
            .end();
        Ok(vec![Record { position: usage.position, id: usage.id.clone(), body }])
    }

    fn frame(&self) -> Frame {
        Frame::ARRAY
    }

    fn path(&self) -> String {
        self.path.clone()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let media_type = ("content-type", "application/cloudevents-batch+json".to_owned());
        [media_type].into_iter().chain(bearer(key)).collect()
    }
}

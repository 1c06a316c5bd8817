//! Stripe's meter event stream of API v2: a token for 15 minutes, then requests with 100 events.
//!
//! Source: docs.stripe.com/api/v2/billing-meter-stream (read 2026-11; version 2024-09-30.acacia):
//! `POST https://api.stripe.com/v2/billing/meter_event_session`, then `POST
//! https://meter-events.stripe.com/v2/billing/meter_event_stream`. A token that has ended is
//! answered 401, `billing_meter_event_session_expired`. Stripe checks events later, and tells of
//! wrong ones by the event `v1.billing.meter.error_report_triggered`, which this program does not
//! hear: so customers without a name in `customers` are set aside here. Identifiers, times and
//! values are as in v1.

use chrono::DateTime;
use serde_json::Value;

use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, DAY, Frame, Headers, Limits, Record, Reply, Sink, Token, Verdict, bearer, by_status,
};
use crate::handover::sinks::stripe::{MeterEvent, VERSION, Values};
use crate::handover::usage::Usage;

#[derive(Debug)]
pub(crate) struct StripeStream {
    pub(crate) values: Values,
    /// The URL that gives tokens.
    pub(crate) session_url: String,
}

/// What follows the host of the URL that gives tokens.
pub(crate) const SESSION_PATH: &str = "/v2/billing/meter_event_session";

impl Sink for StripeStream {
    fn limits(&self) -> Limits {
        Limits {
            records: 100,
            records_max: 100,
            bytes: BODY_BYTES,
            dedup: Some(DAY),
            oldest: Some(35 * DAY),
        }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let record = |event: MeterEvent<'_>| {
            let payload = Object::new()
                .text("stripe_customer_id", event.customer)
                .text("value", &event.value.normalize().to_string());
            let body = Object::new()
                .text("event_name", event.meter)
                .text("identifier", &event.id)
                .text("timestamp", &usage.time())
                .raw("payload", &payload.end())
                .end();
            Record { position: usage.position, id: event.id, body }
        };
        Ok(self.values.of(usage)?.into_iter().map(record).collect())
    }

    fn frame(&self) -> Frame {
        Frame::EVENTS
    }

    fn path(&self) -> String {
        "/v2/billing/meter_event_stream".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let media_type = ("content-type", "application/json".to_owned());
        let version = ("stripe-version", VERSION.to_owned());
        [media_type, version].into_iter().chain(bearer(key)).collect()
    }

    fn read(&self, reply: &Reply, _: &[Record]) -> Verdict {
        if reply.status.as_u16() == 401 {
            return Verdict::Renew(reply.shown());
        }
        by_status(reply)
    }

    fn token_url(&self) -> Option<&str> {
        Some(&self.session_url)
    }

    fn token(&self, body: &[u8]) -> Option<Token> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = body["authentication_token"].as_str()?.to_owned();
        let ends = DateTime::parse_from_rfc3339(body["expires_at"].as_str()?).ok()?;
        Some(Token { text, ends_ms: ends.timestamp_millis() })
    }
}

//! Stripe's meter events of API v1: a form with one event.
//!
//! Source: docs.stripe.com/api/billing/meter-event/create and docs.stripe.com/billing/subscriptions/
//! usage-based/recording-usage-api (read 2026-11; version 2024-09-30.acacia): `POST
//! /v1/billing/meter_events`. `identifier` has at most 100 characters and is known for at least
//! 24 h; the time may be 35 days back and 5 minutes ahead; the value is a whole number, which may be
//! negative. Stripe checks the customer later, and tells of it by the event
//! `v1.billing.meter.error_report_triggered`.
//!
//! There is no `Idempotency-Key`: under it Stripe repeats an answer of 500 for a day, whereas the
//! identifier lets the next try pass. `customers` gives Stripe's id of each customer. For more than
//! some events a second use `stripe_stream`. An event that takes the place of another has the
//! difference.

use rust_decimal::Decimal;

use crate::handover::billing::Billing;
use crate::handover::sink::{
    BODY_BYTES, DAY, Frame, Headers, Limits, Record, Reply, Sink, Verdict, bearer, by_status,
};
use crate::handover::usage::Usage;

/// The version of the API whose form this is.
pub(super) const VERSION: &str = "2024-09-30.acacia";

#[derive(Debug)]
pub(crate) struct Stripe(pub(crate) Values);

/// What Stripe's two formats share: meters whose values are whole numbers.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) billing: Billing,
    /// Digits behind the point of prices that become whole: 6 makes millionths.
    pub(crate) decimals: u32,
}

/// One value for Stripe.
pub(super) struct MeterEvent<'a> {
    pub(super) id: String,
    pub(super) meter: &'a str,
    pub(super) customer: &'a str,
    pub(super) value: Decimal,
}

impl Values {
    /// The values of an event.
    pub(super) fn of<'a>(&'a self, usage: &'a Usage<'_>) -> Result<Vec<MeterEvent<'a>>, String> {
        if !self.billing.takes(usage) {
            return Ok(Vec::new());
        }
        let customer = self.billing.customer(usage)?;
        let value = |(meter, what, value): (&'a str, &str, Decimal)| {
            let (value, id) = match what {
                "price" => (self.whole(value)?, format!("{}_price", usage.id)),
                "quantity" => (value, usage.id.clone()),
                what => (value, format!("{}_{what}", usage.id)),
            };
            Ok(MeterEvent { id, meter, customer, value })
        };
        self.billing.values(usage).into_iter().map(value).collect()
    }

    fn whole(&self, price: Decimal) -> Result<Decimal, String> {
        let scaled = price.checked_mul(Decimal::from(10_u64.pow(self.decimals)));
        let whole = scaled.filter(|scaled| scaled.is_integer());
        whole.ok_or_else(|| format!("the price {price} has more than {} decimals", self.decimals))
    }
}

impl Sink for Stripe {
    fn limits(&self) -> Limits {
        Limits {
            records: 1,
            records_max: 1,
            bytes: BODY_BYTES,
            dedup: Some(DAY),
            oldest: Some(35 * DAY),
        }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let record = |event: MeterEvent<'_>| {
            let body = form(&[
                ("event_name", event.meter),
                ("identifier", &event.id),
                ("timestamp", &usage.event.time_ms.div_euclid(1000).to_string()),
                ("payload[stripe_customer_id]", event.customer),
                ("payload[value]", &event.value.normalize().to_string()),
            ]);
            Record { position: usage.position, id: event.id, body }
        };
        Ok(self.0.of(usage)?.into_iter().map(record).collect())
    }

    fn frame(&self) -> Frame {
        Frame { before: "", between: "", after: "" }
    }

    fn path(&self) -> String {
        "/v1/billing/meter_events".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let media_type = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let version = ("stripe-version", VERSION.to_owned());
        [media_type, version].into_iter().chain(bearer(key)).collect()
    }

    fn read(&self, reply: &Reply, _: &[Record]) -> Verdict {
        let error = &reply.json()["error"];
        let message = error["message"].as_str().unwrap_or_default();
        if reply.status.as_u16() == 400 && message.contains("already exists with identifier") {
            return Verdict::Taken { unnamed: 0 };
        }
        by_status(reply)
    }
}

/// A form, in which all but letters, digits and `-._` is escaped.
fn form(members: &[(&str, &str)]) -> String {
    let escaped = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let members =
        members.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    members.collect::<Vec<_>>().join("&")
}

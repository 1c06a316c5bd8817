//! What the ledger says of the margin scenario: levels, calls and what each of them cost.

use std::collections::BTreeMap;

use agent_meter_collector::{EventsQuery, Ledger, Page};
use anyhow::Context;
use rust_decimal::Decimal;
use serde_json::Value;

/// A scope that crossed a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) level: String,
    pub(super) customer: String,
    /// When it was decided, in milliseconds since 1970.
    pub(super) at_ms: i64,
    /// A share of one.
    pub(super) margin: Decimal,
    /// USD.
    pub(super) cost: Decimal,
    /// USD.
    pub(super) revenue: Decimal,
}

impl Level {
    fn read(event: &Value) -> anyhow::Result<Self> {
        let data = &event["data"];
        Ok(Self {
            level: text(data, "level"),
            customer: text(data, "customer_id"),
            at_ms: millis(event)?,
            margin: money(data, "margin")?,
            cost: money(data, "total_provider_cost")?,
            revenue: money(data, "total_revenue")?,
        })
    }
}

/// All levels so far, the first one first, as `GET /v1/alerts` tells them.
pub(super) fn levels(ledger: &Ledger) -> anyhow::Result<Vec<Level>> {
    let alerts = ledger.alerts(Page::default())?.alerts;
    let levels = alerts.iter().rev().map(|event| Level::read(&serde_json::from_str(event.get())?));
    levels.collect()
}

/// A tool call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) customer: String,
    pub(super) status: String,
    /// Milliseconds since 1970.
    pub(super) started_ms: i64,
    /// What the generations that it caused cost, in USD.
    pub(super) cost: Decimal,
}

/// The ledger, as far as money goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) levels: Vec<Level>,
    pub(super) calls: Vec<Call>,
    pub(super) generations: u64,
    /// What all generations cost, in USD.
    pub(super) cost: Decimal,
}

impl Books {
    /// Reads all events.
    pub(super) fn read(ledger: &Ledger) -> anyhow::Result<Self> {
        let mut events = Vec::new();
        ledger.each_event(EventsQuery::default(), |event| {
            events.push(event);
            Ok(())
        })?;
        Self::of(&events, levels(ledger)?)
    }

    fn of(events: &[Value], levels: Vec<Level>) -> anyhow::Result<Self> {
        let mut books = Self { levels, ..Self::default() };
        // The event of a call may come after those of its generations.
        let mut calls: BTreeMap<(String, String), Call> = BTreeMap::new();
        for event in events {
            let data = &event["data"];
            let id = (text(event, "source"), text(data, "call_id"));
            match data["event_type"].as_str() {
                Some("tool_invocation") => {
                    let call = calls.entry(id).or_default();
                    let duration_ms = data["execution_duration_ms"].as_i64().unwrap_or_default();
                    call.customer = text(data, "customer_id");
                    call.status = text(data, "execution_status");
                    call.started_ms = millis(event)? - duration_ms;
                }
                Some("token_consumption") => {
                    let cost = money(data, "total_provider_cost")?;
                    books.generations += 1;
                    books.cost += cost;
                    if data["call_id"].is_string() {
                        calls.entry(id).or_default().cost += cost;
                    }
                }
                _ => {}
            }
        }
        books.calls = calls.into_values().collect();
        Ok(books)
    }

    /// The calls of a customer.
    pub(super) fn of_customer<'a>(&'a self, customer: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.customer == customer)
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn money(data: &Value, name: &str) -> anyhow::Result<Decimal> {
    let amount = Decimal::from_str_exact(data[name].as_str().unwrap_or_default());
    amount.with_context(|| format!("{name} in {data}"))
}

/// When an event happened, in milliseconds since 1970.
fn millis(event: &Value) -> anyhow::Result<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(event["time"].as_str().unwrap_or_default());
    Ok(time.with_context(|| format!("time in {event}"))?.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_costs_what_its_generations_do_in_whatever_order_they_come() {
        let generation = |call: Option<&str>, cost: &str| {
            let data = json!({
                "event_type": "token_consumption", "call_id": call, "total_provider_cost": cost,
            });
            json!({ "source": "s", "data": data })
        };
        let data = json!({
            "event_type": "tool_invocation", "call_id": "1", "customer_id": "acme",
            "execution_status": "SUCCESS", "execution_duration_ms": 250,
        });
        let call = json!({ "source": "s", "time": "1970-01-01T00:00:01.5Z", "data": data });
        let events = [
            generation(Some("1"), "0.1"),
            call,
            generation(Some("1"), "0.2"),
            generation(None, "1"),
        ];
        let books = Books::of(&events, Vec::new()).expect("readable");
        let expected = Call {
            customer: "acme".to_owned(),
            status: "SUCCESS".to_owned(),
            started_ms: 1250,
            cost: Decimal::new(3, 1),
        };
        assert_eq!(books.of_customer("acme").collect::<Vec<_>>(), [&expected]);
        assert_eq!((books.generations, books.cost), (3, Decimal::new(13, 1)));
        assert!(Books::of(&[generation(None, "dear")], Vec::new()).is_err());
    }
}

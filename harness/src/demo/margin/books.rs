//! Reads the levels, the calls and the cost of each call of the margin scenario from the ledger.

use std::collections::BTreeMap;

use agent_meter_collector::{Body, EventsQuery, Ledger, LevelChange};
use anyhow::Context;
use rust_decimal::Decimal;

/// A scope that crossed a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) level: String,
    pub(super) customer: String,
    /// When the filter decided it, in milliseconds since 1970.
    pub(super) at_ms: i64,
    /// As a share of one.
    pub(super) margin: Decimal,
    /// In USD.
    pub(super) cost: Decimal,
    /// In USD.
    pub(super) revenue: Decimal,
}

impl Level {
    fn of(change: &LevelChange, at_ms: i64) -> anyhow::Result<Self> {
        Ok(Self {
            level: change.level.to_owned(),
            customer: change.scope.customer.clone(),
            at_ms,
            margin: change.margin.context("a level without its margin")?,
            cost: change.provider_cost.context("a level without its cost")?,
            revenue: change.revenue.context("a level without its revenue")?,
        })
    }
}

/// All levels so far, the earliest first.
pub(super) fn levels(ledger: &Ledger) -> anyhow::Result<Vec<Level>> {
    let event_type = Some("agent-meter.margin_level_changed".to_owned());
    let mut levels = Vec::new();
    ledger.each_event(EventsQuery { event_type, ..EventsQuery::default() }, |event| {
        if let Body::LevelChange(change) = &event.body {
            levels.push(Level::of(change, event.time_ms)?);
        }
        Ok(())
    })?;
    Ok(levels)
}

/// A tool call, or refused ones that are alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) customer: String,
    pub(super) status: String,
    /// How many calls; 0 if only generations are known of it.
    pub(super) quantity: u64,
    /// Milliseconds since 1970.
    pub(super) started_ms: i64,
    /// The cost of the generations that it caused, in USD.
    pub(super) cost: Decimal,
}

/// The calls and the money in the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) levels: Vec<Level>,
    pub(super) calls: Vec<Call>,
    pub(super) generations: u64,
    /// The cost of all generations, in USD.
    pub(super) cost: Decimal,
}

/// Calls by source and `call_id`: the event of a call may arrive after those of its generations.
type Calls = BTreeMap<(String, String), Call>;

impl Books {
    /// Reads all events of the ledger.
    pub(super) fn read(ledger: &Ledger) -> anyhow::Result<Self> {
        let (mut books, mut calls) = (Self::default(), Calls::new());
        ledger.each_event(EventsQuery::default(), |event| {
            books.add(&event.source, event.time_ms, &event.body, &mut calls)
        })?;
        books.calls = calls.into_values().collect();
        Ok(books)
    }

    fn add(
        &mut self,
        source: &str,
        time_ms: i64,
        event: &Body,
        calls: &mut Calls,
    ) -> anyhow::Result<()> {
        match event {
            Body::Call(done) => {
                let call = calls.entry((source.to_owned(), done.call_id.clone())).or_default();
                call.customer.clone_from(&done.identity.customer);
                call.status = done.status.to_owned();
                call.quantity = done.quantity.unsigned_abs();
                call.started_ms = time_ms - done.duration_ms;
            }
            Body::Generation(generation) => {
                let cost = generation.rate.cost().context("a generation of unknown cost")?;
                self.generations += 1;
                self.cost += cost;
                if let Some((call_id, _)) = &generation.call {
                    calls.entry((source.to_owned(), call_id.clone())).or_default().cost += cost;
                }
            }
            Body::LevelChange(change) => self.levels.push(Level::of(change, time_ms)?),
            Body::Session(_)
            | Body::GuardTotals(_)
            | Body::Heartbeat(_)
            | Body::Correction(_)
            | Body::Billed(_)
            | Body::TopUp(_)
            | Body::Unknown => {}
        }
        Ok(())
    }

    /// The calls of a customer.
    pub(super) fn of_customer<'a>(&'a self, customer: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.customer == customer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::sample::{call, generation};

    fn books(events: &[Body]) -> anyhow::Result<Books> {
        let (mut books, mut calls) = (Books::default(), Calls::new());
        for event in events {
            books.add("s", 1500, event, &mut calls)?;
        }
        books.calls = calls.into_values().collect();
        Ok(books)
    }

    #[test]
    fn a_call_costs_what_its_generations_do_in_whatever_order_they_come() {
        let tool = Some(("1", "summarise"));
        let events = [
            generation(tool, "gpt-4o", Some("0.1")),
            call("1", 250),
            generation(tool, "gpt-4o", Some("0.2")),
            generation(None, "gpt-4o", Some("1")),
        ];
        let read = books(&events).expect("readable");
        let expected = Call {
            customer: "acme".to_owned(),
            status: "SUCCESS".to_owned(),
            quantity: 1,
            started_ms: 1250,
            cost: Decimal::new(3, 1),
        };
        assert_eq!(read.of_customer("acme").collect::<Vec<_>>(), [&expected]);
        assert_eq!((read.generations, read.cost), (3, Decimal::new(13, 1)));
        assert!(books(&[generation(None, "gpt-4o", None)]).is_err());
    }
}

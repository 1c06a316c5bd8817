//! Reads the ledger's books from the events alone, and checks what must be true of every ledger.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_collector::{EventsQuery, Ledger};
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Calls by agent, tool and status.
pub(crate) type Calls = BTreeMap<(String, String, String), u64>;

/// The events of a ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books {
    /// Sorted by source and sequence.
    pub(crate) events: Vec<Value>,
}

impl Books {
    /// Reads all events, which takes a while.
    pub(crate) async fn read(ledger: &Ledger) -> anyhow::Result<Self> {
        let ledger = ledger.clone();
        tokio::task::spawn_blocking(move || {
            let mut events = Vec::new();
            ledger.each_event(EventsQuery::default(), |event| {
                events.push(serde_json::from_str(event.raw)?);
                Ok(())
            })?;
            events.sort_by_cached_key(|event| (text(event, "/source"), text(event, "/sequence")));
            Ok(Self { events })
        })
        .await?
    }

    /// The data of all events of this type.
    pub(crate) fn of_type<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = &'a Value> {
        let data = self.events.iter().map(|event| &event["data"]);
        data.filter(move |data| data["event_type"] == event_type)
    }

    /// All events of this type.
    pub(crate) fn all<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["data"]["event_type"] == event_type)
    }

    /// The data of all calls.
    pub(crate) fn tool_invocations(&self) -> impl Iterator<Item = &Value> {
        self.of_type("tool_invocation")
    }

    /// The data of all generations.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Value> {
        self.of_type("token_consumption")
    }

    /// The data of all final events.
    pub(crate) fn closed(&self) -> impl Iterator<Item = &Value> {
        self.of_type("session_closed")
    }

    /// The data of the events of one agent, in the order of their sequence.
    pub(crate) fn of_agent(&self, agent: &str) -> Vec<&Value> {
        let data = self.events.iter().map(|event| &event["data"]);
        data.filter(|data| data["agent_id"] == agent).collect()
    }

    /// The types of an agent's events in order, without the `session_` before a state.
    pub(crate) fn story(&self, agent: &str) -> Vec<String> {
        let types = self.of_agent(agent).into_iter().map(|data| text(data, "/event_type"));
        types.map(|name| name.replace("session_", "").replace("tool_invocation", "call")).collect()
    }

    /// The number of calls by agent, tool and status.
    pub(crate) fn calls(&self) -> Calls {
        let mut calls = Calls::new();
        for call in self.tool_invocations() {
            let key = ["/agent_id", "/tool_name", "/execution_status"].map(|at| text(call, at));
            *calls.entry(key.into()).or_default() += quantity(call);
        }
        calls
    }

    /// What customers pay, added up from the calls.
    pub(crate) fn revenue(&self) -> anyhow::Result<Decimal> {
        sum(self.tool_invocations(), "/price")
    }

    /// What customers pay, added up from the final events.
    pub(crate) fn closed_revenue(&self) -> anyhow::Result<Decimal> {
        sum(self.closed(), "/total_revenue")
    }

    /// Checks what must be true of every ledger: no number is missing, no call and no generation
    /// has two events, no session closes twice, and the final events agree with the calls and
    /// generations.
    pub(crate) async fn check(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let mut ids = BTreeSet::new();
        for event in &self.events {
            let kind = text(event, "/data/event_type");
            let id = match kind.as_str() {
                "tool_invocation" => text(event, "/data/call_id"),
                "token_consumption" => text(event, "/data/generation_id"),
                _ => continue,
            };
            ensure!(!id.is_empty(), "a call or generation without an id: {event}");
            let is_new = ids.insert((text(event, "/source"), kind, id));
            ensure!(is_new, "a second event of a call or generation: {event}");
        }
        let mut sessions = BTreeSet::new();
        for closed in self.closed() {
            let is_new = sessions.insert(text(closed, "/session_id"));
            ensure!(is_new, "a session closed twice: {closed}");
        }
        let ledger = ledger.clone();
        tokio::task::spawn_blocking(move || {
            let gaps = ledger.gaps()?;
            ensure!(gaps.missing == 0, "events are missing: {gaps:?}");
            let reconciliation = ledger.reconcile()?;
            let mismatches = &reconciliation.mismatches;
            ensure!(
                mismatches.is_empty(),
                "sessions differ from their calls and generations: {mismatches:?}"
            );
            Ok(())
        })
        .await?
    }
}

/// What the ledger must say of one agent, who has one session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Calls by tool and status.
    pub(crate) calls: BTreeMap<(String, String), u64>,
    pub(crate) revenue: Decimal,
    pub(crate) close_reason: String,
}

impl Account {
    pub(crate) fn add(&mut self, tool: &str, status: &str, calls: u64, price: Decimal) {
        *self.calls.entry((tool.to_owned(), status.to_owned())).or_default() += calls;
        self.revenue += price;
    }

    /// Checks that a final event says what the calls of the session add up to.
    pub(crate) fn check_closed(&self, closed: &Value) -> anyhow::Result<()> {
        let mut by_status = BTreeMap::<&str, u64>::new();
        let mut by_tool = BTreeMap::<String, u64>::new();
        for ((tool, status), calls) in &self.calls {
            *by_status.entry(status).or_default() += calls;
            *by_tool.entry(tool.clone()).or_default() += calls;
        }
        let tools = closed["calls_by_tool"].as_array().cloned().unwrap_or_default();
        let tools: BTreeMap<String, u64> = tools
            .iter()
            .map(|tool| (text(tool, "/tool_name"), tool["calls"].as_u64().unwrap_or_default()))
            .collect();
        let revenue = Decimal::from_str_exact(&text(closed, "/total_revenue"))?;
        let calls: u64 = self.calls.values().sum();
        ensure!(closed["total_tool_calls"] == calls, "{closed}: {calls}");
        ensure!(revenue == self.revenue, "{closed}: {}", self.revenue);
        ensure!(closed["calls_by_status"] == json!(by_status), "{closed}: {by_status:?}");
        ensure!(tools == by_tool, "{closed}: {by_tool:?}");
        Ok(())
    }
}

/// The text at a pointer; empty if there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn sum<'a>(data: impl Iterator<Item = &'a Value>, pointer: &str) -> anyhow::Result<Decimal> {
    data.map(|data| Decimal::from_str_exact(&text(data, pointer)).context(pointer.to_owned())).sum()
}

/// The first differences between the calls that clients made and those in the books.
pub(crate) fn differences(done: &Calls, booked: &Calls) -> Vec<String> {
    let keys: BTreeSet<_> = done.keys().chain(booked.keys()).collect();
    let count = |calls: &Calls, key| calls.get(key).copied().unwrap_or_default();
    let unequal = keys.into_iter().filter(|key| count(done, key) != count(booked, key));
    let lines = unequal.map(|key| {
        format!("{key:?}: {} done, {} in the ledger", count(done, key), count(booked, key))
    });
    lines.take(20).collect()
}

/// How many calls an event stands for: refused ones that are alike are added up.
pub(crate) fn quantity(call: &Value) -> u64 {
    call["quantity"].as_u64().unwrap_or_default()
}

//! Whether what arrived is what was done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_meter_core::counter::Gauge;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::world::World;

/// What the clients know.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Calls that came to an end that the filter has seen.
    done: BTreeSet<String>,
    /// Calls that were in the hands of a VM that died or was stopped.
    maybe: BTreeSet<String>,
}

impl Truth {
    pub(crate) fn done(&mut self, calls: &[String]) {
        self.done.extend(calls.iter().cloned());
    }

    pub(crate) fn maybe(&mut self, calls: &[String]) {
        self.maybe.extend(calls.iter().cloned());
    }
}

/// What a schedule came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) calls: u64,
    pub(crate) sessions: u64,
}

#[derive(Debug, Default)]
struct SessionSeen {
    created: u64,
    closed: Vec<Value>,
    calls: u64,
    billable_calls: u64,
    revenue: Decimal,
    by_status: BTreeMap<String, u64>,
}

fn money(value: &Value) -> Decimal {
    Decimal::from_str_exact(value.as_str().unwrap()).unwrap()
}

/// Checks conservation; `Err` says what does not hold. Every session must be closed by now.
pub(crate) fn check(world: &World, truth: &Truth, has_settled: bool) -> Result<Verdict, String> {
    if let Some(violation) = world.violations.first() {
        return Err(violation.clone());
    }
    let mut events: BTreeMap<(String, String), Value> = BTreeMap::new();
    for store in [&world.ledger, &world.spilled] {
        for (key, text) in store {
            let event: Value = serde_json::from_str(text).unwrap();
            if let Some(other) = events.insert(key.clone(), event.clone())
                && other != event
            {
                return Err(format!("{key:?} is another event in the log than in the ledger"));
            }
        }
    }
    check_sequences(&events)?;
    let mut calls: HashMap<String, u64> = HashMap::new();
    let mut sessions: BTreeMap<String, SessionSeen> = BTreeMap::new();
    for event in events.values() {
        let data = &event["data"];
        let session = sessions.entry(data["session_id"].as_str().unwrap().to_owned()).or_default();
        match data["event_type"].as_str().unwrap() {
            "tool_invocation" => {
                *calls.entry(data["tool_name"].as_str().unwrap().to_owned()).or_default() += 1;
                session.calls += 1;
                session.billable_calls += u64::from(data["billable"].as_bool().unwrap());
                session.revenue += money(&data["price"]);
                let status = data["execution_status"].as_str().unwrap().to_owned();
                *session.by_status.entry(status).or_default() += 1;
            }
            "session_created" => session.created += 1,
            "session_closed" => session.closed.push(data.clone()),
            _ => {}
        }
    }
    for fact in &world.spilled_facts {
        if let Some(tool) = fact["Call"]["tool"].as_str() {
            *calls.entry(tool.to_owned()).or_default() += 1;
        }
    }
    check_calls(&calls, truth)?;
    for (id, session) in &sessions {
        check_session(id, session)?;
    }
    let gauge = |gauge: Gauge| world.gauges.get(&gauge).copied().unwrap_or(0);
    if has_settled && gauge(Gauge::OutboxEvents) != 0 {
        return Err(format!("{} events were left in the outbox", gauge(Gauge::OutboxEvents)));
    }
    let accounted =
        gauge(Gauge::EventsAcked) + gauge(Gauge::EventsSpilled) + gauge(Gauge::OutboxEvents);
    if gauge(Gauge::EventsMade) != accounted {
        return Err(format!("made {}, accounted for {accounted}", gauge(Gauge::EventsMade)));
    }
    Ok(Verdict { calls: calls.len() as u64, sessions: sessions.len() as u64 })
}

fn check_sequences(events: &BTreeMap<(String, String), Value>) -> Result<(), String> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for ((source, id), event) in events {
        let expected = next.entry(source).or_insert(1);
        if event["sequence"] != id.as_str() || id.parse() != Ok(*expected) {
            return Err(format!("{source}: expected event {expected}, found {id}"));
        }
        *expected += 1;
    }
    if next.len() > 1 {
        return Err(format!("one process, but several sources: {:?}", next.keys()));
    }
    Ok(())
}

fn check_calls(calls: &HashMap<String, u64>, truth: &Truth) -> Result<(), String> {
    for (call, times) in calls {
        if *times != 1 {
            return Err(format!("{call} was counted {times} times"));
        }
        if !truth.done.contains(call) && !truth.maybe.contains(call) {
            return Err(format!("{call} was counted, but not done"));
        }
    }
    match truth.done.iter().find(|call| !calls.contains_key(*call)) {
        Some(lost) => Err(format!("{lost} was lost")),
        None => Ok(()),
    }
}

fn check_session(id: &str, session: &SessionSeen) -> Result<(), String> {
    if session.created != 1 || session.closed.len() != 1 {
        let closed = session.closed.len();
        return Err(format!(
            "session {id}: created {} times, closed {closed} times",
            session.created
        ));
    }
    let totals = &session.closed[0];
    let by_status: BTreeMap<String, u64> =
        serde_json::from_value(totals["calls_by_status"].clone()).unwrap();
    let by_tool = totals["calls_by_tool"].as_array().unwrap();
    let tool_calls: u64 = by_tool.iter().map(|tool| tool["calls"].as_u64().unwrap()).sum();
    let tool_revenue: Decimal = by_tool.iter().map(|tool| money(&tool["revenue"])).sum();
    let claimed = (
        totals["total_tool_calls"].as_u64().unwrap(),
        totals["billable_tool_calls"].as_u64().unwrap(),
        money(&totals["total_revenue"]),
        by_status,
    );
    let counted =
        (session.calls, session.billable_calls, session.revenue, session.by_status.clone());
    if claimed != counted {
        return Err(format!("session {id}: final event says {claimed:?}, its calls {counted:?}"));
    }
    if (tool_calls, tool_revenue) != (session.calls, session.revenue) {
        return Err(format!("session {id}: tools add up to {tool_calls} calls, {tool_revenue}"));
    }
    Ok(())
}

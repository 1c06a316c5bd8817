//! Whether what arrived is what was done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use agent_meter_core::host::counter::{Counter, Gauge};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::answers::Answers;
use crate::world::World;

/// What the clients know.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Calls that came to an end that the filter has seen.
    done: BTreeSet<String>,
    /// Calls that were in the hands of a VM that died or was stopped.
    maybe: BTreeSet<String>,
    /// The calls whose trace a generation carries.
    causes: HashMap<String, Vec<String>>,
    pub(crate) answers: Answers,
}

impl Truth {
    pub(crate) fn done(&mut self, calls: &[String]) {
        self.done.extend(calls.iter().cloned());
    }

    pub(crate) fn caused(&mut self, generation: &str, calls: &[String]) {
        self.causes.insert(generation.to_owned(), calls.to_vec());
    }

    /// How many calls were in the hands of a VM that died or was stopped.
    pub(crate) fn maybe_len(&self) -> usize {
        self.maybe.len()
    }

    pub(crate) fn maybe(&mut self, calls: &[String]) {
        self.maybe.extend(calls.iter().cloned());
    }

    /// Checks that each answer counted once.
    pub(crate) fn check_answers(
        &self,
        world: &World,
        events: &Events,
        is_exact: bool,
    ) -> Result<u64, String> {
        self.answers.check(world, events, &self.maybe, is_exact)
    }
}

/// What a schedule came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) calls: u64,
    pub(crate) sessions: u64,
    pub(crate) generations: u64,
    pub(crate) attributed: u64,
}

#[derive(Debug, Default)]
struct SessionSeen {
    generations: u64,
    unpriced: u64,
    tokens: u64,
    token_revenue: Decimal,
    cost: Decimal,
    cost_by_tool: BTreeMap<String, Decimal>,
    created: u64,
    closed: Vec<Value>,
    calls: u64,
    billable_calls: u64,
    revenue: Decimal,
    by_status: BTreeMap<String, u64>,
}

pub(crate) fn money(value: &Value) -> Decimal {
    Decimal::from_str_exact(value.as_str().unwrap()).unwrap()
}

/// Every event that was stored or written to the log, by source and id.
pub(crate) type Events = BTreeMap<(String, String), Value>;

/// Reads them; `Err` if one is there with two contents.
pub(crate) fn events(world: &World) -> Result<Events, String> {
    let mut events = Events::new();
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
    Ok(events)
}

/// Checks conservation; `Err` says what does not hold. Every session must be closed by now.
pub(crate) fn check(
    world: &World,
    truth: &Truth,
    events: &Events,
    has_settled: bool,
) -> Result<Verdict, String> {
    if let Some(violation) = world.violations.first() {
        return Err(violation.clone());
    }
    check_sequences(events)?;
    let mut calls: HashMap<String, u64> = HashMap::new();
    let mut sessions: BTreeMap<String, SessionSeen> = BTreeMap::new();
    let (mut generations, mut attributed) = (0, 0);
    for event in events.values() {
        let data = &event["data"];
        // What guards tell belongs to no session.
        let Some(session_id) = data["session_id"].as_str() else { continue };
        let session = sessions.entry(session_id.to_owned()).or_default();
        match data["event_type"].as_str().unwrap() {
            "tool_invocation" => {
                *calls.entry(data["tool_name"].as_str().unwrap().to_owned()).or_default() += 1;
                session.calls += 1;
                session.billable_calls += u64::from(data["billable"].as_bool().unwrap());
                session.revenue += money(&data["price"]);
                let status = data["execution_status"].as_str().unwrap().to_owned();
                *session.by_status.entry(status).or_default() += 1;
            }
            "token_consumption" => {
                let name = data["model"].as_str().unwrap().to_owned();
                generations += 1;
                session.generations += 1;
                session.unpriced += u64::from(!data["priced"].as_bool().unwrap());
                session.tokens += data["quantity"].as_u64().unwrap();
                session.token_revenue += money(&data["price"]);
                if let Some(tool) = data["tool_name"].as_str() {
                    attributed += 1;
                    let causes = truth.causes.get(&name);
                    if causes.is_some_and(|causes| !causes.iter().any(|call| call == tool)) {
                        return Err(format!("{name} was attributed to {tool}"));
                    }
                }
                if !data["total_provider_cost"].is_null() {
                    let cost = money(&data["total_provider_cost"]);
                    let tool = data["tool_name"].as_str().unwrap_or_default().to_owned();
                    session.cost += cost;
                    *session.cost_by_tool.entry(tool).or_default() += cost;
                }
                // The body that names the model never came, so nothing was generated.
                if name == "__unknown__" {
                    if data["quantity"] != 0 || data["http_status"] != 0 {
                        return Err(format!("a generation without a request has used: {data}"));
                    }
                    continue;
                }
                *calls.entry(name).or_default() += 1;
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
        if let Some(model) = fact["Generation"]["model_requested"].as_str() {
            *calls.entry(model.to_owned()).or_default() += 1;
        }
    }
    check_calls(&calls, truth)?;
    check_counter(world, truth, events)?;
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
    let (calls, sessions) = (calls.len() as u64, sessions.len() as u64);
    Ok(Verdict { calls, sessions, generations, attributed })
}

fn check_sequences(events: &Events) -> Result<(), String> {
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

/// The stats count as many calls as there are events of calls, but for those that a VM which died
/// had in its hands.
fn check_counter(world: &World, truth: &Truth, events: &Events) -> Result<(), String> {
    let is_call = |event: &&Value| event["data"]["event_type"] == "tool_invocation";
    let is_spilled = |fact: &&Value| fact["Call"].is_object() || fact["Open"].is_object();
    let told = events.values().filter(is_call).count()
        + world.spilled_facts.iter().filter(is_spilled).count();
    let counted = world.counters.get(&Counter::Calls).copied().unwrap_or(0);
    if counted.abs_diff(told as u64) > truth.maybe_len() as u64 {
        return Err(format!("the stats count {counted} calls, the events {told}"));
    }
    Ok(())
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
    let counted = (
        session.calls,
        session.billable_calls,
        session.revenue + session.token_revenue,
        session.by_status.clone(),
    );
    if claimed != counted {
        return Err(format!("session {id}: final event says {claimed:?}, its calls {counted:?}"));
    }
    if (tool_calls, tool_revenue) != (session.calls, session.revenue) {
        return Err(format!("session {id}: tools add up to {tool_calls} calls, {tool_revenue}"));
    }
    check_generations(id, totals, session)
}

fn check_generations(id: &str, totals: &Value, session: &SessionSeen) -> Result<(), String> {
    let cost_of = |tool: &Value| {
        (tool["tool_name"].as_str().unwrap().to_owned(), money(&tool["provider_cost"]))
    };
    let unattributed = (String::new(), money(&totals["unattributed_provider_cost"]));
    let by_tool = totals["calls_by_tool"].as_array().unwrap().iter().map(cost_of);
    let by_tool = by_tool.chain([unattributed]).filter(|(_, cost)| !cost.is_zero());
    let by_model = totals["usage_by_model"].as_array().unwrap();
    let model_cost: Decimal = by_model.iter().map(|model| money(&model["provider_cost"])).sum();
    let model_revenue: Decimal = by_model.iter().map(|model| money(&model["revenue"])).sum();
    let number = |name: &str| totals[name].as_u64().unwrap();
    let tokens = &totals["total_tokens"];
    let claimed = (
        number("generations"),
        number("unpriced_generations"),
        tokens["input"].as_u64().unwrap() + tokens["output"].as_u64().unwrap(),
        money(&totals["total_provider_cost"]),
        (model_cost, model_revenue),
        by_tool.collect::<BTreeMap<_, _>>(),
    );
    let cost_by_tool = session.cost_by_tool.iter().filter(|(_, cost)| !cost.is_zero());
    let counted = (
        session.generations,
        session.unpriced,
        session.tokens,
        session.cost,
        (session.cost, session.token_revenue),
        cost_by_tool.map(|(tool, cost)| (tool.clone(), *cost)).collect::<BTreeMap<_, _>>(),
    );
    if claimed != counted {
        return Err(format!("session {id}: final event says {claimed:?}, events {counted:?}"));
    }
    Ok(())
}

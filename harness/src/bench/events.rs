//! Events for the collector to take, as the filter writes them: those of the core's golden session,
//! with numbers, names and times of their own, in the order in which many sessions mix.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::stats::Random;

/// What the core made of one session; a test of the core keeps it as it is.
const GOLDEN: &str = include_str!("../../../filter/core/tests/core/golden/session.json");

/// Sessions of a source that live at once.
const LIVE: u64 = 100;
/// Events of a session: its creation, 12 calls and 6 generations, and its end.
const STEPS: u64 = 20;
/// Customers of a source.
const CUSTOMERS: u64 = 20;

/// The events of the golden session.
#[derive(Debug)]
pub(super) struct Golden {
    created: Value,
    call: Value,
    generation: Value,
    closed: Value,
}

impl Golden {
    pub(super) fn read() -> anyhow::Result<Self> {
        let events: Vec<Value> = serde_json::from_str(GOLDEN)?;
        let [created, call, generation, closed] = <[Value; 4]>::try_from(events)
            .ok()
            .context("the golden session has not four events")?;
        for (event, event_type) in [
            (&created, "session_created"),
            (&call, "tool_invocation"),
            (&generation, "token_consumption"),
            (&closed, "session_closed"),
        ] {
            ensure!(event["data"]["event_type"] == event_type, "expected {event_type}: {event}");
        }
        Ok(Self { created, call, generation, closed })
    }

    /// The event with this number, counted from 1, of a source whose sessions are all under way when
    /// it begins. `time` is RFC 3339.
    pub(super) fn event(&self, source: &str, number: u64, time: &str) -> String {
        let (session, step) = place(number);
        let template = match step {
            0 => &self.created,
            step if step == STEPS - 1 => &self.closed,
            step if step % 3 == 2 => &self.generation,
            _ => &self.call,
        };
        let mut event = template.clone();
        let digits = format!("{number:020}");
        let customer = format!("customer-{}", session % CUSTOMERS);
        event["source"] = json!(source);
        event["id"] = json!(digits);
        event["sequence"] = json!(digits);
        event["time"] = json!(time);
        event["subject"] = json!(customer);
        let data = &mut event["data"];
        data["customer_id"] = json!(customer);
        data["session_id"] = json!(id(source, session));
        data["session_key"] = json!(id("key", session));
        // A generation belongs to the call before it in its session.
        let call = if step % 3 == 2 { number.saturating_sub(LIVE) } else { number };
        for (member, value) in [
            ("call_id", format!("0.1.{call}.0")),
            ("generation_id", format!("0.1.{number}")),
            ("session_started_at", time.to_owned()),
            ("session_ended_at", time.to_owned()),
        ] {
            if let Some(place) = data.get_mut(member) {
                *place = json!(value);
            }
        }
        event.to_string()
    }
}

/// The session of an event, and which of its events it is, both from 0. Each live session has one
/// event in turn; when one ends, another takes its place.
fn place(number: u64) -> (u64, u64) {
    let slot = number % LIVE;
    let turn = number / LIVE + slot;
    (turn / STEPS * LIVE + slot, turn % STEPS)
}

/// 32 hexadecimal digits without an order, as the filter's hashes are.
fn id(source: &str, session: u64) -> String {
    let seed = source.bytes().fold(session, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
    let mut random = Random(seed);
    format!("{:016x}{:016x}", random.next(), random.next())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_meter_collector::Ledger;

    use super::*;

    #[test]
    fn the_collector_takes_each_event_once_and_sessions_are_whole() {
        let golden = Golden::read().expect("the golden session");
        let time = chrono::Utc::now().to_rfc3339();
        let events = 2 * LIVE * STEPS;
        let all: Vec<String> =
            (1..=events).map(|number| golden.event("urn:agent-meter:a:1", number, &time)).collect();
        let ledger = Ledger::open("sqlite::memory:").expect("a ledger");
        let body = format!("[{}]", all.join(","));
        let receipt = ledger.insert_batch(body.as_bytes(), "application/json").expect("taken");
        assert_eq!((receipt.accepted, receipt.rejected), (events, Vec::new()));
        let held = ledger.quarantine("held", agent_meter_collector::Page::default());
        assert!(held.expect("a page").events.is_empty());

        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for event in &all {
            let event: Value = serde_json::from_str(event).expect("JSON");
            let event_type = event["data"]["event_type"].as_str().expect("a type").to_owned();
            *counts.entry(event_type).or_default() += 1;
        }
        let each = [
            ("session_closed", 1),
            ("session_created", 1),
            ("token_consumption", 6),
            ("tool_invocation", 12),
        ];
        let expected = each.map(|(name, count)| (name.to_owned(), count * events / STEPS));
        assert_eq!(counts, BTreeMap::from(expected));
    }

    #[test]
    fn a_session_has_each_of_its_events_once_and_in_order() {
        let mut steps: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for number in 0..10 * LIVE * STEPS {
            let (session, step) = place(number);
            steps.entry(session).or_default().push(step);
        }
        let whole: Vec<u64> = (0..STEPS).collect();
        let cut = steps.values().filter(|steps| **steps != whole).count();
        assert!(cut <= usize::try_from(2 * LIVE).expect("small"), "{cut} of {}", steps.len());
        assert!(steps.values().all(|steps| steps.is_sorted_by(|a, b| a < b)));
    }

    #[test]
    fn ids_have_the_form_of_the_filters() {
        let all: Vec<String> = (0..1000).map(|session| id("a", session)).collect();
        assert!(all.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_ne!(id("b", 1), id("a", 1));
    }
}

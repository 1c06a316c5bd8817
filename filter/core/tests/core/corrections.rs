//! What is told of a generation late, again and in any order: it counts once, and as the truth.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::base::time::Millis;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::wire::http::Headers;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::dice::Dice;
use crate::generations::{JSON, Mesh, Worker, config};
use crate::host::meter;
use crate::support::test;

/// After which the accountant waits for nothing that it has read.
const SETTLED_MS: u64 = 40_000;

const EVENTS: &str = "text/event-stream";

/// What one response tells of a generation.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Tells {
    /// A stream that was cut before it told anything.
    Nothing,
    /// A body that was cut behind its usage.
    Part,
    /// A response that stopped, and may go on.
    Stopped,
    Whole,
}

fn guarded(llm: &Value, period: &str, scope: &str) -> String {
    let mut config: Value = serde_json::from_str(&config(llm)).unwrap();
    config["guards"] = json!([{
        "id": "g", "scope": scope, "period": period, "budget": {"tokens": 1_000_000},
        "fleet": true, "actions": {"level_1": {"threshold": "10%"}},
    }]);
    config["products"][1]["identity"] = json!({"customer": {"trusted_header": "x-customer-id"}});
    config["products"][1]["session"] = json!({"idle_timeout": "1h", "session_timeout": "2h"});
    config.to_string()
}

impl Mesh {
    /// Both workers have served a stream, and leave the lease to the VM on the main thread.
    fn of_workers(config: &str) -> Self {
        let mut mesh = Self::new(config);
        let headers = [(":path".to_owned(), b"/elsewhere".to_vec())];
        let Self { envoy, second, .. } = &mut mesh;
        let _ = second.request_head(&mut envoy.host, 0, Headers(&headers), envoy.now);
        mesh
    }

    /// One response about `id` with 1,000 tokens of input and `output`.
    fn tell(&mut self, worker: Worker, method: &str, id: &str, tells: Tells, output: u64) {
        let path = if method == "GET" {
            format!("/v1/responses/{id}")
        } else {
            "/v1/responses".to_owned()
        };
        let ask = [
            (":method", method),
            (":path", path.as_str()),
            (":authority", "api.openai.com"),
            ("x-customer-id", "acme"),
        ];
        let stream = self.send(worker, &ask, r#"{"model":"gpt-4o"}"#);
        let status = if tells == Tells::Stopped { "incomplete" } else { "completed" };
        let body = format!(
            r#"{{"id":"{id}","object":"response","created_at":1763890100,"model":"gpt-4o","status":"{status}","usage":{{"input_tokens":1000,"output_tokens":{output},"total_tokens":{}}},"output":[]}}"#,
            1000 + output
        );
        let created = format!(
            "data: {{\"type\":\"response.created\",\"response\":{{\"id\":\"{id}\",\"model\":\"gpt-4o\",\"status\":\"in_progress\"}}}}\n\n"
        );
        let (media_type, body, end) = match tells {
            Tells::Nothing => (EVENTS, created, StreamEnd::Aborted),
            Tells::Part => (JSON, body.trim_end_matches("[]}").to_owned(), StreamEnd::Aborted),
            Tells::Stopped | Tells::Whole => (JSON, body, StreamEnd::Complete),
        };
        let head = [(":status", "200"), ("content-type", media_type)];
        self.answer(worker, stream, &head, &body, end);
    }

    fn die(&mut self, config: &str) -> Vec<Value> {
        self.envoy.main = meter(&mut self.envoy.host, config);
        let mut made = Vec::new();
        while !self.envoy.main.is_accountant() {
            made.extend(self.pass(0));
        }
        made
    }

    /// Lets time pass on all VMs, and returns the events, in order.
    fn pass(&mut self, during_ms: u64) -> Vec<Value> {
        if during_ms > 4 * SETTLED_MS {
            // Hours are long: nothing comes in between, so the clock leaps.
            let mut made = self.pass(SETTLED_MS);
            self.envoy.now = self.envoy.now.plus(Millis(during_ms - 2 * SETTLED_MS));
            made.extend(self.pass(SETTLED_MS));
            return made;
        }
        let mut made = Vec::new();
        for _ in 0..=during_ms / 250 {
            made.extend(self.envoy.deliver(0));
            assert!(self.second.tick(&mut self.envoy.host, self.envoy.now).is_empty());
        }
        made
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.envoy.host.counters.get(&counter).copied().unwrap_or(0)
    }
}

/// Leaves out the events that others supersede, in whatever order they are.
fn counting(tokens: &[Value]) -> Vec<&Value> {
    let superseded: BTreeSet<&str> =
        tokens.iter().filter_map(|event| event["supersedes"].as_str()).collect();
    let is_superseded = |event: &&Value| {
        let id = event["generation_id"].as_str().unwrap();
        superseded
            .iter()
            .any(|of| id == *of || id.strip_prefix(of).is_some_and(|rest| rest.starts_with('.')))
    };
    tokens.iter().filter(|event| !is_superseded(event)).collect()
}

fn sums(tokens: &[&Value]) -> (u64, Decimal) {
    let quantity = tokens.iter().map(|event| event["quantity"].as_u64().unwrap()).sum();
    let costs = tokens.iter().filter_map(|event| event["total_provider_cost"].as_str());
    (quantity, costs.map(|cost| cost.parse::<Decimal>().unwrap()).sum())
}

#[test]
fn an_estimate_that_was_billed_gives_way_to_the_truth() {
    for policy in ["estimate", "bill_observed", "waive"] {
        for (first, more) in [
            (Tells::Nothing, Tells::Whole),
            (Tells::Part, Tells::Whole),
            (Tells::Nothing, Tells::Part),
            (Tells::Stopped, Tells::Whole),
        ] {
            let config = guarded(&json!({"incomplete_usage": policy}), "day", "customer");
            let mut mesh = Mesh::of_workers(&config);
            mesh.tell(Worker::First, "POST", "resp_1", first, 20);
            let mut tokens = kinds(&mesh.pass(40_000), "token_consumption");
            assert_eq!(tokens.len(), 1, "{policy} {first:?}");
            assert!(tokens[0].get("supersedes").is_none());
            mesh.die(&config);
            mesh.tell(Worker::Second, "GET", "resp_1", more, 5000);
            mesh.tell(Worker::First, "GET", "resp_1", more, 5000);
            let later = mesh.pass(4000);
            tokens.extend(kinds(&later, "token_consumption"));
            let shown = format!("{policy} {first:?} {more:?}: {tokens:?}");
            assert_eq!(tokens.len(), 2, "{shown}");
            assert_eq!(tokens[1]["supersedes"], tokens[0]["generation_id"], "{shown}");
            assert_eq!(tokens[1]["session_id"], tokens[0]["session_id"], "{shown}");
            assert_eq!(tokens[1]["quantity"], 6000, "{shown}");
            assert_eq!(tokens[1]["estimated"], false, "{shown}");
            assert_eq!(tokens[1]["total_provider_cost"], "0.0525", "{shown}");
            let totals = kinds(&later, "guard_totals");
            assert_eq!(totals.last().unwrap()["tokens"], 6000, "{shown}");
            assert_eq!(mesh.counted(Counter::GenerationsCorrected), 1, "{shown}");
            assert_eq!(mesh.counted(Counter::GenerationsToldAgain), 1, "{shown}");
            let closed = kinds(&mesh.pass(8_000_000), "session_closed");
            assert_eq!(closed[0]["generations"], 1, "{shown}");
            assert_eq!(closed[0]["total_tokens"]["output"], 5000, "{shown}");
            assert_eq!(closed[0]["total_provider_cost"], "0.0525", "{shown}");
            assert_eq!(closed[0]["unpriced_generations"], 0, "{shown}");
            assert_eq!(closed[0]["usage_by_model"].as_array().unwrap().len(), 1, "{shown}");
        }
    }
}

#[test]
fn a_truth_that_differs_from_nothing_makes_no_event() {
    let config = guarded(&json!({}), "day", "customer");
    let mut mesh = Mesh::of_workers(&config);
    mesh.tell(Worker::First, "POST", "resp_1", Tells::Stopped, 20);
    mesh.tell(Worker::First, "GET", "resp_1", Tells::Whole, 20);
    let tokens = kinds(&mesh.pass(4000), "token_consumption");
    assert_eq!(tokens.len(), 1);
    assert_eq!(mesh.counted(Counter::GenerationsToldAgain), 1);
}

#[test]
fn a_session_that_is_closed_keeps_its_totals_and_its_generations_tell_the_truth() {
    for scope in ["customer", "session"] {
        let period = if scope == "session" { "session" } else { "day" };
        let mut config: Value = serde_json::from_str(&guarded(&json!({}), period, scope)).unwrap();
        if scope == "session" {
            config["guards"][0].as_object_mut().unwrap().remove("fleet");
        }
        let config = config.to_string();
        let mut mesh = Mesh::of_workers(&config);
        mesh.tell(Worker::First, "POST", "resp_1", Tells::Nothing, 20);
        let mut events = mesh.pass(8_000_000);
        assert_eq!(kinds(&events, "session_closed").len(), 1);
        mesh.tell(Worker::First, "GET", "resp_1", Tells::Whole, 5000);
        let later = mesh.pass(8_000_000);
        assert_eq!(kinds(&later, "session_created").len(), 0, "{scope}");
        events.extend(later);
        let tokens = kinds(&events, "token_consumption");
        assert_eq!(tokens.len(), 2, "{scope}");
        assert_eq!(tokens[1]["session_id"], tokens[0]["session_id"], "{scope}");
        assert_eq!(sums(&counting(&tokens)).0, 6000, "{scope}");
    }
}

#[test]
fn a_period_that_is_over_gives_nothing_back_and_a_surplus_counts_in_the_next() {
    // What was billed in one hour, and what is told in the next: what counts there.
    for (before, after, counts) in [(20, 5000, 4980), (5000, 20, 0)] {
        let config = guarded(&json!({}), "hour", "customer");
        let mut mesh = Mesh::of_workers(&config);
        mesh.tell(Worker::First, "POST", "resp_1", Tells::Part, before);
        mesh.pass(3_600_000);
        mesh.tell(Worker::First, "GET", "resp_1", Tells::Whole, after);
        let totals = kinds(&mesh.pass(4000), "guard_totals");
        assert_eq!(totals.last().unwrap()["tokens"], counts, "{before} {after}");
    }
}

#[test]
fn who_leaves_many_streams_loses_its_own_corrections() {
    let mut mesh = Mesh::of_workers(&guarded(&json!({}), "day", "customer"));
    let ask = |mesh: &mut Mesh, customer: &str, number: u32, tells| {
        let method = if tells == Tells::Whole { "GET" } else { "POST" };
        let id = format!("resp_{customer}_{number}");
        let path = format!(
            "/v1/responses{}",
            if method == "GET" { format!("/{id}") } else { String::new() }
        );
        let head = [
            (":method", method),
            (":path", path.as_str()),
            (":authority", "api.openai.com"),
            ("x-customer-id", customer),
        ];
        let stream = mesh.send(Worker::First, &head, r#"{"model":"gpt-4o"}"#);
        let body = format!(
            r#"{{"id":"{id}","status":"completed","model":"gpt-4o","usage":{{"input_tokens":7,"output_tokens":3}},"output":[]}}"#
        );
        let body = if tells == Tells::Whole { body.as_str() } else { body.trim_end_matches('}') };
        let end = if tells == Tells::Whole { StreamEnd::Complete } else { StreamEnd::Aborted };
        mesh.answer(
            Worker::First,
            stream,
            &[(":status", "200"), ("content-type", JSON)],
            body,
            end,
        );
    };
    ask(&mut mesh, "acme", 0, Tells::Part);
    for number in 0..1100 {
        ask(&mut mesh, "mallory", number, Tells::Part);
        if number % 100 == 0 {
            mesh.pass(1000);
        }
    }
    mesh.pass(2000);
    assert_eq!(mesh.counted(Counter::CorrectionsForgotten), 77);
    ask(&mut mesh, "acme", 0, Tells::Whole);
    ask(&mut mesh, "mallory", 0, Tells::Whole);
    ask(&mut mesh, "mallory", 1099, Tells::Whole);
    let tokens = kinds(&mesh.pass(2000), "token_consumption");
    let payers: Vec<_> =
        tokens.iter().map(|event| event["customer_id"].as_str().unwrap()).collect();
    assert_eq!(payers, ["acme", "mallory"]);
    assert_eq!(mesh.counted(Counter::GenerationsToldAgain), 1);
}

#[test]
fn the_truth_counts_once_in_every_order_of_what_is_told() {
    for seed in 0..30 {
        let mut dice = Dice(seed);
        let policy = ["estimate", "bill_observed", "waive"][dice.below(3) as usize];
        let config = guarded(&json!({"incomplete_usage": policy}), "month", "customer");
        let mut mesh = Mesh::of_workers(&config);
        let mut events = Vec::new();
        // How far each generation was told, and its output.
        let mut told: BTreeMap<String, (Tells, u64)> = BTreeMap::new();
        for step in 0..30 {
            let number = dice.below(4);
            let id = format!("resp_{number}");
            let worker = if dice.below(2) == 0 { Worker::First } else { Worker::Second };
            let tells = match dice.below(10) {
                0 => Some(Tells::Whole),
                1 => Some(Tells::Stopped),
                2 => Some(Tells::Part),
                3..=4 => Some(Tells::Nothing),
                _ => None,
            };
            // A provider knows more of a generation the further it has come.
            let output = |tells| match tells {
                Tells::Nothing => 0,
                Tells::Part | Tells::Stopped => 100 + number,
                Tells::Whole => 5000 + number,
            };
            if let Some(tells) = tells {
                let method = if told.contains_key(&id) || step % 3 == 0 { "GET" } else { "POST" };
                // A poll that tells nothing is none.
                if method == "POST" || tells != Tells::Nothing {
                    mesh.tell(worker, method, &id, tells, output(tells));
                    let entry = told.entry(id).or_insert((tells, output(tells)));
                    if tells > entry.0 {
                        *entry = (tells, output(tells));
                    }
                }
            }
            match dice.below(8) {
                0 => events.extend(mesh.die(&config)),
                1 => events.extend(mesh.pass(31_000)),
                2 => events.extend(mesh.pass(7_300_000)),
                3..=5 => events.extend(mesh.pass(1000)),
                _ => {}
            }
        }
        events.extend(mesh.pass(40_000));
        // After a death the collector may get an event again, and keeps one.
        let events: BTreeMap<String, Value> = events
            .into_iter()
            .map(|event| (event["id"].as_str().unwrap().to_owned(), event))
            .collect();
        let events: Vec<Value> = events.into_values().collect();
        let tokens = kinds(&events, "token_consumption");
        let shown = format!("seed {seed} {policy}: {told:?} {tokens:#?}");
        let ids: BTreeSet<_> = tokens.iter().map(|event| event["generation_id"].as_str()).collect();
        assert_eq!(ids.len(), tokens.len(), "{shown}");
        let counting = counting(&tokens);
        assert_eq!(counting.len(), told.len(), "{shown}");
        let of_known = told.values().filter(|(tells, _)| *tells != Tells::Nothing);
        let expected: u64 = of_known.map(|(_, output)| 1000 + output).sum();
        let known: Vec<&Value> = counting
            .iter()
            .copied()
            .filter(|event| event["estimated"] == false && event["quantity"] != 0)
            .collect();
        assert_eq!(sums(&known).0, expected, "{shown}");
        // Every session told when it closed what its generations told until then.
        for closed in events.iter().filter(|event| event["data"]["event_type"] == "session_closed")
        {
            let data = &closed["data"];
            let until: Vec<Value> = events
                .iter()
                .filter(|event| {
                    event["id"].as_str() < closed["id"].as_str()
                        && event["data"]["session_id"] == data["session_id"]
                })
                .cloned()
                .collect();
            let until = kinds(&until, "token_consumption");
            let until = self::counting(&until);
            let total = data["total_tokens"]["input"].as_u64().unwrap()
                + data["total_tokens"]["output"].as_u64().unwrap();
            let cost: Decimal = data["total_provider_cost"].as_str().unwrap().parse().unwrap();
            assert_eq!((total, cost), sums(&until), "{shown}");
            assert_eq!(data["generations"], until.len(), "{shown}");
        }
        // The period is a month: the guard counts what the ledger does.
        let totals = kinds(&events, "guard_totals");
        assert_eq!(totals.last().unwrap()["tokens"], sums(&counting).0, "{shown}");
        assert_eq!(mesh.counted(Counter::SlotsUnreadable), 0, "{shown}");
    }
}

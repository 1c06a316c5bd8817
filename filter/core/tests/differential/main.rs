//! The filter against servers that read requests in ways of their own: whatever such a server runs
//! is counted at no less than its price, or was refused; and what every server reads alike is never
//! refused, and counted once.
//!
//! `DIFFERENTIAL_MUTATIONS=n` makes that many requests, from seed `DIFFERENTIAL_FIRST` on; the
//! ignored test makes a million. Each request has a seed of its own.

#![cfg(not(target_arch = "wasm32"))]
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "it is told how many requests to make, makes them on all cores, and prints what they were"
)]

#[path = "../dice.rs"]
mod dice;
#[path = "../core/host.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod host;
mod models;
mod mutate;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::host::Envoy;
use crate::models::{Reading, readings};
use crate::mutate::{Request, TOOLS, request};

/// Seeds that once found a gap.
const SEEDS_THAT_FAILED: &[u64] = &[1_031_844, 1_410_683, 1_544_422];
/// The seeds that share an Envoy, whose events are read together.
const SEEDS_TOGETHER: u64 = 64;

/// How the plugin is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Nothing acts on requests.
    Meter,
    /// A plan lists one of the tools.
    Plan,
}

fn config(rule: Rule) -> String {
    let mut config = json!({
        "emitter": "edge-1",
        "products": [{
            "id": "crm", "type": "MCP_SERVER", "call_timeout": "1s", "match": { "path": "/mcp" },
            "identity": { "customer": { "trusted_header": "x-customer-id" } },
            "pricing": {
                "default": { "price": "0.001" },
                "tools": [
                    { "tool": "lookup_*", "price": "0.002" },
                    { "tool": "analyze_*", "price": "0.10" },
                ],
            },
        }],
    });
    if rule == Rule::Plan {
        config["contracts"] =
            json!({ "plans": { "some": { "tools": ["lookup_*"] } }, "default_plan": "some" });
    }
    config.to_string()
}

/// What was done and seen.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    requests: u64,
    /// Requests for which some server runs a tool.
    calls: u64,
    /// Ways to read them.
    readings: u64,
    certain: u64,
    refused: u64,
    inferred: u64,
}

/// One request to one server.
struct Sent {
    seed: u64,
    customer: String,
    request: Request,
    reading: Reading,
    is_refused: bool,
}

/// The answer of a server that read the request so: a result of a tool for each call, and for the
/// other messages an error.
fn answer(reading: &Reading) -> String {
    let answers: Vec<String> = reading
        .messages
        .iter()
        .map(|(id, tool)| match tool {
            Some(_) => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[],"isError":false}}}}"#
            ),
            None => {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"message":""}}}}"#)
            }
        })
        .collect();
    if reading.is_batch { format!("[{}]", answers.join(",")) } else { answers.concat() }
}

/// Whether the request was refused.
fn send(envoy: &mut Envoy, stream: u32, customer: &str, request: &Request, answer: &str) -> bool {
    let mut head = vec![
        (":method".to_owned(), request.method.as_bytes().to_vec()),
        (":path".to_owned(), b"/mcp".to_vec()),
        ("x-customer-id".to_owned(), customer.as_bytes().to_vec()),
        ("mcp-session-id".to_owned(), b"s".to_vec()),
    ];
    let told = request.headers.iter().filter(|(_, value)| !value.is_empty());
    head.extend(told.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())));
    let Envoy { host, worker, now, .. } = envoy;
    match worker.request_head(host, stream, Headers(&head), *now) {
        HeadAction::Follow(_) => {}
        HeadAction::Answer(_) => return true,
        other => panic!("{other:?}"),
    }
    let size = request.body.len().div_ceil(request.pieces).max(1);
    let mut chunks = request.body.chunks(size).peekable();
    while let Some(chunk) = chunks.next() {
        let is_end = chunks.peek().is_none();
        if let BodyAction::Answer(_) = worker.request_body(host, stream, chunk, is_end, *now) {
            return true;
        }
    }
    let head = [
        (":status".to_owned(), b"200".to_vec()),
        ("content-type".to_owned(), b"application/json".to_vec()),
    ];
    let _ = worker.response_head(stream, Headers(&head));
    worker.response_body(host, stream, answer.as_bytes(), true, *now);
    worker.stream_end(host, stream, StreamEnd::Complete, *now);
    false
}

fn price(tool: &str) -> Decimal {
    let price = TOOLS.iter().find(|(name, _)| *name == tool).unwrap().1;
    price.parse().unwrap()
}

/// Sends the requests of some seeds, and checks what is counted.
fn run(first: u64, count: u64, rule: Rule) -> Result<Report, (u64, String)> {
    let mut report = Report::default();
    let mut envoy = Envoy::new(&config(rule));
    let mut all = Vec::new();
    let mut stream = 1;
    for seed in first..first + count {
        let request = request(&mut Dice(seed));
        let found = readings(&request);
        report.requests += 1;
        report.calls += u64::from(!found.is_empty());
        report.certain += u64::from(request.certain.is_some());
        if let Some(tools) = &request.certain
            && (found.len() != 1 || found.iter().any(|reading| reading.tools() != *tools))
        {
            return Err((seed, format!("a certain request has other readings: {found:?}")));
        }
        for reading in found {
            report.readings += 1;
            let customer = format!("c{stream}");
            envoy.now.0 += 1000;
            let answer = answer(&reading);
            let is_refused = send(&mut envoy, stream, &customer, &request, &answer);
            report.refused += u64::from(is_refused);
            all.push(Sent { seed, customer, request: request.clone(), reading, is_refused });
            stream += 1;
        }
    }
    let events = envoy.deliver(3000);
    let calls: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "agent-meter.tool_invocation").collect();
    let counted = envoy.host.counters.get(&Counter::Calls).copied().unwrap_or_default();
    let mut by_customer: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for call in &calls {
        let data = &call["data"];
        by_customer.entry(data["customer_id"].as_str().unwrap()).or_default().push(data);
        report.inferred += u64::from(data["certainty"] == "inferred");
    }
    for sent in &all {
        let calls = by_customer.get(sent.customer.as_str()).map_or(&[][..], Vec::as_slice);
        if let Err(why) = check(sent, calls, rule) {
            let Sent { request, reading, .. } = sent;
            let body = request.body.escape_ascii();
            let Request { method, headers, pieces, .. } = request;
            let told: Vec<String> = calls
                .iter()
                .map(|c| format!("{} {} {}", c["tool_name"], c["price"], c["execution_status"]))
                .collect();
            let told = format!(
                "{why}\n{rule:?}: {method} {headers:?} in {pieces} pieces\n{body}\n{reading:?}\n{told:?}"
            );
            return Err((sent.seed, told));
        }
    }
    // Refused calls of one customer may be one event with their number.
    let told: u64 = calls.iter().map(|call| call["data"]["quantity"].as_u64().unwrap()).sum();
    if counted != told {
        return Err((
            first,
            format!("{rule:?}: the counter has {counted} calls, the events {told}"),
        ));
    }
    Ok(report)
}

fn check(sent: &Sent, calls: &[&Value], rule: Rule) -> Result<(), String> {
    let mut tools = sent.reading.tools();
    let is_allowed = rule == Rule::Meter || tools.iter().all(|tool| tool.starts_with("lookup_"));
    if sent.is_refused {
        return match (&sent.request.certain, is_allowed) {
            (Some(_), true) => Err("a certain request was refused".to_owned()),
            _ => Ok(()),
        };
    }
    if !is_allowed {
        return Err("a tool ran that the plan does not list".to_owned());
    }
    let mut paid: Vec<Decimal> = calls
        .iter()
        .filter(|call| call["execution_status"] == "SUCCESS")
        .map(|call| call["price"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut owed: Vec<Decimal> = tools.iter().map(|tool| price(tool)).collect();
    paid.sort_unstable_by(|a, b| b.cmp(a));
    owed.sort_unstable_by(|a, b| b.cmp(a));
    let is_covered =
        paid.len() >= owed.len() && owed.iter().zip(&paid).all(|(owed, paid)| paid >= owed);
    if !is_covered {
        return Err(format!("it ran for {owed:?}, and was counted for {paid:?}"));
    }
    if sent.request.certain.is_some() {
        let mut counted: Vec<&str> =
            calls.iter().map(|call| call["tool_name"].as_str().unwrap()).collect();
        tools.sort_unstable();
        counted.sort_unstable();
        if counted != tools || owed != paid || calls.iter().any(|c| !c["certainty"].is_null()) {
            return Err("a certain request was counted otherwise".to_owned());
        }
    }
    Ok(())
}

/// Makes requests on all cores; panics at the first that is a gap.
fn run_many(first: u64, count: u64) -> Report {
    let next = AtomicU64::new(first);
    let end = first + count;
    let outcome: Mutex<(Report, Option<(u64, String)>)> = Mutex::default();
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(SEEDS_TOGETHER, Ordering::Relaxed);
                    if seed >= end || outcome.lock().unwrap().1.is_some() {
                        return;
                    }
                    let count = SEEDS_TOGETHER.min(end - seed);
                    for rule in [Rule::Meter, Rule::Plan] {
                        let result = run(seed, count, rule);
                        let (total, failure) = &mut *outcome.lock().unwrap();
                        match result {
                            Ok(report) => total.add(report),
                            Err(found) => drop(failure.get_or_insert(found)),
                        }
                    }
                }
            });
        }
    });
    let (report, failure) = outcome.into_inner().unwrap();
    if let Some((seed, why)) = failure {
        panic!("DIFFERENTIAL_FIRST={seed} DIFFERENTIAL_MUTATIONS=1: {why}");
    }
    println!("{report:?}");
    report
}

impl Report {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.calls += other.calls;
        self.readings += other.readings;
        self.certain += other.certain;
        self.refused += other.refused;
        self.inferred += other.inferred;
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_any_server_runs_is_counted_or_refused() {
    for &seed in SEEDS_THAT_FAILED {
        run_many(seed, 1);
    }
    let first = setting("DIFFERENTIAL_FIRST").unwrap_or(0);
    let count = setting("DIFFERENTIAL_MUTATIONS").unwrap_or(100_000);
    let report = run_many(first, count);
    // Mutations that no server runs prove nothing.
    let happened = [report.calls, report.certain, report.refused, report.inferred];
    let is_proof = happened.iter().all(|times| *times > count / 20);
    assert!(count < 10_000 || is_proof, "{report:?}");
}

#[test]
#[ignore = "takes minutes: make differential"]
fn a_million_requests() {
    run_many(1_000_000, 1_000_000);
}

//! Tests that several collectors share a ledger: each is killed again and again while it takes
//! events, and what was sent is in the ledger once. With `LEDGER_SERVER` the ledger is in PostgreSQL,
//! else it is a file.

#[path = "../collector/tests/ledgers/mod.rs"]
mod ledgers;
mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_meter_collector::{EventsQuery, Ledger, UsageQuery};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use support::Files;

const BATCH: &str = "application/cloudevents-batch+json";
const COLLECTORS: usize = 2;
const SOURCES: u64 = 4;
const BATCHES: u64 = 30;
const EVENTS: u64 = 40;
/// How long a sender tries; no test takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers that depend on nothing but the seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A collector that runs as a program of its own.
struct Process {
    child: Child,
    events: String,
}

impl Process {
    fn start(ledger: &str) -> Process {
        let words = ["collect", "--listen", "127.0.0.1:0", "--ledger", ledger];
        let mut command = support::command(&words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("a collector");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let ready: Value =
            serde_json::from_str(line.strip_prefix("ready ").expect("ready")).expect("JSON");
        let events = format!("http://{}/v1/events", ready["collector"].as_str().expect("text"));
        Process { child, events }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A generation or a call; every eighth generation supersedes the one before it.
fn event(source: u64, sequence: u64) -> Value {
    let id = format!("{sequence:020}");
    let time = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let mut data = json!({
        "product_id": "tools", "product_type": "MCP_SERVER", "customer_id": format!("c{source}"),
        "team_id": "blue", "agent_id": "agent-1", "session_id": format!("{source:032}"),
        "session_key": format!("{source:032}"), "currency": "USD", "price": "0.001",
    });
    let more = if sequence.is_multiple_of(2) {
        json!({
            "event_type": "tool_invocation", "metric_id": "tool_invocations", "quantity": 1,
            "call_id": format!("call-{sequence}"), "tool_name": "search",
            "execution_status": "SUCCESS", "execution_duration_ms": 12, "http_status": 200,
            "transport": "json", "cost_tier": "standard", "billable": true,
        })
    } else {
        json!({
            "event_type": "token_consumption", "metric_id": "ai_tokens", "quantity": 12,
            "generation_id": format!("generation-{sequence}"), "attribution": "none",
            "provider": "openai", "model": "small", "service_tier": "standard",
            "usage_source": "body", "completeness": "COMPLETE", "estimated": false,
            "tokens": {"input": 10, "output": 2}, "cost_lines": [], "priced": false, "total_provider_cost": null,
            "unpriced_reason": "no_rate", "http_status": 200, "duration_ms": 9, "streamed": false,
        })
    };
    data.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    if sequence % 16 == 1 && sequence > 1 {
        data["supersedes"] = json!(format!("generation-{}", sequence - 2));
    }
    json!({
        "specversion": "1.0", "id": id, "sequence": id,
        "source": format!("urn:agent-meter:edge-{source}:0001"),
        "type": format!("agent-meter.{}", data["event_type"].as_str().expect("text")),
        "time": time, "subject": format!("c{source}"), "datacontenttype": "application/json",
        "data": data,
    })
}

/// Posts the batches of a source one after another, each until somebody has taken it, and some of
/// them twice.
async fn send(source: u64, seed: u64, addresses: Arc<Mutex<Vec<String>>>) {
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("client");
    let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(source));
    for batch in 0..BATCHES {
        let numbers = batch * EVENTS + 1..=(batch + 1) * EVENTS;
        let events: Vec<Value> = numbers.map(|number| event(source, number)).collect();
        let body = serde_json::to_vec(&events).expect("JSON");
        let (mut left, end) = (1 + dice.below(8) / 7, Instant::now() + PATIENCE);
        while left > 0 {
            assert!(Instant::now() < end, "seed {seed}: nobody takes batch {batch} of {source}");
            let place = usize::try_from(dice.below(2)).expect("small");
            let url = addresses.lock().await[place].clone();
            let answer =
                client.post(&url).header("content-type", BATCH).body(body.clone()).send().await;
            match answer {
                Ok(answer) if answer.status() == 200 => {
                    let Ok(receipt) = answer.json::<Value>().await else { continue };
                    assert_eq!(receipt["rejected"], json!([]), "seed {seed}: {receipt}");
                    left -= 1;
                }
                Ok(answer) => {
                    let (status, text) = (answer.status(), answer.text().await);
                    assert!(status.is_server_error(), "seed {seed}: {status} {text:?}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

async fn play(seed: u64) {
    let files = Files::new();
    let ledger = match std::env::var_os("LEDGER_SERVER") {
        Some(_) => ledgers::new_ledger(),
        None => files.ledger(),
    };
    let mut collectors: Vec<Process> = (0..COLLECTORS).map(|_| Process::start(&ledger)).collect();
    let urls = collectors.iter().map(|collector| collector.events.clone()).collect();
    let addresses = Arc::new(Mutex::new(urls));
    let senders: Vec<_> =
        (0..SOURCES).map(|source| tokio::spawn(send(source, seed, addresses.clone()))).collect();
    let is_done = Arc::new(AtomicBool::new(false));
    let killer = {
        let (is_done, ledger) = (is_done.clone(), ledger.clone());
        let mut dice = Dice(seed);
        tokio::spawn(async move {
            let mut kills = 0;
            while !is_done.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(dice.below(120))).await;
                let place = usize::try_from(dice.below(2)).expect("small");
                collectors[place].kill();
                kills += 1;
                let url = ledger.clone();
                let started = tokio::task::spawn_blocking(move || Process::start(&url)).await;
                collectors[place] = started.expect("a collector");
                addresses.lock().await[place] = collectors[place].events.clone();
            }
            kills
        })
    };
    for sender in senders {
        sender.await.expect("a sender");
    }
    is_done.store(true, Ordering::SeqCst);
    let kills = killer.await.expect("the killer");
    assert!(kills > 0, "seed {seed}: nobody was killed");
    tokio::task::spawn_blocking(move || check(seed, &ledger)).await.expect("a check");
}

/// Every event is in the ledger once, and so is what was derived of it.
fn check(seed: u64, ledger: &str) {
    let ledger = Ledger::open_existing(ledger).expect("a ledger");
    let of_source = BATCHES * EVENTS;
    assert_eq!(ledger.count_events().expect("a count"), SOURCES * of_source, "seed {seed}");
    let mut stored = BTreeSet::new();
    let keep = |event: &agent_meter_collector::Event<'_>| {
        assert!(
            stored.insert((event.source.clone(), event.id.clone())),
            "seed {seed}: {}",
            event.id
        );
        Ok(())
    };
    ledger.each_event(EventsQuery::default(), keep).expect("events");
    assert_eq!(u64::try_from(stored.len()).expect("small"), SOURCES * of_source, "seed {seed}");
    assert_eq!(ledger.gaps().expect("gaps").missing, 0, "seed {seed}");
    let verified = ledger.verify(None).expect("a ledger");
    assert_eq!((verified.events, verified.faults), (SOURCES * of_source, 0), "{verified:?}");
    let usage = ledger.usage(&UsageQuery::default()).expect("usage");
    let superseded = SOURCES * (2..=of_source).filter(|number| number % 16 == 1).count() as u64;
    let (calls, generations) = (SOURCES * of_source / 2, SOURCES * of_source / 2 - superseded);
    let row = &usage.rows[0];
    assert_eq!((row.calls, row.generations), (calls, generations), "seed {seed}");
    let thousandths =
        format!("{}.{:03}", (calls + generations) / 1000, (calls + generations) % 1000);
    let expected = thousandths.trim_end_matches('0').trim_end_matches('.').to_owned();
    assert_eq!(row.revenue.to_string(), expected, "seed {seed}");
    let tokens = (row.tokens.input, row.tokens.output);
    assert_eq!(tokens, (10 * generations, 2 * generations), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_that_are_killed_lose_nothing_and_count_nothing_twice() {
    for seed in 0..3 {
        play(seed).await;
    }
}

/// A hundred times, which takes minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_hundred_times() {
    for seed in 0..100 {
        play(seed).await;
    }
}

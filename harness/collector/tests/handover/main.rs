//! Tests the hand-over of stored events: one table of tests over all sinks, each with a receiver
//! that reads from its socket, wants what its vendor's schema wants, and knows again what it has.

mod config;
#[path = "../events/mod.rs"]
mod events;
mod files;
mod golden;
#[path = "../ledgers/mod.rs"]
mod ledgers;
mod names;
mod outages;
mod receiver;
mod superseding;
mod vendors;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use agent_meter_collector::{
    Clock, Collector, Extras, Ledger, Pace, SetAsideEvent, SinkState, Sinks,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use events::{call, generation};
use ledgers::new_ledger;
use receiver::Receiver;

const BATCH: &str = "application/cloudevents-batch+json";
const KEY: &str = "a-key-that-nobody-shows";

/// When the events of these tests arrive, in milliseconds since 1970: 2026-07-02T12:00:00Z.
const NOW_MS: i64 = 1_782_993_600_000;
const HOUR_MS: i64 = 3_600_000;

fn calls(sequences: impl IntoIterator<Item = u64>) -> Vec<Value> {
    sequences.into_iter().map(|sequence| call(sequence, json!({}))).collect()
}

/// Stores events, as if they came from a filter.
fn store(ledger: &Ledger, events: &[Value]) {
    for events in events.chunks(1000) {
        let body = serde_json::to_vec(events).expect("json");
        let receipt = ledger.insert_batch(&body, BATCH).expect("batch");
        assert_eq!(receipt.rejected, [], "events of a test are valid");
    }
}

/// A clock that a test moves.
#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Time {
        Time(Arc::new(AtomicI64::new(NOW_MS)))
    }

    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now_ms())
    }
}

/// A folder with a ledger, a file of sinks and a key, and the clock of it all.
struct Rig {
    folder: TempDir,
    ledger: String,
    time: Time,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key"), format!("{KEY}\n")).expect("a key");
        let ledger = match new_ledger() {
            url if url == "sqlite::memory:" => {
                format!("sqlite:{}", folder.path().join("ledger.db").display())
            }
            url => url,
        };
        Rig { folder, ledger, time: Time::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ledger(&self) -> Ledger {
        Ledger::open_at(&self.ledger, self.time.clock()).expect("a ledger")
    }

    /// Reads sinks; `{key}` stands for the file of the key.
    fn sinks(&self, text: &str) -> anyhow::Result<Sinks> {
        let key = self.path("key");
        let text = text.replace("{key}", key.to_str().expect("UTF-8"));
        std::fs::write(self.path("sinks.yaml"), text).expect("a file");
        let mut sinks = Sinks::read(&self.path("sinks.yaml"))?;
        sinks.pace.poll = Duration::from_millis(2);
        Ok(sinks)
    }

    async fn start(&self, text: &str) -> Collector {
        self.start_paced(text, Pace { poll: Duration::from_millis(2), ..Pace::default() }).await
    }

    async fn start_paced(&self, text: &str, pace: Pace) -> Collector {
        let mut sinks = self.sinks(text).expect("sinks");
        sinks.pace = pace;
        let extras = Extras { sinks: Some(sinks), clock: self.time.clock(), ..Extras::default() };
        let listen = "127.0.0.1:0".parse().expect("an address");
        Collector::start_with(listen, &self.ledger, extras).await.expect("a collector")
    }

    /// Moves the clock on, by so many milliseconds every two of ours, until something is found.
    async fn until<T>(&self, step_ms: i64, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: not within 60 s");
            self.time.advance(step_ms);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until a sink has come to the end of the ledger.
    async fn until_done(&self, collector: &Collector, sink: &str) -> SinkState {
        let ledger = collector.ledger();
        self.until(1000, sink, || Some(state(&ledger, sink)).filter(|it| it.lag_events == 0)).await
    }
}

fn state(ledger: &Ledger, sink: &str) -> SinkState {
    let sinks = ledger.sinks().expect("sinks");
    sinks.into_iter().find(|known| known.sink == sink).expect(sink)
}

fn set_aside(ledger: &Ledger, sink: &str) -> Vec<SetAsideEvent> {
    ledger.set_aside(sink, 0, 10_000).expect("set aside")
}

/// Each vendor with a fresh receiver and the sink that sends to it.
async fn each_vendor() -> Vec<(&'static vendors::Vendor, Receiver, String)> {
    let mut all = Vec::new();
    for vendor in vendors::ALL {
        let receiver = Receiver::start(vendor).await;
        let sinks = receiver.sinks("");
        all.push((vendor, receiver, sinks));
    }
    all
}

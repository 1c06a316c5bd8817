//! Measures how fast events come from calls through a real Envoy into the ledger of a real
//! collector, by the size of the filter's batches.
//!
//! Each size has an Envoy and a collector of its own; both get the same calls in each round. The
//! calls come as fast as their answers, so a slice tells whether the delivery keeps up with them, and
//! how long the last events take.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use agent_meter_collector::{Collector, Ledger};
use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::listeners::Listeners;
use super::load::{CONNECTIONS, Load};
use super::report::spread;
use super::servers::{self, Server};
use super::stats::{Quartiles, tenths};
use super::variant::Variant;
use super::{Bench, address};
use crate::envoy::{self, Envoy, Program};
use crate::stack::{ANY_PORT, WorkDir};
use crate::wait;

/// `batch_events_max`: the default, and the largest.
const BATCHES: [u32; 2] = [100, 1000];
/// How many times the calls of another part's slice: a slice must be long beside `flush_interval`.
const TIMES: u32 = 20;
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);
/// How long an event may wait although the delivery keeps up, in milliseconds: `flush_interval`, a
/// tick that reads it and one that sends it.
const PATIENCE_MS: f64 = 1500.0;
/// The filter writes its counters every 250 ms.
const COUNTERS: Duration = Duration::from_millis(600);
const OF_FILTER: &str = "wasmcustom.agent_meter.";
const OF_COLLECTOR: &str = "cluster.agent_meter_collector.upstream_cx_tx_bytes_total";

/// The results of the part `delivery`.
#[derive(Debug, Serialize)]
pub(super) struct Delivery {
    rounds: u32,
    /// Calls of each slice.
    calls: u32,
    cores: usize,
    rows: Vec<Row>,
}

/// One size of batches, over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    batch_events_max: u32,
    calls_per_second: Quartiles,
    /// From the first call to the last event that the collector has stored.
    events_per_second: Quartiles,
    /// From the last answer to the last event that the collector has stored.
    tail_ms: Quartiles,
    #[serde(serialize_with = "tenths")]
    events_each_batch: f64,
    /// Bytes to the collector for each event, with the heads of the requests.
    #[serde(serialize_with = "tenths")]
    wire_bytes_each: f64,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    calls_per_second: f64,
    events_per_second: f64,
    tail_ms: f64,
}

/// What the filter and Envoy have counted.
#[derive(Debug, Clone, Copy)]
struct Counts {
    made: u64,
    acked: u64,
    batches: u64,
    bytes: u64,
}

/// Envoy and the collector that it delivers to.
#[derive(Debug)]
struct Side {
    envoy: Envoy,
    collector: Collector,
    ledger: Ledger,
    load: Load,
    _upstream: Server,
    dir: WorkDir,
}

/// Measures all sizes.
pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Delivery> {
    let program = envoy::find().await?;
    let calls = bench.requests.saturating_mul(TIMES);
    let mut sides = Vec::new();
    for size in BATCHES {
        sides.push(Side::start(bench, &program, size).await?);
    }
    let mut slices = vec![Vec::new(); sides.len()];
    let mut before = Vec::new();
    for round in 0..=bench.rounds {
        // Each size goes first in half of the rounds.
        let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for place in turns {
            let slice = sides[place].slice(calls).await?;
            // The first round warms up connections, compilers and caches.
            if round > 0 {
                slices[place].push(slice);
            }
        }
        if round == 0 {
            for side in &sides {
                before.push(side.counts().await?);
            }
        }
    }
    let mut rows = Vec::new();
    for (((side, before), slices), size) in sides.into_iter().zip(before).zip(&slices).zip(BATCHES)
    {
        let after = side.counts().await?;
        side.stop().await?;
        rows.push(row(size, slices, before, after));
    }
    let cores = std::thread::available_parallelism()?.get();
    Ok(Delivery { rounds: bench.rounds, calls, cores, rows })
}

fn row(batch_events_max: u32, slices: &[Slice], before: Counts, after: Counts) -> Row {
    let all = |figure: fn(&Slice) -> f64| Quartiles::of(slices.iter().map(figure).collect());
    let events = after.acked - before.acked;
    Row {
        batch_events_max,
        calls_per_second: all(|slice| slice.calls_per_second),
        events_per_second: all(|slice| slice.events_per_second),
        tail_ms: all(|slice| slice.tail_ms),
        events_each_batch: share(events, after.batches - before.batches),
        wire_bytes_each: share(after.bytes - before.bytes, events),
    }
}

/// `count` for each of `of`, to a thousandth.
fn share(count: u64, of: u64) -> f64 {
    let thousandths = count.saturating_mul(1000).checked_div(of);
    let thousandths = thousandths.and_then(|share| u32::try_from(share).ok());
    thousandths.map_or(f64::NAN, |share| f64::from(share) / 1000.0)
}

impl Side {
    async fn start(bench: &Bench, program: &Program, size: u32) -> anyhow::Result<Self> {
        let dir = WorkDir::create()?;
        let url = format!("sqlite:{}", dir.path().join("ledger.db").display());
        let collector = Collector::start(ANY_PORT, &url).await?;
        let upstream = servers::upstream(bench.scenario).await?;
        let listeners = Listeners::of(bench, upstream.addr, collector.addr(), dir.path())?;
        let change =
            |options: &mut Value| options["delivery"] = json!({ "batch_events_max": size });
        let variant = Variant::AgentMeter;
        let envoy = listeners.start(program, &[variant], change).await?;
        let listener = address(&envoy.listeners().await?, variant.name())?;
        let load = Load::new(listener, bench.scenario)?;
        let ledger = collector.ledger();
        Ok(Self { envoy, collector, ledger, load, _upstream: upstream, dir })
    }

    /// Sends calls, and waits until the collector has their events.
    async fn slice(&mut self, calls: u32) -> anyhow::Result<Slice> {
        let wanted = self.stored().await? + u64::from(calls);
        let start = Instant::now();
        self.load.send(calls).await?;
        let answered = start.elapsed();
        wait::until(DELIVERY_LIMIT, "every call has its event", async || {
            let stored = self.stored().await?;
            ensure!(stored >= wanted, "{} events are missing", wanted - stored);
            Ok(())
        })
        .await?;
        let stored = start.elapsed();
        let per_second = |time: Duration| f64::from(calls) / time.as_secs_f64();
        Ok(Slice {
            calls_per_second: per_second(answered),
            events_per_second: per_second(stored),
            tail_ms: (stored - answered).as_secs_f64() * 1e3,
        })
    }

    async fn stored(&self) -> anyhow::Result<u64> {
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.count_events()).await?
    }

    /// The counts once all that was made is delivered.
    async fn counts(&self) -> anyhow::Result<Counts> {
        tokio::time::sleep(COUNTERS).await;
        wait::until(DELIVERY_LIMIT, "the filter has delivered all events", async || {
            let filter = self.envoy.stats(OF_FILTER).await?;
            let of_filter = |name: &str| stat(&filter, &format!("{OF_FILTER}{name}"));
            let collector = self.envoy.stats(OF_COLLECTOR).await?;
            let counts = Counts {
                made: of_filter("events_made")?,
                acked: of_filter("events_acked")?,
                batches: of_filter("batches_sent")?,
                bytes: stat(&collector, OF_COLLECTOR)?,
            };
            ensure!(counts.made == counts.acked, "{counts:?}");
            Ok(counts)
        })
        .await
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.envoy.stop().await?;
        self.collector.stop().await;
        self.dir.done = true;
        Ok(())
    }
}

fn stat(stats: &BTreeMap<String, u64>, name: &str) -> anyhow::Result<u64> {
    stats.get(name).copied().with_context(|| format!("Envoy has no {name}"))
}

impl Row {
    fn limit(&self) -> &'static str {
        if self.tail_ms.median <= PATIENCE_MS {
            "the calls: the delivery keeps up"
        } else {
            "the delivery: events wait for it"
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, calls, cores, .. } = self;
        writeln!(
            f,
            "delivery: Envoy with 1 worker, callers, upstream and a collector with a ledger in a file, together on {cores} cores\n\
             {rounds} rounds; in each, for each row, {calls} calls on {CONNECTIONS} connections, each with one event; \
             medians with quartiles\n"
        )?;
        let mut line = |row: [&str; 7]| {
            let [size, calls, events, tail, filled, wire, limit] = row;
            writeln!(
                f,
                "{size:>16} {calls:>22} {events:>22} {tail:>22} {filled:>12} {wire:>11}  {limit}"
            )
        };
        line([
            "batch_events_max",
            "calls",
            "delivered",
            "last event after",
            "filled with",
            "wire",
            "what limits",
        ])?;
        line(["", "calls/s", "events/s", "ms", "events/batch", "bytes/event", ""])?;
        for row in &self.rows {
            line([
                &row.batch_events_max.to_string(),
                &spread(row.calls_per_second, 0),
                &spread(row.events_per_second, 0),
                &spread(row.tail_ms, 0),
                &format!("{:.1}", row.events_each_batch),
                &format!("{:.0}", row.wire_bytes_each),
                row.limit(),
            ])?;
        }
        writeln!(
            f,
            "an event waits up to 1 s for its batch to fill, so the last one comes that much after its call"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_follows_from_how_long_the_last_event_takes() {
        let counts = |acked, batches, bytes| Counts { made: acked, acked, batches, bytes };
        for (tail_ms, expected) in [(1200.0, "the calls"), (4000.0, "the delivery")] {
            let slice = Slice { calls_per_second: 4000.0, events_per_second: 3000.0, tail_ms };
            let row = row(100, &[slice; 3], counts(10, 1, 5000), counts(1010, 11, 905_000));
            assert!(row.limit().starts_with(expected), "{row:?}");
            assert_eq!((row.events_each_batch, row.wire_bytes_each), (100.0, 900.0));
        }
    }

    #[test]
    fn nothing_is_a_share_of_nothing() {
        assert!(share(5, 0).is_nan());
        assert_eq!(share(1, 3), 0.333);
    }
}

//! Measures how many events a second the collector takes, by the size of the batches, and how long a
//! batch waits, also while reports are read: the real collector with a ledger in a file, or on a
//! server of PostgreSQL, over HTTP on loopback.
//!
//! Sender and collector are one process, so that the CPU time is that of both. Each slice has a new
//! ledger and gets the same events. The sizes follow each other in each round, in shuffled order;
//! their ratio is taken within the round.

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_meter_collector::Collector;
use anyhow::{Context, ensure};
use axum::body::Bytes;
use chrono::{SecondsFormat, Utc};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::SEED;
use super::cpu;
use super::events::Golden;
use super::place::{Kind, Place, kinds};
use super::report::spread;
use super::stats::{Quartiles, Random, percentile, tenths};
use crate::stack::{ANY_PORT, WorkDir};

/// Events of one slice: so many that their pages do not all fit the ledger's memory.
const EVENTS: u32 = 40_000;
const SOURCES: u32 = 4;
const BATCHES: [u32; 2] = [100, 1000];
const CONNECTIONS: [u32; 2] = [1, SOURCES];
/// What is read all the time in the slices with reports: whole hours, and a part of one.
const REPORTS: [&str; 2] = [
    "/v1/usage?group_by=customer,tool,model",
    "/v1/usage?group_by=product,tier&from=2026-01-01T00:30:00Z",
];
/// Writes of the measurement of the disk.
const SYNCS: u32 = 50;
const BATCH: &str = "application/cloudevents-batch+json";

/// The results of the part `ingest`.
#[derive(Debug, Serialize)]
pub(super) struct Ingest {
    rounds: u32,
    /// Events of each slice.
    events: u32,
    cores: usize,
    optimised: bool,
    /// How long the disk takes to keep 4 KiB, in microseconds.
    sync_us: Quartiles,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    /// Bytes of a body for each of its events.
    #[serde(serialize_with = "tenths")]
    wire_bytes_each: f64,
    /// Bytes of the ledger's file for each event.
    #[serde(serialize_with = "tenths")]
    ledger_bytes_each: f64,
}

/// What is varied from slice to slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    kind: Kind,
    connections: u32,
    /// Of [`BATCHES`].
    size: usize,
    /// Whether reports are read meanwhile.
    reports: bool,
}

/// One plan, over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    ledger: Kind,
    connections: u32,
    batch: u32,
    /// Whether reports were read meanwhile.
    reports: bool,
    /// How long a batch took until it was acknowledged, over all rounds.
    #[serde(serialize_with = "tenths")]
    batch_p50_ms: f64,
    #[serde(serialize_with = "tenths")]
    batch_p99_ms: f64,
    events_per_second: Quartiles,
    /// Of sender and collector, for each event.
    cpu_us: Quartiles,
    /// Bytes that went to the disk, for each event.
    #[serde(serialize_with = "tenths")]
    written_bytes: f64,
}

/// The rate in batches of 1,000, in percent of the rate in batches of 100.
#[derive(Debug, Serialize)]
struct Ratio {
    ledger: Kind,
    connections: u32,
    thousand_to_hundred_percent: Quartiles,
}

/// What one slice measured.
#[derive(Debug, Clone)]
struct Slice {
    /// Of each batch.
    took_ms: Vec<f64>,
    events_per_second: f64,
    cpu_us: f64,
    written_bytes: f64,
    ledger_bytes_each: f64,
}

/// Measures all sizes on all numbers of connections.
pub(super) async fn measure(rounds: u32) -> anyhow::Result<Ingest> {
    let mut dir = WorkDir::create()?;
    let path = dir.path().to_owned();
    let sync_us = tokio::task::spawn_blocking(move || syncs(&path)).await??;
    let bodies = tokio::task::spawn_blocking(|| bodies(EVENTS)).await??;
    let plans = plans(&kinds());
    let mut slices = vec![Vec::new(); plans.len()];
    let mut order: Vec<usize> = (0..plans.len()).collect();
    let mut random = Random(SEED);
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for &place in &order {
            let plan = plans[place];
            let slice = slice(dir.path(), plan, &bodies[plan.size], EVENTS).await?;
            // The first round warms up allocators and caches.
            if round > 0 {
                slices[place].push(slice);
            }
        }
    }
    dir.done = true;
    let wire: usize = bodies[0].iter().flatten().map(Bytes::len).sum();
    Ok(Ingest {
        rounds,
        events: EVENTS,
        cores: std::thread::available_parallelism()?.get(),
        optimised: !cfg!(debug_assertions),
        sync_us,
        ratios: ratios(&plans, &slices),
        wire_bytes_each: f64::from(u32::try_from(wire)?) / f64::from(EVENTS),
        ledger_bytes_each: Quartiles::median(&all(&slices[0], |s| s.ledger_bytes_each)),
        rows: plans.iter().zip(&slices).map(|(&plan, slices)| row(plan, slices)).collect(),
    })
}

/// Of each kind all sizes on all numbers of connections, and the largest with reports.
fn plans(kinds: &[Kind]) -> Vec<Plan> {
    let mut plans = Vec::new();
    for &kind in kinds {
        for connections in CONNECTIONS {
            let sizes = 0..BATCHES.len();
            plans.extend(sizes.map(|size| Plan { kind, connections, size, reports: false }));
        }
        let reports = true;
        plans.push(Plan { kind, connections: SOURCES, size: BATCHES.len() - 1, reports });
    }
    plans
}

fn all(slices: &[Slice], figure: fn(&Slice) -> f64) -> Vec<f64> {
    slices.iter().map(figure).collect()
}

fn row(plan: Plan, slices: &[Slice]) -> Row {
    let Plan { kind, connections, size, reports } = plan;
    let mut took: Vec<f64> = slices.iter().flat_map(|slice| slice.took_ms.clone()).collect();
    took.sort_by(f64::total_cmp);
    let at = |percent| percentile(&took, percent).unwrap_or(f64::NAN);
    Row {
        ledger: kind,
        connections,
        batch: BATCHES[size],
        reports,
        batch_p50_ms: at(50),
        batch_p99_ms: at(99),
        events_per_second: Quartiles::of(all(slices, |slice| slice.events_per_second)),
        cpu_us: Quartiles::of(all(slices, |slice| slice.cpu_us)),
        written_bytes: Quartiles::median(&all(slices, |slice| slice.written_bytes)),
    }
}

/// The ratio for each kind and number of connections.
fn ratios(plans: &[Plan], slices: &[Vec<Slice>]) -> Vec<Ratio> {
    let rates = |wanted: Plan| {
        let place = plans.iter().position(|plan| *plan == wanted)?;
        Some(all(slices.get(place)?, |slice| slice.events_per_second))
    };
    let ratio = |&hundreds: &Plan| {
        let Plan { kind, connections, .. } = hundreds;
        let thousands = rates(Plan { size: BATCHES.len() - 1, ..hundreds })?;
        let percent: Vec<f64> = thousands.iter().map(|rate| rate * 100.0).collect();
        let thousand_to_hundred_percent = Quartiles::of_ratios(&percent, &rates(hundreds)?);
        Some(Ratio { ledger: kind, connections, thousand_to_hundred_percent })
    };
    plans.iter().filter(|plan| plan.size == 0).filter_map(ratio).collect()
}

/// How long it takes until the disk has 4 KiB, in microseconds.
fn syncs(dir: &Path) -> anyhow::Result<Quartiles> {
    let path = dir.join("sync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[1; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Ok(Quartiles::of(times))
}

/// The bodies of each size, for each source.
fn bodies(events: u32) -> anyhow::Result<Vec<Vec<Vec<Bytes>>>> {
    let golden = Golden::read()?;
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let of_source = |source: u32| -> Vec<String> {
        let name = format!("urn:agent-meter:edge-{source}:0123456789abcdef");
        let numbers = 1..=u64::from(events / SOURCES);
        numbers.map(|number| golden.event(&name, number, &time)).collect()
    };
    let sources: Vec<Vec<String>> = (0..SOURCES).map(of_source).collect();
    let of_size = |size: u32| -> anyhow::Result<Vec<Vec<Bytes>>> {
        let size = usize::try_from(size)?;
        let body = |events: &[String]| Bytes::from(format!("[{}]", events.join(",")));
        Ok(sources.iter().map(|events| events.chunks(size).map(body).collect()).collect())
    };
    BATCHES.into_iter().map(of_size).collect()
}

/// Sends all events to a new collector.
async fn slice(
    dir: &Path,
    plan: Plan,
    sources: &[Vec<Bytes>],
    events: u32,
) -> anyhow::Result<Slice> {
    let place = Place::new(plan.kind, dir).await?;
    let collector = Collector::start(ANY_PORT, &place.url()).await?;
    let base = format!("http://{}", collector.addr());
    let is_done = Arc::new(AtomicBool::new(false));
    let reader = plan.reports.then(|| tokio::spawn(read_reports(base.clone(), is_done.clone())));
    let (start, cpu, written) = (Instant::now(), cpu::own()?, written()?);
    let mut senders = JoinSet::new();
    for connection in 0..usize::try_from(plan.connections)? {
        let own = sources.iter().skip(connection).step_by(usize::try_from(plan.connections)?);
        let bodies: Vec<Bytes> = own.flatten().cloned().collect();
        senders.spawn(send(format!("{base}/v1/events"), bodies));
    }
    let (mut accepted, mut took_ms) = (0, Vec::new());
    while let Some(sent) = senders.join_next().await {
        let (more, times) = sent??;
        accepted += more;
        took_ms.extend(times);
    }
    let (took, cpu) = (start.elapsed(), cpu::own()?.saturating_sub(cpu));
    let written = self::written()?.saturating_sub(written);
    is_done.store(true, Ordering::SeqCst);
    if let Some(reader) = reader {
        ensure!(reader.await?? > 0, "no report was read");
    }
    ensure!(accepted == u64::from(events), "{accepted} of {events} events accepted");
    collector.stop().await;
    let each = |figure: f64| figure / f64::from(events);
    let ledger_bytes_each = each(mib(place.bytes().await?)? * 1024.0 * 1024.0);
    place.remove().await?;
    Ok(Slice {
        took_ms,
        events_per_second: f64::from(events) / took.as_secs_f64(),
        cpu_us: each(us(cpu)),
        written_bytes: each(mib(written)? * 1024.0 * 1024.0),
        ledger_bytes_each,
    })
}

/// Reads reports one after another, and returns how many.
async fn read_reports(base: String, is_done: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let client = Client::builder().no_proxy().build()?;
    let mut read = 0;
    while !is_done.load(Ordering::SeqCst) {
        for path in REPORTS {
            client.get(format!("{base}{path}")).send().await?.error_for_status()?.bytes().await?;
            read += 1;
        }
    }
    Ok(read)
}

/// Posts bodies one after another, and returns how many events were new to the collector, and how
/// many milliseconds each took.
async fn send(url: String, bodies: Vec<Bytes>) -> anyhow::Result<(u64, Vec<f64>)> {
    let client = Client::builder().no_proxy().build()?;
    let (mut accepted, mut took_ms) = (0, Vec::new());
    for body in bodies {
        let start = Instant::now();
        let post = client.post(&url).header(CONTENT_TYPE, BATCH).body(body);
        let answer: Value = post.send().await?.error_for_status()?.json().await?;
        took_ms.push(start.elapsed().as_secs_f64() * 1e3);
        accepted += answer["accepted"].as_u64().context("an answer without a count")?;
    }
    Ok((accepted, took_ms))
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// In steps of a KiB, so that the number fits.
fn mib(bytes: u64) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(bytes / 1024)?) / 1024.0)
}

/// Bytes that this process has caused to be written to disk.
fn written() -> anyhow::Result<u64> {
    let io = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("/proc/self/io has no write_bytes")?.trim().parse()?)
}

impl fmt::Display for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, events, cores, .. } = self;
        writeln!(
            f,
            "ingest: sender and collector in one process on {cores} cores, a new ledger for each slice, synchronous=FULL; \
             the disk keeps 4 KiB in {} us\n\
             {rounds} rounds, shuffled; in each, for each row, {events} events of {SOURCES} sources; medians with quartiles\n",
            spread(self.sync_us, 0)
        )?;
        let mut line =
            |[ledger, connections, batch, reports, rate, p50, p99, cpu, written]: [&str; 9]| {
                writeln!(
                    f,
                    "{ledger:<10} {connections:>11} {batch:>6} {reports:>7} {rate:>24} {p50:>8} {p99:>8} {cpu:>20} {written:>11}"
                )
            };
        line([
            "ledger",
            "connections",
            "batch",
            "reports",
            "rate",
            "p50",
            "p99",
            "CPU",
            "written",
        ])?;
        line([
            "",
            "",
            "events",
            "",
            "events/s",
            "ms/batch",
            "ms/batch",
            "us/event",
            "bytes/event",
        ])?;
        for row in &self.rows {
            line([
                &row.ledger.to_string(),
                &row.connections.to_string(),
                &row.batch.to_string(),
                if row.reports { "read" } else { "" },
                &spread(row.events_per_second, 0),
                &format!("{:.0}", row.batch_p50_ms),
                &format!("{:.0}", row.batch_p99_ms),
                &spread(row.cpu_us, 1),
                &format!("{:.0}", row.written_bytes),
            ])?;
        }
        writeln!(f)?;
        for Ratio { ledger, connections, thousand_to_hundred_percent } in &self.ratios {
            let ratio = spread(*thousand_to_hundred_percent, 0);
            writeln!(
                f,
                "{ledger}: batches of 1000 come in at {ratio} % of the rate of batches of 100, connections: {connections}"
            )?;
        }
        writeln!(
            f,
            "an event has {:.0} bytes on the wire, and takes {:.0} in the ledger of SQLite",
            self.wire_bytes_each, self.ledger_bytes_each
        )?;
        if self.rows.iter().any(|row| row.ledger == Kind::PostgreSql) {
            writeln!(f, "CPU and bytes of PostgreSQL are without those of its server")?;
        }
        if !self.optimised {
            writeln!(f, "these rates mean little: the harness is a development build")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice_of(events_per_second: f64) -> Slice {
        let took_ms = vec![events_per_second];
        Slice {
            took_ms,
            events_per_second,
            cpu_us: 1.0,
            written_bytes: 1.0,
            ledger_bytes_each: 1.0,
        }
    }

    #[test]
    fn sizes_are_compared_within_a_round_a_kind_and_a_number_of_connections() {
        let plans = plans(&[Kind::Sqlite, Kind::PostgreSql]);
        let rates = [[10.0, 20.0], [20.0, 40.0], [8.0, 4.0], [4.0, 2.0], [1.0, 1.0]];
        let slices: Vec<Vec<Slice>> =
            rates.iter().chain(&rates).map(|rates| rates.map(slice_of).to_vec()).collect();
        let found: Vec<(Kind, u32, f64)> = ratios(&plans, &slices)
            .iter()
            .map(|it| (it.ledger, it.connections, it.thousand_to_hundred_percent.median))
            .collect();
        let of = |kind| [(kind, 1, 200.0), (kind, 4, 50.0)];
        assert_eq!(found, [of(Kind::Sqlite), of(Kind::PostgreSql)].concat());
        let row = row(plans[0], &slices[0]);
        assert_eq!((row.batch_p50_ms, row.batch_p99_ms), (10.0, 20.0));
    }

    #[test]
    fn each_size_has_the_same_events() {
        let bodies = bodies(8000).expect("bodies");
        let sizes = bodies.iter().map(|sources| {
            let bodies: Vec<&Bytes> = sources.iter().flatten().collect();
            // An event has a comma or a bracket behind it, and a body a bracket before it.
            let bytes: usize = bodies.iter().map(|body| body.len() - 1).sum();
            (bodies.len(), bytes)
        });
        let [(hundreds, small), (thousands, large)] = sizes.collect::<Vec<_>>()[..] else {
            panic!("not two sizes")
        };
        assert_eq!((hundreds, thousands, small), (80, 8, large));
    }

    #[tokio::test]
    async fn the_collector_takes_each_event_of_a_slice() {
        let dir = tempfile::tempdir().expect("a directory");
        let bodies = bodies(8000).expect("bodies");
        for plan in plans(&kinds()).into_iter().filter(|plan| plan.size == 1) {
            let slice = slice(dir.path(), plan, &bodies[1], 8000).await.expect("a slice");
            assert!(slice.events_per_second > 0.0 && slice.ledger_bytes_each > 500.0, "{slice:?}");
            assert_eq!(slice.took_ms.len(), 8);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }
}

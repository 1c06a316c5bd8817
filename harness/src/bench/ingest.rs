//! Measures how many events a second the collector takes, by the size of the batches: the real
//! collector with a ledger in a file, over HTTP on loopback.
//!
//! Sender and collector are one process, so that the CPU time is that of both. Each slice has a new
//! ledger and gets the same events. The sizes follow each other in each round, in shuffled order;
//! their ratio is taken within the round.

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
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
use super::report::spread;
use super::stats::{Quartiles, Random, tenths};
use crate::stack::{ANY_PORT, WorkDir};

/// Events of one slice: so many that their pages do not all fit the ledger's memory.
const EVENTS: u32 = 40_000;
const SOURCES: u32 = 4;
const BATCHES: [u32; 2] = [100, 1000];
const CONNECTIONS: [u32; 2] = [1, SOURCES];
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

/// One size of batches on one number of connections, over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    connections: u32,
    batch: u32,
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
    connections: u32,
    thousand_to_hundred_percent: Quartiles,
}

/// What one slice measured.
#[derive(Debug, Clone, Copy)]
struct Slice {
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
    let plans: Vec<(u32, usize)> = CONNECTIONS
        .into_iter()
        .flat_map(|connections| (0..BATCHES.len()).map(move |size| (connections, size)))
        .collect();
    let mut slices = vec![Vec::new(); plans.len()];
    let mut order: Vec<usize> = (0..plans.len()).collect();
    let mut random = Random(SEED);
    for round in 0..=rounds {
        random.shuffle(&mut order);
        for &place in &order {
            let (connections, size) = plans[place];
            let slice = slice(dir.path(), connections, &bodies[size], EVENTS).await?;
            // The first round warms up allocators and caches.
            if round > 0 {
                slices[place].push(slice);
            }
        }
    }
    dir.done = true;
    let wire: usize = bodies[0].iter().flatten().map(Bytes::len).sum();
    let rates: Vec<Vec<f64>> = slices.iter().map(|of| all(of, |s| s.events_per_second)).collect();
    Ok(Ingest {
        rounds,
        events: EVENTS,
        cores: std::thread::available_parallelism()?.get(),
        optimised: !cfg!(debug_assertions),
        sync_us,
        ratios: ratios(&rates),
        wire_bytes_each: f64::from(u32::try_from(wire)?) / f64::from(EVENTS),
        ledger_bytes_each: Quartiles::median(&all(&slices.concat(), |s| s.ledger_bytes_each)),
        rows: plans.iter().zip(&slices).map(|(&plan, slices)| row(plan, slices)).collect(),
    })
}

fn all(slices: &[Slice], figure: fn(&Slice) -> f64) -> Vec<f64> {
    slices.iter().map(figure).collect()
}

fn row((connections, size): (u32, usize), slices: &[Slice]) -> Row {
    Row {
        connections,
        batch: BATCHES[size],
        events_per_second: Quartiles::of(all(slices, |slice| slice.events_per_second)),
        cpu_us: Quartiles::of(all(slices, |slice| slice.cpu_us)),
        written_bytes: Quartiles::median(&all(slices, |slice| slice.written_bytes)),
    }
}

/// The ratio for each number of connections; the rates of a number stand side by side, the smaller
/// size first.
fn ratios(rates: &[Vec<f64>]) -> Vec<Ratio> {
    let pairs = CONNECTIONS.into_iter().zip(rates.chunks_exact(BATCHES.len()));
    let ratio = |(connections, rates): (u32, &[Vec<f64>])| {
        let percent: Vec<f64> = rates[1].iter().map(|rate| rate * 100.0).collect();
        let thousand_to_hundred_percent = Quartiles::of_ratios(&percent, &rates[0]);
        Ratio { connections, thousand_to_hundred_percent }
    };
    pairs.map(ratio).collect()
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

/// Sends all events on so many connections to a new collector.
async fn slice(
    dir: &Path,
    connections: u32,
    sources: &[Vec<Bytes>],
    events: u32,
) -> anyhow::Result<Slice> {
    let file = dir.join("ledger.db");
    let collector = Collector::start(ANY_PORT, &format!("sqlite:{}", file.display())).await?;
    let url = format!("http://{}/v1/events", collector.addr());
    let (start, cpu, written) = (Instant::now(), cpu::own()?, written()?);
    let mut senders = JoinSet::new();
    for connection in 0..usize::try_from(connections)? {
        let own = sources.iter().skip(connection).step_by(usize::try_from(connections)?);
        let bodies: Vec<Bytes> = own.flatten().cloned().collect();
        senders.spawn(send(url.clone(), bodies));
    }
    let mut accepted = 0;
    while let Some(sent) = senders.join_next().await {
        accepted += sent??;
    }
    let (took, cpu) = (start.elapsed(), cpu::own()?.saturating_sub(cpu));
    let written = self::written()?.saturating_sub(written);
    ensure!(accepted == u64::from(events), "{accepted} of {events} events accepted");
    collector.stop().await;
    let each = |figure: f64| figure / f64::from(events);
    let ledger_bytes_each = each(mib(fs::metadata(&file)?.len())? * 1024.0 * 1024.0);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        // SQLite has removed what it keeps beside a ledger that was closed.
        let _ = fs::remove_file(name);
    }
    Ok(Slice {
        events_per_second: f64::from(events) / took.as_secs_f64(),
        cpu_us: each(us(cpu)),
        written_bytes: each(mib(written)? * 1024.0 * 1024.0),
        ledger_bytes_each,
    })
}

/// Posts bodies one after another, and returns how many events were new to the collector.
async fn send(url: String, bodies: Vec<Bytes>) -> anyhow::Result<u64> {
    let client = Client::builder().no_proxy().build()?;
    let mut accepted = 0;
    for body in bodies {
        let post = client.post(&url).header(CONTENT_TYPE, BATCH).body(body);
        let answer: Value = post.send().await?.error_for_status()?.json().await?;
        accepted += answer["accepted"].as_u64().context("an answer without a count")?;
    }
    Ok(accepted)
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
        let mut line = |[connections, batch, rate, cpu, written]: [&str; 5]| {
            writeln!(f, "{connections:>11} {batch:>12} {rate:>24} {cpu:>20} {written:>12}")
        };
        line(["connections", "batch", "rate", "CPU", "written"])?;
        line(["", "events", "events/s", "us/event", "bytes/event"])?;
        for row in &self.rows {
            line([
                &row.connections.to_string(),
                &row.batch.to_string(),
                &spread(row.events_per_second, 0),
                &spread(row.cpu_us, 1),
                &format!("{:.0}", row.written_bytes),
            ])?;
        }
        writeln!(f)?;
        for Ratio { connections, thousand_to_hundred_percent } in &self.ratios {
            let ratio = spread(*thousand_to_hundred_percent, 0);
            writeln!(
                f,
                "batches of 1000 come in at {ratio} % of the rate of batches of 100, connections: {connections}"
            )?;
        }
        writeln!(
            f,
            "an event has {:.0} bytes on the wire, and takes {:.0} in the ledger",
            self.wire_bytes_each, self.ledger_bytes_each
        )?;
        if !self.optimised {
            writeln!(f, "these rates mean little: the harness is a development build")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_within_a_round_and_a_number_of_connections() {
        let rates = [vec![10.0, 20.0], vec![20.0, 40.0], vec![8.0, 4.0], vec![4.0, 2.0]];
        let found: Vec<(u32, f64)> = ratios(&rates)
            .iter()
            .map(|ratio| (ratio.connections, ratio.thousand_to_hundred_percent.median))
            .collect();
        assert_eq!(found, [(1, 200.0), (4, 50.0)]);
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
        let slice = slice(dir.path(), 4, &bodies[1], 8000).await.expect("a slice");
        assert!(slice.events_per_second > 0.0 && slice.ledger_bytes_each > 500.0, "{slice:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }
}

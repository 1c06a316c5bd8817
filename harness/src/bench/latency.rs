//! Measures the latency of calls that come at a fixed rate, half of what the slowest listener takes: at
//! that rate a queue forms where a filter makes calls wait, which calls one by one never show.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;

use super::load::{connection, exchange};
use super::messages::{Scenario, call};
use super::ratios::Interval;
use super::rig::Rig;
use super::stats::{Quartiles, Random, differences, per_mille};
use super::variant::Variant;
use super::{cpu, sessions};

/// So many calls may be on their way at once; at half of saturation a few are.
const CONNECTIONS: u32 = 32;
/// How long calls come at the rate, to one listener in one round.
const SLICE: Duration = Duration::from_secs(2);
/// How long a listener gets as many calls as it takes.
const RUSH: Duration = Duration::from_secs(2);
/// The order of the listeners in the rounds.
const SEED: u64 = 0x6c61_7465_6e63;
const COMPARED: [Variant; 5] = [
    Variant::NoFilter,
    Variant::NoFilterAgain,
    Variant::EmptyWasm,
    Variant::AgentMeter,
    Variant::NativeMcp,
];

/// The results of the part `latency`.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    rounds: u32,
    /// At which calls come: half of the least throughput.
    calls_per_second: u32,
    listeners: Vec<Row>,
}

/// One listener over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    listener: &'static str,
    /// Calls in a second where each connection has always one on its way.
    saturated_calls_per_second: u32,
    p50_us: Quartiles,
    p99_us: Quartiles,
    p999_us: Quartiles,
    /// The difference to `no filter` in the same round: the median, with its interval of 95 %.
    added_p99_us: Interval,
    /// The same where calls come at half of what this listener takes: so much waiting is due to a
    /// queue that is as long in front of each.
    own_p99_us: Quartiles,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, calls_per_second, listeners } = self;
        writeln!(
            f,
            "latency of {calls_per_second} calls a second, half of what the slowest listener takes; {rounds} rounds of {} s; \
             medians, with the interval of 95 % of what is added to no filter",
            SLICE.as_secs()
        )?;
        let mut line = |[listener, most, p50, p99, p999, added, own]: [&str; 7]| {
            writeln!(
                f,
                "{listener:<19} {most:>12} {p50:>8} {p99:>8} {p999:>8} {added:>26} {own:>12}"
            )
        };
        line(["listener", "saturated at", "p50", "p99", "p99.9", "added p99", "p99 at own"])?;
        line(["", "calls/s", "us", "us", "us", "us", "half, us"])?;
        for row in listeners {
            let us = |of: Quartiles| format!("{:.0}", of.median);
            let added = match row.listener == Variant::NoFilter.name() {
                true => String::new(),
                false => row.added_p99_us.in_digits(0),
            };
            let most = row.saturated_calls_per_second.to_string();
            line([
                row.listener,
                &most,
                &us(row.p50_us),
                &us(row.p99_us),
                &us(row.p999_us),
                &added,
                &us(row.own_p99_us),
            ])?;
        }
        Ok(())
    }
}

/// Measures in an Envoy of its own.
pub(super) async fn measure(rig: &Rig, scenario: Scenario, rounds: u32) -> anyhow::Result<Latency> {
    let envoy = rig.listeners.start(&rig.program, &COMPARED, |_| ()).await?;
    let pid = envoy.pid().context("Envoy has ended")?;
    // On a machine with one core, the report of the listeners says so.
    let _ = cpu::separate(pid, None).await;
    let mut addresses = Vec::new();
    for variant in COMPARED {
        addresses.push(sessions::address(&envoy, variant).await?);
    }
    let mut saturated = Vec::new();
    for address in &addresses {
        // The first time warms up connections, compilers and caches.
        rush(*address, scenario, RUSH / 4).await?;
        saturated.push(rush(*address, scenario, RUSH).await?);
    }
    let rate = saturated.iter().min().copied().unwrap_or_default() / 2;
    ensure!(rate > 0, "a listener takes no two calls in a second");

    let mut figures = vec![Vec::new(); COMPARED.len()];
    let mut order: Vec<usize> = (0..COMPARED.len()).collect();
    let mut random = Random(SEED);
    let progress = ProgressBar::new(u64::from(rounds));
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &place in &order {
            let sorted = at_rate(addresses[place], scenario, rate).await?;
            let us = |at| per_mille(&sorted, at).unwrap_or_default().as_secs_f64() * 1e6;
            let at_own = at_rate(addresses[place], scenario, saturated[place] / 2).await?;
            let own = per_mille(&at_own, 990).unwrap_or_default().as_secs_f64() * 1e6;
            figures[place].push([us(500), us(990), us(999), own]);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    envoy.stop().await?;

    let column = |place: usize, which: usize| -> Vec<f64> {
        figures[place].iter().map(|figures| figures[which]).collect()
    };
    let rows = COMPARED.into_iter().enumerate().map(|(place, variant)| {
        let added = differences(&column(place, 1), &column(0, 1));
        Row {
            listener: variant.name(),
            saturated_calls_per_second: saturated[place],
            p50_us: Quartiles::of(column(place, 0)),
            p99_us: Quartiles::of(column(place, 1)),
            p999_us: Quartiles::of(column(place, 2)),
            added_p99_us: Interval::of(&added, Quartiles::median),
            own_p99_us: Quartiles::of(column(place, 3)),
        }
    });
    Ok(Latency { rounds, calls_per_second: rate, listeners: rows.collect() })
}

/// How many calls a second come back where each connection has always one on its way.
async fn rush(listener: SocketAddr, scenario: Scenario, length: Duration) -> anyhow::Result<u32> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut caller = Caller::new(listener, scenario, number)?;
        tasks.spawn(async move {
            let mut calls = 0_u32;
            while start.elapsed() < length {
                caller.call(Instant::now()).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(done) = tasks.join_next().await {
        calls += done??;
    }
    let each_second = f64::from(calls) / start.elapsed().as_secs_f64();
    Ok(format!("{each_second:.0}").parse()?)
}

/// The sorted latencies of calls that come at this rate, whether or not earlier ones have come back.
async fn at_rate(
    listener: SocketAddr,
    scenario: Scenario,
    calls_per_second: u32,
) -> anyhow::Result<Vec<Duration>> {
    let step = Duration::from_secs(1) / calls_per_second;
    let start = Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut caller = Caller::new(listener, scenario, number)?;
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut due = start + step * number;
            while due < start + SLICE {
                let is_late = Instant::now() >= due;
                tokio::time::sleep_until(due.into()).await;
                // A call that had to wait for the one before it has waited since it was due. The
                // timer's own delay of up to a millisecond is not the listener's.
                let begun = if is_late { due } else { Instant::now() };
                latencies.push(caller.call(begun).await?);
                due += step * CONNECTIONS;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// One connection with one session.
struct Caller {
    client: reqwest::Client,
    url: String,
    answer_bytes: usize,
    number: u32,
}

impl Caller {
    fn new(listener: SocketAddr, scenario: Scenario, number: u32) -> anyhow::Result<Self> {
        Ok(Self {
            client: connection(number)?,
            url: format!("http://{listener}/mcp"),
            answer_bytes: scenario.answer_bytes()?,
            number: number.wrapping_mul(1_000_000),
        })
    }

    /// Calls once. Returns how long after `begun` the answer was there.
    async fn call(&mut self, begun: Instant) -> anyhow::Result<Duration> {
        self.number = self.number.wrapping_add(1);
        let Self { client, url, answer_bytes, number } = self;
        exchange(client, url, call(*number), *answer_bytes, begun).await
    }
}

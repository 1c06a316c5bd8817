//! `agent-meter bench`: measures what the filter costs, with and without guards, against no filter,
//! an empty one, Envoy's own and Lua.
//!
//! One Envoy has one listener for each variant. In each round every listener gets the same calls,
//! in shuffled order: first one by one, for the latency, then on several connections, between two
//! readings of the CPU time of the Envoy process. Only the differences within a round are
//! meaningful: noise of the machine disturbs neighbours alike. A slice of agent-meter, with or
//! without guards, ends when the collector has the events of every call, so that the slice includes
//! the delivery.
//!
//! Two more parts measure the way of the events: `ingest` what the collector takes, `delivery` what
//! comes from calls to its ledger.

mod cpu;
mod delivery;
mod events;
mod ingest;
mod latency;
mod listeners;
mod load;
mod messages;
mod place;
mod ratios;
mod report;
mod scanner;
mod servers;
mod sessions;
mod stats;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use self::cpu::CpuTime;
use self::delivery::Delivery;
use self::ingest::Ingest;
use self::latency::Latency;
use self::listeners::{Rig, Variant};
use self::load::Load;
pub use self::messages::Scenario;
use self::report::{ModuleSize, Report, Row, Slice};
use self::servers::Received;
use self::sessions::{Measure, Sessions};
use self::stats::{Random, percentile};
use crate::envoy::{self, Envoy, Program};
use crate::run::Signals;
use crate::stack::WorkDir;
use crate::wait;

/// The seed of the order of the slices, so that the order is the same in every run.
const SEED: u64 = 0x006d_6574_6572;
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
/// Calls to each listener that only logs what its filter finds.
const PROOF_CALLS: u32 = 4;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// CPU and latency of a call, by filter; the core's scanner; the modules' sizes.
    Calls,
    /// Latency of calls at a fixed rate, and the most that a listener takes.
    Latency,
    /// Memory, ticks and latency with many sessions.
    Sessions,
    /// Events that the collector takes in a second, by the size of batches.
    Ingest,
    /// Events that come from calls through Envoy into a ledger in a second.
    Delivery,
}

#[derive(Debug, Serialize)]
struct All {
    #[serde(flatten)]
    calls: Option<Report>,
    latency: Option<Latency>,
    sessions: Option<Sessions>,
    ingest: Option<Ingest>,
    delivery: Option<Delivery>,
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.calls.as_ref().map(ToString::to_string);
        let latency = self.latency.as_ref().map(ToString::to_string);
        let sessions = self.sessions.as_ref().map(ToString::to_string);
        let ingest = self.ingest.as_ref().map(ToString::to_string);
        let delivery = self.delivery.as_ref().map(ToString::to_string);
        let parts: Vec<String> =
            [calls, latency, sessions, ingest, delivery].into_iter().flatten().collect();
        f.write_str(&parts.join("\n"))
    }
}

/// The options of a benchmark.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Measured rounds; one unmeasured round comes first.
    pub rounds: u32,
    /// Calls to each listener in each round, once for the latency and once for the CPU time.
    pub requests: u32,
    /// The format in which the upstream answers.
    pub scenario: Scenario,
    /// The only part to measure; `None` for all.
    pub only: Option<Section>,
    /// Sessions that live at once; ten times as many come and go.
    pub sessions: u32,
    /// True to print one JSON object instead of the table.
    pub json: bool,
    /// The filter's module; the empty filter's is in the same directory.
    pub wasm: PathBuf,
    /// Another module of the filter, to compare with it.
    pub beside: Option<PathBuf>,
}

/// Measures and prints; an error if a listener does not do what it is measured for.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    ensure!(bench.rounds > 0 && bench.requests > 0, "expected at least one round and one request");
    let mut signals = Signals::new()?;
    let report = tokio::select! {
        () = signals.stop() => bail!("interrupted"),
        report = measure_all(&bench) => report?,
    };
    if bench.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Measures the parts that are asked for. Calls and sessions come last: they pin this process to
/// some of its cores, for good.
async fn measure_all(bench: &Bench) -> anyhow::Result<All> {
    let wants = |section| bench.only.is_none_or(|only| only == section);
    let ingest =
        if wants(Section::Ingest) { Some(ingest::measure(bench.rounds).await?) } else { None };
    let delivery =
        if wants(Section::Delivery) { Some(delivery::measure(bench).await?) } else { None };
    let calls = if wants(Section::Calls) { Some(measure(bench).await?) } else { None };
    let latency = if wants(Section::Latency) { Some(measure_latency(bench).await?) } else { None };
    let sessions =
        if wants(Section::Sessions) { Some(measure_sessions(bench).await?) } else { None };
    Ok(All { calls, latency, sessions, ingest, delivery })
}

async fn measure(bench: &Bench) -> anyhow::Result<Report> {
    let empty_filter = empty_filter(bench)?;
    let program = envoy::find().await?;
    // With Docker, the measured process would be Docker's client.
    ensure!(program != Program::Docker, "bench needs an Envoy binary: set ENVOY_BIN");

    let mut dir = WorkDir::create()?;
    let upstream = servers::upstream(bench.scenario).await?;
    let (collector, received) = servers::collector().await?;
    let beside = bench.beside.as_ref().map(std::path::absolute).transpose()?;
    let rig = Rig {
        upstream: upstream.addr,
        collector: collector.addr,
        filter: &std::path::absolute(&bench.wasm)?,
        empty_filter: &empty_filter,
        beside: beside.as_deref(),
        dir: dir.path(),
    };
    let variants = rig.variants();
    let config = dir.path().join("bootstrap.json");
    std::fs::write(&config, format!("{:#}\n", rig.bootstrap()?))?;
    let envoy = Envoy::start_from(&program, config, dir.path(), 1).await?;

    let pid = envoy.pid().context("Envoy has ended")?;
    let cores = match cpu::separate(pid).await {
        Ok(cores) => cores,
        Err(reason) => format!("not pinned to a core: {reason:#}"),
    };
    let addresses = envoy.listeners().await?;
    prove(bench, &addresses).await?;
    let loads = loads(bench, &variants, &addresses)?;
    let mut rounds = Rounds { pid, received, variants, loads };
    let slices = rounds.play(bench).await?;

    let (calls_sent, tool_invocations) = (rounds.metered(), rounds.received.calls());
    ensure!(
        usize::try_from(calls_sent)? == tool_invocations,
        "{tool_invocations} tool_invocation events for {calls_sent} calls"
    );
    let version = version(&envoy).await?;
    envoy.stop().await?;
    rig.check_proof()?;

    let reference = &slices[0];
    let rows = || rounds.variants.iter().copied().zip(slices.iter().map(Vec::as_slice));
    let listeners = rows().map(|(variant, own)| Row::of(variant, own, reference)).collect();
    let ratios = ratios::ratios(&rows().collect::<Vec<_>>());
    let scanner = tokio::task::spawn_blocking(scanner::measure).await??;
    let beside = bench.beside.as_deref().map(|module| ("agent-meter beside", module));
    let modules = [("agent-meter", bench.wasm.as_path())].into_iter().chain(beside);
    let modules = modules.chain([("empty Wasm filter", empty_filter.as_path())]);
    let modules = modules.map(|(module, file)| Ok(ModuleSize { module, bytes: size(file)? }));
    let modules = modules.collect::<anyhow::Result<_>>()?;
    dir.done = true;
    Ok(Report {
        scenario: bench.scenario,
        rounds: bench.rounds,
        requests: bench.requests,
        seed: SEED,
        envoy: version,
        cores,
        optimised: !cfg!(debug_assertions),
        listeners,
        ratios,
        calls_sent,
        tool_invocations,
        scanner,
        modules,
    })
}

async fn measure_latency(bench: &Bench) -> anyhow::Result<Latency> {
    let program = envoy::find().await?;
    ensure!(program != Program::Docker, "bench needs an Envoy binary: set ENVOY_BIN");
    let mut dir = WorkDir::create()?;
    let upstream = servers::upstream(bench.scenario).await?;
    let (collector, _received) = servers::collector().await?;
    let filter = std::path::absolute(&bench.wasm)?;
    let empty_filter = empty_filter(bench)?;
    let rig = Rig {
        upstream: upstream.addr,
        collector: collector.addr,
        filter: &filter,
        empty_filter: &empty_filter,
        beside: None,
        dir: dir.path(),
    };
    let latency = latency::measure(&program, &rig, bench.scenario, bench.rounds).await?;
    dir.done = true;
    Ok(latency)
}

/// The empty filter beside the measured one.
fn empty_filter(bench: &Bench) -> anyhow::Result<PathBuf> {
    let file = std::path::absolute(bench.wasm.with_file_name("agent_meter_empty_filter.wasm"))?;
    ensure!(file.is_file(), "no empty filter {}; run make bench", file.display());
    Ok(file)
}

async fn measure_sessions(bench: &Bench) -> anyhow::Result<Sessions> {
    let program = envoy::find().await?;
    ensure!(program != Program::Docker, "bench needs an Envoy binary: set ENVOY_BIN");
    let mut dir = WorkDir::create()?;
    let upstream = servers::upstream(Scenario::Json).await?;
    let (collector, received) = servers::collector().await?;
    let wasm = std::path::absolute(&bench.wasm)?;
    let rig = Rig {
        upstream: upstream.addr,
        collector: collector.addr,
        filter: &wasm,
        empty_filter: &wasm,
        beside: None,
        dir: dir.path(),
    };
    let Bench { sessions, rounds, requests, .. } = *bench;
    let scenario = Scenario::Json;
    let measure = Measure {
        program: &program,
        rig: &rig,
        received: &received,
        scenario,
        sessions,
        rounds,
        requests,
    };
    let sessions = measure.run().await?;
    dir.done = true;
    Ok(sessions)
}

fn address(addresses: &BTreeMap<String, SocketAddr>, name: &str) -> anyhow::Result<SocketAddr> {
    addresses.get(name).copied().with_context(|| format!("Envoy has no listener {name:?}"))
}

fn loads(
    bench: &Bench,
    variants: &[Variant],
    addresses: &BTreeMap<String, SocketAddr>,
) -> anyhow::Result<Vec<Load>> {
    let load = |variant: &Variant| Load::new(address(addresses, variant.name())?, bench.scenario);
    variants.iter().map(load).collect()
}

/// Sends a few calls through the listeners that log what their filters find.
async fn prove(bench: &Bench, addresses: &BTreeMap<String, SocketAddr>) -> anyhow::Result<()> {
    for name in Variant::ALL.into_iter().filter_map(Variant::proof) {
        Load::new(address(addresses, &name)?, bench.scenario)?.send(PROOF_CALLS).await?;
    }
    Ok(())
}

/// The measured rounds; `loads` has the order of `variants`.
struct Rounds {
    pid: u32,
    received: Received,
    variants: Vec<Variant>,
    loads: Vec<Load>,
}

impl Rounds {
    /// How many calls it has sent to all listeners whose calls make events.
    fn metered(&self) -> u32 {
        let loads = self.variants.iter().zip(&self.loads);
        loads.filter(|(variant, _)| variant.is_metered()).map(|(_, load)| load.sent()).sum()
    }

    /// Plays all rounds; returns the slices of each variant, in the order of the rounds.
    async fn play(&mut self, bench: &Bench) -> anyhow::Result<Vec<Vec<Slice>>> {
        let mut slices = vec![Vec::new(); self.variants.len()];
        let mut order: Vec<usize> = (0..slices.len()).collect();
        let mut random = Random(SEED);
        let progress = progress(bench, self.variants.len());
        for round in 0..=bench.rounds {
            random.shuffle(&mut order);
            for &place in &order {
                progress.set_message(self.variants[place].name());
                let slice = self.slice(place, bench.requests).await;
                let slice = slice.with_context(|| self.variants[place].name())?;
                // The first round warms up connections, compilers and caches.
                if round > 0 {
                    slices[place].push(slice);
                }
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        Ok(slices)
    }

    async fn slice(&mut self, place: usize, requests: u32) -> anyhow::Result<Slice> {
        let load = &mut self.loads[place];
        let latencies = load.latencies(requests).await?;
        self.delivered(place).await?;

        let before = CpuTime::of(self.pid)?;
        self.loads[place].send(requests).await?;
        self.delivered(place).await?;
        let used = CpuTime::of(self.pid)?.since(before);

        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let each = |time: Duration| us(time) / f64::from(requests);
        let at = |percent| us(percentile(&latencies, percent).unwrap_or_default());
        Ok(Slice {
            cpu_us: each(used.total),
            workers_us: each(used.workers),
            user_us: each(used.user),
            p50_us: at(50),
            p99_us: at(99),
        })
    }

    /// Waits until a metered listener has delivered its events, so that it does not do so in the
    /// next slice.
    async fn delivered(&self, place: usize) -> anyhow::Result<()> {
        if !self.variants[place].is_metered() {
            return Ok(());
        }
        let sent = usize::try_from(self.metered())?;
        wait::until(DELIVERY_LIMIT, "every call has its event", async || {
            let received = self.received.calls();
            ensure!(received >= sent, "{received} events for {sent} calls");
            Ok(())
        })
        .await
    }
}

/// A progress bar, on a terminal only.
fn progress(bench: &Bench, variants: usize) -> ProgressBar {
    let slices = (u64::from(bench.rounds) + 1) * u64::try_from(variants).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} (eta {eta})");
    ProgressBar::new(slices).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The version that Envoy reports, such as `1.40.0`.
async fn version(envoy: &Envoy) -> anyhow::Result<String> {
    let url = format!("http://{}/server_info", envoy.admin());
    let client = reqwest::Client::builder().no_proxy().build()?;
    let server_info: Value = client.get(url).send().await?.json().await?;
    let version = server_info["version"].as_str().context("/server_info has no version")?;
    Ok(version.split('/').nth(1).unwrap_or(version).to_owned())
}

fn size(module: &Path) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(module);
    Ok(metadata.with_context(|| format!("cannot read {}", module.display()))?.len())
}

//! `agent-meter bench`: measures what the filter costs, with and without guards, against no filter,
//! an empty one, Envoy's own, Lua, one that buffers and an external processor.
//!
//! One Envoy has one listener for each variant. In each round every listener gets the same calls,
//! in shuffled order: first one by one, for the latency, then on several connections, between two
//! readings of the CPU time of the Envoy process. Only the differences within a round are
//! meaningful: noise of the machine disturbs neighbours alike. A slice of a filter that reports ends
//! when the collector has the events of every call, so that the slice includes the delivery. Of the
//! external processor, the CPU time of its own process is counted too.
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
mod processor;
mod ratios;
mod report;
mod rig;
mod rounds;
mod scanner;
mod servers;
mod sessions;
mod stats;
mod svg;
mod variant;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use self::delivery::Delivery;
use self::ingest::Ingest;
use self::latency::Latency;
use self::load::Load;
pub use self::messages::Scenario;
use self::processor::Processor;
use self::report::{ModuleSize, Proven, Report, Row};
use self::rig::Rig;
use self::rounds::Rounds;
use self::servers::Told;
use self::sessions::{Measure, Sessions};
use self::variant::Variant;
use crate::envoy::Envoy;
use crate::run::Signals;
use crate::wait;

/// The seed of the order of the slices, so that the order is the same in every run.
const SEED: u64 = 0x006d_6574_6572;
/// The filter writes its counters every 250 ms.
const COUNTERS_LIMIT: Duration = Duration::from_secs(5);
/// Requests that agent-meter lets through because no product matches.
const UNMATCHED: &str = "wasmcustom.agent_meter.requests_unmatched";
/// Requests and responses that `ai_protocol_manager` has parsed as JSON; those of MCP tell no tokens.
const AI_PARSED: [&str; 2] =
    ["ai_protocol_manager.request_parsed", "ai_protocol_manager.token_usage_missing"];
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
    /// The filter's module; the one to compare with is in the same directory.
    pub wasm: PathBuf,
    /// Another module of the filter, to compare with it.
    pub beside: Option<PathBuf>,
    /// Where to draw what the part `calls` has measured; `None` draws nothing.
    pub svg: Option<PathBuf>,
}

/// Measures and prints; an error if a listener does not do what it is measured for.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    ensure!(bench.rounds > 0 && bench.requests > 0, "expected at least one round and one request");
    ensure!(
        bench.svg.is_none() || bench.only.is_none_or(|only| only == Section::Calls),
        "--svg: only the part calls is drawn"
    );
    let mut signals = Signals::new()?;
    let report = tokio::select! {
        () = signals.stop() => bail!("interrupted"),
        report = measure_all(&bench) => report?,
    };
    let json = serde_json::to_string(&report)?;
    if bench.json {
        println!("{json}");
    } else {
        print!("{report}");
    }
    bench.svg.as_deref().map_or(Ok(()), |file| draw(&json, file))
}

/// Draws the part `calls` of a run, of which this is the JSON, into a file.
pub fn draw(json: &str, file: &Path) -> anyhow::Result<()> {
    let svg = svg::draw(json)?;
    std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))
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
    // What is missing is told before there are files to keep.
    let rivals = rivals(bench)?;
    let processor = Processor::start().await?;
    let ext_proc_optimised = processor.is_optimised;
    let mut rig = Rig::start(bench, bench.scenario).await?.with(processor);
    let variants = rig.listeners.variants();
    let config = rig.dir.path().join("bootstrap.json");
    std::fs::write(&config, format!("{:#}\n", rig.listeners.bootstrap()?))?;
    let envoy = Envoy::start_from(&rig.program, config, rig.dir.path(), 1).await?;

    let pid = envoy.pid().context("Envoy has ended")?;
    let processor = rig.processor.as_ref().map(|processor| processor.pid);
    let cores = match cpu::separate(pid, processor).await {
        Ok(cores) => cores,
        Err(reason) => format!("not pinned to a core: {reason:#}"),
    };
    let addresses = envoy.listeners().await?;
    prove(bench, &addresses).await?;
    let loads = loads(bench, &variants, &addresses)?;
    let received = rig.received.clone();
    let mut rounds = Rounds { envoy: pid, processor, received, variants, loads };
    let slices = rounds.play(bench).await?;
    let proven = proven(&mut rig, &rounds, &envoy).await?;
    let version = version(&envoy).await?;
    envoy.stop().await?;
    rig.listeners.check_proof()?;

    let reference = &slices[0];
    let rows = || rounds.variants.iter().copied().zip(slices.iter().map(Vec::as_slice));
    let listeners = rows().map(|(variant, own)| Row::of(variant, own, reference)).collect();
    let is_fair = |(variant, _): &(Variant, _)| *variant != Variant::ExtProc || ext_proc_optimised;
    let ratios = ratios::ratios(&rows().filter(is_fair).collect::<Vec<_>>());
    let scanner = tokio::task::spawn_blocking(scanner::measure).await??;
    let beside = bench.beside.as_deref().map(|module| ("agent-meter beside", module));
    let modules = [("agent-meter", bench.wasm.as_path())].into_iter().chain(beside);
    let modules = modules.chain([("empty, reading, buffering", rivals.as_path())]);
    let modules = modules.map(|(module, file)| Ok(ModuleSize { module, bytes: size(file)? }));
    let modules = modules.collect::<anyhow::Result<_>>()?;
    rig.dir.done = true;
    Ok(Report {
        scenario: bench.scenario,
        rounds: bench.rounds,
        requests: bench.requests,
        seed: SEED,
        envoy: version,
        cores,
        optimised: !cfg!(debug_assertions),
        ext_proc_optimised,
        listeners,
        ratios,
        proven,
        scanner,
        modules,
    })
}

/// Holds that each listener did what it is measured for, by what came of the calls sent to it.
async fn proven(rig: &mut Rig, rounds: &Rounds, envoy: &Envoy) -> anyhow::Result<Proven> {
    let calls_sent = rounds.told(Told::Call);
    let tool_invocations = rig.received.told(Told::Call);
    ensure!(
        usize::try_from(calls_sent)? == tool_invocations,
        "{tool_invocations} tool_invocation events for {calls_sent} calls"
    );
    let (sent, exchanges_buffered) =
        (rounds.told(Told::Exchange), rig.received.told(Told::Exchange));
    ensure!(
        usize::try_from(sent)? == exchanges_buffered,
        "{exchanges_buffered} exchanges came of {sent}"
    );
    let sent = |wanted| u64::from(rounds.sent(|variant| variant == wanted));
    let requests_unmatched = counted(envoy, UNMATCHED, sent(Variant::Unmatched)).await?;
    let parsed = sent(Variant::NativeMcpAndAi) + u64::from(PROOF_CALLS);
    for stat in AI_PARSED {
        counted(envoy, stat, parsed).await?;
    }
    let processor = rig.processor.as_mut().context("no external processor")?;
    let (sent, ext_proc_understood) = (sent(Variant::ExtProc), processor.stop().await?);
    ensure!(
        ext_proc_understood == sent,
        "the external processor understood {ext_proc_understood} calls of {sent}"
    );
    Ok(Proven {
        calls_sent,
        tool_invocations,
        exchanges_buffered,
        requests_unmatched,
        ext_proc_understood,
    })
}

/// Waits until a counter of Envoy has this value: the filter writes its own on a tick.
async fn counted(envoy: &Envoy, name: &str, expected: u64) -> anyhow::Result<u64> {
    wait::until(COUNTERS_LIMIT, "Envoy has counted what its filters did", async || {
        let found = envoy.stats(name).await?.get(name).copied();
        ensure!(found == Some(expected), "{name} is {found:?} after {expected} calls");
        Ok(expected)
    })
    .await
}

async fn measure_latency(bench: &Bench) -> anyhow::Result<Latency> {
    rivals(bench)?;
    let mut rig = Rig::start(bench, bench.scenario).await?;
    let latency = latency::measure(&rig, bench.scenario, bench.rounds).await?;
    rig.dir.done = true;
    Ok(latency)
}

async fn measure_sessions(bench: &Bench) -> anyhow::Result<Sessions> {
    let scenario = Scenario::Json;
    let mut rig = Rig::start(bench, scenario).await?;
    let Bench { sessions, rounds, requests, .. } = *bench;
    let sessions = Measure { rig: &rig, scenario, sessions, rounds, requests }.run().await?;
    rig.dir.done = true;
    Ok(sessions)
}

/// The module with the empty filter; an error if it was not built.
fn rivals(bench: &Bench) -> anyhow::Result<PathBuf> {
    let file = listeners::rivals(bench)?;
    ensure!(file.is_file(), "no module {} to compare with; run make bench", file.display());
    Ok(file)
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

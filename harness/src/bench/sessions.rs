//! Measures what many sessions cost: memory and ticks while they live, the latency against no
//! filter, and memory after ten times as many have come and gone.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::cpu::{self, CpuTime};
use super::load::Load;
use super::messages::{Scenario, call};
use super::rig::Rig;
use super::stats::{Quartiles, percentile, tenths};
use super::variant::Variant;
use crate::envoy::Envoy;
use crate::wait;

/// The connections that open sessions: as fast as Envoy answers, and no faster than the accountant
/// reads.
const OPENERS: u32 = 4;
/// The size of the session table while many sessions come and go.
const TABLE: u32 = 10_000;
/// How many times the number of live sessions come and go.
const CHURN: u32 = 10;
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(2);
const QUIET_SLICES: u32 = 5;
/// How often the module ticks.
const TICKS_PER_SECOND: f64 = 4.0;

/// The results of the part `sessions`.
#[derive(Debug, Serialize)]
pub(super) struct Sessions {
    live: u32,
    rss_before_mib: f64,
    rss_live_mib: f64,
    /// Envoy's memory, divided by the number of sessions.
    bytes_each: f64,
    opened_per_second: f64,
    /// The idle CPU time of all threads but the workers, for each tick; in microseconds.
    idle_tick_before_us: Quartiles,
    idle_tick_live_us: Quartiles,
    /// Compared with no filter in the same round.
    added_before: Latency,
    added_live: Latency,
    churned: u32,
    table: u32,
    /// Measured after each tenth of them.
    churn_rss_mib: Vec<f64>,
}

/// The latency that the filter adds to a call, against no filter in the same round; in
/// microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    #[serde(serialize_with = "tenths")]
    reference_p50_us: f64,
    p50_us: Quartiles,
    p99_us: Quartiles,
}

/// The options of the measurement.
#[derive(Debug)]
pub(super) struct Measure<'a> {
    pub(super) rig: &'a Rig,
    pub(super) scenario: Scenario,
    pub(super) sessions: u32,
    pub(super) rounds: u32,
    pub(super) requests: u32,
}

impl Measure<'_> {
    /// Measures; one Envoy has the live sessions, another those that come and go.
    pub(super) async fn run(&self) -> anyhow::Result<Sessions> {
        let live = self.sessions;
        // The connections that measure the latency open sessions of their own, on top of these.
        let rules = json!({ "idle_timeout": "1h", "session_timeout": "2h" });
        let (envoy, pid) = self.start(live.saturating_add(100), &rules).await?;
        let filter = address(&envoy, Variant::AgentMeter).await?;
        let added_before = self.latency(&envoy).await?;
        self.quiet().await?;
        let idle_tick_before_us = idle_ticks(pid).await?;
        let rss_before_mib = rss_mib(pid)?;
        let created_before = self.rig.received.sessions().0;

        let start = Instant::now();
        open(filter, 0, live).await?;
        let opened_per_second = f64::from(live) / start.elapsed().as_secs_f64();
        self.created(created_before + u64::from(live)).await?;
        let rss_live_mib = rss_mib(pid)?;
        let idle_tick_live_us = idle_ticks(pid).await?;
        let added_live = self.latency(&envoy).await?;
        // At a stop Envoy would log the end of every session, and that takes longer than the
        // harness waits.
        envoy.kill().await?;

        let churned = live.saturating_mul(CHURN);
        let rules = json!({ "idle_timeout": "1s", "session_timeout": "3s" });
        let (envoy, pid) = self.start(TABLE, &rules).await?;
        let filter = address(&envoy, Variant::AgentMeter).await?;
        let (created, closed) = self.rig.received.sessions();
        let mut churn_rss_mib = Vec::new();
        for lap in 0..CHURN {
            open(filter, lap * live, live).await?;
            self.created(created + u64::from(live) * u64::from(lap + 1)).await?;
            churn_rss_mib.push(rss_mib(pid)?);
        }
        let all = u64::from(churned);
        wait::until(DELIVERY_LIMIT, "every session is closed", async || {
            let ended = self.rig.received.sessions().1 - closed;
            ensure!(ended == all, "{ended} of {all} sessions closed");
            Ok(())
        })
        .await?;
        ensure!(self.rig.received.sessions().0 - created == all, "a session was told of twice");
        envoy.stop().await?;

        Ok(Sessions {
            live,
            rss_before_mib,
            rss_live_mib,
            bytes_each: (rss_live_mib - rss_before_mib) * 1024.0 * 1024.0 / f64::from(live),
            opened_per_second,
            idle_tick_before_us,
            idle_tick_live_us,
            added_before,
            added_live,
            churned,
            table: TABLE,
            churn_rss_mib,
        })
    }

    async fn start(&self, sessions_max: u32, rules: &Value) -> anyhow::Result<(Envoy, u32)> {
        let variants = [Variant::NoFilter, Variant::AgentMeter];
        let change = |options: &mut Value| {
            options["sessions_max"] = json!(sessions_max);
            options["products"][0]["session"] = rules.clone();
        };
        let envoy = self.rig.listeners.start(&self.rig.program, &variants, change).await?;
        let pid = envoy.pid().context("Envoy has ended")?;
        // On a machine with one core, the report of the listeners says so.
        let _ = cpu::separate(pid, None).await;
        Ok((envoy, pid))
    }

    async fn latency(&self, envoy: &Envoy) -> anyhow::Result<Latency> {
        let variants = [Variant::NoFilter, Variant::AgentMeter];
        let mut loads = Vec::new();
        for variant in variants {
            loads.push(Load::new(address(envoy, variant).await?, self.scenario)?);
        }
        let (mut p50, mut p99) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
        for round in 0..=self.rounds {
            // Each variant goes first in half of the rounds.
            for turn in [0, 1] {
                let place = usize::from((round % 2 == 0) == (turn == 0));
                let sorted = loads[place].latencies(self.requests).await?;
                let at =
                    |percent| percentile(&sorted, percent).unwrap_or_default().as_secs_f64() * 1e6;
                if round > 0 {
                    p50[place].push(at(50));
                    p99[place].push(at(99));
                }
            }
        }
        Ok(Latency {
            reference_p50_us: Quartiles::median(&p50[0]),
            p50_us: Quartiles::of_differences(&p50[1], &p50[0]),
            p99_us: Quartiles::of_differences(&p99[1], &p99[0]),
        })
    }

    async fn quiet(&self) -> anyhow::Result<()> {
        tokio::time::sleep(QUIET).await;
        Ok(())
    }

    async fn created(&self, sessions: u64) -> anyhow::Result<()> {
        wait::until(DELIVERY_LIMIT, "every session has its event", async || {
            let received = self.rig.received.sessions().0;
            ensure!(received >= sessions, "{received} of {sessions} sessions created");
            Ok(())
        })
        .await?;
        self.quiet().await
    }
}

pub(super) async fn address(envoy: &Envoy, variant: Variant) -> anyhow::Result<SocketAddr> {
    super::address(&envoy.listeners().await?, variant.name())
}

async fn idle_ticks(pid: u32) -> anyhow::Result<Quartiles> {
    let mut ticks = Vec::new();
    for _ in 0..QUIET_SLICES {
        let before = CpuTime::of(pid)?;
        tokio::time::sleep(QUIET).await;
        let used = CpuTime::of(pid)?.since(before);
        let others = used.total.saturating_sub(used.workers).as_secs_f64() * 1e6;
        ticks.push(others / (QUIET.as_secs_f64() * TICKS_PER_SECOND));
    }
    Ok(Quartiles::of(ticks))
}

fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    Ok(f64::from(kib.context("no VmRSS")?) / 1024.0)
}

/// Opens sessions with one call each.
async fn open(listener: SocketAddr, first: u32, sessions: u32) -> anyhow::Result<()> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        openers.spawn(async move {
            let mut stream = TcpStream::connect(listener).await?;
            stream.set_nodelay(true)?;
            let mut answer = Vec::new();
            for number in (opener..sessions).step_by(OPENERS as usize) {
                let session = first + number;
                let body = call(session);
                let request = format!(
                    "POST /mcp HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
                     accept: application/json, text/event-stream\r\nmcp-session-id: opened-{session:025}\r\n\
                     x-customer-id: acme\r\nx-agent-id: agent-1\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(request.as_bytes()).await?;
                read_answer(&mut stream, &mut answer).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = openers.join_next().await {
        done??;
    }
    Ok(())
}

/// Reads one response of known length and drops it.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    loop {
        ensure!(stream.read_buf(answer).await? > 0, "Envoy has closed the connection");
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "expected 200: {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("an answer without length")?.trim().parse()?;
        while answer.len() < end + 4 + length {
            ensure!(stream.read_buf(answer).await? > 0, "an answer was cut");
        }
        return Ok(());
    }
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "| {name} | {value} |");
        line("sessions", "figure".to_owned())?;
        line("---", "---".to_owned())?;
        line("live at once", self.live.to_string())?;
        line("opened each second", format!("{:.0}", self.opened_per_second))?;
        let (before, live) = (self.rss_before_mib, self.rss_live_mib);
        line("Envoy's RSS, before and with them", format!("{before:.0} and {live:.0} MiB"))?;
        line("of it for each session", format!("{:.0} bytes", self.bytes_each))?;
        let (before, live) = (self.idle_tick_before_us, self.idle_tick_live_us);
        line("CPU of an idle tick before, all threads but the worker", us(before))?;
        line("the same with them", us(live))?;
        for (when, added) in [("before", &self.added_before), ("with them", &self.added_live)] {
            let reference = format!("latency p50 without the filter, {when}");
            line(&reference, format!("{:.0} us", added.reference_p50_us))?;
            line(&format!("added p50, {when}"), us(added.p50_us))?;
            line(&format!("added p99, {when}"), us(added.p99_us))?;
        }
        let rss: Vec<String> = self.churn_rss_mib.iter().map(|mib| format!("{mib:.0}")).collect();
        let name =
            format!("RSS after each tenth of {} through a table of {}", self.churned, self.table);
        line(&name, format!("{} MiB", rss.join(", ")))
    }
}

fn us(Quartiles { q1, median, q3 }: Quartiles) -> String {
    format!("{median:.0} ({q1:.0} to {q3:.0}) us")
}

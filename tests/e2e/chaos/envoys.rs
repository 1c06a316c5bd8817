//! Faults of whole Envoys that live on: a hot restart, a clock that is set back, and a tenant that
//! floods.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_meter::stack::{Events, Options};
use agent_meter::wait;
use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::collectors::{Answer, Switched};
use super::faults::{rig, start, trial};
use super::table::Row;
use super::trial::{End, FLOOD, Trial, quick_plugin};
use crate::client::{Agent, Client, request};
use crate::upstream::{Step, Upstream, json_response, obliging, success};
use crate::{LIMIT, Rig, release_module};

/// How long the predecessor serves on.
const PREDECESSOR_S: u32 = 2;
/// How far the clock is set back.
const BACK_S: i64 = 3600;
/// How much of that a clock has to show; the rest is what the test takes.
const BACK_LEAST: chrono::TimeDelta = chrono::TimeDelta::minutes(59);
/// Calls of one request of the flood.
const BATCH: u64 = 1_000;
const FLOODING: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 4;

/// Another Envoy takes over the listener and ends the first.
pub(super) async fn hot_restart(is_up: bool) -> anyhow::Result<Row> {
    let mut collector = Switched::start(Answer::Error).await?;
    let rig = rig(collector.addr, quick_plugin()).await?;
    let mut trial = trial(rig, collector.ledger.clone()).await?;
    if !is_up {
        let before = trial.failures().await?;
        collector.leave().await?;
        trial.until_failures(before, 1).await?;
    }
    let stack = trial.rig.stack_mut()?;
    let mut predecessor = stack.hot_restart_envoy(PREDECESSOR_S).await?;
    let ended = timeout(LIMIT, predecessor.ended()).await;
    let ended = ended.context("the predecessor does not end")?.to_string();
    ensure!(ended.contains("exit status: 0"), "{ended}");
    if !is_up {
        collector.come_back()?;
    }
    // The successor serves and tells, else its end would prove nothing.
    wait::until(LIMIT, "the successor tells that it lives", async || {
        let sources = trial.ledger.gaps()?.sources.len();
        ensure!(sources == 2, "{sources} sources");
        Ok(())
    })
    .await?;
    sleep(Duration::from_millis(500)).await;
    trial.end(End::Term, None).await
}

/// The clock of one process, which can be moved while it runs.
struct Clock {
    dir: TempDir,
}

impl Clock {
    /// Builds the library with the compiler that links this test.
    async fn build() -> anyhow::Result<Self> {
        let clock = Self { dir: tempfile::tempdir()? };
        std::fs::write(clock.source(), include_str!("clock.c"))?;
        std::fs::write(clock.offset(), 0_i64.to_ne_bytes())?;
        let mut compiler = tokio::process::Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
        let built = compiler.arg(clock.library()).arg(clock.source()).status().await;
        let built = built.context("cannot run `cc`")?;
        ensure!(built.success(), "cc: {built}");
        Ok(clock)
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("clock.c")
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn offset(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// The variables of the process.
    fn environment(&self) -> Vec<(String, String)> {
        let variables = [("LD_PRELOAD", self.library()), ("CLOCK_OFFSET", self.offset())];
        variables.map(|(name, path)| (name.to_owned(), path.display().to_string())).to_vec()
    }

    /// Moves the clock, which is right at first.
    fn move_by(&self, seconds: i64) -> anyhow::Result<()> {
        // The process has mapped the file, so that it must not be cut.
        let mut file = std::fs::File::options().write(true).open(self.offset())?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }
}

/// By how much Envoy's clock is behind this machine's.
async fn behind(rig: &Rig) -> anyhow::Result<chrono::TimeDelta> {
    let ready = request("GET", "/ready", &[], b"");
    let answer = Client::connect(rig.stack()?.envoy()?.admin()).await?.exchange(&ready).await?;
    let date = answer.header("date").context("no date")?;
    Ok(Utc::now() - DateTime::parse_from_rfc2822(&date)?.with_timezone(&Utc))
}

/// Envoy's clock is set back while the collector is down, so that there are retries to come.
pub(super) async fn clock_back() -> anyhow::Result<Row> {
    let clock = Clock::build().await?;
    let environment = clock.environment();
    let mut collector = Switched::start(Answer::Error).await?;
    let options = Options::new(quick_plugin(), Some(release_module()?));
    let rig = start(collector.addr, Options { environment, ..options }).await?;
    ensure!(behind(&rig).await?.num_seconds().abs() < 10, "the clock is wrong from the start");
    let trial = trial(rig, collector.ledger.clone()).await?;
    let before = trial.failures().await?;
    collector.leave().await?;
    trial.until_failures(before, 2).await?;
    clock.move_by(-BACK_S)?;
    wait::until(LIMIT, "Envoy's clock is set back", async || {
        let behind = behind(&trial.rig).await?;
        ensure!(behind > BACK_LEAST, "{behind} behind");
        Ok(())
    })
    .await?;
    sleep(Duration::from_secs(1)).await;
    collector.come_back()?;
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// The answers to a batch of the flood.
fn answers() -> Vec<u8> {
    let answers: Vec<Value> = (0..BATCH).map(|id| success(&json!(id))).collect();
    json_response(&json!(answers))
}

/// Sends batches of calls, one after the other.
async fn flood(listen: SocketAddr, name: String) -> anyhow::Result<()> {
    let call = |id| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": FLOOD } });
    let batch: Vec<Value> = (0..BATCH).map(call).collect();
    let agent = Agent { session: Some(name), ..Agent::new("flooding") };
    let request = agent.post(json!(batch).to_string().as_bytes());
    let (mut client, end) = (Client::connect(listen).await?, Instant::now() + FLOODING);
    while Instant::now() < end {
        let answer = client.exchange(&request).await?;
        ensure!([200, 429].contains(&answer.status()), "{}", answer.status());
        if answer.header("connection").is_some_and(|value| value == "close") {
            client = Client::connect(listen).await?;
        }
    }
    Ok(())
}

/// One tenant makes more calls than journals have room for, beside those of the load.
pub(super) async fn tenant_flood() -> anyhow::Result<Row> {
    let collector = Switched::start(Answer::Error).await?;
    let executed = Arc::<AtomicU64>::default();
    let (counter, answers) = (Arc::clone(&executed), answers());
    let upstream = Upstream::start(move |message| {
        if !message.body.starts_with(b"[") {
            return obliging(message);
        }
        counter.fetch_add(BATCH, Ordering::SeqCst);
        vec![Step::Send(answers.clone())]
    })
    .await?;
    let options = Options::new(quick_plugin(), Some(release_module()?));
    let events = Events::At(collector.addr.into());
    let rig = Rig::with(upstream, Options { events, ..options }).await?;
    let mut trial: Trial = trial(rig, collector.ledger.clone()).await?;
    let listen = trial.rig.listen()?;
    let mut floods = JoinSet::new();
    for number in 0..CONNECTIONS {
        floods.spawn(flood(listen, format!("flood-{number}")));
    }
    while let Some(flood) = floods.join_next().await {
        flood??;
    }
    for name in ["journal_full", "requests_over_share"] {
        ensure!(trial.rig.metric(name).await? > 0, "nothing was {name}");
    }
    trial.flood = executed.load(Ordering::SeqCst);
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

//! The faults of collectors and VMs, and the ends of Envoy: how each is brought about, and how one
//! sees that it was.

use std::net::SocketAddr;
use std::time::Duration;

use agent_meter::stack::{Events, Options};
use agent_meter_collector::Ledger;
use anyhow::ensure;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::collectors::{Answer, Process, Switched};
use super::table::Row;
use super::trial::{End, PACE, Trial, quick_plugin};
use crate::crash::kill;
use crate::upstream::{Upstream, obliging};
use crate::{Rig, crash_module, plain_plugin, release_module};

/// How long a collector answers wrongly, or is not there when Envoy ends.
const A_WHILE: Duration = Duration::from_millis(1_500);
/// The batches that have to fail, so that the fault was there.
const FAILURES: u64 = 2;
/// What the ledger's files may grow on a disk that is nearly full.
const BLOCKS_LEFT: u64 = 32;

/// An outage, in which connections are refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) time: Duration,
    /// Whether delivery has its default times, and not a tenth of them.
    pub(super) has_default_times: bool,
}

impl Outage {
    /// As the table names it.
    pub(super) fn name(self) -> String {
        let seconds = self.time.as_secs();
        if self.has_default_times {
            return format!("collector down for {seconds} s, default times");
        }
        format!("collector down for {} s, all times a tenth: {seconds} s", 10 * seconds)
    }

    fn plugin(self) -> Value {
        let mut plugin = if self.has_default_times { plain_plugin() } else { quick_plugin() };
        if self.has_default_times {
            plugin["delivery"] = json!({ "heartbeat_interval": "1s" });
        }
        plugin
    }
}

/// An Envoy that delivers to a collector.
pub(super) async fn rig(events: SocketAddr, plugin: Value) -> anyhow::Result<Rig> {
    let options = Options::new(plugin, Some(release_module()?));
    start(events, options).await
}

pub(super) async fn start(events: SocketAddr, options: Options) -> anyhow::Result<Rig> {
    let options = Options { events: Events::At(events.into()), ..options };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// A trial whose Envoy listens at one address.
pub(super) async fn trial(rig: Rig, ledger: Ledger) -> anyhow::Result<Trial> {
    let listen = rig.listen()?;
    Trial::start(rig, ledger, &[listen], PACE).await
}

/// The collector answers wrongly for a while.
pub(super) async fn wrong_answers(answer: Answer) -> anyhow::Result<Row> {
    let collector = Switched::start(answer).await?;
    let trial = trial(rig(collector.addr, quick_plugin()).await?, collector.ledger.clone()).await?;
    collector.answer_wrongly(true);
    sleep(A_WHILE).await;
    collector.until_bad_answers(FAILURES).await?;
    collector.answer_wrongly(false);
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// The collector refuses connections.
pub(super) async fn outage(outage: Outage) -> anyhow::Result<Row> {
    let mut collector = Switched::start(Answer::Error).await?;
    let rig = rig(collector.addr, outage.plugin()).await?;
    let listens = [rig.listen()?];
    let pace = if outage.time > Duration::from_secs(10) { 8 * PACE } else { PACE };
    let trial = Trial::start(rig, collector.ledger.clone(), &listens, pace).await?;
    let before = trial.failures().await?;
    collector.leave().await?;
    sleep(outage.time).await;
    trial.until_failures(before, FAILURES).await?;
    collector.come_back()?;
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// The disk of the collector is full, until it is started with more room.
pub(super) async fn full_disk() -> anyhow::Result<Row> {
    let dir = tempfile::tempdir()?;
    let mut collector = Process::start(dir.path()).await?;
    let trial = trial(rig(collector.addr, quick_plugin()).await?, collector.ledger()?).await?;
    collector.kill().await?;
    collector.start_again(Some(BLOCKS_LEFT)).await?;
    agent_meter::wait::until(crate::LIMIT, "the disk is full", async || {
        let (status, told) = collector.health().await?;
        ensure!(status == 503 && told.contains("ledger"), "{status} {told}");
        Ok(())
    })
    .await?;
    trial.until_failures(trial.failures().await?, FAILURES).await?;
    collector.kill().await?;
    collector.start_again(None).await?;
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// Another program holds the ledger.
pub(super) async fn locked_ledger(time: Duration) -> anyhow::Result<Row> {
    let dir = tempfile::tempdir()?;
    let collector = Process::start(dir.path()).await?;
    let trial = trial(rig(collector.addr, quick_plugin()).await?, collector.ledger()?).await?;
    let before = trial.failures().await?;
    let other = Connection::open(collector.file())?;
    other.busy_timeout(crate::LIMIT)?;
    other.execute_batch("BEGIN EXCLUSIVE")?;
    let stored = trial.ledger.count_events()?;
    sleep(time).await;
    trial.until_failures(before, FAILURES).await?;
    ensure!(trial.ledger.count_events()? == stored, "events were stored in a locked ledger");
    other.execute_batch("ROLLBACK")?;
    drop(other);
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// The collector is killed with SIGKILL and started again, so many times.
pub(super) async fn killed_collector(times: u32) -> anyhow::Result<Row> {
    let dir = tempfile::tempdir()?;
    let mut collector = Process::start(dir.path()).await?;
    let trial = trial(rig(collector.addr, quick_plugin()).await?, collector.ledger()?).await?;
    for time in 0..times {
        // Each time at another moment of the second.
        sleep(Duration::from_millis(500 + u64::from(time) * 70)).await;
        let before = trial.failures().await?;
        collector.kill().await?;
        trial.until_failures(before, FAILURES).await?;
        collector.start_again(None).await?;
    }
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// A VM dies: that of a worker, or the accountant's.
pub(super) async fn death(who: &str) -> anyhow::Result<Row> {
    let collector = Switched::start(Answer::Error).await?;
    let options = Options::new(quick_plugin(), Some(crash_module()?));
    let trial = trial(start(collector.addr, options).await?, collector.ledger.clone()).await?;
    kill(&trial.rig, who).await?;
    sleep(A_WHILE).await;
    trial.arrived().await?;
    trial.end(End::Term, None).await
}

/// Envoy ends, while the collector is up or refuses connections.
pub(super) async fn end(end: End, is_up: bool) -> anyhow::Result<Row> {
    let mut collector = Switched::start(Answer::Error).await?;
    let trial = trial(rig(collector.addr, quick_plugin()).await?, collector.ledger.clone()).await?;
    let before = trial.failures().await?;
    let reached_until = if is_up { None } else { Some(collector.leave().await?) };
    sleep(A_WHILE).await;
    if !is_up {
        trial.until_failures(before, FAILURES).await?;
    }
    trial.end(end, reached_until).await
}

//! One Envoy under load, its end, and what the ledger then has of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent_meter::wait;
use agent_meter_collector::recover::{self, Log, Target, recover};
use agent_meter_collector::{Ledger, SourceState};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::calls::{Load, TOOL};
use super::table::Row;
use crate::books::{Books, quantity, text};
use crate::client::{Client, request};
use crate::{LIMIT, Rig, plain_plugin};

/// How long each client of the load rests between two calls.
pub(super) const PACE: Duration = Duration::from_millis(25);
/// The time from the end of a call to the ledger, where nothing is wrong: the accountant reads the
/// call on one tick, and sends it on the first tick after the flush interval; and this machine has
/// other work to do.
pub(super) const ON_THE_WAY: Duration =
    Duration::from_millis(2 * TICK_MS + FLUSH_MS + OTHER_WORK_MS);
const TICK_MS: u64 = 250;
/// As in `crate::plugin`.
const FLUSH_MS: u64 = 100;
const OTHER_WORK_MS: u64 = 500;
/// The tool whose calls are counted all together.
pub(super) const FLOOD: &str = "flood";

/// How Envoy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Term,
    Interrupt,
    Quit,
    Kill,
}

impl End {
    /// As the table names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            End::Term => "SIGTERM",
            End::Interrupt => "SIGINT",
            End::Quit => "quitquitquit",
            End::Kill => "SIGKILL",
        }
    }

    async fn order(self, rig: &Rig) -> anyhow::Result<()> {
        let envoy = rig.stack()?.envoy()?;
        let signal = match self {
            End::Term => "-TERM",
            End::Interrupt => "-INT",
            End::Kill => "-KILL",
            End::Quit => {
                let quit = request("POST", "/quitquitquit", &[], b"");
                Client::connect(envoy.admin()).await?.exchange(&quit).await?;
                return Ok(());
            }
        };
        let pid = envoy.pid().context("Envoy runs")?.to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        Ok(())
    }

    /// What the error of an Envoy that ended so contains.
    fn told(self) -> &'static str {
        if self == End::Kill { "signal: 9" } else { "exit status: 0" }
    }
}

/// A configuration under which faults show within seconds: a tenth of the default times, and signs
/// of life each second.
pub(super) fn quick_plugin() -> Value {
    let mut plugin = plain_plugin();
    plugin["collector"] = json!({ "timeout": "1s" });
    plugin["delivery"]["heartbeat_interval"] = json!("1s");
    plugin
}

/// An Envoy under load, and the ledger to which its events go.
pub(super) struct Trial {
    pub(super) rig: Rig,
    pub(super) ledger: Ledger,
    load: Load,
    /// Calls of [`FLOOD`].
    pub(super) flood: u64,
}

impl Trial {
    /// Starts the load at these addresses, and waits until the source has told that it lives and
    /// calls have arrived.
    pub(super) async fn start(
        rig: Rig,
        ledger: Ledger,
        listens: &[SocketAddr],
        pace: Duration,
    ) -> anyhow::Result<Self> {
        let load = Load::start(listens, pace);
        let trial = Self { rig, ledger, load, flood: 0 };
        wait::until(LIMIT, "the source tells that it lives", async || {
            ensure!(trial.ledger.gaps()?.states.count(SourceState::Alive) == 1, "not yet");
            Ok(())
        })
        .await?;
        trial.arrived().await?;
        Ok(trial)
    }

    /// How many batches were not taken so far.
    pub(super) async fn failures(&self) -> anyhow::Result<u64> {
        self.rig.metric("batches_failed").await
    }

    /// Waits until so many more batches were not taken.
    pub(super) async fn until_failures(&self, before: u64, more: u64) -> anyhow::Result<()> {
        wait::until(LIMIT, "delivery fails", async || {
            let failures = self.failures().await?;
            ensure!(failures >= before + more, "{failures} batches failed, {before} before");
            Ok(())
        })
        .await
    }

    /// Waits until every call that is done by now has arrived at the ledger, without recovery.
    pub(super) async fn arrived(&self) -> anyhow::Result<()> {
        let done = self.load.calls.done();
        ensure!(!done.is_empty(), "no call is done");
        wait::until(LIMIT, "what is done arrives", async || {
            let booked = booked(&Books::read(&self.ledger).await?);
            let missing = done.keys().filter(|tool| !booked.contains_key(*tool)).count();
            ensure!(missing == 0, "{missing} of {} calls are missing", done.len());
            Ok(())
        })
        .await
    }

    /// Ends Envoy under load, recovers its log, and counts. After SIGKILL, calls may be missing that
    /// came after `reached_until`, the last moment at which the collector could be reached.
    pub(super) async fn end(
        mut self,
        end: End,
        reached_until: Option<Instant>,
    ) -> anyhow::Result<Row> {
        let ordered = Instant::now();
        end.order(&self.rig).await?;
        let ended = timeout(LIMIT, self.rig.stack_mut()?.ended()).await;
        let ended = ended.context("Envoy does not stop")?.to_string();
        ensure!(ended.contains(end.told()), "{}: {ended}", end.name());
        let calls = self.load.stop().await?;
        let before = booked(&Books::read(&self.ledger).await?);
        let log = Log::open(&self.rig.stack()?.dir().join("envoy.log"))?;
        let target = Target::Ledger { ledger: self.ledger.clone(), allows_older: false };
        let recovered = recover([log], &target, &recover::Options::default()).await?;
        ensure!(recovered.is_complete(), "{recovered:?}");
        if end == End::Kill {
            until_silent(&self.ledger).await?;
        }

        let books = Books::read(&self.ledger).await?;
        let after = booked(&books);
        let (done, mut row) = (calls.done(), Row::default());
        row.calls = count(done.len()) + self.flood;
        let lost = done.iter().filter(|(tool, _)| !after.contains_key(*tool));
        let ends: Vec<Instant> = lost.map(|(_, at)| *at).collect();
        let since = reached_until.unwrap_or(ordered).checked_sub(ON_THE_WAY);
        let is_named = |at: &&Instant| end == End::Kill && Some(**at) >= since;
        row.named = count(ends.iter().filter(is_named).count());
        let flood = after.get(FLOOD).copied().unwrap_or(0);
        row.silent_loss = count(ends.len()) - row.named + self.flood.saturating_sub(flood);
        row.in_ledger = row.calls - row.named - row.silent_loss;
        let new = done.keys().filter(|tool| after.contains_key(*tool));
        row.recovered = count(new.filter(|tool| !before.contains_key(*tool)).count())
            + flood.saturating_sub(before.get(FLOOD).copied().unwrap_or(0));
        row.doubles = doubles(&books) + flood.saturating_sub(self.flood);
        if end != End::Kill {
            let checked = check_whole(&books, &self.ledger).await;
            row.trouble = checked.err().map(|error| format!("{error:#}"));
        }
        if !row.is_good() {
            // Says where the working files are: Envoy's log has to explain it.
            self.rig.stack_mut()?.keep_files();
        }
        self.rig.discard().await?;
        Ok(row)
    }
}

/// Waits until the collector names the source as silent.
async fn until_silent(ledger: &Ledger) -> anyhow::Result<()> {
    wait::until(LIMIT, "the source is silent", async || {
        let silent = ledger.gaps()?.states.count(SourceState::Silent);
        ensure!(silent == 1, "{silent} silent sources");
        Ok(())
    })
    .await
}

/// Checks the books of Envoys that have ended in order: no number is missing, every source has told
/// its end, and every session has its final event, which agrees with its calls.
async fn check_whole(books: &Books, ledger: &Ledger) -> anyhow::Result<()> {
    books.check(ledger).await?;
    let (created, closed) = (books.of_type("session_created").count(), books.closed().count());
    ensure!(created == closed, "{created} sessions, {closed} closed");
    let states = ledger.gaps()?.states;
    let ended = states.count(SourceState::Ended);
    let others: u64 = SourceState::ALL.iter().map(|state| states.count(*state)).sum();
    ensure!(ended == others, "sources: {states:?}");
    Ok(())
}

/// How often each tool of the load was called with success, by the ledger.
fn booked(books: &Books) -> BTreeMap<String, u64> {
    let mut booked = BTreeMap::new();
    for call in of_load(books).filter(|call| call["execution_status"] == "SUCCESS") {
        *booked.entry(text(call, "/tool_name")).or_default() += quantity(call);
    }
    booked
}

/// How many events of calls there are beyond the first of each, whatever their status.
fn doubles(books: &Books) -> u64 {
    let mut times = BTreeMap::<String, u64>::new();
    for call in of_load(books).filter(|call| call["tool_name"] != FLOOD) {
        *times.entry(text(call, "/tool_name")).or_default() += quantity(call);
    }
    times.values().map(|times| times.saturating_sub(1)).sum()
}

fn of_load(books: &Books) -> impl Iterator<Item = &Value> {
    books.tool_invocations().filter(|call| {
        let tool = call["tool_name"].as_str().unwrap_or_default();
        tool.starts_with(TOOL) || tool == FLOOD
    })
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

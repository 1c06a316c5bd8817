//! A table of faults: how many calls were made, where each is found, and what is missing. Whatever
//! happens, no call is lost in silence, and none is there twice.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter::wait;
use agent_meter_collector::recover::{self, Log, Target, recover};
use agent_meter_collector::{Ledger, SourceState};
use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::sleep;

use crate::books::{Books, quantity, text};
use crate::client::{Agent, Client, request};
use crate::crash::kill;
use crate::delivery::{Deed, collector};
use crate::http1::Message;
use crate::upstream::{Upstream, obliging, response};
use crate::{LIMIT, Rig, crash_module, plain_plugin, release_module};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The collector answers so for a while.
    Collector(Answer),
    /// A VM dies: that of a worker, or the accountant's.
    Death(&'static str),
    /// Envoy gets this signal, with the collector up or down.
    Signal(&'static str, bool),
    /// Envoy is told to quit at its admin interface, while the collector is down.
    Quit,
}

/// A collector's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Error,
    Busy,
    LoginPage,
    Garbage,
    HalfTaken,
    CutBehindTaking,
    Slow,
}

const FAULTS: [(&str, Fault); 15] = [
    ("collector answers 500", Fault::Collector(Answer::Error)),
    ("collector answers 429", Fault::Collector(Answer::Busy)),
    ("login page with 200", Fault::Collector(Answer::LoginPage)),
    ("garbage with 200", Fault::Collector(Answer::Garbage)),
    ("half of a batch taken", Fault::Collector(Answer::HalfTaken)),
    ("connection cut behind taking", Fault::Collector(Answer::CutBehindTaking)),
    ("collector slower than the timeout", Fault::Collector(Answer::Slow)),
    ("VM of a worker dies", Fault::Death("worker")),
    ("VM of the accountant dies", Fault::Death("accountant=10")),
    ("SIGTERM, collector up", Fault::Signal("-TERM", true)),
    ("SIGTERM, collector down", Fault::Signal("-TERM", false)),
    ("SIGINT, collector down", Fault::Signal("-INT", false)),
    ("quitquitquit, collector down", Fault::Quit),
    ("SIGKILL, collector up", Fault::Signal("-KILL", true)),
    ("SIGKILL, collector down", Fault::Signal("-KILL", false)),
];

/// What came of one fault.
#[derive(Debug, Default)]
struct Row {
    calls: u64,
    in_ledger: u64,
    recovered: u64,
    /// Numbers that are missing.
    missing: u64,
    /// Whether the collector says that a source fell silent.
    is_silent: bool,
    doubles: u64,
}

impl Row {
    /// Calls that are nowhere, and of which nothing says so.
    fn silent_loss(&self) -> u64 {
        let lost = self.calls.saturating_sub(self.in_ledger);
        if self.is_silent { 0 } else { lost.saturating_sub(self.missing) }
    }
}

fn deed(answer: Answer, batch: &str, ledger: &Ledger) -> Deed {
    match answer {
        Answer::Error => Deed::Answer(response("500 Internal Server Error", &[], b"")),
        Answer::Busy => {
            Deed::Answer(response("429 Too Many Requests", &[("retry-after", "1")], b""))
        }
        Answer::LoginPage => {
            let page = [("content-type", "text/html")];
            Deed::Answer(response("200 OK", &page, b"<html>Log in</html>"))
        }
        Answer::Garbage => {
            let json = [("content-type", "application/json")];
            Deed::Answer(response("200 OK", &json, b"{\"accepted\": 3"))
        }
        Answer::HalfTaken => {
            let events: Vec<serde_json::Value> = serde_json::from_str(batch).unwrap_or_default();
            let half = &events[..events.len() / 2];
            let taken = ledger.insert_batch(
                json!(half).to_string().as_bytes(),
                "application/cloudevents-batch+json",
            );
            let accepted = taken.map_or(0, |receipt| receipt.accepted);
            let answer = json!({ "accepted": accepted, "duplicates": 0, "rejected": [] });
            let json = [("content-type", "application/json")];
            Deed::Answer(response("200 OK", &json, answer.to_string().as_bytes()))
        }
        Answer::CutBehindTaking => Deed::TakeAndLeave,
        Answer::Slow => Deed::TakeLate(Duration::from_secs(2)),
    }
}

/// Makes calls in three sessions. Gives how many succeeded.
async fn call(rig: &Rig, calls: u64) -> anyhow::Result<u64> {
    let mut done = 0;
    for number in 0..calls {
        let agent = Agent::new(&format!("agent-{}", number % 3));
        let mut client = Client::connect(rig.listen()?).await?;
        // A VM that dies takes its streams with it.
        let answer = client.exchange(&agent.call(number, "tool")).await;
        done += u64::from(answer.is_ok_and(|answer: Message| answer.status() == 200));
        sleep(Duration::from_millis(20)).await;
    }
    Ok(done)
}

async fn play(fault: Fault) -> anyhow::Result<Row> {
    let answer = match fault {
        Fault::Collector(answer) => answer,
        _ => Answer::Error,
    };
    let (is_bad, ledger) = (Arc::new(AtomicBool::new(false)), Ledger::open("sqlite::memory:")?);
    let (switch, into) = (Arc::clone(&is_bad), ledger.clone());
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
    let collector = collector(listener, ledger.clone(), move |_, batch| {
        if switch.load(Ordering::SeqCst) { deed(answer, batch, &into) } else { Deed::Take }
    })?;
    let mut plugin = plain_plugin();
    plugin["collector"] = json!({ "timeout": "1s" });
    plugin["delivery"]["heartbeat_interval"] = json!("1s");
    let module = if matches!(fault, Fault::Death(_)) { crash_module()? } else { release_module()? };
    let options = Options::new(plugin, Some(module));
    let options = Options { events: Events::At(collector.server.addr().into()), ..options };
    let mut rig = Rig::with(Upstream::start(obliging).await?, options).await?;

    let mut row = Row { calls: call(&rig, 20).await?, ..Row::default() };
    wait::until(LIMIT, "the source tells that it lives", async || {
        ensure!(ledger.gaps()?.states.count(SourceState::Alive) == 1, "not yet");
        Ok(())
    })
    .await?;
    let is_collector_up = matches!(fault, Fault::Death(_) | Fault::Signal(_, true));
    is_bad.store(!is_collector_up, Ordering::SeqCst);
    if let Fault::Death(who) = fault {
        kill(&rig, who).await?;
    }
    row.calls += call(&rig, 60).await?;
    if matches!(fault, Fault::Collector(_) | Fault::Death(_)) {
        is_bad.store(false, Ordering::SeqCst);
        row.calls += call(&rig, 20).await?;
    }
    let envoy = rig.stack()?.envoy()?;
    match fault {
        Fault::Quit => {
            let quit = request("POST", "/quitquitquit", &[], b"");
            Client::connect(envoy.admin()).await?.exchange(&quit).await?;
        }
        _ => {
            let pid = envoy.pid().context("Envoy runs")?.to_string();
            let signal = if let Fault::Signal(signal, _) = fault { signal } else { "-TERM" };
            let sent = std::process::Command::new("kill").args([signal, &pid]).status()?;
            ensure!(sent.success(), "kill: {sent}");
        }
    }
    tokio::time::timeout(LIMIT, rig.stack_mut()?.ended()).await.context("Envoy does not stop")?;

    let log = Log::open(&rig.stack()?.dir().join("envoy.log"))?;
    let target = Target::Ledger { ledger: ledger.clone(), allows_older: false };
    let before = count(&Books::read(&ledger).await?).0;
    let recovered = recover([log], &target, &recover::Options::default()).await?;
    ensure!(recovered.is_complete(), "{recovered:?}");
    (row.in_ledger, row.doubles) = count(&Books::read(&ledger).await?);
    row.recovered = row.in_ledger - before;
    if fault == Fault::Signal("-KILL", true) || fault == Fault::Signal("-KILL", false) {
        let is_silent = async || {
            let silent = ledger.gaps()?.states.count(SourceState::Silent);
            ensure!(silent == 1, "{silent} silent sources");
            Ok(())
        };
        wait::until(LIMIT, "the source is silent", is_silent).await?;
    }
    let gaps = ledger.gaps()?;
    row.missing = gaps.missing;
    row.is_silent = gaps.states.count(SourceState::Silent) > 0;
    rig.discard().await?;
    Ok(row)
}

/// The calls of the tool, and how many of them are there again under another event.
fn count(books: &Books) -> (u64, u64) {
    let mut seen: HashMap<String, u64> = HashMap::new();
    for call in books.tool_invocations().filter(|call| call["tool_name"] == "tool") {
        if call["execution_status"] == "SUCCESS" {
            *seen.entry(text(call, "/call_id")).or_default() += quantity(call);
        }
    }
    let calls = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    (calls, seen.values().map(|times| times - 1).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_loses_a_call_in_silence_or_counts_it_twice() -> anyhow::Result<()> {
    let mut table = format!(
        "\n{:<36}{:>7}{:>8}{:>11}{:>9}{:>8}{:>13}{:>9}\n",
        "fault", "calls", "ledger", "recovered", "missing", "silent", "silent loss", "doubles"
    );
    let mut bad = Vec::new();
    for (name, fault) in FAULTS {
        let row = play(fault).await.with_context(|| name.to_owned())?;
        writeln!(
            table,
            "{name:<36}{:>7}{:>8}{:>11}{:>9}{:>8}{:>13}{:>9}",
            row.calls,
            row.in_ledger,
            row.recovered,
            row.missing,
            if row.is_silent { "named" } else { "-" },
            row.silent_loss(),
            row.doubles
        )?;
        let is_killed = matches!(fault, Fault::Signal("-KILL", _));
        let is_whole = row.in_ledger >= row.calls && row.missing == 0 && !row.is_silent;
        if row.silent_loss() > 0 || row.doubles > 0 || !(is_killed || is_whole) {
            bad.push(name);
        }
    }
    eprintln!("{table}");
    ensure!(bad.is_empty(), "{bad:?}{table}");
    Ok(())
}

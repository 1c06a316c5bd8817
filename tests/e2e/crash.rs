//! VMs that die in the middle of everything: the ledger bills what the client got, once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::ensure;
use tokio::task::JoinSet;

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::upstream::{Step, Upstream, json_response, response, rpc_of, sse_response, success};
use crate::{LIMIT, Rig, crash_module, plain_plugin};

const SESSIONS_AT_ONCE: u64 = 16;
/// Fewer than the tools that a session counts separately: each call has a tool of its own.
const CALLS_PER_SESSION: u64 = 40;
/// A call takes a while, so that VMs die while calls run.
const WORK: Duration = Duration::from_millis(25);
/// How long to wait for a VM to die; an idle accountant may make too few host calls for it.
const ORDER_LIMIT: Duration = Duration::from_secs(6);

/// Which VM dies, in this order. After the first accountant, on Envoy's main thread, a worker
/// becomes the accountant. The number counts host calls of its tick: the first of some 20 read the
/// journals, the others commit.
pub(crate) const DEATHS: [&str; 12] = [
    "worker",
    "accountant=0",
    "worker",
    "accountant=10",
    "worker",
    "accountant=20",
    "worker",
    "accountant=30",
    "accountant=45",
    "worker",
    "accountant=60",
    "worker",
];

/// Successful results, alternating between JSON and event streams.
fn answer(message: &Message) -> Vec<Step> {
    if message.method() != "POST" {
        return vec![Step::Send(response("200 OK", &[], b""))];
    }
    let rpc = rpc_of(message);
    let is_even = rpc["id"].as_u64().is_some_and(|id| id % 2 == 0);
    let answer = success(&rpc["id"]);
    let bytes = if is_even { json_response(&answer) } else { sse_response(&[answer]) };
    vec![Step::Work(WORK), Step::Send(bytes)]
}

/// What the clients saw, by agent and tool.
#[derive(Debug, Default)]
struct Seen {
    /// Calls whose response came whole, with 200.
    done: BTreeSet<(String, String)>,
    /// Calls whose response was cut off, or was another one.
    broken: BTreeSet<(String, String)>,
    /// Agents whose session a `DELETE` ended with 200.
    ended: BTreeSet<String>,
}

/// Plays one session. It does not repeat calls that break, and it opens broken connections anew.
async fn play(listen: SocketAddr, name: String, seen: &mut Seen) -> anyhow::Result<()> {
    let agent = Agent::new(&name);
    let mut connection = Client::connect(listen).await?;
    for number in 0..CALLS_PER_SESSION {
        let tool = format!("tool_{number}");
        let answer = connection.exchange(&agent.call(number, &tool)).await;
        let is_done = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        let calls = if is_done { &mut seen.done } else { &mut seen.broken };
        calls.insert((name.clone(), tool));
        let is_over = answer.as_ref().map_or(true, |answer| {
            answer.header("connection").is_some_and(|value| value == "close")
        });
        if is_over {
            connection = Client::connect(listen).await?;
        }
    }
    // The worker answers 503 until its VM runs again.
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = Client::connect(listen).await?.exchange(&agent.delete()).await;
        if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
            break;
        }
        ensure!(Instant::now() < deadline, "DELETE was answered {answer:?}");
    }
    seen.ended.insert(name);
    Ok(())
}

/// How often each call of the clients is in the ledger, by agent and tool.
fn booked(books: &Books) -> BTreeMap<(String, String), u64> {
    let mut booked = BTreeMap::new();
    for call in books.tool_invocations().filter(|call| call["agent_id"] != "killer") {
        *booked.entry((text(call, "/agent_id"), text(call, "/tool_name"))).or_default() += 1;
    }
    booked
}

/// Orders a VM to die until it has.
pub(crate) async fn kill(rig: &Rig, who: &str) -> anyhow::Result<()> {
    let dead = || anyhow::Ok(rig.log_lines("agent-meter panicked")?.len());
    let before = dead()?;
    let order = Agent::new("killer").with("x-agent-meter-crash", who).call(1, "kill");
    wait::until(LIMIT, &format!("a VM dies of {who}"), async || {
        let answer = Client::connect(rig.listen()?).await?.exchange(&order).await;
        // A worker that dies answers 503; the order for another VM counts only if the worker that
        // passes it on lives.
        let is_given =
            who == "worker" || answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        ensure!(is_given, "the order was answered {answer:?}");
        wait::until(ORDER_LIMIT, "the order is carried out", async || {
            ensure!(dead()? > before, "no VM has died since");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_the_client_saw_done_are_billed_once_whatever_vms_die() -> anyhow::Result<()> {
    let options = Options::new(plain_plugin(), Some(crash_module()?));
    let rig = Rig::with(Upstream::start(answer).await?, options).await?;
    let listen = rig.listen()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut players = JoinSet::new();
    for player in 0..SESSIONS_AT_ONCE {
        let is_over = Arc::clone(&is_over);
        players.spawn(async move {
            let mut seen = Seen::default();
            for round in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                play(listen, format!("agent-{player}-{round}"), &mut seen).await?;
            }
            anyhow::Ok(seen)
        });
    }
    for who in DEATHS {
        kill(&rig, who).await?;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    while let Some(player) = players.join_next().await {
        let Seen { done, broken, ended } = player??;
        seen.done.extend(done);
        seen.broken.extend(broken);
        seen.ended.extend(ended);
    }

    let books = rig
        .settled("all calls are in the ledger", |books| {
            let booked: BTreeSet<_> = booked(books).into_keys().collect();
            let missing: Vec<_> = seen.done.difference(&booked).collect();
            ensure!(missing.is_empty(), "{} are missing: {:?}", missing.len(), missing.first());
            Ok(())
        })
        .await?;
    let dead = rig.log_lines("agent-meter panicked")?;
    let booked = booked(&books);
    let doubled: Vec<_> = booked.iter().filter(|(_, count)| **count > 1).collect();
    let invented: Vec<_> = booked
        .keys()
        .filter(|call| !seen.done.contains(*call) && !seen.broken.contains(*call))
        .collect();
    println!(
        "{} VMs died; {} calls done, {} broken, {} of these in the ledger; {} sessions",
        dead.len(),
        seen.done.len(),
        seen.broken.len(),
        seen.broken.iter().filter(|call| booked.contains_key(*call)).count(),
        seen.ended.len(),
    );
    assert!(dead.len() >= DEATHS.len(), "{dead:?}");
    assert!(doubled.is_empty(), "calls were billed twice: {doubled:?}");
    assert!(invented.is_empty(), "calls that nobody made: {invented:?}");
    books.check(&rig.stack()?.ledger()?).await?;
    assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    let ended = rig.settled("all sessions are closed", |books| {
        let closed: BTreeSet<String> = books.closed().map(|data| text(data, "/agent_id")).collect();
        let open: Vec<_> = seen.ended.difference(&closed).collect();
        ensure!(open.is_empty(), "{} of {}: {:?}", open.len(), seen.ended.len(), open.first());
        Ok(())
    });
    ended.await?.check(&rig.stack()?.ledger()?).await?;
    rig.finish_after_crashes().await
}

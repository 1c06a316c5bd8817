//! Delivery to collectors that are down, busy, forgetful or selective: every event arrives once, or
//! the log names it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter::wait;
use agent_meter_collector::Ledger;
use agent_meter_collector::recover::{self, Log, Recovered, Target, recover};
use anyhow::{Context, ensure};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::books::Books;
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::ledgers::new_ledger;
use crate::upstream::{Step, Upstream, json_response, obliging, response};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const CALLS: u64 = 30;
/// Marks the event that a selective collector refuses.
const POISON: &str = "poisonous-tier";

/// A collector other than ours: it answers each batch as `behave` says.
pub(crate) struct Scripted {
    pub(crate) server: Upstream,
    ledger: Ledger,
}

/// What a scripted collector does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// Stores the batch and confirms it.
    Take,
    /// Stores the batch and closes the connection.
    TakeAndLeave,
    /// Stores the batch and confirms it after a while.
    TakeLate(Duration),
    /// Answers with this, and stores nothing.
    Answer(Vec<u8>),
    /// Stores all events except those that contain this text, and names those in its answer.
    TakeAllBut(&'static str),
}

/// Starts it; `behave` gets the number of the request, from 0, and its body.
pub(crate) fn collector(
    listener: tokio::net::TcpListener,
    ledger: Ledger,
    behave: impl Fn(u64, &str) -> Deed + Send + Sync + 'static,
) -> anyhow::Result<Scripted> {
    let (requests, into) = (AtomicU64::new(0), ledger.clone());
    let server = Upstream::serve(listener, move |request| {
        let body = String::from_utf8_lossy(&request.body);
        match behave(requests.fetch_add(1, Ordering::SeqCst), &body) {
            Deed::Take => vec![Step::Send(insert(&into, request, &request.body))],
            Deed::TakeAndLeave => {
                insert(&into, request, &request.body);
                vec![Step::Close]
            }
            Deed::TakeLate(after) => {
                let answer = insert(&into, request, &request.body);
                vec![Step::Work(after), Step::Send(answer)]
            }
            Deed::Answer(answer) => vec![Step::Send(answer)],
            Deed::TakeAllBut(poison) => vec![Step::Send(insert_but(&into, request, poison))],
        }
    })?;
    Ok(Scripted { server, ledger })
}

/// Stores a batch and returns the collector's answer.
fn insert(ledger: &Ledger, request: &Message, body: &[u8]) -> Vec<u8> {
    let media_type = request.header("content-type").unwrap_or_default();
    match ledger.insert_batch(body, &media_type) {
        Ok(receipt) => json_response(&json!(receipt)),
        Err(error) => {
            let error = error.to_string();
            response("400 Bad Request", &[("content-type", "text/plain")], error.as_bytes())
        }
    }
}

fn insert_but(ledger: &Ledger, request: &Message, poison: &str) -> Vec<u8> {
    let events: Vec<serde_json::Value> = serde_json::from_slice(&request.body).unwrap_or_default();
    let (refused, taken): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.to_string().contains(poison));
    insert(ledger, request, json!(taken).to_string().as_bytes());
    let rejected: Vec<_> =
        refused.iter().map(|event| json!({ "id": event["id"], "reason": "poison" })).collect();
    json_response(&json!({ "accepted": taken.len(), "duplicates": 0, "rejected": rejected }))
}

async fn listener() -> anyhow::Result<tokio::net::TcpListener> {
    Ok(tokio::net::TcpListener::bind(ANY_PORT).await?)
}

async fn rig(events: std::net::SocketAddr) -> anyhow::Result<Rig> {
    let mut plugin = plain_plugin();
    // Only the event of the call has the tier.
    plugin["products"][0]["pricing"]["tools"] =
        json!([{ "tool": "poison", "price": "1", "cost_tier": POISON }]);
    let options = Options::new(plugin, Some(release_module()?));
    let options = Options { events: Events::At(events.into()), ..options };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// Makes the calls of one session: `tool_0`, `tool_1` and so on; the last but one is `poison`.
async fn play(rig: &Rig, name: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(rig.listen()?).await?;
    let agent = Agent::new(name);
    for number in 0..CALLS {
        let tool = if number == CALLS - 2 { "poison".to_owned() } else { format!("tool_{number}") };
        let answer = client.exchange(&agent.call(number, &tool)).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    Ok(())
}

async fn end(rig: &Rig, name: &str) -> anyhow::Result<()> {
    let agent = Agent::new(name);
    let answer = Client::connect(rig.listen()?).await?.exchange(&agent.delete()).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

/// Checks that every call of every session is in the books once, and that every session closed for
/// this reason.
fn check_complete(books: &Books, sessions: &[&str], reason: &str) -> anyhow::Result<()> {
    let calls = books.calls();
    let expected = sessions.len() * usize::try_from(CALLS)?;
    ensure!(calls.len() == expected, "{} of {expected} calls", calls.len());
    ensure!(calls.values().all(|count| *count == 1), "calls are booked twice: {calls:?}");
    let closed = books.closed().filter(|data| data["close_reason"] == reason).count();
    ensure!(closed == sessions.len(), "{closed} of {} sessions closed by {reason}", sessions.len());
    Ok(())
}

/// Plays a session against a scripted collector until its ledger has every event once.
async fn check(
    behave: impl Fn(u64, &str) -> Deed + Send + Sync + 'static,
    requests_min: usize,
) -> anyhow::Result<()> {
    let collector = collector(listener().await?, Ledger::open(&new_ledger())?, behave)?;
    let rig = rig(collector.server.addr()).await?;
    play(&rig, "acme").await?;
    end(&rig, "acme").await?;
    let is_complete = |books: &Books| check_complete(books, &["acme"], "client_delete");
    let books = rig.settled_in(&collector.ledger, "everything has arrived", is_complete).await?;
    books.check(&collector.ledger).await?;
    let requests = collector.server.requests_len();
    ensure!(requests >= requests_min, "the collector was asked only {requests} times");
    ensure!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_the_collector_is_down_arrives_when_it_is_up() -> anyhow::Result<()> {
    // Binds the port and does not listen: nobody else gets the port, and connections are refused.
    let socket = TcpSocket::new_v4()?;
    socket.bind(ANY_PORT)?;
    let rig = rig(socket.local_addr()?).await?;
    play(&rig, "before").await?;
    end(&rig, "before").await?;
    wait::until(LIMIT, "delivery fails", async || {
        let failed = rig.metric("batches_failed").await?;
        ensure!(failed >= 3, "{failed} batches failed");
        Ok(())
    })
    .await?;
    assert_eq!(rig.metric("events_acked").await?, 0);
    let collector = collector(socket.listen(64)?, Ledger::open(&new_ledger())?, |_, _| Deed::Take)?;
    play(&rig, "after").await?;
    end(&rig, "after").await?;
    let is_complete = |books: &Books| check_complete(books, &["before", "after"], "client_delete");
    let books = rig.settled_in(&collector.ledger, "everything has arrived", is_complete).await?;
    books.check(&collector.ledger).await?;
    ensure!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_collector_is_asked_again_when_it_says() -> anyhow::Result<()> {
    let answers =
        [("503 Service Unavailable", "1"), ("429 Too Many Requests", "1"), ("500 Oh", "")];
    let behave = move |number: u64, _: &str| match usize::try_from(number)
        .ok()
        .and_then(|number| answers.get(number))
    {
        None => Deed::Take,
        Some((status, "")) => Deed::Answer(response(status, &[], b"")),
        Some((status, wait)) => Deed::Answer(response(status, &[("retry-after", wait)], b"")),
    };
    check(behave, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_no_event_twice_in_the_ledger() -> anyhow::Result<()> {
    check(|number, _| if number < 4 { Deed::TakeAndLeave } else { Deed::Take }, 5).await
}

/// The collector refuses `poison`: everything else is in the ledger, and the log's line brings it
/// back.
async fn check_poison(
    behave: impl Fn(u64, &str) -> Deed + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let is_strict = Arc::new(AtomicBool::new(true));
    let strict = Arc::clone(&is_strict);
    let collector =
        collector(listener().await?, Ledger::open(&new_ledger())?, move |number, body| {
            if strict.load(Ordering::SeqCst) { behave(number, body) } else { Deed::Take }
        })?;
    let rig = rig(collector.server.addr()).await?;
    play(&rig, "acme").await?;
    end(&rig, "acme").await?;
    let ledger = collector.ledger.clone();
    let what = "all but the poison has arrived";
    wait::until(LIMIT, what, async || {
        let (made, acked) = (rig.metric("events_made").await?, rig.metric("events_acked").await?);
        ensure!(acked + 1 == made, "{made} events made, {acked} acknowledged");
        let books = Books::read(&ledger).await?;
        let (calls, closed) = (books.calls().len(), books.closed().count());
        ensure!(
            calls == usize::try_from(CALLS)? - 1 && closed == 1,
            "{calls} calls, {closed} closed"
        );
        Ok(())
    })
    .await?;
    assert_eq!((rig.metric("events_refused").await?, rig.metric("outbox_events").await?), (1, 0));
    let spilled = rig.log_lines("agent-meter spill reason=refused event=")?;
    assert_eq!(spilled.len(), 1, "{spilled:?}");
    assert!(spilled[0].contains("\"tool_name\":\"poison\""), "{spilled:?}");
    let log = Log::open(&rig.stack()?.dir().join("envoy.log"))?;
    let target = Target::Ledger { ledger: ledger.clone(), allows_older: false };
    let recovered = recover([log], &target, &recover::Options::default()).await?;
    assert_eq!(recovered, Recovered { lines: 1, taken: 1, ..Recovered::default() });
    let books = Books::read(&ledger).await?;
    check_complete(&books, &["acme"], "client_delete")?;
    books.check(&ledger).await?;
    // At the stop, Envoy sends the poison once more.
    is_strict.store(false, Ordering::SeqCst);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_named_as_rejected_does_not_block_the_rest() -> anyhow::Result<()> {
    check_poison(|_, _| Deed::TakeAllBut(POISON)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_whole_is_halved_down_to_the_poison() -> anyhow::Result<()> {
    check_poison(|_, body| {
        if body.contains(POISON) {
            Deed::Answer(response("422 Unprocessable Content", &[], b"poison"))
        } else {
            Deed::Take
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_holds_when_it_stops_is_in_its_log_and_can_be_recovered() -> anyhow::Result<()> {
    let is_up = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_up);
    let collector = collector(listener().await?, Ledger::open(&new_ledger())?, move |_, _| {
        if down.load(Ordering::SeqCst) {
            Deed::Take
        } else {
            Deed::Answer(response("503 Service Unavailable", &[], b""))
        }
    })?;
    let mut rig = rig(collector.server.addr()).await?;
    play(&rig, "one").await?;
    play(&rig, "two").await?;
    // Some of it may not even have left the workers.
    let pid = rig.stack()?.envoy()?.pid().context("Envoy runs")?;
    let sent = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill: {sent}");
    tokio::time::timeout(LIMIT, rig.stack_mut()?.ended()).await.context("Envoy does not stop")?;

    let spilled = rig.log_lines("agent-meter spill reason=shutdown event=")?;
    ensure!(Books::read(&collector.ledger).await?.events.is_empty(), "the collector took events");
    let ledger = Ledger::open(&new_ledger())?;
    let log = Log::open(&rig.stack()?.dir().join("envoy.log"))?;
    let target = Target::Ledger { ledger: ledger.clone(), allows_older: false };
    let recovered = recover([log], &target, &recover::Options::default()).await?;
    let taken = u64::try_from(spilled.len())?;
    assert_eq!(recovered, Recovered { lines: taken, taken, ..Recovered::default() });
    let books = Books::read(&ledger).await?;
    check_complete(&books, &["one", "two"], "shutdown")?;
    books.check(&ledger).await?;
    is_up.store(true, Ordering::SeqCst);
    rig.finish().await
}

//! VMs that die while tools ask models: what the client got is in the ledger once, under the call
//! that caused it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_meter::stack::Options;
use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::crash::{DEATHS, kill};
use crate::http1::Message;
use crate::llm::{chat, chat_chunk, counts, events, plugin, post, product, usage_chunk};
use crate::streams::lock;
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response, response, rpc_of, success};
use crate::{LIMIT, Rig, crash_module};

const AGENTS: u64 = 12;
const CALLS_PER_SESSION: u64 = 20;
/// Long enough that a model answers while the call that asks it still runs, even if the worker that
/// gets the question must start a VM first: 90 ms on a slow machine.
const CALL_WORK: Duration = Duration::from_millis(300);
const MODEL_WORK: Duration = Duration::from_millis(15);

/// An agent's name and the number of its call; the number is also the generation's input tokens.
type Key = (String, u64);

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    calls: BTreeSet<Key>,
    generations: BTreeSet<Key>,
    /// Generations whose response was cut off, or was another one.
    broken: BTreeSet<Key>,
    ended: BTreeSet<String>,
}

/// The server of the tool, which notes calls when they arrive, and of the model.
fn answer(request: &Message, arrived: &Mutex<BTreeSet<Key>>) -> Vec<Step> {
    if request.method() != "POST" {
        return vec![Step::Send(response("200 OK", &[], b""))];
    }
    let agent = request.header("x-agent-id").unwrap_or_default();
    let body = rpc_of(request);
    if request.word(1) == "/mcp" {
        lock(arrived).insert((agent, body["id"].as_u64().unwrap_or_default()));
        return vec![Step::Work(CALL_WORK), Step::Send(json_response(&success(&body["id"])))];
    }
    let number = body["n"].as_u64().unwrap_or_default();
    let bytes = match number % 2 {
        0 => json_response(&chat(number, 3)),
        _ => {
            let data = [chat_chunk("well").to_string(), usage_chunk(number, 3).to_string()];
            let text = events(data) + "data: [DONE]\n\n";
            [SSE_HEAD.as_bytes(), &chunk(text.as_bytes()), b"0\r\n\r\n"].concat()
        }
    };
    vec![Step::Work(MODEL_WORK), Step::Send(bytes)]
}

fn is_good(answer: &anyhow::Result<Message>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.status() == 200 && answer.is_complete)
}

/// Plays one session; it repeats nothing that breaks.
async fn play(
    listen: SocketAddr,
    player: u64,
    name: String,
    arrived: &Mutex<BTreeSet<Key>>,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    for number in 1..=CALLS_PER_SESSION {
        let key = (name.clone(), number);
        let trace = format!("00-{:032x}-00f067aa0ba902b7-01", (player << 32) + number);
        let agent = Agent::new(&name).with("traceparent", &trace);
        let mut caller = Client::connect(listen).await?;
        if caller.send(&agent.call(number, &format!("tool_{number}"))).await.is_err() {
            continue;
        }
        let mut receiving = pin!(caller.receive(|_| ()));
        let has_come = async {
            while !lock(arrived).contains(&key) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            // The call got a response without arriving.
            _ = &mut receiving => continue,
            () = has_come => {}
        }
        let body = json!({ "model": "gpt-4o", "stream": number % 2 == 1, "n": number }).to_string();
        let headers = [("traceparent", trace.as_str())];
        let ask = post("llm.test", &name, "/v1/chat/completions", &headers, body.as_bytes());
        let answer = Client::connect(listen).await?.exchange(&ask).await;
        let generations = if is_good(&answer) { &mut seen.generations } else { &mut seen.broken };
        generations.insert(key.clone());
        if is_good(&receiving.await) {
            seen.calls.insert(key);
        }
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = Client::connect(listen).await?.exchange(&Agent::new(&name).delete()).await;
        if is_good(&answer) {
            break;
        }
        ensure!(Instant::now() < deadline, "DELETE was answered {answer:?}");
    }
    seen.ended.insert(name);
    Ok(())
}

/// The events of each generation.
fn booked(books: &Books) -> BTreeMap<Key, Vec<&Value>> {
    let mut booked = BTreeMap::<Key, Vec<&Value>>::new();
    for event in books.generations() {
        // A generation that was cut off before its usage has none.
        booked.entry((text(event, "/agent_id"), counts(event)[0])).or_default().push(event);
    }
    booked
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_that_the_client_saw_done_are_billed_once_whatever_vms_die()
-> anyhow::Result<()> {
    let arrived = Arc::<Mutex<BTreeSet<Key>>>::default();
    let shared = Arc::clone(&arrived);
    let upstream = Upstream::start(move |request: &Message| answer(request, &shared)).await?;
    let products = [product(
        "llm.test",
        &json!({ "provider": "openai", "incomplete_usage": "bill_observed" }),
    )];
    let rig = Rig::with(upstream, Options::new(plugin(&products), Some(crash_module()?))).await?;
    let listen = rig.listen()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut players = JoinSet::new();
    for player in 0..AGENTS {
        let (is_over, arrived) = (Arc::clone(&is_over), Arc::clone(&arrived));
        players.spawn(async move {
            let mut seen = Seen::default();
            for round in 0_u64.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("agent-{player}-{round}");
                play(listen, (round << 8) + player, name, &arrived, &mut seen).await?;
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
        let Seen { calls, generations, broken, ended } = player??;
        seen.calls.extend(calls);
        seen.generations.extend(generations);
        seen.broken.extend(broken);
        seen.ended.extend(ended);
    }

    let books = rig
        .settled("all sessions are closed, and all generations in the ledger", |books| {
            let booked = booked(books);
            let missing: Vec<_> =
                seen.generations.iter().filter(|key| !booked.contains_key(*key)).collect();
            ensure!(missing.is_empty(), "{} are missing: {:?}", missing.len(), missing.first());
            let closed: BTreeSet<String> =
                books.closed().map(|data| text(data, "/agent_id")).collect();
            let open: Vec<_> = seen.ended.difference(&closed).collect();
            ensure!(open.is_empty(), "{} are open: {:?}", open.len(), open.first());
            Ok(())
        })
        .await?;
    let booked = booked(&books);
    let found = seen.broken.iter().filter(|key| booked.contains_key(*key)).count();
    println!(
        "{} generations done, {} broken, {found} of these in the ledger; {} calls done",
        seen.generations.len(),
        seen.broken.len(),
        seen.calls.len(),
    );
    assert!(rig.log_lines("agent-meter panicked")?.len() >= DEATHS.len());
    let calls: BTreeMap<String, Key> = books
        .tool_invocations()
        .map(|call| {
            let number = text(call, "/tool_name").replace("tool_", "").parse().unwrap_or_default();
            (text(call, "/call_id"), (text(call, "/agent_id"), number))
        })
        .collect();
    for (key, found) in &booked {
        if key.1 == 0 {
            continue;
        }
        assert_eq!(found.len(), 1, "{key:?} was billed more than once: {found:?}");
        assert!(
            seen.generations.contains(key) || seen.broken.contains(key),
            "nobody asked: {key:?}"
        );
        // If the VM of the call died, the ledger may know nothing of the call.
        if seen.generations.contains(key) && seen.calls.contains(key) {
            assert_eq!(found[0]["attribution"], "trace", "{key:?}: {}", found[0]);
            assert_eq!(calls.get(&text(found[0], "/call_id")), Some(key), "{}", found[0]);
        }
    }
    // Only a generation that was cut off may lack usage.
    let unknown: usize =
        booked.iter().filter(|(key, _)| key.1 == 0).map(|(_, found)| found.len()).sum();
    assert!(unknown <= seen.broken.len(), "{unknown} are unknown");
    books.check(&rig.stack()?.ledger()?).await?;
    assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    rig.finish_after_crashes().await
}

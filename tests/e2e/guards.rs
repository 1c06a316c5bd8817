//! Guards in real Envoy, on two workers and with 50 clients at once: a tenant that spends more than
//! it pays is warned, throttled and blocked. And a request that waits for its own message passes
//! unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_meter::llm_server::LlmOptions;
use agent_meter::mcp_server::Mode;
use agent_meter::stack::{Events, Options, Upstream as Server};
use agent_meter::wait;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::{Books, quantity, text};
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::llm::{plugin, product};
use crate::load::check_workers;
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const CLIENTS: u64 = 50;
/// What the tenant pays.
const CONTRACT: &str = "2.00";
/// How long the clients run at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration for the demo's MCP server, whose tool `summarise` asks an LLM through the same
/// Envoy. A million tokens cost this price; a call uses 48.
fn guarded(per_million: &str, more: &Value) -> Value {
    let mut plugin = plugin(&[product("", &json!({ "provider": "openai" }))]);
    for rate in plugin["rate_cards"][0]["rates"].as_array_mut().into_iter().flatten() {
        if rate["model"] == "gpt-4o-mini" {
            (rate["input"], rate["output"]) = (json!(per_million), json!(per_million));
        }
    }
    plugin["contracts"] = json!({ "customers": { "tenant": { "revenue": CONTRACT } } });
    let mut guard = json!({
        "id": "tenant-margin",
        "revenue": "contracted",
        "min_margin": "10%",
        "actions": {
            "level_1": { "threshold": "50%", "notify": ["finance-ops"] },
            "level_2": { "threshold": "30%", "throttle_rate": "20req/sec" },
            "level_3": { "threshold": "10%", "action": "block_request" },
        },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        guard[name] = value.clone();
    }
    plugin["guards"] = json!([guard]);
    plugin
}

async fn rig(delay_ms: u64, per_million: &str, more: &Value) -> anyhow::Result<Rig> {
    Rig::with_own_server(Options {
        upstream: Server::Demo(Mode::Json),
        llm: Some(LlmOptions { delay: Duration::from_millis(delay_ms) }),
        ..Options::new(guarded(per_million, more), Some(release_module()?))
    })
    .await
}

/// A call of one client, in a trace of its own.
fn call(customer: &str, client: u64, number: u64) -> Vec<u8> {
    let agent = Agent { session: None, ..Agent::new(customer) }
        .with("mcp-protocol-version", "2025-06-18")
        .with("traceparent", &format!("00-{client:016x}{number:015x}1-00f067aa0ba902b7-01"));
    let params = json!({ "name": "summarise", "arguments": { "text": "a costly text" } });
    let id = format!("{client}-{number}");
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    agent.post(body.to_string().as_bytes())
}

/// What all clients saw until the tenant was blocked for good.
#[derive(Debug, Default)]
struct Seen {
    passed: u64,
    marked: u64,
    throttled: u64,
    blocked: u64,
}

/// Fifty clients call again and again until the guard blocks them.
async fn run(rig: &Rig) -> anyhow::Result<Seen> {
    let listen = rig.listen()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let is_over = Arc::clone(&is_over);
        clients.spawn(async move {
            let mut client = Client::connect(listen).await?;
            let mut seen = Seen::default();
            for round in 0.. {
                let answer = client.exchange(&call("tenant", number, round)).await?;
                count(&answer, &format!("{number}-{round}"), &mut seen)?;
                if seen.blocked >= 3 {
                    is_over.store(true, Ordering::Relaxed);
                }
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                if answer.status() == 429 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    let joined = tokio::time::timeout(PATIENCE, async {
        while let Some(seen) = clients.join_next().await {
            let seen = seen??;
            all.passed += seen.passed;
            all.marked += seen.marked;
            all.throttled += seen.throttled;
            all.blocked += seen.blocked;
        }
        anyhow::Ok(())
    });
    joined.await.context("the tenant was never blocked")??;
    Ok(all)
}

fn count(answer: &Message, id: &str, seen: &mut Seen) -> anyhow::Result<()> {
    let body: Value = serde_json::from_slice(&answer.body)
        .with_context(|| String::from_utf8_lossy(&answer.body).into_owned())?;
    ensure!(body["id"] == *id, "{id}: {body}");
    match answer.status() {
        200 => {
            ensure!(body["result"]["isError"] != true, "{body}");
            seen.passed += 1;
            seen.marked += u64::from(answer.header("x-aforo-throttle").as_deref() == Some("true"));
        }
        429 => {
            ensure!(body["error"]["code"] == -32_013, "{body}");
            ensure!(answer.header("retry-after").is_some(), "{answer:?}");
            match body["error"]["data"]["reason"].as_str() {
                Some("throttled" | "no_room") => seen.throttled += 1,
                Some("margin") => seen.blocked += 1,
                other => anyhow::bail!("{other:?}: {body}"),
            }
        }
        status => anyhow::bail!("{status}: {body}"),
    }
    Ok(())
}

/// The books once all calls that passed have their cost.
async fn books(rig: &Rig, seen: &Seen) -> anyhow::Result<Books> {
    rig.settled("every call that passed has its generation", |books| {
        let count = books.generations().count();
        ensure!(u64::try_from(count)? == seen.passed, "{count} of {}", seen.passed);
        let calls: u64 = books.tool_invocations().map(quantity).sum();
        let expected = seen.passed + seen.throttled + seen.blocked;
        ensure!(calls == expected, "{calls} of {expected} calls");
        Ok(())
    })
    .await
}

fn money(event: &Value, pointer: &str) -> anyhow::Result<Decimal> {
    Decimal::from_str_exact(&text(event, pointer)).with_context(|| event.to_string())
}

/// Checks that each of the three levels came once, in order, and within its threshold.
fn check_levels(books: &Books) -> anyhow::Result<()> {
    let changes: Vec<&Value> = books.of_type("margin_level_changed").collect();
    let levels: Vec<String> = changes.iter().map(|event| text(event, "/level")).collect();
    assert_eq!(levels, ["L1_ALERT", "L2_THROTTLE", "L3_BLOCK"]);
    for change in &changes {
        assert!(money(change, "/margin")? <= money(change, "/threshold")?, "{change}");
        assert_eq!(change["reason"], "threshold");
        assert_eq!(change["customer_id"], "tenant");
        assert_eq!(change["total_revenue"], "2");
    }
    Ok(())
}

/// Milliseconds since 1970.
fn time(text: &str) -> anyhow::Result<i64> {
    Ok(chrono::DateTime::parse_from_rfc3339(text)?.timestamp_millis())
}

fn total_cost(books: &Books) -> anyhow::Result<Decimal> {
    books.generations().map(|event| money(event, "/total_provider_cost")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_spends_more_than_it_pays_is_warned_slowed_down_and_stopped()
-> anyhow::Result<()> {
    // The tenant spends about 0.7 USD a second, and 0.1 while throttled.
    let rig = rig(300, "100", &json!({})).await?;
    let seen = run(&rig).await?;
    let books = books(&rig, &seen).await?;
    check_levels(&books)?;
    // After the decision, no new call of the tenant costs anything: only running ones do.
    let decided = books
        .all("margin_level_changed")
        .find(|event| event["data"]["level"] == "L3_BLOCK")
        .map(|event| text(event, "/time"))
        .context("no decision")?;
    let decided = time(&decided)?;
    for event in books.all("tool_invocation") {
        let duration = event["data"]["execution_duration_ms"].as_i64().unwrap_or_default();
        let started = time(&text(event, "/time"))? - duration;
        let is_late = started > decided + 50;
        assert!(!is_late || event["data"]["execution_status"] == "BLOCKED", "{event} {decided}");
    }
    let cost = total_cost(&books)?;
    assert!(cost >= Decimal::new(18, 1) && cost < Decimal::TWO, "{cost}");
    assert!(seen.marked > 0 && seen.throttled > 0, "{seen:?}");
    // A customer that pays nothing is not blocked for the debt of another.
    let mut other = Client::connect(rig.listen()?).await?;
    assert_eq!(other.exchange(&call("neighbour", 99, 0)).await?.status(), 200);
    check_workers(&rig).await?;
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_reservation_fifty_clients_spend_at_most_one_call_too_much() -> anyhow::Result<()> {
    let reserve = json!({ "estimate": "0.02", "last_cost": true });
    // Fifty calls at once cost 1 USD.
    let rig = rig(30, "400", &json!({ "reserve": reserve, "products": ["mcp"] })).await?;
    let seen = run(&rig).await?;
    let books = books(&rig, &seen).await?;
    check_levels(&books)?;
    let dearest = books
        .generations()
        .map(|event| money(event, "/total_provider_cost"))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .max()
        .unwrap_or_default();
    let cost = total_cost(&books)?;
    let limit = Decimal::new(18, 1);
    assert!(cost >= limit && cost <= limit + dearest, "{cost}, a call costs {dearest}");
    assert_eq!(rig.metric("holds_leaked").await?, 0);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_own_message_passes_as_it_came() -> anyhow::Result<()> {
    let mut plugin = plain_plugin();
    plugin["contracts"] = json!({
        "default_plan": "free", "plans": { "free": { "tools": ["allowed*"] } },
    });
    let rig = Rig::start(Upstream::start(obliging).await?, plugin).await?;
    let listen = rig.listen()?;
    let agent = Agent::new("held");
    for size in [10, 70_000, 400_000] {
        for tool in ["allowed", "allowed too", "forbidden"] {
            for pieces in [1, 2, 7] {
                let filler = "x".repeat(size);
                // The tool's name comes after a large member.
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"arguments":{{"filler":"{filler}"}},"name":"{tool}"}}}}"#
                );
                let request = agent.post(body.as_bytes());
                let mut client = Client::connect(listen).await?;
                for piece in request.chunks(request.len().div_ceil(pieces)) {
                    client.send(piece).await?;
                    if pieces > 1 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                let answer = client.receive(|_| ()).await?;
                let arrived = rig.upstream.take_requests();
                let row = format!("{tool}, {size} bytes in {pieces} pieces");
                if tool == "forbidden" {
                    assert_eq!(answer.status(), 403, "{row}");
                    // The head may have arrived, but not a request that the server could run.
                    assert!(arrived.iter().all(|request| !request.is_complete), "{row}");
                    let body: Value = serde_json::from_slice(&answer.body)?;
                    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-32_014)));
                } else {
                    assert_eq!((answer.status(), arrived.len()), (200, 1), "{row}");
                    assert!(arrived[0].body == body.as_bytes(), "{row}: another body arrived");
                }
            }
        }
    }
    // The filter does not hold a body this long, so it cannot know all that the message asks for.
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"arguments":"{}","name":"allowed"}}}}"#,
        "x".repeat(700_000)
    );
    let mut client = Client::connect(listen).await?;
    let request = agent.post(body.as_bytes());
    client.send(&request[..600_000]).await?;
    assert_eq!(client.receive(|_| ()).await?.status(), 413);
    assert!(rig.upstream.take_requests().iter().all(|request| !request.is_complete));
    rig.finish().await
}

/// Waits until the response to a tenant's next call is `expected`.
async fn until_status(rig: &Rig, client: u64, expected: u16) -> anyhow::Result<()> {
    wait::until(LIMIT, "the verdict", async || {
        let request = call("tenant", client, 0);
        let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
        ensure!(answer.status() == expected, "{}", answer.status());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_envoy_has_spent_stops_the_tenant_at_another_and_a_lost_collector_frees_nobody()
-> anyhow::Result<()> {
    let fleet = json!({ "fleet": true });
    let spender = rig(30, "400", &fleet).await?;
    let events = spender.stack()?.collector().context("the own collector")?.addr();
    let other = Rig::with_own_server(Options {
        upstream: Server::Demo(Mode::Json),
        llm: Some(LlmOptions { delay: Duration::from_millis(30) }),
        events: Events::At(events.into()),
        node_id: "other".to_owned(),
        ..Options::new(guarded("400", &fleet), Some(release_module()?))
    })
    .await?;
    run(&spender).await?;
    // The tenant has spent nothing here yet; one call makes this Envoy ask the collector.
    until_status(&other, 200, 200).await?;
    until_status(&other, 201, 429).await?;
    let ledger = spender.stack()?.ledger()?;
    wait::until(LIMIT, "the other has told why", async || {
        let all = Books::read(&ledger).await?;
        let blocked = |event: &&Value| {
            event["data"]["reason"] == "fleet" && event["data"]["level"] == "L3_BLOCK"
        };
        ensure!(all.all("margin_level_changed").filter(blocked).count() == 1, "not told");
        Ok(())
    })
    .await?;
    // The collector goes away with the first Envoy. The totals that it sent stay in force.
    spender.finish().await?;
    for _ in 0..10 {
        until_status(&other, 202, 429).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut neighbour = Client::connect(other.listen()?).await?;
    assert_eq!(neighbour.exchange(&call("neighbour", 203, 0)).await?.status(), 200);
    // Its remaining events have no collector.
    drop(other);
    Ok(())
}

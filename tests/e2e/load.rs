//! Many calls at once: the ledger bills every call once, to the last digit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::{Account, Calls, differences, text};
use crate::client::{Agent, Client, report};
use crate::http1::Message;
use crate::upstream::{
    Step, Upstream, json_response, response, rpc_error, rpc_of, sse_response, success, tool_error,
};
use crate::{Rig, plain_plugin};

const SESSIONS: u64 = 200;
const CALLS_PER_SESSION: u64 = 50;
const SESSIONS_AT_ONCE: u64 = 16;

/// The outcome of a call: the first part of its tool's name, its status, its price in USD.
pub(crate) type KindOfCall = (&'static str, &'static str, &'static str);

pub(crate) const KINDS: [KindOfCall; 8] = [
    ("lookup", "SUCCESS", "0.001"),
    ("write", "SUCCESS", "0.05"),
    ("analyze", "SUCCESS", "0.1"),
    ("fraction", "SUCCESS", "0.000000000003"),
    ("fail", "ERROR", "0"),
    ("refuse", "VALIDATION_FAILED", "0"),
    ("break", "ERROR", "0"),
    ("busy", "BLOCKED", "0"),
];

/// Answers by the kind in the tool's name.
pub(crate) fn answer(message: &Message) -> Vec<Step> {
    if message.method() != "POST" {
        return vec![Step::Send(response("200 OK", &[], b""))];
    }
    let rpc = rpc_of(message);
    let id = &rpc["id"];
    let tool = text(&rpc, "/params/name");
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });
    let bytes = match tool.split('_').next().unwrap_or_default() {
        "lookup" | "fraction" => json_response(&success(id)),
        "write" => sse_response(&[success(id)]),
        "analyze" => sse_response(&[progress.clone(), progress, success(id)]),
        "fail" => sse_response(&[tool_error(id)]),
        "refuse" => json_response(&rpc_error(id, -32602)),
        "break" => sse_response(&[rpc_error(id, -32603)]),
        _ => response("429 Too Many Requests", &[("content-type", "text/plain")], b"later"),
    };
    vec![Step::Send(bytes)]
}

fn agent(session: u64) -> String {
    format!("agent-{session:03}")
}

/// The kind of one call and the name of its tool.
fn call(session: u64, number: u64) -> anyhow::Result<(KindOfCall, String)> {
    let kind = KINDS[usize::try_from((session + number) % 8)?];
    Ok((kind, format!("{}_{}", kind.0, number / 8 % 3)))
}

/// Opens the session, makes its calls over two connections in turn, and ends it.
async fn play(listen: std::net::SocketAddr, session: u64) -> anyhow::Result<()> {
    let agent = Agent::new(&agent(session));
    let mut connections = [Client::connect(listen).await?, Client::connect(listen).await?];
    for number in 0..CALLS_PER_SESSION {
        let ((_, status, _), tool) = call(session, number)?;
        let connection = &mut connections[usize::try_from(number % 2)?];
        let answer = connection.exchange(&agent.call(number, &tool)).await?;
        let expected = if status == "BLOCKED" { 429 } else { 200 };
        ensure!(answer.status() == expected, "{tool} was answered {answer:?}");
    }
    let gone = connections[1].exchange(&agent.delete()).await?;
    ensure!(gone.status() == 200, "DELETE was answered {gone:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_over_two_workers_are_billed_to_the_last_digit() -> anyhow::Result<()> {
    let mut plugin = plain_plugin();
    let tools = KINDS.map(|(kind, _, price)| {
        // Calls without a charge have a price too, which nobody may pay.
        let price = if price == "0" { "7" } else { price };
        json!({ "tool": format!("{kind}_*"), "price": price, "cost_tier": kind })
    });
    plugin["products"][0]["pricing"]["tools"] = json!(tools);
    let rig = Rig::start(Upstream::start(answer).await?, plugin).await?;

    let listen = rig.listen()?;
    let next = Arc::new(AtomicU64::new(0));
    let mut players = JoinSet::new();
    for _ in 0..SESSIONS_AT_ONCE {
        let next = Arc::clone(&next);
        players.spawn(async move {
            loop {
                let session = next.fetch_add(1, Ordering::Relaxed);
                if session >= SESSIONS {
                    return anyhow::Ok(());
                }
                play(listen, session).await?;
            }
        });
    }
    while let Some(player) = players.join_next().await {
        player??;
    }

    let mut done = Calls::new();
    let mut accounts = BTreeMap::<String, Account>::new();
    for session in 0..SESSIONS {
        for number in 0..CALLS_PER_SESSION {
            let ((_, status, price), tool) = call(session, number)?;
            let account = accounts.entry(agent(session)).or_default();
            account.add(&tool, status, 1, Decimal::from_str_exact(price)?);
            *done.entry((agent(session), tool, status.to_owned())).or_default() += 1;
        }
    }
    let revenue = accounts.values().map(|account| account.revenue).sum::<Decimal>();
    let books = rig
        .settled("all sessions are closed", |books| {
            let closed = books.closed().count();
            ensure!(u64::try_from(closed)? >= SESSIONS, "{closed} sessions are closed");
            Ok(())
        })
        .await?;
    assert_eq!(differences(&done, &books.calls()), [""; 0]);
    assert_eq!(books.revenue()?, revenue);
    assert_eq!(books.closed_revenue()?, revenue);
    books.check(&rig.stack()?.ledger()?).await?;
    check_final_events(&books.closed().collect::<Vec<_>>(), &accounts)?;
    check_over_http(&rig).await?;
    check_workers(&rig).await?;
    assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    rig.finish().await
}

/// Checks that each agent's session closed once, ended by the client, with its calls by status and
/// by tool.
fn check_final_events(
    closed: &[&Value],
    accounts: &BTreeMap<String, Account>,
) -> anyhow::Result<()> {
    let by_agent: BTreeMap<String, &Value> =
        closed.iter().map(|data| (text(data, "/agent_id"), *data)).collect();
    assert_eq!((closed.len(), by_agent.len()), (200, 200), "one session for each agent");
    for (agent, data) in by_agent {
        assert_eq!(data["close_reason"], "client_delete", "{data}");
        assert_eq!(data["total_tool_calls"], json!(CALLS_PER_SESSION), "{data}");
        accounts[&agent].check_closed(data)?;
    }
    Ok(())
}

/// Checks that the collector answers the same over HTTP.
async fn check_over_http(rig: &Rig) -> anyhow::Result<()> {
    let collector = rig.stack()?.collector().map(agent_meter_collector::Collector::addr);
    let mut client = Client::connect(collector.expect("the stack has its own collector")).await?;
    let mut get = async |path: &str| -> anyhow::Result<Value> {
        let answer = client.exchange(&report(path)).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    };
    assert_eq!(get("/v1/reconcile").await?, json!({ "sessions": SESSIONS, "mismatches": [] }));
    assert_eq!(get("/v1/gaps").await?["missing"], 0);
    assert_eq!(get("/v1/usage").await?["rows"][0]["calls"], json!(SESSIONS * CALLS_PER_SESSION));
    Ok(())
}

/// Checks that both workers had connections; without that, the test proves less than it claims.
pub(crate) async fn check_workers(rig: &Rig) -> anyhow::Result<()> {
    let stats = rig.stack()?.envoy()?.stats("listener.").await?;
    let served: Vec<(&String, &u64)> = stats
        .iter()
        .filter(|(name, _)| name.contains(".worker_") && name.ends_with(".downstream_cx_total"))
        .collect();
    assert_eq!(served.len(), 2, "{stats:?}");
    assert!(served.iter().all(|(_, connections)| **connections > 0), "{served:?}");
    Ok(())
}

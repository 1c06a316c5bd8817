//! Requests that a lenient server takes for calls and the filter does not understand for certain:
//! without guards each is a call of the ledger at the dearest price, with a guard at ease each is
//! refused, and the server has executed nothing.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::books::text;
use crate::client::{Client, request};
use crate::http1::Message;
use crate::upstream::{Step, Upstream, json_response, success};
use crate::{LIMIT, Rig, plain_plugin};

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"analyze_x","arguments":{}}}"#;
const DECOY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"analyze_x"}}"#;

/// A server that executes a tool for whatever comes.
fn lenient(_: &Message) -> Vec<Step> {
    vec![Step::Send(json_response(&success(&json!(1))))]
}

fn gzip(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

/// A request with one more header.
fn post(method: &str, name: &str, value: &str, body: &[u8]) -> Vec<u8> {
    let headers = [
        ("x-customer-id", "acme"),
        ("x-agent-id", "acme"),
        ("accept", "application/json, text/event-stream"),
        (name, value),
    ];
    request(method, "/mcp", &headers, body)
}

/// The attempts, each with the status with which it is refused where a guard acts.
fn attempts() -> anyhow::Result<Vec<(&'static str, Vec<u8>, u16)>> {
    const JSON: (&str, &str) = ("content-type", "application/json");
    let json = |method: &str, body: &[u8]| post(method, JSON.0, JSON.1, body);
    let blanks = [" ".repeat(3_000_000).as_bytes(), CALL.as_bytes()].concat();
    let utf16: Vec<u8> = CALL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf7 = "application/json; charset=utf-7";
    Ok(vec![
        ("br", post("POST", "content-encoding", "br", b"\x8b\x2c\x80"), 415),
        ("gzip twice", post("POST", "content-encoding", "gzip, gzip", b"\x1f\x8b"), 415),
        ("UTF-16", json("POST", &utf16), 400),
        ("UTF-7", post("POST", "content-type", utf7, CALL.as_bytes()), 415),
        ("blanks", post("POST", "content-encoding", "gzip", &gzip(&blanks)?), 413),
        ("another case", json("POST", DECOY.as_bytes()), 400),
        ("no id", json("POST", CALL.replace(r#""id":1,"#, "").as_bytes()), 400),
        ("PUT", json("PUT", CALL.as_bytes()), 400),
    ])
}

fn plugin(more: &Value) -> Value {
    let mut plugin = plain_plugin();
    plugin["products"][0]["pricing"]["tools"] = json!([
        { "tool": "analyze_*", "price": "0.10" },
        { "tool": "lookup_*", "price": "0.002" },
    ]);
    for (name, value) in more.as_object().into_iter().flatten() {
        plugin[name] = value.clone();
    }
    plugin
}

fn guard() -> Value {
    json!({ "guards": [{
        "id": "spend",
        "budget": { "provider_cost": "5" },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_certain_is_counted_dearest_without_a_guard() -> anyhow::Result<()> {
    let upstream = Upstream::start(lenient).await?;
    let rig = Rig::start(upstream, plugin(&json!({}))).await?;
    let attempts = attempts()?;
    for (name, request, _) in &attempts {
        let mut client = Client::connect(rig.listen()?).await?;
        let answer = client.exchange(request).await.context(*name)?;
        ensure!(answer.status() == 200, "{name}: {}", answer.status());
    }
    let books = rig
        .settled("every attempt in the ledger", |books| {
            let calls = books.tool_invocations().count();
            ensure!(calls == attempts.len(), "{calls} calls of {}", attempts.len());
            Ok(())
        })
        .await?;
    for call in books.tool_invocations() {
        let (price, certainty) = (text(call, "/price"), text(call, "/certainty"));
        ensure!(price == "0.1" && certainty == "inferred", "{call}");
    }
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_certain_is_refused_where_a_guard_acts_and_executed_by_nobody()
-> anyhow::Result<()> {
    let upstream = Upstream::start(lenient).await?;
    let rig = Rig::start(upstream, plugin(&guard())).await?;
    for (name, request, status) in attempts()? {
        let mut client = Client::connect(rig.listen()?).await?;
        client.send(&request).await?;
        let answer = client.receive(|_| ()).await.context(name)?;
        ensure!(answer.status() == status, "{name}: {}", answer.status());
        let body: Value = serde_json::from_slice(&answer.body).context(name)?;
        ensure!(text(&body, "/error/data/reason") == "unreadable", "{name}: {body}");
    }
    // The doubt shows in the second piece, when the first has gone on.
    let mut client = Client::connect(rig.listen()?).await?;
    let whole = post("POST", "content-type", "application/json", DECOY.as_bytes());
    let (first, second) = whole.split_at(whole.len() - 60);
    client.send(first).await?;
    agent_meter::wait::until(LIMIT, "the first piece at the server", async || {
        ensure!(rig.upstream.body_bytes() > 0, "nothing came");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.send(second).await?;
    let answer = client.receive(|_| ()).await?;
    ensure!(answer.status() == 400, "in two pieces: {}", answer.status());

    let mut client = Client::connect(rig.listen()?).await?;
    let plain = post("POST", "content-type", "application/json", CALL.as_bytes());
    ensure!(client.exchange(&plain).await?.status() == 200, "a plain call passes");
    let executed = rig.upstream.take_requests().into_iter().filter(|request| request.is_complete);
    let bodies: Vec<Vec<u8>> = executed.map(|request| request.body).collect();
    ensure!(bodies == [CALL.as_bytes()], "executed: {bodies:?}");
    rig.settled("the plain call", |books| {
        let billed = books.tool_invocations().filter(|call| call["billable"] == true);
        let calls = billed.count();
        ensure!(calls == 1, "{calls} billable calls");
        Ok(())
    })
    .await?;
    rig.finish().await
}

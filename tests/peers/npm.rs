//! Peers from npm: server-everything, the TypeScript client, the Inspector and the conformance
//! suite. They are many megabytes, so these tests run only on request, as with `make peers`.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process::{ToldPort, output, run_client};
use crate::python;
use crate::tools::{self, Npm};
use crate::{Metered, Seen, call, seen};

/// A running server-everything.
async fn everything(npm: &Npm, transport: &str) -> anyhow::Result<ToldPort> {
    ToldPort::start(|port| {
        let mut command = npm.node("@modelcontextprotocol/server-everything/dist/index.js");
        command.arg(transport).env("PORT", port.to_string());
        command
    })
    .await
}

/// Plays one session of the TypeScript client; returns what the client saw.
pub(crate) async fn typescript(
    npm: &Npm,
    url: &str,
    transport: &str,
    mode: &str,
    protocol: &str,
    calls: &[Value],
) -> anyhow::Result<Seen> {
    let mut command = npm.script(&tools::here("client.mjs"));
    command.args([url, transport, mode, &json!(calls).to_string()]);
    let printed = run_client(&mut command).await?;
    let printed = printed.first().context("the client told nothing")?;
    ensure!(printed["protocol"] == protocol, "expected {protocol}, found {printed}");
    seen(calls, &printed["outcomes"])
}

fn plan() -> Vec<Value> {
    let mut calls = vec![
        call("get-sum", &json!({ "a": 1, "b": 2 })),
        call("trigger-long-running-operation", &json!({ "duration": 0.3, "steps": 3 })),
        call("unknown", &json!({})),
        call("echo", &json!({ "massage": "misspelt" })),
    ];
    calls.extend((0..10).map(|n| call("echo", &json!({ "message": format!("é{n}") }))));
    calls
}

/// Calls of one tool.
fn succeeded(tool: &str, count: u64) -> ((String, String), u64) {
    ((tool.to_owned(), "SUCCESS".to_owned()), count)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn typescript_client_on_everything() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "streamableHttp").await?;
    for mode in ["legacy", "auto"] {
        let metered = Metered::around(server.port).await?;
        let url = metered.url("/mcp")?;
        let seen = typescript(&npm, &url, "streamable-http", mode, "2025-11-25", &plan()).await?;
        ensure!(seen[&succeeded("echo", 10).0] == 10, "{seen:?}");
        metered.billed(&seen).await.context(mode)?.without_strays().context(mode)?;
        metered.closed_by_client(1).await?;
        metered.finish(&seen).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn typescript_client_on_python_server() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    for (mode, protocol) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        let (server, port) = python::server(&[]).await?;
        let metered = Metered::around(port).await?;
        let url = metered.url("/mcp")?;
        let calls = python::plan();
        let seen = typescript(&npm, &url, "streamable-http", mode, protocol, &calls).await?;
        metered.billed(&seen).await.context(mode)?.without_strays().context(mode)?;
        metered.finish(&seen).await?;
        assert_eq!(server.stop().await?, python::executed(1), "{mode}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn answers_that_everything_replays_are_billed_once() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "streamableHttp").await?;
    let metered = Metered::around(server.port).await?;
    let mut command = npm.script(&tools::here("raw.mjs"));
    let printed = run_client(command.args([&metered.url("/mcp")?, "replay"])).await?;
    assert_eq!(printed.len(), 3, "two answers of two calls, and one again: {printed:?}");
    assert_eq!(printed[1], printed[2]);
    let seen = Seen::from([succeeded("trigger-long-running-operation", 1), succeeded("echo", 1)]);
    metered.billed(&seen).await?;
    metered.closed_by_client(1).await?;
    metered.finish(&seen).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn a_task_of_everything_is_billed_once() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "streamableHttp").await?;
    let metered = Metered::around(server.port).await?;
    let mut command = npm.script(&tools::here("raw.mjs"));
    let printed = run_client(command.args([&metered.url("/mcp")?, "task"])).await?;
    assert_eq!(printed.len(), 2, "one result, fetched twice: {printed:?}");
    assert_eq!(printed[0], printed[1]);
    let seen = Seen::from([succeeded("simulate-research-query", 1)]);
    metered.billed(&seen).await?;
    metered.closed_by_client(1).await?;
    metered.finish(&seen).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn typescript_client_on_everything_over_the_old_transport() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "sse").await?;
    let metered = Metered::around(server.port).await?;
    let url = metered.url("/sse")?;
    let seen = typescript(&npm, &url, "sse", "legacy", "2025-11-25", &plan()).await?;
    ensure!(seen[&succeeded("echo", 10).0] == 10, "{seen:?}");
    metered.billed(&seen).await?.without_strays()?;
    metered.finish(&seen).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn inspector_on_everything() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "streamableHttp").await?;
    let metered = Metered::around_for_anyone(server.port).await?;
    let mut command = npm.node("@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    command.args(["--cli", &metered.url("/mcp")?, "--transport", "http"]);
    command.args(["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hi"]);
    let output = crate::process::run(&mut command).await?;
    assert!(output.contains("Echo: hi"), "{output}");
    let seen = Seen::from([succeeded("echo", 1)]);
    metered.billed(&seen).await?.without_strays()?;
    metered.finish(&seen).await
}

/// The conformance suite's result of each scenario.
async fn conformance(npm: &Npm, url: &str) -> anyhow::Result<Vec<String>> {
    let mut command = npm.node("@modelcontextprotocol/conformance/dist/index.js");
    // It exits with an error, because the server lacks the suite's own tools.
    let output = output(command.args(["server", "--url", url])).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.split_once("=== SUMMARY ===").map(|(_, summary)| summary);
    let summary = summary.with_context(|| format!("{command:?} told no summary: {text}"))?;
    let lines = summary.lines().filter(|line| line.contains(" passed, "));
    Ok(lines.map(ToOwned::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn the_conformance_suite_sees_no_difference() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = everything(&npm, "streamableHttp").await?;
    let metered = Metered::around_for_anyone(server.port).await?;
    let direct = conformance(&npm, &format!("http://127.0.0.1:{}/mcp", server.port)).await?;
    let through = conformance(&npm, &metered.url("/mcp")?).await?;
    assert!(direct.len() > 30, "{direct:?}");
    assert_eq!(direct, through);
    println!("direct and metered: {}", direct.last().map_or("", String::as_str));
    // The suite does not report what it called, but it calls each tool once.
    let books = metered.stop().await?;
    assert!(books.calls().len() > 10, "{:?}", books.calls());
    assert!(books.calls().values().all(|count| *count == 1), "{:?}", books.calls());
    Ok(())
}

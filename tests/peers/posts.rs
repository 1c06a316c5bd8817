//! HTTP+SSE servers that answer a POST with another status than 202, as those of the official Java
//! SDK do, and a server of Streamable HTTP that knows no GET.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process::Server;
use crate::python::{self, CLIENTS};
use crate::{Metered, Seen, npm, tools};

/// Checks that the official SDK's server, whose POSTs are answered in this manner, its clients and
/// the ledger agree.
async fn check(manner: &str) -> anyhow::Result<()> {
    let (server, port) = python::server(&["--transport", "sse", "--posts", manner]).await?;
    let metered = Metered::around(port).await?;
    let arguments = ["--transport", "sse", "--mode", "legacy"];
    let plan = python::plan();
    let seen = python::clients(&metered.url("/sse")?, &arguments, "2025-11-25", &plan).await?;
    python::check_plan(&seen, CLIENTS)?;
    metered.billed(&seen).await?.without_strays()?;
    metered.finish(&seen).await?;
    let executed = server.stop().await?;
    ensure!(executed == python::executed(CLIENTS), "executed: {executed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_are_answered_200_without_a_body() -> anyhow::Result<()> {
    check("empty").await
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_are_answered_after_the_event_stream_was() -> anyhow::Result<()> {
    check("late").await
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_are_answered_204_or_with_a_body() -> anyhow::Result<()> {
    for manner in ["no-content", "text", "json"] {
        check(manner).await.context(manner)?;
    }
    Ok(())
}

/// Calls of the tools of `post_only.mjs`, one after the other.
fn plan() -> Vec<Value> {
    let tools = ["echo", "echo", "fail", "unknown", "echo", "echo"];
    let calls = tools.map(|tool| json!({ "tool": tool, "arguments": {}, "alone": true }));
    calls.into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn a_session_outlives_the_404_of_a_get() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let server = npm.script(&tools::here("post_only.mjs"));
    let (server, port) = Server::with_port(server).await?;
    let metered = Metered::around(port).await?;
    let url = metered.url("/mcp")?;
    let transport = "streamable-http";
    let seen = npm::typescript(&npm, &url, transport, "legacy", "2025-11-25", &plan()).await?;
    metered.billed(&seen).await?.without_strays()?;
    let expected = [("echo", "SUCCESS", 4), ("fail", "ERROR", 1), ("unknown", "ERROR", 1)];
    let expected = expected.map(|(tool, status, count)| ((tool.into(), status.into()), count));
    assert_eq!(seen, Seen::from(expected));
    assert_eq!(server.stop().await?, json!({ "echo": 4, "fail": 1, "GET": 1, "DELETE": 1 }));
    let books = metered.stop().await?;
    assert_eq!(books.of_type("session_created").count(), 1);
    Ok(())
}

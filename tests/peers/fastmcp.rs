//! FastMCP as a server, with its own client and the official SDK's.

use anyhow::{Context, ensure};

use crate::python::{self, CLIENTS};
use crate::{Metered, Seen, add};

/// A server of FastMCP, and how clients speak to it.
struct Setting<'a> {
    server: &'a [&'a str],
    /// Options of the clients.
    clients: &'a [&'a str],
    path: &'a str,
    protocol: &'a str,
    /// Sessions in the ledger.
    sessions: usize,
    /// True if each client closes its session.
    closes: bool,
    /// True if the server redirects each call once.
    redirects: bool,
}

const STATEFUL: Setting = Setting {
    server: &[],
    clients: &["--mode", "legacy"],
    path: "/mcp",
    protocol: "2025-11-25",
    sessions: 2 * CLIENTS,
    closes: true,
    redirects: false,
};

/// Both clients of an agent share its window of activity.
const STATELESS: Setting = Setting { sessions: CLIENTS, closes: false, ..STATEFUL };

/// Plays [`CLIENTS`] sessions of both clients, one kind after the other; returns what they saw
/// together.
async fn both_clients(metered: &Metered, setting: &Setting<'_>) -> anyhow::Result<Seen> {
    let url = metered.url(setting.path)?;
    let mut together = Seen::new();
    for sdk in ["fastmcp", "official"] {
        let arguments = [setting.clients, &["--sdk", sdk]].concat();
        let seen = python::clients(&url, &arguments, setting.protocol, &python::plan()).await;
        add(&mut together, seen.with_context(|| format!("the client {sdk}"))?);
    }
    python::check_plan(&together, 2 * CLIENTS)?;
    Ok(together)
}

/// Checks that the server, both clients and the ledger agree.
async fn check(setting: Setting<'_>) -> anyhow::Result<()> {
    let arguments = [&["--sdk", "fastmcp"], setting.server].concat();
    let (server, port) = python::server(&arguments).await?;
    let metered = Metered::around(port).await?;
    let seen = both_clients(&metered, &setting).await?;
    let billed = metered.billed(&seen).await?;
    billed.without_strays()?;
    let sessions = billed.books.of_type("session_created").count();
    ensure!(sessions == setting.sessions, "{sessions} sessions are in the ledger");
    let redirected = billed.metric("calls_redirected");
    // A redirect may come before the body of its request: that call was never seen.
    let possible = if setting.redirects { 1..=seen.values().sum() } else { 0..=0 };
    ensure!(possible.contains(&redirected), "{redirected} redirected calls are counted");
    if setting.closes {
        metered.closed_by_client(setting.sessions).await?;
    }
    metered.finish(&seen).await?;
    let executed = server.stop().await?;
    ensure!(executed == python::executed(2 * CLIENTS), "executed: {executed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp_with_sessions() -> anyhow::Result<()> {
    check(STATEFUL).await.context("answers in events")?;
    check(Setting { server: &["--json"], ..STATEFUL }).await.context("answers in JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp_without_sessions() -> anyhow::Result<()> {
    let server = &["--stateless"];
    check(Setting { server, ..STATELESS }).await.context("answers in events")?;
    let setting = Setting {
        server: &["--stateless", "--json"],
        clients: &["--mode", "auto"],
        protocol: "2026-07-28",
        ..STATELESS
    };
    check(setting).await.context("answers in JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp_over_the_old_transport() -> anyhow::Result<()> {
    let setting = Setting {
        server: &["--transport", "sse"],
        clients: &["--mode", "legacy", "--transport", "sse"],
        path: "/sse",
        closes: false,
        ..STATEFUL
    };
    check(setting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp_that_redirects_each_call() -> anyhow::Result<()> {
    check(Setting { server: &["--path", "/mcp/"], redirects: true, ..STATEFUL }).await
}

//! What stands between a client and a server: gateways in front of servers that speak over their
//! standard input, and those that make a remote server a local one. And the clients of frameworks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{ToldPort, run_client};
use crate::python::{self, CLIENTS};
use crate::tools::{self, Npm};
use crate::{Metered, Seen, add, npm, seen};

/// A server that speaks over its standard input, for a gateway to start, and what it executes.
struct Local {
    dir: TempDir,
    command: Vec<String>,
}

impl Local {
    async fn new() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let path = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path is text");
        let python = path(&tools::python().await?)?;
        let (server, record) = (path(&tools::here("server.py"))?, path(&record_in(&dir))?);
        let options = ["--transport".to_owned(), "stdio".to_owned(), "--record".to_owned()];
        let command = [vec![python, server], options.into(), vec![record]].concat();
        Ok(Self { dir, command })
    }

    /// The command as a shell reads it.
    fn shell(&self) -> String {
        let words = self.command.iter().map(|word| format!("'{word}'"));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The executions by tool.
    fn executed(&self) -> anyhow::Result<Value> {
        let mut executed = BTreeMap::<&str, u64>::new();
        let lines = std::fs::read_to_string(record_in(&self.dir))?;
        for tool in lines.lines() {
            *executed.entry(tool).or_default() += 1;
        }
        Ok(json!(executed))
    }
}

fn record_in(dir: &TempDir) -> PathBuf {
    dir.path().join("executed")
}

/// How clients reach a gateway.
struct Entry {
    transport: &'static str,
    path: &'static str,
    /// What the TypeScript client agrees on with it.
    protocol: &'static str,
    /// False if the gateway sends each answer to all of its clients, whose ids are alike.
    takes_many: bool,
}

/// Checks that the server behind a gateway, the clients in front of it, and the ledger agree.
async fn check(
    npm: &Npm,
    gateway: impl FnOnce(&Local, u16) -> Command,
    entry: &Entry,
) -> anyhow::Result<()> {
    let local = Local::new().await?;
    let gateway = ToldPort::start(|port| gateway(&local, port)).await?;
    let metered = Metered::around(gateway.port).await?;
    let url = metered.url(entry.path)?;
    let Entry { transport, protocol, .. } = *entry;
    let plan = python::plan();
    let mut together = npm::typescript(npm, &url, transport, "legacy", protocol, &plan).await?;
    let mut sessions = 1;
    if entry.takes_many {
        let arguments = ["--transport", transport, "--mode", "legacy"];
        add(&mut together, python::clients(&url, &arguments, protocol, &plan).await?);
        sessions += CLIENTS;
    }
    python::check_plan(&together, sessions)?;
    metered.billed(&together).await?.without_strays()?;
    metered.finish(&together).await?;
    let executed = local.executed()?;
    ensure!(executed == python::executed(sessions), "executed: {executed}");
    Ok(())
}

/// Supergateway in front of a local server.
fn supergateway(npm: &Npm, local: &Local, port: u16, output: &[&str]) -> Command {
    let mut command = npm.node("supergateway/dist/index.js");
    command.args(["--stdio", &local.shell(), "--port", &port.to_string()]).args(output);
    command
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn supergateway_over_the_old_transport() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let entry = Entry { transport: "sse", path: "/sse", protocol: "2025-11-25", takes_many: false };
    let output = ["--outputTransport", "sse"];
    check(&npm, |local, port| supergateway(&npm, local, port, &output), &entry).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn supergateway_over_streamable_http() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let transport = "streamable-http";
    let entry = Entry { transport, path: "/mcp", protocol: "2025-11-25", takes_many: true };
    for more in [&["--stateful"][..], &[]] {
        let output = [&["--outputTransport", "streamableHttp"], more].concat();
        check(&npm, |local, port| supergateway(&npm, local, port, &output), &entry)
            .await
            .with_context(|| format!("{more:?}"))?;
    }
    Ok(())
}

/// The entries of both programs that are called mcp-proxy, and the option that each needs.
fn entries() -> [(Entry, Option<&'static str>); 3] {
    let entry =
        |transport, path| Entry { transport, path, protocol: "2025-11-25", takes_many: true };
    [
        (entry("streamable-http", "/mcp"), None),
        (entry("streamable-http", "/mcp"), Some("--stateless")),
        (entry("sse", "/sse"), None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn mcp_proxy_of_npm() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    for (entry, more) in entries() {
        let gateway = |local: &Local, port: u16| {
            let mut command = npm.node("mcp-proxy/dist/bin/mcp-proxy.mjs");
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(more);
            command.arg("--").args(&local.command);
            command
        };
        check(&npm, gateway, &entry).await.with_context(|| format!("{} {more:?}", entry.path))?;
    }
    Ok(())
}

/// The program of mcp-proxy from PyPI.
async fn mcp_proxy() -> anyhow::Result<Command> {
    let mut command = Command::new(tools::python_1().await?);
    command.args(["-m", "mcp_proxy"]);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn mcp_proxy_of_pypi() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    for (entry, more) in entries() {
        let mut command = mcp_proxy().await?;
        let gateway = |local: &Local, port: u16| {
            command.args(["--port", &port.to_string()]).args(more);
            command.arg("--").args(&local.command);
            command
        };
        check(&npm, gateway, &entry).await.with_context(|| format!("{} {more:?}", entry.path))?;
    }
    Ok(())
}

/// Checks that the Python server, what the client `play`s against this URL, and the ledger agree.
async fn check_client(
    transport: &str,
    play: impl AsyncFnOnce(&str) -> anyhow::Result<Seen>,
) -> anyhow::Result<()> {
    let (server, port) = python::server(&["--transport", transport]).await?;
    let metered = Metered::around(port).await?;
    let path = if transport == "sse" { "/sse" } else { "/mcp" };
    let seen = play(&metered.url(path)?).await.with_context(|| transport.to_owned())?;
    python::check_plan(&seen, 1)?;
    metered.billed(&seen).await.with_context(|| transport.to_owned())?.without_strays()?;
    metered.finish(&seen).await?;
    let executed = server.stop().await?;
    ensure!(executed == python::executed(1), "executed: {executed}");
    Ok(())
}

/// Plays the plan by the TypeScript client through a program that speaks MCP over its input.
async fn through(npm: &Npm, program: &Command) -> anyhow::Result<Seen> {
    let program = program.as_std();
    let settings = program.get_envs().map(|(name, value)| {
        format!("{}={}", name.to_string_lossy(), value.unwrap_or_default().to_string_lossy())
    });
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    let words: Vec<_> = std::iter::once("env".to_owned()).chain(settings).chain(words).collect();
    let plan = python::plan();
    npm::typescript(npm, &json!(words).to_string(), "stdio", "legacy", "2025-11-25", &plan).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn mcp_remote_between() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    let dir = TempDir::new()?;
    for (transport, strategy) in [("streamable-http", "http-only"), ("sse", "sse-only")] {
        let play = async |url: &str| {
            let mut program = npm.node("mcp-remote/dist/proxy.js");
            program.env("MCP_REMOTE_CONFIG_DIR", dir.path());
            program.args([url, "--allow-http", "--transport", strategy]);
            program.args(["--header", "x-customer-id:acme", "--header", "x-agent-id:remote"]);
            through(&npm, &program).await
        };
        check_client(transport, play).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn mcp_proxy_of_pypi_between() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    for (transport, name) in [("streamable-http", "streamablehttp"), ("sse", "sse")] {
        let play = async |url: &str| {
            let mut program = mcp_proxy().await?;
            program.args(["--transport", name, "-H", "x-customer-id", "acme"]);
            through(&npm, program.args(["-H", "x-agent-id", "proxy", url])).await
        };
        check_client(transport, play).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn the_ai_sdk() -> anyhow::Result<()> {
    let npm = tools::npm().await?;
    for (transport, name, protocol) in
        [("streamable-http", "ai-sdk-http", "2026-07-28"), ("sse", "ai-sdk-sse", "2025-11-25")]
    {
        let play = async |url: &str| {
            npm::typescript(&npm, url, name, "auto", protocol, &python::plan()).await
        };
        check_client(transport, play).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "its packages are many megabytes: `make peers` runs it"]
async fn mcp_use() -> anyhow::Result<()> {
    for transport in ["streamable-http", "sse"] {
        let play = async |url: &str| {
            let mut command = Command::new(tools::python_1().await?);
            command.env("MCP_USE_ANONYMIZED_TELEMETRY", "false");
            let plan = python::plan();
            command.arg(tools::here("client_mcp_use.py")).arg(url);
            let printed = run_client(command.args(["--calls", &json!(plan).to_string()])).await?;
            let printed = printed.first().context("the client told nothing")?;
            seen(&plan, &printed["outcomes"])
        };
        check_client(transport, play).await?;
    }
    Ok(())
}

//! Servers and clients in processes of their own.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::LIMIT;

/// Prints a line that also shows for a test that passes.
pub(crate) fn say(line: &str) {
    // If the output is closed, nobody wants the line.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A server that prints a line once it serves; it is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts it and returns what it printed after `ready`.
    async fn start(mut command: Command) -> anyhow::Result<(Self, Value)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut server = Self { child, lines: BufReader::new(stdout).lines() };
        let ready = server.line("ready").await.with_context(|| format!("{command:?}"))?;
        Ok((server, ready))
    }

    /// Starts it and returns the port that it says.
    pub(crate) async fn with_port(command: Command) -> anyhow::Result<(Self, u16)> {
        let (server, ready) = Self::start(command).await?;
        let port = ready["port"].as_u64().context("the server says its port")?;
        Ok((server, u16::try_from(port)?))
    }

    /// Ends its input and returns what it printed after `executed`.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Value> {
        drop(self.child.stdin.take());
        self.line("executed").await
    }

    async fn line(&mut self, word: &str) -> anyhow::Result<Value> {
        let read = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(value) = line.strip_prefix(word) {
                    return Ok(serde_json::from_str(value)?);
                }
            }
            anyhow::bail!("the server ended without a line `{word} ...`")
        };
        timeout(LIMIT, read).await.with_context(|| format!("no line `{word} ...`"))?
    }
}

/// A server that is told its port and does not say when it serves; it is killed when it is dropped.
pub(crate) struct ToldPort {
    pub(crate) port: u16,
    _child: Child,
}

impl ToldPort {
    /// Starts it with a free port, and returns once it listens.
    pub(crate) async fn start(command: impl FnOnce(u16) -> Command) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        wait::until(LIMIT, "the server listens", async || {
            ensure!(child.try_wait()?.is_none(), "it ended");
            TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        })
        .await
        .with_context(|| format!("{command:?}"))?;
        Ok(Self { port, _child: child })
    }
}

/// Runs a command to its end and returns its output; a failure shows what it printed.
pub(crate) async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = output(command).await?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end and returns its output, also if it failed.
pub(crate) async fn output(command: &mut Command) -> anyhow::Result<std::process::Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let limit = LIMIT * 5;
    let output = timeout(limit, command.output()).await;
    output
        .with_context(|| format!("{command:?} did not end within {limit:?}"))?
        .with_context(|| format!("cannot run {command:?}"))
}

/// Runs a client and returns the lines of JSON that it printed.
pub(crate) async fn run_client(command: &mut Command) -> anyhow::Result<Vec<Value>> {
    let output = run(command).await?;
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

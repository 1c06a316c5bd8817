//! Servers and clients in processes of their own.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
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
    pub(crate) async fn start(mut command: Command) -> anyhow::Result<(Self, Value)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut server = Self { child, lines: BufReader::new(stdout).lines() };
        let ready = server.line("ready").await.with_context(|| format!("{command:?}"))?;
        Ok((server, ready))
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

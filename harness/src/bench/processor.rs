//! The external processor: a process of its own, whose CPU time is counted beside Envoy's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The processor's program, beside this one.
const NAME: &str = "agent-meter-ext-proc";
/// Names the program, if it is elsewhere.
const VARIABLE: &str = "EXT_PROC_BIN";
/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running processor. It ends with this process, whose pipe it reads.
#[derive(Debug)]
pub(super) struct Processor {
    pub(super) addr: SocketAddr,
    pub(super) pid: u32,
    /// False for a development build, of which the CPU time would flatter all others.
    pub(super) is_optimised: bool,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Processor {
    /// Starts it, and waits until it listens.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = program()?;
        let name = program.display();
        let mut command = Command::new(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let pid = child.id().with_context(|| format!("{name} has ended"))?;
        let output = child.stdout.take().context("no pipe from the external processor")?;
        let mut output = BufReader::new(output).lines();
        let first = line(&mut output).await.with_context(|| format!("{name} does not start"))?;
        let (addr, build) = first.split_once(' ').unwrap_or((&first, ""));
        let addr = addr.parse().with_context(|| format!("{name}: no address: {first:?}"))?;
        Ok(Self { addr, pid, is_optimised: build == "release", child, output })
    }

    /// Ends it. Returns how many successful calls it has understood.
    pub(super) async fn stop(&mut self) -> anyhow::Result<u64> {
        drop(self.child.stdin.take());
        let understood = line(&mut self.output).await?;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "the external processor failed: {status}");
        understood.parse().with_context(|| format!("no count of calls: {understood:?}"))
    }
}

fn program() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let program = match named {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name(NAME),
    };
    let name = program.display();
    ensure!(program.is_file(), "no external processor {name}; run make bench, or set {VARIABLE}");
    Ok(program)
}

async fn line(output: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<String> {
    let line = timeout(PATIENCE, output.next_line()).await.context("it says nothing")??;
    line.context("it has ended")
}

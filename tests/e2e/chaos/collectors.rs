//! Collectors that have faults for a while: one in this process that answers wrongly, or refuses
//! connections; and `agent-meter collect` as a process of its own, which can be killed, and whose
//! disk can be full.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_meter::stack::ANY_PORT;
use agent_meter::wait;
use agent_meter_collector::Ledger;
use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::{Child, Command};

use crate::LIMIT;
use crate::client::{Client, report};
use crate::delivery::{Deed, Scripted, collector};
use crate::ledgers::new_ledger;
use crate::upstream::response;

/// A wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Error,
    Busy,
    LoginPage,
    Garbage,
    HalfTaken,
    CutBehindTaking,
    Slow,
}

impl Answer {
    /// As the table names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Answer::Error => "collector answers 500",
            Answer::Busy => "collector answers 429",
            Answer::LoginPage => "login page with 200",
            Answer::Garbage => "garbage with 200",
            Answer::HalfTaken => "half of a batch taken",
            Answer::CutBehindTaking => "connection cut behind taking",
            Answer::Slow => "collector slower than the timeout",
        }
    }

    fn deed(self, batch: &str, ledger: &Ledger) -> Deed {
        let json = [("content-type", "application/json")];
        let answer = match self {
            Answer::Error => response("500 Internal Server Error", &[], b""),
            Answer::Busy => response("429 Too Many Requests", &[("retry-after", "1")], b""),
            Answer::LoginPage => {
                let page = [("content-type", "text/html")];
                response("200 OK", &page, b"<html>Log in</html>")
            }
            Answer::Garbage => response("200 OK", &json, b"{\"accepted\": 3"),
            Answer::HalfTaken => {
                let taken = take_half(batch, ledger);
                let answer = json!({ "accepted": taken, "duplicates": 0, "rejected": [] });
                response("200 OK", &json, answer.to_string().as_bytes())
            }
            Answer::CutBehindTaking => return Deed::TakeAndLeave,
            Answer::Slow => return Deed::TakeLate(Duration::from_secs(2)),
        };
        Deed::Answer(answer)
    }
}

/// Stores the first half of a batch. Returns how many events were taken.
fn take_half(batch: &str, ledger: &Ledger) -> u64 {
    let events: Vec<serde_json::Value> = serde_json::from_str(batch).unwrap_or_default();
    let half = json!(events[..events.len() / 2]).to_string();
    let taken = ledger.insert_batch(half.as_bytes(), "application/cloudevents-batch+json");
    taken.map_or(0, |receipt| receipt.accepted)
}

/// A collector in this process, whose fault can be switched on and off.
pub(super) struct Switched {
    pub(super) addr: SocketAddr,
    pub(super) ledger: Ledger,
    answer: Answer,
    is_bad: Arc<AtomicBool>,
    /// How many requests were answered wrongly.
    bad_answers: Arc<AtomicU64>,
    serving: Option<Scripted>,
    /// Holds the port while nobody listens on it.
    held: Option<TcpSocket>,
}

impl Switched {
    /// Starts it without its fault.
    pub(super) async fn start(answer: Answer) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(ANY_PORT).await?;
        let mut switched = Self {
            addr: listener.local_addr()?,
            ledger: Ledger::open(&new_ledger())?,
            answer,
            is_bad: Arc::default(),
            bad_answers: Arc::default(),
            serving: None,
            held: None,
        };
        switched.serve(listener)?;
        Ok(switched)
    }

    fn serve(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let (answer, into) = (self.answer, self.ledger.clone());
        let (is_bad, bad_answers) = (Arc::clone(&self.is_bad), Arc::clone(&self.bad_answers));
        let serving = collector(listener, self.ledger.clone(), move |_, batch| {
            if !is_bad.load(Ordering::SeqCst) {
                return Deed::Take;
            }
            bad_answers.fetch_add(1, Ordering::SeqCst);
            answer.deed(batch, &into)
        })?;
        self.serving = Some(serving);
        Ok(())
    }

    /// From now on it answers wrongly, or rightly again.
    pub(super) fn answer_wrongly(&self, is_bad: bool) {
        self.is_bad.store(is_bad, Ordering::SeqCst);
    }

    /// Waits until so many requests were answered wrongly.
    pub(super) async fn until_bad_answers(&self, least: u64) -> anyhow::Result<()> {
        wait::until(LIMIT, "the collector answers wrongly", async || {
            let bad = self.bad_answers.load(Ordering::SeqCst);
            ensure!(bad >= least, "{bad} wrong answers");
            Ok(())
        })
        .await
    }

    /// Ends all connections, and refuses new ones. Returns when it began to.
    pub(super) async fn leave(&mut self) -> anyhow::Result<Instant> {
        let left = Instant::now();
        drop(self.serving.take());
        let held = wait::until(LIMIT, "the listener is closed", async || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(self.addr)?;
            Ok(socket)
        })
        .await?;
        self.held = Some(held);
        Ok(left)
    }

    /// Listens again.
    pub(super) fn come_back(&mut self) -> anyhow::Result<()> {
        let listener = self.held.take().context("the collector has not left")?.listen(64)?;
        self.serve(listener)
    }
}

/// `agent-meter collect` with a ledger in a file.
pub(super) struct Process {
    pub(super) addr: SocketAddr,
    file: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it on a free port.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("ledger.db");
        let (child, addr) = start(&file, ANY_PORT, None).await?;
        Ok(Self { addr, file, child })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// A view of its ledger.
    pub(super) fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::open_existing(&url(&self.file))
    }

    /// Sends SIGKILL.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        let status = self.child.wait().await?.to_string();
        ensure!(status.contains("signal: 9"), "the collector ended before: {status}");
        Ok(())
    }

    /// Starts it again, on the same port with the same ledger, after [`Process::kill`]. With a limit
    /// no file of the ledger may grow by more than so many blocks of 1,024 bytes, which stops
    /// writes as a full disk does.
    pub(super) async fn start_again(&mut self, blocks: Option<u64>) -> anyhow::Result<()> {
        let largest = match blocks {
            None => None,
            Some(blocks) => Some(self.largest_file()?.div_ceil(1024) + blocks),
        };
        (self.child, _) = start(&self.file, self.addr, largest).await?;
        Ok(())
    }

    /// The size of the ledger's largest file.
    fn largest_file(&self) -> anyhow::Result<u64> {
        let mut largest = 0;
        for entry in std::fs::read_dir(self.file.parent().context("a directory")?)? {
            largest = largest.max(entry?.metadata()?.len());
        }
        Ok(largest)
    }

    /// The status of its `/healthz`, and what that says.
    pub(super) async fn health(&self) -> anyhow::Result<(u16, String)> {
        let answer = Client::connect(self.addr).await?.exchange(&report("/healthz")).await?;
        Ok((answer.status(), String::from_utf8_lossy(&answer.body).into_owned()))
    }
}

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

async fn start(
    file: &Path,
    listen: SocketAddr,
    blocks_max: Option<u64>,
) -> anyhow::Result<(Child, SocketAddr)> {
    let limit = blocks_max.map_or("unlimited".to_owned(), |blocks| blocks.to_string());
    let mut child = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &limit])
        .arg(program()?)
        .args(["collect", "--listen", &listen.to_string(), "--ledger", &url(file)])
        .env_remove("AGENT_METER_COLLECTOR_SECRET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run `bash`")?;
    let out = child.stdout.take().context("its output")?;
    let line = BufReader::new(out).lines().next_line().await?.unwrap_or_default();
    let ready = line.strip_prefix("ready ").context("the collector does not start")?;
    let ready: serde_json::Value = serde_json::from_str(ready)?;
    let addr = ready["collector"].as_str().context("an address")?.parse()?;
    Ok((child, addr))
}

/// The command, built with the profile of this test.
fn program() -> anyhow::Result<PathBuf> {
    // Tests are in target/PROFILE/deps.
    let test = std::env::current_exe()?;
    let built = test.ancestors().nth(2).context("this test lies in no target directory")?;
    let program = built.join("agent-meter");
    ensure!(
        program.is_file(),
        "there is no {}: run `cargo build -p agent-meter`",
        program.display()
    );
    Ok(program)
}

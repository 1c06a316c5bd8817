//! Serves an MCP server that speaks stdio over Streamable HTTP, so that Envoy can meter it: one
//! process for each session.
//!
//! Messages pass as they are, in both directions, also with members and methods that no SDK knows:
//! read and written anew by rmcp, such members would be lost. What the transport demands is done to
//! them alone: line breaks between tokens become spaces.
//!
//! Source: MCP 2025-11-25, "Transports" (stdio, Streamable HTTP).

mod child;
mod http;
mod message;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rmcp::transport::common::server_side_http::session_id;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use self::child::Server;
use self::message::{Id, Message};
use self::session::Session;
use crate::stack::ANY_PORT;

/// How long all servers together may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(6);
/// What is shown of a line that is no message, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Takes each line that the user should read.
pub type Say = Arc<dyn Fn(String) + Send + Sync>;

/// The options of a [`Relay`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The program and its arguments, as [`split`] returns them.
    pub command: Vec<String>,
    /// Sessions at once; the next gets 503.
    pub sessions_max: u32,
    /// How long a session may be without a message, an open request or stream.
    pub idle: Duration,
}

/// Splits a command line as a shell does, without its variables, pipes and patterns.
pub fn split(command: &str) -> anyhow::Result<Vec<String>> {
    let words = shlex::split(command).context("a quote is not closed")?;
    ensure!(!words.is_empty(), "expected a command, such as 'npx -y @scope/server'");
    Ok(words)
}

/// Serves `/mcp` on a free port of this machine. Dropped without [`Relay::stop`], it kills its
/// servers.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// What all sessions share.
struct Shared {
    options: Options,
    table: Mutex<Table>,
    /// One for each server that runs for a session.
    slots: Arc<Semaphore>,
    started: AtomicU64,
    /// Whether the last session found no room.
    is_full: AtomicBool,
    say: Say,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<String, Arc<Session>>,
    /// The server that shows at the start that the command works; the first session takes it.
    spare: Option<Server>,
    is_stopping: bool,
}

/// Why a session does not begin.
enum NotBegun {
    Full,
    Stopping,
    Failed(anyhow::Error),
}

impl Relay {
    /// Starts the command once, as the first session's server, and serves. The error names what
    /// cannot be started.
    pub async fn start(options: Options, say: Say) -> anyhow::Result<Self> {
        let slots = usize::try_from(options.sessions_max)?.min(Semaphore::MAX_PERMITS);
        let spare = Some(Server::start(&options.command, 1, &say)?);
        let table = Mutex::new(Table { spare, ..Table::default() });
        let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
        let addr = listener.local_addr()?;
        let slots = Arc::new(Semaphore::new(slots));
        let (started, is_full) = (AtomicU64::new(1), AtomicBool::new(false));
        let shared = Arc::new(Shared { options, table, slots, started, is_full, say });
        let serving = axum::serve(listener, http::router(shared.clone()));
        Ok(Self { addr, shared, serving: tokio::spawn(serving.into_future()) })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends every session and its server, at most six seconds long.
    pub async fn stop(self) {
        let spare = {
            let mut table = self.shared.table();
            table.is_stopping = true;
            table.sessions.values().for_each(|session| session.end());
            table.spare.take()
        };
        let all = self.shared.options.sessions_max;
        let ended = async {
            if let Some(spare) = spare {
                let _ = spare.end().await;
            }
            self.shared.slots.acquire_many(all).await.map(drop)
        };
        if timeout(STOP_LIMIT, ended).await.is_err() {
            (self.shared.say)(format!("warning: servers have not ended within {STOP_LIMIT:?}"));
        }
        self.serving.abort();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.table().sessions.get(id).cloned()
    }

    /// Begins a session with a server of its own, and returns the session's id.
    fn begin(self: &Arc<Self>, beginning: &Id) -> Result<(String, Arc<Session>), NotBegun> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                let most = self.options.sessions_max;
                (self.say)(format!(
                    "warning: {most} sessions are open, and a further one gets 503"
                ));
            }
            return Err(NotBegun::Full);
        };
        self.is_full.store(false, Ordering::Relaxed);
        let mut table = self.table();
        if table.is_stopping {
            return Err(NotBegun::Stopping);
        }
        let spare = table.spare.take().and_then(|mut spare| {
            let has_ended = spare.has_ended();
            if has_ended {
                let number = spare.number;
                (self.say)(format!("[server {number}] has ended before a client came"));
            }
            (!has_ended).then_some(spare)
        });
        let server = match spare {
            Some(server) => server,
            None => {
                let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
                Server::start(&self.options.command, number, &self.say).map_err(NotBegun::Failed)?
            }
        };
        let session = Arc::new(Session::new(server.input(), beginning.clone()));
        let id = session_id().to_string();
        table.sessions.insert(id.clone(), session.clone());
        tokio::spawn(attend(self.clone(), id.clone(), session.clone(), server, slot));
        Ok((id, session))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why a session ends.
enum Reason {
    /// The client or the relay wants it.
    Wanted,
    Idle,
    /// The server has closed its stdout.
    Ended,
    Fault(anyhow::Error),
}

/// Brings what the server says to the client until the session ends, and ends the server.
async fn attend(
    shared: Arc<Shared>,
    id: String,
    session: Arc<Session>,
    mut server: Server,
    slot: OwnedSemaphorePermit,
) {
    let number = server.number;
    let say = |text: String| (shared.say)(format!("[server {number}] {text}"));
    let reason = loop {
        let idle_at = session.idle_at(shared.options.idle);
        let line = tokio::select! {
            () = session.ending() => break Reason::Wanted,
            line = server.line() => line,
            () = sleep_until(idle_at) => match session.idle_at(shared.options.idle) == idle_at {
                true => break Reason::Idle,
                false => continue,
            },
        };
        let line = match line {
            Ok(Some(line)) => message::one_line(line),
            Ok(None) => break Reason::Ended,
            Err(error) => break Reason::Fault(error),
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        match Message::read(&line) {
            Ok(message) => tokio::select! {
                () = session.bring(&message, line, &shared.say) => {}
                () = session.ending() => break Reason::Wanted,
            },
            Err(error) => {
                let shown = String::from_utf8_lossy(&line);
                let shown: String = shown.chars().take(SHOWN_CHARS_MAX).collect();
                say(format!("warning: no message on stdout, left out: {error}: {shown}"));
            }
        }
    };
    shared.table().sessions.remove(&id);
    let unanswered = session.close();
    let status = match server.end().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let why = match reason {
        Reason::Wanted => None,
        Reason::Idle => Some(format!("is idle for {:?}, and was ended", shared.options.idle)),
        Reason::Ended => Some(format!("has ended ({status})")),
        Reason::Fault(error) => Some(format!("was ended: {error:#}")),
    };
    match (why, unanswered) {
        (None, _) => {}
        (Some(why), 0) => say(format!("{why}: its session is gone")),
        (Some(why), _) => {
            say(format!("warning: {why}: its session is gone, {unanswered} requests got an error"));
        }
    }
    drop(slot);
}

//! Clients that call all the time, and what they saw. Each call has a tool of its own, so that the
//! ledger can be asked for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Agent, Client};

/// How the name of each tool begins.
pub(super) const TOOL: &str = "call_";
const SESSIONS_AT_ONCE: u64 = 3;
/// Fewer than the tools that a session counts separately.
const CALLS_PER_SESSION: u64 = 40;
/// How long a client waits for an answer before it gives the call up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The calls of all clients.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next: AtomicU64,
    /// When the whole answer of each call had come, by its tool. Calls without an answer are not
    /// here: nobody can say whether they were executed.
    done: Mutex<BTreeMap<String, Instant>>,
}

impl Calls {
    /// The calls that are done so far.
    pub(super) fn done(&self) -> BTreeMap<String, Instant> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn make(&self, client: &mut Client) -> anyhow::Result<()> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let round = number / (SESSIONS_AT_ONCE * CALLS_PER_SESSION);
        let agent = Agent::new(&format!("agent-{round}-{}", number % SESSIONS_AT_ONCE));
        let tool = format!("{TOOL}{number}");
        let answer = timeout(PATIENCE, client.exchange(&agent.call(number, &tool))).await;
        let answer = answer.context("no answer")??;
        ensure!(answer.status() == 200, "{answer:?}");
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(tool, Instant::now());
        let is_last = answer.header("connection").is_some_and(|value| value == "close");
        ensure!(!is_last, "the connection ends");
        Ok(())
    }
}

/// Clients that call until they are stopped: of each address one that keeps its connection, and one
/// that makes a new one for each call.
pub(super) struct Load {
    pub(super) calls: Arc<Calls>,
    is_over: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Each client rests so long between two calls.
    pub(super) fn start(listens: &[SocketAddr], pause: Duration) -> Self {
        let (calls, is_over) = (Arc::<Calls>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        for &listen in listens {
            for keeps in [true, false] {
                let (calls, is_over) = (Arc::clone(&calls), Arc::clone(&is_over));
                clients.spawn(async move {
                    let mut connection = None;
                    while !is_over.load(Ordering::SeqCst) {
                        connection = once(&calls, listen, connection).await.filter(|_| keeps);
                        sleep(pause).await;
                    }
                });
            }
        }
        Self { calls, is_over, clients }
    }

    /// Waits for the last answers.
    pub(super) async fn stop(mut self) -> anyhow::Result<Arc<Calls>> {
        self.is_over.store(true, Ordering::SeqCst);
        while let Some(client) = self.clients.join_next().await {
            client?;
        }
        Ok(self.calls)
    }
}

/// Makes one call. Returns the connection if it can be used again.
async fn once(calls: &Calls, listen: SocketAddr, connection: Option<Client>) -> Option<Client> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Client::connect(listen).await.ok()?,
    };
    // A fault may cut any call, and then nobody knows what became of it.
    calls.make(&mut connection).await.ok()?;
    Some(connection)
}

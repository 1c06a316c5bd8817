//! Starts and stops a collector: its ledger, its HTTP server, its webhooks and sinks, and the tasks that read
//! the file of contracts again and close the sessions of lost sources.

mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::access::{Hosts, Secrets};
use crate::clock::Clock;
use crate::contracts::Contracts;
use crate::handover::{Handovers, Sinks};
use crate::ledger::Ledger;
use crate::proof::{Root, SigningKey};
use crate::query::rfc3339;
use crate::routes::{Door, Service, routes};
use crate::webhook::{Deliveries, Webhooks};

/// How long `stop` waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the file of contracts is checked for a change.
const CONTRACTS_REFRESH: Duration = Duration::from_secs(1);

/// How often the collector looks for corrections that are not in force for all events yet.
const CORRECTIONS_REFRESH: Duration = Duration::from_secs(2);
/// How often the sources are looked over for lost ones, at least.
const LOST_REFRESH: Duration = Duration::from_secs(15);

/// What a collector does besides keeping its ledger, and whom it lets in; nothing, and everybody who
/// is on this machine, by default.
#[derive(Debug)]
pub struct Extras {
    /// The customers' contracts; the replies to the filter repeat them next to the fleet's totals.
    pub contracts: Option<Contracts>,
    /// The receivers of changes of a guard's level.
    pub webhooks: Option<Webhooks>,
    /// The systems to which stored events are handed over.
    pub sinks: Option<Sinks>,
    /// Those who may write; with none, everybody may.
    pub writers: Secrets,
    /// Those who may read; with none, whoever is on this machine, or everybody if everybody may
    /// write too.
    pub readers: Secrets,
    /// Those who may write top-ups; with none, nobody may over HTTP.
    pub payers: Secrets,
    /// Names under which it may be reached, beside loopback and its own address.
    pub hosts: Vec<String>,
    /// Whether it may listen on an address that others reach although everybody may write.
    pub insecure: bool,
    /// After how much silence the sessions of a source that told that it lives are closed; `None`:
    /// never.
    pub source_lost_after: Option<Duration>,
    /// Signs a root each day, and when the collector starts.
    pub signing_key: Option<SigningKey>,
    /// The database for queries, such as a replica, if the ledger is in PostgreSQL.
    pub read_ledger: Option<String>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Where the time comes from.
    pub clock: Clock,
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// How long a connection may wait for a request, and the head of a request may take to come.
    pub head: Duration,
    /// How long a body may take to come.
    pub body: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { head: Duration::from_secs(30), body: Duration::from_secs(30) }
    }
}

/// How often to look whether a day has ended.
const SEAL_REFRESH: Duration = Duration::from_secs(60);
/// Bytes of the day in a time of RFC 3339.
const DAY: usize = 10;

/// The name by which the filter calls the collector unless it is configured otherwise.
const HOST_DEFAULT: &str = "agent-meter-collector";

impl Default for Extras {
    fn default() -> Extras {
        Extras {
            contracts: None,
            webhooks: None,
            sinks: None,
            writers: Secrets::default(),
            readers: Secrets::default(),
            payers: Secrets::default(),
            hosts: vec![HOST_DEFAULT.to_owned()],
            insecure: false,
            source_lost_after: None,
            signing_key: None,
            read_ledger: None,
            timeouts: Timeouts::default(),
            clock: Clock::default(),
        }
    }
}

/// A running collector. Dropped without `stop`, it stops without waiting for requests under way.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    ledger: Ledger,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    deliveries: Option<Deliveries>,
    handovers: Option<Handovers>,
    /// They end with the collector.
    tasks: JoinSet<()>,
}

impl Collector {
    /// Opens the ledger and serves on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be opened or the address cannot be bound.
    pub async fn start(listen: SocketAddr, ledger_url: &str) -> anyhow::Result<Collector> {
        Collector::start_with(listen, ledger_url, Extras::default()).await
    }

    /// The same, with contracts, webhooks and sinks.
    ///
    /// # Errors
    ///
    /// Also if a webhook or a sink needs https and this machine trusts no authority, if a host is none, or if
    /// anybody who reaches the address could write.
    pub async fn start_with(
        listen: SocketAddr,
        ledger_url: &str,
        extras: Extras,
    ) -> anyhow::Result<Collector> {
        ensure!(
            listen.ip().to_canonical().is_loopback()
                || !extras.writers.is_empty()
                || extras.insecure,
            "listen on {listen}: whoever reaches it could bill any customer; give --secret-file, or \
             --insecure if something else keeps strangers out"
        );
        let hosts = Hosts::new(&extras.hosts).context("--allow-host")?;
        let door =
            Door { hosts, writers: extras.writers, readers: extras.readers, payers: extras.payers };
        let (url, read_url, clock) = (ledger_url.to_owned(), extras.read_ledger, extras.clock);
        let open = move || Ledger::open_with(&url, read_url.as_deref(), clock);
        let ledger = tokio::task::spawn_blocking(open).await??;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let webhooks = extras.webhooks.as_ref();
        let deliveries =
            webhooks.map(|webhooks| Deliveries::start(&ledger, webhooks)).transpose()?;
        let handovers = match &extras.sinks {
            Some(sinks) => Some(Handovers::start(&ledger, sinks).await?),
            None => None,
        };
        let contracts = extras.contracts.map(Arc::new);
        // Dropped with the collector, which stops the server too.
        let (stop, stopped) = watch::channel(false);
        let mut service = Service::new(ledger.clone(), door, stopped.clone());
        service.contracts = contracts.clone();
        service.webhooks = webhooks.map(Webhooks::names).unwrap_or_default().into();
        service.body_timeout = extras.timeouts.body;
        service.queued = deliveries.as_ref().map(Deliveries::queued);
        tracing::info!(%addr, ?ledger, "collector started");
        let head_timeout = extras.timeouts.head;
        let server = connections::serve(listener, routes(service), head_timeout, stopped);
        let server = tokio::spawn(server);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_corrections(ledger.clone()));
        if let Some(contracts) = contracts {
            tasks.spawn(refresh(contracts));
        }
        if let Some(after) = extras.source_lost_after {
            tasks.spawn(close_lost(ledger.clone(), after));
        }
        if let Some(key) = extras.signing_key {
            tasks.spawn(seal(ledger.clone(), key));
        }
        Ok(Collector { addr, ledger, stop, server, deliveries, handovers, tasks })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its ledger.
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Takes no further connections, answers the requests under way, and ends.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let abort = self.server.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, self.server).await.is_err() {
            abort.abort();
        }
        if let Some(deliveries) = self.deliveries {
            // The next collector of this ledger sends again what is still under way.
            let _ = tokio::time::timeout(STOP_TIMEOUT, deliveries.stop()).await;
        }
        if let Some(handovers) = self.handovers {
            // The same; receivers know again what comes twice.
            let _ = tokio::time::timeout(STOP_TIMEOUT, handovers.stop()).await;
        }
        // Whoever holds the ledger keeps its file open.
        self.tasks.shutdown().await;
        tracing::info!(addr = %self.addr, "collector stopped");
    }
}

/// Closes the sessions of lost sources until the collector ends.
async fn close_lost(ledger: Ledger, after: Duration) {
    let silence_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
    // A collector that starts gives its sources the time to speak: it may have been away itself.
    tokio::time::sleep(after).await;
    loop {
        let ledger = ledger.clone();
        match tokio::task::spawn_blocking(move || ledger.close_lost(silence_ms)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(sessions)) => tracing::warn!(sessions, "sessions of lost sources closed"),
            Ok(Err(error)) => tracing::error!("lost sources: {error:#}"),
            Err(error) => tracing::error!("lost sources: {error}"),
        }
        tokio::time::sleep(after.min(LOST_REFRESH)).await;
    }
}

/// Brings the rows of events up to date with corrections until the collector ends: whoever wrote one
/// may have ended before all rows followed it.
async fn follow_corrections(ledger: Ledger) {
    loop {
        tokio::time::sleep(CORRECTIONS_REFRESH).await;
        let ledger = ledger.clone();
        let follow = move || {
            while ledger.follow_corrections()? {}
            anyhow::Ok(())
        };
        match tokio::task::spawn_blocking(follow).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("corrections are not in force: {error:#}"),
            Err(error) => tracing::error!("corrections are not in force: {error}"),
        }
    }
}

/// Checks the file of contracts until the collector ends.
async fn refresh(contracts: Arc<Contracts>) {
    loop {
        tokio::time::sleep(CONTRACTS_REFRESH).await;
        let contracts = contracts.clone();
        match tokio::task::spawn_blocking(move || contracts.refresh()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the contracts stay as they were: {error:#}"),
            Err(error) => tracing::error!("contracts: {error}"),
        }
    }
}

/// Signs a root of each day's events, soon after the day, until the collector ends.
async fn seal(ledger: Ledger, key: SigningKey) {
    let key = Arc::new(key);
    loop {
        let (sealed, key) = (ledger.clone(), key.clone());
        match tokio::task::spawn_blocking(move || seal_due(&sealed, &key)).await {
            Ok(Ok(None)) => {}
            // The log is one of the places that who writes the ledger need not reach.
            Ok(Ok(Some(root))) => {
                let statement = root.statement().trim_end().replace('\n', "; ");
                tracing::info!(statement, signature = root.signature, "ledger sealed");
            }
            Ok(Err(error)) => tracing::error!("the ledger is not sealed: {error:#}"),
            Err(error) => tracing::error!("the ledger is not sealed: {error}"),
        }
        tokio::time::sleep(SEAL_REFRESH).await;
    }
}

/// Signs a root if the last one is of an earlier day.
fn seal_due(ledger: &Ledger, key: &SigningKey) -> anyhow::Result<Option<Root>> {
    let today = rfc3339(ledger.now_ms());
    let last = ledger.last_root()?;
    let is_due = last.is_none_or(|root| root.sealed_at.get(..DAY) != today.get(..DAY));
    if is_due { ledger.seal(key) } else { Ok(None) }
}

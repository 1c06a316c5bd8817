//! Starts and stops a collector: its ledger, its HTTP server, its webhooks, and the task that reads
//! the file of contracts again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use crate::contracts::Contracts;
use crate::ledger::Ledger;
use crate::routes::{Service, routes};
use crate::webhook::{Deliveries, Webhooks};

/// How long `stop` waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the file of contracts is checked for a change.
const CONTRACTS_REFRESH: Duration = Duration::from_secs(1);

/// What a collector does besides keeping its ledger; nothing by default.
#[derive(Debug, Default)]
pub struct Extras {
    /// The customers' contracts; the replies to the filter repeat them next to the fleet's totals.
    pub contracts: Option<Contracts>,
    /// The receivers of changes of a guard's level.
    pub webhooks: Option<Webhooks>,
}

/// A running collector. Dropped without `stop`, it stops without waiting for requests under way.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    ledger: Ledger,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    deliveries: Option<Deliveries>,
    contracts: Option<EndOnDrop>,
}

/// A task that ends with the collector.
#[derive(Debug)]
struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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

    /// The same, with contracts and webhooks.
    ///
    /// # Errors
    ///
    /// Also if a webhook needs https and this machine trusts no authority.
    pub async fn start_with(
        listen: SocketAddr,
        ledger_url: &str,
        extras: Extras,
    ) -> anyhow::Result<Collector> {
        let url = ledger_url.to_owned();
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(&url)).await??;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let webhooks = extras.webhooks.as_ref();
        let deliveries =
            webhooks.map(|webhooks| Deliveries::start(&ledger, webhooks)).transpose()?;
        let contracts = extras.contracts.map(Arc::new);
        let service = Service {
            ledger: ledger.clone(),
            contracts: contracts.clone(),
            webhooks: webhooks.map(Webhooks::names).unwrap_or_default().into(),
            queued: deliveries.as_ref().map(Deliveries::queued),
        };
        let (stop, stopped) = oneshot::channel();
        let server = axum::serve(listener, routes(service)).with_graceful_shutdown(async {
            // An error means the collector was dropped, which stops the server too.
            let _ = stopped.await;
        });
        tracing::info!(%addr, ledger = ledger_url, "collector started");
        let server = tokio::spawn(server.into_future());
        let contracts =
            contracts.map(|contracts| EndOnDrop(tokio::spawn(refresh(contracts)).abort_handle()));
        Ok(Collector { addr, ledger, stop, server, deliveries, contracts })
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
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let abort = self.server.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, self.server).await.is_err() {
            abort.abort();
        }
        if let Some(deliveries) = self.deliveries {
            // The next collector of this ledger sends again what is still under way.
            let _ = tokio::time::timeout(STOP_TIMEOUT, deliveries.stop()).await;
        }
        drop(self.contracts);
        tracing::info!(addr = %self.addr, "collector stopped");
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

//! The collector: an HTTP server that takes the filter's events into a ledger and answers what is
//! in it. Bytes flow `ingest` -> `ledger` -> `usage`, `sessions`, `reconcile`, `gaps`; what guards
//! tell goes `guard` -> `verdict` -> `guards` and `webhook`. This file only routes.
//! It does not authenticate: bind it where only the filter and its operator can reach it.

mod contracts;
mod derive;
mod gaps;
mod generation;
mod guard;
mod guards;
mod ingest;
mod ledger;
mod members;
mod metrics;
pub(crate) mod money;
pub(crate) mod query;
mod reconcile;
mod schema;
mod sessions;
mod usage;
mod verdict;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRef, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

pub use contracts::{Contract, Contracts};
pub use gaps::{Gaps, Range, SourceGaps};
pub use guards::{Alerts, GuardState, Guards, GuardsQuery};
pub use ingest::{IngestError, Receipt, Rejected};
pub use ledger::{EventsPage, EventsQuery, Ledger};
pub use money::Overflow;
pub use query::{BadQuery, Page, Period};
pub use reconcile::{Mismatch, Reconciliation};
pub use sessions::{
    ModelTotals, Session, SessionState, Sessions, SessionsQuery, TokenTotals, ToolTotals, Totals,
};
pub use usage::{Dimension, Usage, UsageQuery, UsageRow};
pub use verdict::ScopeStatus;
pub use webhook::{Retry, Secret, Webhook, Webhooks};

use query::Parameters;
use webhook::{Deliveries, queue};

/// The longest body of a POST: 16 MiB, several times what the filter puts in a batch.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long `stop` waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the file of contracts is looked at.
const CONTRACTS_REFRESH: Duration = Duration::from_secs(1);

/// What a collector may do beside keeping its ledger; by default nothing.
#[derive(Debug, Default)]
pub struct Extras {
    /// What customers' contracts bring, told to the filter with the verdicts.
    pub contracts: Option<Contracts>,
    /// Who is told of scopes that cross a level.
    pub webhooks: Option<Webhooks>,
}

/// A running collector. Dropped without `stop`, it stops by itself, unwaited for.
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
    pub async fn start(listen: SocketAddr, ledger_url: &str) -> anyhow::Result<Collector> {
        Collector::start_with(listen, ledger_url, Extras::default()).await
    }

    /// The same, with contracts and webhooks.
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

    /// Where it listens.
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
            // What is still under way is sent again by the next collector of this ledger.
            let _ = tokio::time::timeout(STOP_TIMEOUT, deliveries.stop()).await;
        }
        drop(self.contracts);
        tracing::info!(addr = %self.addr, "collector stopped");
    }
}

/// What the routes share.
#[derive(Clone)]
struct Service {
    ledger: Ledger,
    contracts: Option<Arc<Contracts>>,
    webhooks: Arc<[String]>,
    /// Wakes up those who tell the webhooks.
    queued: Option<Arc<Notify>>,
}

impl FromRef<Service> for Ledger {
    fn from_ref(service: &Service) -> Ledger {
        service.ledger.clone()
    }
}

impl Service {
    /// What a customer's contract brings; a guard of a product has no customer.
    fn contract(&self, customer: &str) -> Option<Contract> {
        self.contracts.as_ref()?.of(customer)
    }
}

/// Looks at the file of contracts for ever.
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

fn routes(service: Service) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { Json(serde_json::json!({"status": "ok"})) }))
        .route("/metrics", get(metrics))
        .route("/v1/events", post(ingest_events).get(events))
        .route("/v1/usage", get(usage))
        .route("/v1/sessions", get(sessions))
        .route("/v1/gaps", get(gaps))
        .route("/v1/reconcile", get(reconcile))
        .route("/v1/guards", get(guards))
        .route("/v1/alerts", get(alerts))
        .fallback(|| async { Refusal(StatusCode::NOT_FOUND, "no such path".to_owned()) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}

/// An answer that is not 2xx: `{"error": "..."}`.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({"error": self.1}))).into_response()
    }
}

impl From<BadQuery> for Refusal {
    fn from(error: BadQuery) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Refusal {
        let status = match &error {
            IngestError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            IngestError::Malformed(_) => StatusCode::BAD_REQUEST,
            IngestError::Ledger(error) => {
                tracing::error!("ledger failed: {error:#}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Refusal(status, error.to_string())
    }
}

type Answer = Result<Response, Refusal>;
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn ingest_events(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let content_type = text(header::CONTENT_TYPE).to_owned();
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let error = format!("content-encoding: must be identity, found {encoding:?}");
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let error = format!("body: must be at most {BODY_BYTES_MAX} bytes");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, error)
        }
        // Cut short on its way, so worth sending again.
        _ => Refusal(StatusCode::REQUEST_TIMEOUT, format!("body: {}", error.body_text())),
    })?;
    let (ledger, webhooks) = (service.ledger.clone(), service.webhooks.clone());
    let work = move || ledger.insert_batch_and_tell(&body, &content_type, &webhooks);
    let (mut receipt, queued) =
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error.into()))??;
    if let Some(webhooks) = service.queued.as_ref().filter(|_| queued > 0) {
        webhooks.notify_waiters();
    }
    for verdict in &mut receipt.verdicts {
        let contract = service.contract(&verdict.customer_id);
        verdict.contracted_revenue = contract.map(|contract| contract.contracted_revenue);
    }
    Ok(Json(receipt).into_response())
}

async fn events(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let query = EventsQuery::from_pairs(decoded(pairs)?)?;
    report(move || ledger.events(&query)).await
}

async fn usage(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let query = UsageQuery::from_pairs(decoded(pairs)?)?;
    report(move || ledger.usage(&query)).await
}

async fn sessions(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let query = SessionsQuery::from_pairs(decoded(pairs)?)?;
    report(move || ledger.sessions(&query)).await
}

async fn gaps(State(ledger): State<Ledger>) -> Answer {
    report(move || ledger.gaps()).await
}

async fn reconcile(State(ledger): State<Ledger>) -> Answer {
    report(move || ledger.reconcile()).await
}

async fn guards(State(service): State<Service>, pairs: Pairs) -> Answer {
    let query = GuardsQuery::from_pairs(decoded(pairs)?)?;
    report(move || {
        let mut found = service.ledger.guards(&query)?;
        for guard in &mut found.guards {
            if let Some(contract) = service.contract(&guard.customer_id) {
                guard.contracted_revenue = Some(contract.contracted_revenue);
                guard.plan = contract.plan;
            }
        }
        Ok(found)
    })
    .await
}

async fn alerts(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let page = Parameters::new(decoded(pairs)?, &["after", "limit"])?.take_page()?;
    report(move || ledger.alerts(page)).await
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html")))
}

async fn metrics(State(ledger): State<Ledger>) -> Answer {
    let work = move || anyhow::Ok(format!("{}{}", ledger.tally(), queue::metrics(&ledger)?));
    let text = tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from).flatten();
    let text = text.map_err(|error| failed(&error))?;
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn decoded(pairs: Pairs) -> Result<Vec<(String, String)>, Refusal> {
    match pairs {
        Ok(Query(pairs)) => Ok(pairs),
        Err(error) => Err(Refusal(StatusCode::BAD_REQUEST, error.body_text())),
    }
}

/// Runs a report and writes it as JSON, both off the async threads.
async fn report<T: Serialize>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Answer {
    let work = move || anyhow::Ok(serde_json::to_vec(&work()?)?);
    let body = tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from).flatten();
    let body = body.map_err(|error| failed(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn failed(error: &anyhow::Error) -> Refusal {
    tracing::error!("request failed: {error:#}");
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

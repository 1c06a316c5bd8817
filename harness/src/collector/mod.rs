//! The collector: an HTTP server that takes the filter's events into a ledger and answers what is
//! in it. Bytes flow `ingest` -> `ledger` -> `usage`, `sessions`, `reconcile`, `gaps`; this file
//! only routes.
//! It does not authenticate: bind it where only the filter and its operator can reach it.

mod derive;
mod gaps;
mod generation;
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

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use gaps::{Gaps, Range, SourceGaps};
pub use ingest::{IngestError, Receipt, Rejected};
pub use ledger::{EventsPage, EventsQuery, Ledger};
pub use money::Overflow;
pub use query::{BadQuery, Page, Period};
pub use reconcile::{Mismatch, Reconciliation};
pub use sessions::{
    ModelTotals, Session, SessionState, Sessions, SessionsQuery, TokenTotals, ToolTotals, Totals,
};
pub use usage::{Dimension, Usage, UsageQuery, UsageRow};

/// The longest body of a POST: 16 MiB, several times what the filter puts in a batch.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long `stop` waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running collector. Dropped without `stop`, it stops by itself, unwaited for.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    ledger: Ledger,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Collector {
    /// Opens the ledger and serves on `listen`; port 0 takes a free one.
    pub async fn start(listen: SocketAddr, ledger_url: &str) -> anyhow::Result<Collector> {
        let url = ledger_url.to_owned();
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(&url)).await??;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let server = axum::serve(listener, routes(ledger.clone())).with_graceful_shutdown(async {
            // An error means the collector was dropped, which stops the server too.
            let _ = stopped.await;
        });
        tracing::info!(%addr, ledger = ledger_url, "collector started");
        Ok(Collector { addr, ledger, stop, server: tokio::spawn(server.into_future()) })
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
        tracing::info!(addr = %self.addr, "collector stopped");
    }
}

fn routes(ledger: Ledger) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { Json(serde_json::json!({"status": "ok"})) }))
        .route("/metrics", get(metrics))
        .route("/v1/events", post(ingest_events).get(events))
        .route("/v1/usage", get(usage))
        .route("/v1/sessions", get(sessions))
        .route("/v1/gaps", get(gaps))
        .route("/v1/reconcile", get(reconcile))
        .fallback(|| async { Refusal(StatusCode::NOT_FOUND, "no such path".to_owned()) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(ledger)
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
    State(ledger): State<Ledger>,
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
    let work = move || ledger.insert_batch(&body, &content_type);
    let receipt =
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error.into()))??;
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

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html")))
}

async fn metrics(State(ledger): State<Ledger>) -> impl IntoResponse {
    let text = ledger.tally().to_string();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
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

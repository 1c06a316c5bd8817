//! The HTTP interface: each route decodes a request, runs it on the ledger off the async threads,
//! and encodes the answer.
//! It does not authenticate: bind it where only the filter and its operator can reach it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRef, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::Notify;

use crate::contracts::{Contract, Contracts};
use crate::event::error::IngestError;
use crate::ledger::Ledger;
use crate::query::{BadQuery, Parameters};
use crate::report::events::EventsQuery;
use crate::report::guards::GuardsQuery;
use crate::report::sessions::SessionsQuery;
use crate::report::usage::UsageQuery;
use crate::webhook::queue;

/// The longest body of a POST: 16 MiB, several times the longest batch of the filter.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The state that the routes share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) ledger: Ledger,
    pub(crate) contracts: Option<Arc<Contracts>>,
    pub(crate) webhooks: Arc<[String]>,
    /// Wakes up the tasks that post to webhooks.
    pub(crate) queued: Option<Arc<Notify>>,
}

impl FromRef<Service> for Ledger {
    fn from_ref(service: &Service) -> Ledger {
        service.ledger.clone()
    }
}

impl Service {
    /// The contract of a customer; a guard of a product has no customer.
    fn contract(&self, customer: &str) -> Option<Contract> {
        self.contracts.as_ref()?.of(customer)
    }
}

pub(crate) fn routes(service: Service) -> Router {
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
    let work = move || ledger.insert_batch_for(&body, &content_type, &webhooks);
    let (mut receipt, queued) =
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error.into()))??;
    if let Some(webhooks) = service.queued.as_ref().filter(|_| queued > 0) {
        webhooks.notify_waiters();
    }
    for totals in &mut receipt.verdicts {
        let contract = service.contract(&totals.customer_id);
        totals.contracted_revenue = contract.map(|contract| contract.contracted_revenue);
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

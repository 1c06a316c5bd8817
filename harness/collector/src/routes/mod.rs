//! The HTTP interface: each route decodes a request, runs it on the ledger off the async threads,
//! and encodes the answer. `door.rs` decides who comes in, `ingest.rs` takes events, `balances.rs` top-ups,
//! `page.rs` shows people what there is.

mod balances;
mod door;
mod health;
mod ingest;
mod metrics;
mod page;
mod refusal;
mod service;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Router, middleware};
use serde::Serialize;

use crate::ledger::Ledger;
use crate::page::{ICON, SCRIPT, STYLE, View};
use crate::query::{BadQuery, Parameters};
use crate::report::events::EventsQuery;
use crate::report::guards::{Guards, GuardsQuery};
use crate::report::sessions::SessionsQuery;
use crate::report::usage::UsageQuery;
use crate::routes::refusal::{Answer, Refusal, failed};

pub(crate) use service::{Door, Ends, Service};

pub(crate) fn routes(service: Service) -> Router {
    let views = View::ALL
        .into_iter()
        .fold(Router::new(), |router, view| router.route(view.path(), page::view(view)));
    let reading = views
        .route("/page/style.css", page::file("text/css; charset=utf-8", STYLE))
        .route("/page/live.js", page::file("text/javascript; charset=utf-8", SCRIPT))
        .route("/page/icon.svg", page::file("image/svg+xml", ICON))
        .route("/page/changes", get(page::changes))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/events", get(events))
        .route("/v1/usage", get(usage))
        .route("/v1/sessions", get(sessions))
        .route("/v1/gaps", get(gaps))
        .route("/v1/quarantine", get(quarantine))
        .route("/v1/corrections", get(corrections))
        .route("/v1/invoices", get(closed_invoices))
        .route("/v1/invoices/{number}", get(closed_invoice))
        .route("/v1/reconcile", get(reconcile))
        .route("/v1/balances", get(balances::balances))
        .route("/v1/guards", get(guards))
        .route("/v1/alerts", get(alerts))
        .route_layer(middleware::from_fn_with_state(service.clone(), door::may_read));
    let named = Router::new()
        .route("/v1/events", post(ingest::events))
        .route("/v1/balances", post(balances::top_up))
        .merge(reading)
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "no such path") })
        .layer(middleware::from_fn_with_state(service.clone(), door::came_by_a_known_name));
    // Probes come under any name, and learn nothing but whether the ledger can be written.
    named.route("/healthz", get(health::health)).with_state(service)
}

impl From<BadQuery> for Refusal {
    fn from(error: BadQuery) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

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

async fn quarantine(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let mut parameters = Parameters::new(decoded(pairs)?, &["state", "after", "limit"])?;
    let state = parameters.take("state").unwrap_or_else(|| "held".to_owned());
    if !["held", "released", "discarded"].contains(&state.as_str()) {
        let message = format!("state: must be held, released or discarded, found {state:?}");
        return Err(BadQuery::new(message).into());
    }
    let page = parameters.take_page()?;
    report(move || ledger.quarantine(&state, page)).await
}

async fn corrections(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let page = Parameters::new(decoded(pairs)?, &["after", "limit"])?.take_page()?;
    report(move || ledger.corrections(page)).await
}

async fn closed_invoices(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let mut parameters = Parameters::new(decoded(pairs)?, &["customer_id"])?;
    let customer = parameters.take("customer_id");
    report(move || ledger.closed_invoices(customer.as_deref())).await
}

async fn closed_invoice(State(ledger): State<Ledger>, Path(number): Path<String>) -> Answer {
    let find = move || ledger.closed_invoice(&number);
    let found = tokio::task::spawn_blocking(find).await.map_err(anyhow::Error::from).flatten();
    match found.map_err(|error| failed(&error))? {
        Some(billing) => report(move || Ok(billing)).await,
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "no invoice with this number is closed")),
    }
}

async fn guards(State(service): State<Service>, pairs: Pairs) -> Answer {
    let query = GuardsQuery::from_pairs(decoded(pairs)?)?;
    report(move || guards_of(&service, query)).await
}

/// Scopes of guards with the contracts of their customers, of those sources that count.
fn guards_of(service: &Service, mut query: GuardsQuery) -> anyhow::Result<Guards> {
    query.proven_only = service.door.is_closed();
    let mut found = service.ledger.guards(&query)?;
    for guard in &mut found.guards {
        if let Some(contract) = service.contract(&guard.customer_id) {
            guard.contracted_revenue = Some(contract.contracted_revenue);
            guard.plan = contract.plan;
        }
    }
    Ok(found)
}

async fn alerts(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let page = Parameters::new(decoded(pairs)?, &["after", "limit"])?.take_page()?;
    report(move || ledger.alerts(page)).await
}

fn decoded(pairs: Pairs) -> Result<Vec<(String, String)>, Refusal> {
    match pairs {
        Ok(Query(pairs)) => Ok(pairs),
        Err(error) => Err(Refusal::new(StatusCode::BAD_REQUEST, error.body_text())),
    }
}

/// Runs a report and writes it as JSON, both off the async threads.
async fn report<T: Serialize>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Answer {
    let work = move || anyhow::Ok(serde_json::to_vec(&work()?)?);
    let body = tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from).flatten();
    let body = body.map_err(|error| failed(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

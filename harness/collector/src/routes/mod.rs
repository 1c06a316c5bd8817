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
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
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
    let reading = router(reading());
    let reading =
        reading.route_layer(middleware::from_fn_with_state(service.clone(), door::may_read));
    let named = router(writing())
        .merge(reading)
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "no such path") })
        .layer(middleware::from_fn_with_state(service.clone(), door::came_by_a_known_name));
    named.merge(router(open())).with_state(service)
}

/// Every route of the collector, in the order of the reference.
pub fn http_routes() -> Vec<HttpRoute> {
    let all = [writing(), reading(), open()].into_iter().flatten();
    all.map(|route| route.listed).collect()
}

/// What the reference tells of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpRoute {
    /// The HTTP method.
    pub method: &'static str,
    /// The path; `{name}` stands for one segment.
    pub path: &'static str,
    /// What it does or answers.
    pub about: &'static str,
}

/// A route, and who answers on it.
struct Route {
    listed: HttpRoute,
    handler: MethodRouter<Service>,
}

/// A route that answers a GET.
fn reads<H: Handler<T, Service>, T: 'static>(
    path: &'static str,
    about: &'static str,
    handler: H,
) -> Route {
    Route { listed: HttpRoute { method: "GET", path, about }, handler: get(handler) }
}

/// A route that takes a POST.
fn writes<H: Handler<T, Service>, T: 'static>(
    path: &'static str,
    about: &'static str,
    handler: H,
) -> Route {
    Route { listed: HttpRoute { method: "POST", path, about }, handler: post(handler) }
}

fn router(routes: Vec<Route>) -> Router<Service> {
    let add =
        |router: Router<Service>, route: Route| router.route(route.listed.path, route.handler);
    routes.into_iter().fold(Router::new(), add)
}

/// The routes of whoever has a secret to write.
fn writing() -> Vec<Route> {
    vec![
        writes("/v1/events", "Takes events: one or a batch of CloudEvents.", ingest::events),
        writes("/v1/balances", "Takes a top-up of a prepaid balance.", balances::top_up),
    ]
}

/// The routes of whoever may read.
fn reading() -> Vec<Route> {
    let view = |view: View| Route {
        listed: HttpRoute { method: "GET", path: view.path(), about: view.about() },
        handler: page::view(view),
    };
    let file = |path, kind, text| Route {
        listed: HttpRoute { method: "GET", path, about: "A file of the page." },
        handler: page::file(kind, text),
    };
    let mut all: Vec<Route> = View::ALL.into_iter().map(view).collect();
    all.extend([
        file("/page/style.css", "text/css; charset=utf-8", STYLE),
        file("/page/live.js", "text/javascript; charset=utf-8", SCRIPT),
        file("/page/icon.svg", "image/svg+xml", ICON),
        reads(
            "/page/changes",
            "Says when the ledger has changed, as server-sent events.",
            page::changes,
        ),
        reads("/metrics", "The metrics, in Prometheus' text format.", metrics::metrics),
        reads("/v1/events", "Stored events, exactly as they came.", events),
        reads("/v1/usage", "What was used and what it costs, by dimensions and time.", usage),
        reads("/v1/sessions", "Sessions with their totals.", sessions),
        reads(
            "/v1/gaps",
            "What sources gave a number and what never came, and whether they live.",
            gaps,
        ),
        reads("/v1/quarantine", "Events kept apart because they are not plausible.", quarantine),
        reads("/v1/corrections", "Corrections of what was counted.", corrections),
        reads("/v1/invoices", "Closed invoices.", closed_invoices),
        reads("/v1/invoices/{number}", "One closed invoice.", closed_invoice),
        reads(
            "/v1/reconcile",
            "Sessions whose final totals are not the sums of their events.",
            reconcile,
        ),
        reads("/v1/balances", "Prepaid balances and their top-ups.", balances::balances),
        reads("/v1/guards", "Scopes of guards with their totals and levels.", guards),
        reads("/v1/alerts", "Changes of levels of guards.", alerts),
    ]);
    all
}

/// The route of probes, which come under any name, and learn nothing but whether the ledger can be
/// written.
fn open() -> Vec<Route> {
    vec![reads("/healthz", "Whether the ledger can be written.", health::health)]
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

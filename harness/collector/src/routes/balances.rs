//! Tells balances, and takes top-ups from whoever has the secret for them: that of a filter will not
//! do, or an Envoy that is taken over could pay for itself.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;
use tokio::time::timeout;

use crate::books::TopUpError;
use crate::ledger::Ledger;
use crate::report::balances::BalancesQuery;
use crate::routes::ingest::read;
use crate::routes::refusal::{Answer, Refusal, failed};
use crate::routes::service::Service;
use crate::routes::{Pairs, decoded, report};

pub(super) async fn balances(State(ledger): State<Ledger>, pairs: Pairs) -> Answer {
    let query = BalancesQuery::from_pairs(decoded(pairs)?)?;
    report(move || ledger.balances(&query)).await
}

pub(super) async fn top_up(State(service): State<Service>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let made_by = service.door.payer(&head.headers)?;
    is_json(&head.headers)?;
    let told = told(&service, body).await?;
    let ledger = service.ledger.clone();
    let work = move || ledger.top_up(&told, &made_by);
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error.into()))?;
    match done {
        Ok(topped_up) => Ok(axum::Json(topped_up).into_response()),
        Err(TopUpError::Wrong(reason)) => Err(Refusal::new(StatusCode::BAD_REQUEST, reason)),
        Err(TopUpError::Conflict(reason)) => Err(Refusal::new(StatusCode::CONFLICT, reason)),
        Err(TopUpError::Ledger(error)) => Err(failed(&error)),
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let told = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = told.unwrap_or("").split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let error = format!("content-type: must be application/json, found {media_type:?}");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
}

async fn told(service: &Service, body: Body) -> Result<Value, Refusal> {
    let limit = service.body_timeout;
    let body = timeout(limit, read(body, &service.bodies)).await.map_err(|_| {
        let error = format!("body: must come within {limit:?}");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, error)
    })??;
    serde_json::from_slice(&body.bytes)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("body: not JSON: {error}")))
}

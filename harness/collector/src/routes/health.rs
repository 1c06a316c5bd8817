//! Tells whether events can be stored, by storing something.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use crate::routes::service::Service;

/// How long a finding stands, so that questions without end do not write without end.
const FINDING_TTL: Duration = Duration::from_secs(1);
/// How long the ledger may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn health(State(service): State<Service>) -> Response {
    let mut last = service.health.lock().await;
    let known = last.take().filter(|(at, _)| at.elapsed() < FINDING_TTL);
    let (at, wrong) = match known {
        Some(known) => known,
        None => {
            let wrong = check(&service).await;
            (Instant::now(), wrong)
        }
    };
    let answer = match &wrong {
        None => (StatusCode::OK, Json(json!({"status": "ok"}))),
        Some(wrong) => {
            let answer = json!({"status": "failing", "error": wrong});
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
        }
    };
    *last = Some((at, wrong));
    answer.into_response()
}

/// What is wrong with the ledger; `None` if nothing is.
async fn check(service: &Service) -> Option<String> {
    let ledger = service.ledger.clone();
    let check = tokio::task::spawn_blocking(move || ledger.check_writable());
    let wrong = match timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(Ok(()))) => return None,
        Ok(Ok(Err(error))) => format!("ledger: {error:#}"),
        Ok(Err(error)) => format!("ledger: {error}"),
        Err(_) => format!("ledger: takes longer than {} s", CHECK_TIMEOUT.as_secs()),
    };
    tracing::error!("not healthy: {wrong}");
    Some(wrong)
}

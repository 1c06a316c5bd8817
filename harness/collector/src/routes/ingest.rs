//! Takes events: reads the body within bounds of memory and time, asks the door who sent it, and
//! hands it to the ledger.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::ledger::intake::{Intake, Origin};
use crate::ledger::receipt::Receipt;
use crate::routes::refusal::{Answer, Reason, Refusal, failed};
use crate::routes::service::Service;

/// The longest body of a POST: 16 MiB, several times the longest batch of the filter.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A body, and the memory that it takes as long as it is in work.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

pub(super) async fn events(State(service): State<Service>, request: Request) -> Answer {
    let answer = take(&service, request).await;
    if let Some(reason) = answer.as_ref().err().and_then(Refusal::reason) {
        service.refusals.count(reason);
    }
    answer
}

async fn take(service: &Service, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let writer = service.door.writer(&head.headers)?;
    let content_type = content_type(&head.headers)?;
    let limit = service.body_timeout;
    let body = match timeout(limit, read(body, &service.bodies)).await {
        Ok(body) => body?,
        Err(_) => {
            let error = format!("body: must come within {limit:?}");
            return Err(Refusal::of_write(Reason::Timeout, StatusCode::REQUEST_TIMEOUT, error));
        }
    };
    let writer = match writer {
        Some(writer) => writer,
        None => service.door.signer(&head.headers, &body.bytes)?,
    };
    let (ledger, webhooks) = (service.ledger.clone(), service.webhooks.clone());
    let proven_only = service.door.is_closed();
    let work = move || {
        let intake = Intake {
            writer: &writer,
            webhooks: &webhooks,
            proven_only,
            recovers: false,
            allows_older: false,
            origin: Origin::Filter,
        };
        let taken = ledger.take_batch(&body.bytes, &content_type, intake);
        drop(body);
        taken
    };
    let (receipt, queued) =
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error.into()))??;
    if let Some(webhooks) = service.queued.as_ref().filter(|_| queued > 0) {
        webhooks.notify_waiters();
    }
    Ok(Json(with_contracts(service, receipt)).into_response())
}

fn with_contracts(service: &Service, mut receipt: Receipt) -> Receipt {
    for totals in &mut receipt.verdicts {
        let contract = service.contract(&totals.customer_id);
        totals.contracted_revenue = contract.map(|contract| contract.contracted_revenue);
    }
    receipt
}

fn content_type(headers: &HeaderMap) -> Result<String, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let error = format!("content-encoding: must be identity, found {encoding:?}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::of_write(Reason::MediaType, status, error));
    }
    Ok(text(header::CONTENT_TYPE).to_owned())
}

/// Reads a body as it comes; what has not come yet takes no memory.
pub(super) async fn read(mut body: Body, memory: &Arc<Semaphore>) -> Result<Held, Refusal> {
    let mut bytes = Vec::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        // Cut short on its way, so worth sending again.
        let frame = frame.map_err(|error| {
            let status = StatusCode::REQUEST_TIMEOUT;
            Refusal::of_write(Reason::Timeout, status, format!("body: {error}"))
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            let error = format!("body: must be at most {BODY_BYTES_MAX} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Refusal::of_write(Reason::TooLarge, status, error));
        }
        let wanted = (bytes.len() + data.len()).div_ceil(1024);
        let more = wanted.saturating_sub(held.as_ref().map_or(0, |held| held.num_permits()));
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let taken = memory.clone().try_acquire_many_owned(more).map_err(|_| busy())?;
            match &mut held {
                Some(held) => held.merge(taken),
                None => held = Some(taken),
            }
        }
        bytes.extend_from_slice(data);
    }
    Ok(Held { bytes, _memory: held })
}

fn busy() -> Refusal {
    let error = "too many bodies at once: send it again";
    let refusal = Refusal::of_write(Reason::Busy, StatusCode::SERVICE_UNAVAILABLE, error);
    refusal.with(header::RETRY_AFTER, "1")
}

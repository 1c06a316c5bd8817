//! The routes of the page: its views, its files, and the stream that says when something has changed.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream::unfold;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use crate::page::{self, Failure, View};
use crate::report::guards::GuardsQuery;
use crate::routes::refusal::{Answer, Refusal};
use crate::routes::service::Service;
use crate::routes::{Pairs, decoded, guards_of};

/// Nothing from elsewhere, and nothing that stands in the document itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// How often the ledger is asked whether it has changed, for one listener.
const CHANGE_PAUSE: Duration = Duration::from_secs(1);

/// The route of a view.
pub(super) fn view(view: View) -> MethodRouter<Service> {
    get(move |State(service): State<Service>, pairs: Pairs| shown(view, service, pairs))
}

async fn shown(view: View, service: Service, pairs: Pairs) -> Response {
    let pairs = match decoded(pairs) {
        Ok(pairs) => pairs,
        Err(refusal) => return refusal.into_response(),
    };
    let work = move || {
        let guards = |limit: i64| {
            let mut query = GuardsQuery::default();
            query.page.limit = limit;
            guards_of(&service, query)
        };
        page::answer(view, &service.ledger, pairs, guards)
    };
    let answer = tokio::task::spawn_blocking(work).await;
    let answer = answer.unwrap_or_else(|error| Err(Failure::Ledger(error.into())));
    let html = |status: StatusCode, text: String| (status, Html(text)).into_response();
    let mut response = match answer {
        Ok(page::Answer::Html(text)) => html(StatusCode::OK, text),
        Ok(page::Answer::NotFound(text)) => html(StatusCode::NOT_FOUND, text),
        Ok(page::Answer::Json(text)) => {
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Ok(page::Answer::Csv(name, text)) => {
            let disposition = format!("attachment; filename=\"{name}\"");
            let headers = [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
                (header::CONTENT_DISPOSITION, disposition),
            ];
            (headers, text).into_response()
        }
        Err(Failure::Query(error)) => {
            html(StatusCode::BAD_REQUEST, page::refusal("This cannot be shown", &error.to_string()))
        }
        Err(Failure::Ledger(error)) => {
            tracing::error!("request failed: {error:#}");
            let text = page::refusal("The ledger does not answer", &format!("{error:#}"));
            html(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };
    protect(&mut response);
    response
}

fn protect(response: &mut Response) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
}

/// The route of a file of the page.
pub(super) fn file(media_type: &'static str, text: &'static str) -> MethodRouter<Service> {
    get(move || async move {
        let mut response = ([(header::CONTENT_TYPE, media_type)], text).into_response();
        protect(&mut response);
        response
    })
}

/// What one listener has seen, and its place among all of them.
struct Listener {
    service: Service,
    seen: Option<i64>,
    _place: OwnedSemaphorePermit,
}

/// Server-sent events: one when the listener comes, and one whenever events have been stored since.
/// It ends when the collector stops.
pub(super) async fn changes(State(service): State<Service>) -> Answer {
    let Ok(place) = service.listeners.clone().try_acquire_owned() else {
        let error = "too many pages listen for changes; ask again later";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let listener = Listener { service, seen: None, _place: place };
    let stream = unfold(listener, |mut listener| async move {
        loop {
            let ledger = listener.service.ledger.clone();
            let newest = tokio::task::spawn_blocking(move || ledger.newest_position()).await;
            match newest.map_err(anyhow::Error::from).flatten() {
                Ok(newest) if listener.seen != Some(newest) => {
                    listener.seen = Some(newest);
                    let event = Event::default().data(newest.to_string());
                    return Some((Ok::<_, Infallible>(event), listener));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("changes of the ledger are not known: {error:#}"),
            }
            let mut stopped = listener.service.stopped.clone();
            tokio::select! {
                () = sleep(CHANGE_PAUSE) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return None,
            }
        }
    });
    let mut response = Sse::new(stream).keep_alive(KeepAlive::default()).into_response();
    protect(&mut response);
    Ok(response)
}

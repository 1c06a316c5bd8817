//! The HTTP side: POST brings messages, GET opens the client's own stream, DELETE ends the session.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use tokio::time::timeout;

use super::message::{self, Id, Message, Unreadable};
use super::session::{GONE, Refused, Session, Stream};
use super::{NotBegun, Shared};

/// The largest message of a client, in bytes, as in the SDKs of TypeScript and Rust.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// How long a stream is silent before it gets a comment, which finds out whether it is still read.
const SILENCE: Duration = Duration::from_secs(15);
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// JSON-RPC's codes.
const NOT_JSON: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;

type Relay = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let routes = post(take).get(listen).delete(end);
    let routes = routes.layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX));
    Router::new().route("/mcp", routes).with_state(shared)
}

/// Takes one message of a client.
async fn take(State(shared): Relay, headers: HeaderMap, body: Bytes) -> Response {
    if !is_local(&headers) {
        return foreign();
    }
    let message = match Message::read(&body) {
        Ok(message) => message,
        Err(error) => {
            let code = match error {
                Unreadable::Json(_) => NOT_JSON,
                Unreadable::Message(_) => INVALID_REQUEST,
            };
            return refuse(StatusCode::BAD_REQUEST, None, code, &error.to_string());
        }
    };
    let request = match &message {
        Message::Request { id, .. } => Some(id),
        Message::Notification { .. } | Message::Response { .. } => None,
    };
    let (session, begun) = match (headers.get(&SESSION), &message) {
        (Some(id), _) => match id.to_str().ok().and_then(|id| shared.session(id)) {
            Some(session) => (session, None),
            None => return gone(request),
        },
        (None, Message::Request { id, method, .. }) if method == "initialize" => {
            match shared.begin(id) {
                Ok((name, session)) => (session, Some(name)),
                Err(error) => return not_begun(&shared, &error, id),
            }
        }
        (None, _) => {
            let what = "no Mcp-Session-Id: a session begins with `initialize`";
            return refuse(StatusCode::BAD_REQUEST, request, INVALID_REQUEST, what);
        }
    };
    session.touch();
    let mut response = pass(&session, message, body, accepts_events(&headers)).await;
    if let Some(name) = begun.and_then(|name| HeaderValue::try_from(name).ok()) {
        response.headers_mut().insert(SESSION, name);
    }
    response
}

/// Passes a message to the server, and opens the stream of a request.
async fn pass(
    session: &Arc<Session>,
    message: Message,
    body: Bytes,
    accepts_events: bool,
) -> Response {
    let line = message::one_line(body.into());
    match message {
        Message::Request { id, progress, .. } => {
            let mut stream = match session.open(&id, progress, accepts_events) {
                Ok(stream) => stream,
                Err(refused) => return refused_request(refused, &id),
            };
            if session.send(line).await.is_err() {
                // Its server reads no more: the session's end answers the request.
                session.end();
            }
            if accepts_events {
                return events(stream);
            }
            match stream.next().await {
                Some(line) => ([(CONTENT_TYPE, "application/json")], line).into_response(),
                None => gone(Some(&id)),
            }
        }
        Message::Notification { cancelled, .. } => {
            if session.send(line).await.is_err() {
                return gone(None);
            }
            if let Some(id) = cancelled {
                session.cancel(id);
            }
            StatusCode::ACCEPTED.into_response()
        }
        Message::Response { .. } => match session.send(line).await {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            Err(_) => gone(None),
        },
    }
}

/// Opens the client's own stream.
async fn listen(State(shared): Relay, headers: HeaderMap) -> Response {
    if !is_local(&headers) {
        return foreign();
    }
    if !accepts_events(&headers) {
        return (StatusCode::NOT_ACCEPTABLE, "expected Accept: text/event-stream").into_response();
    }
    match named(&shared, &headers).map(|session| session.open_own()) {
        Ok(Ok(stream)) => events(stream),
        Ok(Err(Refused::Taken)) => {
            (StatusCode::CONFLICT, "the session's stream is open already").into_response()
        }
        Ok(Err(_)) => gone(None),
        Err(response) => *response,
    }
}

/// Ends a session.
async fn end(State(shared): Relay, headers: HeaderMap) -> Response {
    if !is_local(&headers) {
        return foreign();
    }
    match named(&shared, &headers) {
        Ok(session) => {
            session.end();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => *response,
    }
}

/// The session that a request without a message names.
fn named(shared: &Shared, headers: &HeaderMap) -> Result<Arc<Session>, Box<Response>> {
    let Some(id) = headers.get(&SESSION) else {
        return Err(Box::new((StatusCode::BAD_REQUEST, "no Mcp-Session-Id").into_response()));
    };
    let session = id.to_str().ok().and_then(|id| shared.session(id));
    session.ok_or_else(|| Box::new(gone(None)))
}

/// A stream of events, one for each message.
fn events(stream: Stream) -> Response {
    let body = stream::unfold(stream, |mut stream| async {
        let bytes = match timeout(SILENCE, stream.next()).await {
            Ok(Some(line)) => [&b"event: message\ndata: "[..], &line, b"\n\n"].concat(),
            Ok(None) => return None,
            Err(_) => b":\n\n".to_vec(),
        };
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        ["text/event-stream", "text/*", "*/*"].iter().any(|known| range.eq_ignore_ascii_case(known))
    })
}

/// Whether a page of this machine sends it, or no page: a page elsewhere must not use a server of
/// this machine by a name that it has bound to the loopback (DNS rebinding).
fn is_local(headers: &HeaderMap) -> bool {
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        let host = origin.as_ref().and_then(Uri::host);
        host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host))
    })
}

fn foreign() -> Response {
    (StatusCode::FORBIDDEN, "pages of other machines may not use this server").into_response()
}

/// The session is gone: a client has to begin a new one.
fn gone(request: Option<&Id>) -> Response {
    refuse(StatusCode::NOT_FOUND, request, GONE, "no such session; begin a new one")
}

fn refused_request(refused: Refused, id: &Id) -> Response {
    match refused {
        Refused::Gone | Refused::Taken => gone(Some(id)),
        Refused::SameId => {
            let what = "a request with this id is open already";
            refuse(StatusCode::BAD_REQUEST, Some(id), INVALID_REQUEST, what)
        }
        Refused::Full => busy(id, "too many requests of this session are open"),
    }
}

fn not_begun(shared: &Shared, error: &NotBegun, id: &Id) -> Response {
    match error {
        NotBegun::Full => busy(id, "too many sessions are open"),
        NotBegun::Stopping => busy(id, "the server is stopping"),
        NotBegun::Failed(error) => {
            (shared.say)(format!("warning: a session cannot begin: {error:#}"));
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            refuse(status, Some(id), GONE, "the MCP server cannot be started")
        }
    }
}

fn busy(id: &Id, what: &str) -> Response {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, Some(id), GONE, what);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn refuse(status: StatusCode, request: Option<&Id>, code: i32, what: &str) -> Response {
    let body = message::error(request, code, what);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

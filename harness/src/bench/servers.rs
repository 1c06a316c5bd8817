//! The upstream that answers the calls, and a collector that only counts events.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use futures_util::stream;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};

use super::messages::{Scenario, TOOL, id_of};
use crate::stack::ANY_PORT;

/// A server of this process; it stops when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(router: Router) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(ANY_PORT).await.context("cannot listen")?;
        let addr = listener.local_addr()?;
        // With Nagle's algorithm, each chunk of an event stream would wait 40 ms for the peer's
        // acknowledgement.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        Ok(Self { addr, serving: tokio::spawn(axum::serve(listener, router).into_future()) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers every call on `/mcp`.
pub(super) async fn upstream(scenario: Scenario) -> anyhow::Result<Server> {
    Server::start(Router::new().route("/mcp", post(answer)).with_state(scenario)).await
}

async fn answer(State(scenario): State<Scenario>, call: Bytes) -> Response {
    let Some(id) = id_of(&call) else { return StatusCode::BAD_REQUEST.into_response() };
    let mut chunks = scenario.answer(id);
    let body = match scenario {
        Scenario::Json => Body::from(chunks.remove(0)),
        Scenario::Sse => Body::from_stream(stream::unfold(chunks.into_iter(), async |mut rest| {
            let chunk = rest.next()?;
            // A chunk that is not ready at once goes out in a write of its own, as from a server
            // that is still working.
            yield_now().await;
            Some((Ok::<_, Infallible>(chunk), rest))
        })),
    };
    ([(header::CONTENT_TYPE, scenario.media_type())], body).into_response()
}

/// What a listener's filter tells a collector of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// agent-meter's event of a call.
    Call,
    /// The whole exchange, by the filter that buffers.
    Exchange,
}

/// What the events report: the different events of successful calls of the right tool, the
/// sessions, and whole exchanges.
#[derive(Debug, Clone, Default)]
pub(super) struct Received(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    calls: HashSet<String>,
    created: u64,
    closed: u64,
    exchanges: usize,
}

impl Received {
    /// How many calls it was told of in this way; counts a repeated exchange twice.
    pub(super) fn told(&self, of: Told) -> usize {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match of {
            Told::Call => seen.calls.len(),
            Told::Exchange => seen.exchanges,
        }
    }

    /// How many events report a created session, and how many a closed one; counts a repeated event
    /// twice.
    pub(super) fn sessions(&self) -> (u64, u64) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.created, seen.closed)
    }
}

/// Accepts every batch of events on `/v1/events`, and of whole exchanges on `/v1/exchanges`.
pub(super) async fn collector() -> anyhow::Result<(Server, Received)> {
    let received = Received::default();
    let router = Router::new()
        .route("/v1/events", post(take))
        .route("/v1/exchanges", post(take_exchanges))
        .with_state(received.clone());
    Ok((Server::start(router).await?, received))
}

#[derive(Deserialize)]
struct Event {
    id: String,
    source: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    event_type: String,
    #[serde(default)]
    tool_name: String,
    #[serde(default)]
    execution_status: String,
}

async fn take(State(received): State<Received>, batch: Bytes) -> StatusCode {
    let Ok(events) = serde_json::from_slice::<Vec<Event>>(&batch) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut received = received.0.lock().unwrap_or_else(PoisonError::into_inner);
    let good = |data: &Data| {
        data.event_type == "tool_invocation"
            && data.tool_name == TOOL
            && data.execution_status == "SUCCESS"
    };
    for event in &events {
        match event.data.event_type.as_str() {
            "session_created" => received.created += 1,
            "session_closed" => received.closed += 1,
            _ => {}
        }
    }
    let good = events.into_iter().filter(|event| good(&event.data));
    received.calls.extend(good.map(|event| format!("{} {}", event.source, event.id)));
    StatusCode::OK
}

#[derive(Deserialize)]
struct Exchange {
    request: Message,
    response: Message,
}

#[derive(Deserialize)]
struct Message {
    headers: Vec<(String, String)>,
    body: String,
}

impl Exchange {
    /// True if it holds a whole successful call: both heads and both bodies.
    fn is_whole(&self) -> bool {
        let has =
            |message: &Message, wanted| message.headers.iter().any(|(name, _)| name == wanted);
        let id = id_of(self.request.body.as_bytes());
        let answer = |id: &str| self.response.body.contains(&format!(r#""id":{id},"result""#));
        has(&self.request, "mcp-session-id")
            && has(&self.response, ":status")
            && self.request.body.contains(TOOL)
            && id.is_some_and(answer)
    }
}

async fn take_exchanges(State(received): State<Received>, batch: Bytes) -> StatusCode {
    let Ok(exchanges) = serde_json::from_slice::<Vec<Exchange>>(&batch) else {
        return StatusCode::BAD_REQUEST;
    };
    let whole = exchanges.iter().filter(|exchange| exchange.is_whole()).count();
    received.0.lock().unwrap_or_else(PoisonError::into_inner).exchanges += whole;
    StatusCode::OK
}

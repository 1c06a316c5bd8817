//! A WebSocket on which generations are made: facts of each of them, as the frames pass.
//!
//! To the next maintainer: the exchange is the connection. Guards decide once, on the request for
//! it; each response on it is a generation with an id of its own, and of an agent's product a step.

use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport};
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::Observed;
use crate::exchange::llm::told::Told;
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallKind};
use crate::fact::generation::GenerationStarted;
use crate::host::counter::Counter;
use crate::protocol::llm::provider::{Asked, socket_route};
use crate::protocol::llm::{
    Generation, LlmRequestBody, Requested, Route, SocketApi, SocketEvent, SocketGeneration,
    SocketReader, Stage,
};
use crate::protocol::request_body::BodyHead;
use crate::wire::http::{HeaderBytes, Headers, ResponseHead};
use crate::wire::target::Target;

/// HTTP 101: Switching Protocols.
const SWITCHING_PROTOCOLS: u16 = 101;

/// The step that a response on a WebSocket is.
const STEP: &str = "responses.create";

/// The route of a request for a WebSocket on which generations are made, with its method and path, and
/// the API that is spoken there.
pub(super) fn socket_of<'h>(
    asked: Asked<'_>,
    host: &str,
    target: &'h Target<'_>,
) -> Option<((&'h str, &'h str, Route), SocketApi)> {
    let query = core::str::from_utf8(target.query()).unwrap_or_default();
    target.paths().find_map(|path| {
        let (route, api) = socket_route(asked, host, path, query)?;
        Some((("GET", path, route), api))
    })
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Socket {
    reader: SocketReader,
    /// What each generation's start says, but for its id and its time.
    started: Option<GenerationStarted>,
    is_step: bool,
    is_open: bool,
}

impl Socket {
    pub(super) fn new(api: SocketApi, started: Option<GenerationStarted>, is_agent: bool) -> Self {
        let message = LlmRequestBody::new(
            BodyHead::read(Headers(&HeaderBytes::default())),
            api.format().asks,
            false,
        );
        let is_step = is_agent && api == SocketApi::Responses;
        Self { reader: SocketReader::new(api, message), started, is_step, is_open: false }
    }

    pub(super) fn client_said(&mut self, chunk: &[u8], now: Timestamp) {
        self.reader.feed_client(chunk, now);
    }

    /// Reads the head of the response. Returns whether the connection is one.
    pub(super) fn opens(&mut self, head: &ResponseHead<'_>) -> bool {
        self.is_open = head.status == SWITCHING_PROTOCOLS;
        // The filter has taken the client's offer away, so the server must not agree to any.
        if self.is_open && head.headers.get("sec-websocket-extensions").is_some() {
            self.reader.has_extension();
        }
        self.is_open
    }

    /// Reads the next bytes of the server, and returns the generations that end in them. `id` is that
    /// of the exchange.
    pub(super) fn server_said(
        &mut self,
        id: &str,
        chunk: &[u8],
        now: Timestamp,
        observed: &mut Observed,
    ) -> Vec<Told> {
        let mut ended = Vec::new();
        for event in self.reader.feed_server(chunk, now) {
            match event {
                SocketEvent::Started(number) => {
                    observed.counts.push(Counter::Generations);
                    let started = self.started.clone().filter(|_| !self.is_step);
                    observed.facts.extend(started.map(|started| {
                        let generation_id = name(id, number);
                        Fact::GenerationStarted(GenerationStarted {
                            generation_id,
                            at: now,
                            ..started
                        })
                    }));
                }
                SocketEvent::Ended(made) => ended.push(self.told(id, *made)),
                SocketEvent::Refused => observed.counts.push(Counter::GenerationsRefused),
            }
        }
        ended
    }

    /// Ends the connection. Returns what was under way on it, and stands in for what was not read:
    /// one generation, of which nothing is known.
    pub(super) fn ended(
        &mut self,
        id: &str,
        started_at: Timestamp,
        observed: &mut Observed,
    ) -> Vec<Told> {
        if !self.is_open {
            return Vec::new();
        }
        let made = self.reader.end();
        let mut ended: Vec<Told> = made.into_iter().map(|made| self.told(id, made)).collect();
        if self.reader.is_unread() {
            observed.counts.extend([Counter::WebSocketsUnread, Counter::Generations]);
            let mut generation = Generation::default();
            generation.is_streamed = true;
            ended.push(Told {
                id: format!("{id}.unread"),
                caused_by: None,
                generation,
                is_readable: false,
                requested: Requested::default(),
                requested_tokens: 0,
                started_at,
                is_step: false,
            });
        }
        ended
    }

    fn told(&self, id: &str, made: SocketGeneration) -> Told {
        Told {
            id: name(id, made.number),
            caused_by: None,
            generation: made.generation,
            is_readable: true,
            requested: made.requested,
            requested_tokens: made.asked_tokens,
            started_at: made.started_at,
            is_step: self.is_step,
        }
    }
}

/// The step that a response on a connection is. One that was cut has no known outcome.
pub(super) fn step(
    told: &Told,
    session: &SessionRef,
    http_status: u16,
    now: Timestamp,
) -> CallEnded {
    let is_whole = told.generation.stage == Stage::Final;
    CallEnded {
        certainty: Certainty::Certain,
        call_id: format!("{}.0", told.id),
        kind: CallKind::Step,
        session: session.clone(),
        tool: STEP.to_owned(),
        arguments: None,
        status: if is_whole { ExecutionStatus::Success } else { ExecutionStatus::Unknown },
        http_status,
        transport: Transport::None,
        is_request_sent: true,
        started_at: told.started_at.min(now),
        ended_at: now,
        answer: None,
        payment: None,
        correlation: None,
    }
}

/// The id of a generation on a connection.
fn name(id: &str, number: u64) -> String {
    format!("{id}.w{number}")
}

//! One HTTP stream through the filter, from request head to its end: bytes in, facts out.
//! It never fails and never keeps a body; what it cannot read is counted and passes.
//!
//! To the next maintainer: a call exists once its request message is complete, and its fact is made once its answer
//! is complete, not at the end of the stream: a stream may live on for hours, and the client may act on the answer at
//! once. `end` settles what is still open and takes `self`, so an exchange cannot end twice.

use std::rc::Rc;

use crate::answers::AnswerReader;
use crate::config::{Config, IdentitySource, Product};
use crate::counter::Counter;
use crate::fact::{CallEnded, Fact, Identity, SessionEnd, SessionRef, Transport};
use crate::limits::{CALLS_PER_EXCHANGE_MAX, IDENTITY_BYTES_MAX};
use crate::observe::mcp::{Id, Message, MessageReader};
use crate::session_key::{Rung, session_ref};
use crate::status::ExecutionStatus;
use crate::units::Timestamp;
use crate::wire::encoding::ContentCoding;
use crate::wire::json::Progress;
use crate::wire::media_type::MediaType;

/// What stands for a level of the identity that the request did not tell.
pub const ANONYMOUS: &str = "anonymous";
/// What stands for a tool that the request did not name.
pub const UNNAMED_TOOL: &str = "__unnamed__";
/// The first revision of MCP without sessions, in which a client cancels a call by leaving (2026-07-28).
const FIRST_STATELESS_REVISION: &[u8] = b"2026-07-28";

/// The headers of a request or response, names in lower case; values may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(String, Vec<u8>)]);

impl<'a> Headers<'a> {
    /// The first value under `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response came to its end.
    Complete,
    /// The client left, or the stream was reset, before the response's end.
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenCall {
    id: Id,
    tool: String,
}

/// How the request is read.
#[derive(Clone, Debug)]
enum Request {
    /// A `POST`: its body is read.
    Messages(Box<MessageReader>),
    /// A `DELETE`, which ends the session if the server agrees.
    Delete,
    /// Anything else.
    Other,
}

/// Everything that is known of one HTTP stream.
#[derive(Debug)]
pub struct Exchange {
    product: Rc<Product>,
    session: SessionRef,
    names_session: bool,
    is_stateless: bool,
    request: Request,
    request_ended_at: Timestamp,
    is_request_complete: bool,
    calls: Vec<OpenCall>,
    /// Requests that are no calls, whose answers are of no interest.
    other_requests: u32,
    http_status: u16,
    /// `None` if the response's body is of no interest, or has not begun.
    response: Option<AnswerReader>,
    facts: Vec<Fact>,
    counts: Vec<Counter>,
}

impl Exchange {
    /// Starts an exchange, or `None` if the request belongs to no product.
    pub fn start(config: &Config, headers: Headers<'_>, now: Timestamp) -> Option<Self> {
        let product = Rc::clone(config.product_for(headers.get(":path")?)?);
        let is_stateless = headers
            .get("mcp-protocol-version")
            .is_some_and(|revision| revision >= FIRST_STATELESS_REVISION);
        let present = |name: &str| headers.get(name).filter(|value| !value.is_empty());
        let mcp_session_id = present("mcp-session-id").filter(|_| !is_stateless);
        let rung = match (mcp_session_id, present(&product.session.header)) {
            (Some(id), _) => Rung::McpSessionId(id),
            (None, Some(value)) => Rung::Header(value),
            (None, None) => Rung::Window,
        };
        let rules = &product.identity;
        let identity = Identity {
            customer: identity_level(rules.customer.as_ref(), headers),
            team: identity_level(rules.team.as_ref(), headers),
            agent: identity_level(rules.agent.as_ref(), headers),
        };
        let request = match headers.get(":method") {
            Some(b"POST") => Request::Messages(Box::default()),
            Some(b"DELETE") => Request::Delete,
            _ => Request::Other,
        };
        Some(Self {
            session: session_ref(&product.id, identity, rung),
            names_session: mcp_session_id.is_some(),
            is_stateless,
            request,
            request_ended_at: now,
            is_request_complete: false,
            calls: Vec::new(),
            other_requests: 0,
            http_status: 0,
            response: None,
            facts: Vec::new(),
            counts: vec![Counter::Exchanges],
            product,
        })
    }

    /// The next bytes of the request's body.
    pub fn request_body(&mut self, chunk: &[u8], now: Timestamp) {
        self.request_ended_at = now;
        let Request::Messages(reader) = &mut self.request else { return };
        let (calls, counts) = (&mut self.calls, &mut self.counts);
        let other_requests = &mut self.other_requests;
        reader.feed(chunk, &mut |message| {
            if !message.is_call() {
                let is_request = message.has_method && message.id.is_some();
                *other_requests = other_requests.saturating_add(u32::from(is_request));
                return;
            }
            counts.push(Counter::Calls);
            if calls.len() >= CALLS_PER_EXCHANGE_MAX {
                counts.push(Counter::CallsOverLimit);
            } else if let Some(id) = message.id.clone() {
                calls.push(OpenCall { id, tool: tool_name(message) });
            }
        });
    }

    /// The request has ended.
    pub fn request_end(&mut self, now: Timestamp) {
        self.request_ended_at = now;
        self.is_request_complete = true;
        if let Request::Messages(reader) = &self.request {
            let is_read = match reader.progress() {
                Progress::Complete => true,
                Progress::Open => !reader.has_started(),
                Progress::Failed => false,
            };
            if !is_read {
                self.counts.push(Counter::RequestUnparsed);
            }
        }
    }

    /// The response's head. Gives whether its body is to be shown.
    pub fn response_head(&mut self, headers: Headers<'_>) -> bool {
        let status = headers.get(":status").and_then(|text| core::str::from_utf8(text).ok());
        self.http_status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
        let is_success = (200..300).contains(&self.http_status);
        // A server may answer before the request has ended, so calls may still come.
        let may_have_calls = matches!(self.request, Request::Messages(_))
            && (!self.is_request_complete || !self.calls.is_empty());
        if !may_have_calls {
            return false;
        }
        let coding = ContentCoding::parse(headers.get("content-encoding"));
        let media_type = headers.get("content-type").map_or(MediaType::Other, MediaType::parse);
        self.response = AnswerReader::new(coding, media_type);
        if self.response.is_none() && is_success && !self.calls.is_empty() {
            self.counts.push(Counter::ResponseUnparsed);
        }
        self.response.is_some()
    }

    /// The next bytes of the response's body.
    pub fn response_body(&mut self, chunk: &[u8], now: Timestamp) {
        let Some(reader) = &mut self.response else { return };
        let answers = reader.feed(chunk);
        let transport = reader.transport();
        for answer in &answers {
            self.answered(answer, transport, now);
        }
    }

    /// The stream has ended, however that came about; gives the facts that are left.
    pub fn end(mut self, end: StreamEnd, now: Timestamp) -> Observed {
        let is_success = (200..300).contains(&self.http_status);
        let is_unreadable = self.response.as_mut().is_some_and(AnswerReader::is_unreadable);
        if is_success && is_unreadable && !self.calls.is_empty() {
            self.counts.push(Counter::ResponseUnparsed);
        }
        let by_http = ExecutionStatus::of_http(self.http_status);
        let status = match (by_http, end) {
            (ExecutionStatus::Unknown, StreamEnd::Aborted) if self.is_stateless => {
                ExecutionStatus::Cancelled
            }
            _ => by_http,
        };
        for call in core::mem::take(&mut self.calls) {
            self.call_ended(call.tool, status, Transport::None, now);
        }
        self.session_end(now);
        self.take_observed()
    }

    /// What has been observed since the last time.
    pub fn take_observed(&mut self) -> Observed {
        Observed {
            facts: core::mem::take(&mut self.facts),
            counts: core::mem::take(&mut self.counts),
        }
    }

    /// The session of this exchange while a call of it is running, and when that call started.
    pub fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        (!self.calls.is_empty()).then_some((&self.session, self.request_ended_at))
    }

    /// The product that the exchange belongs to.
    pub fn product(&self) -> &Rc<Product> {
        &self.product
    }

    fn answered(&mut self, answer: &Message, transport: Transport, now: Timestamp) {
        let status = ExecutionStatus::of_answer(answer, self.http_status);
        if let Some(at) = self.position_of(answer, transport) {
            let call = self.calls.remove(at);
            self.call_ended(call.tool, status, transport, now);
        } else if answer.has_error && answer.id.is_none() {
            // An error without an id refuses the request as a whole.
            for call in core::mem::take(&mut self.calls) {
                self.call_ended(call.tool, status, transport, now);
            }
        } else if self.other_requests > 0 {
            self.other_requests = self.other_requests.saturating_sub(1);
        } else {
            self.counts.push(Counter::AnswerUnmatched);
        }
    }

    /// The open call that an answer belongs to: by id, or, because some servers change or drop ids, by being the only
    /// one in a plain JSON exchange.
    fn position_of(&self, answer: &Message, transport: Transport) -> Option<usize> {
        let by_id = answer.id.as_ref().and_then(|id| {
            let exact = self.calls.iter().position(|call| call.id.is_same(id));
            exact.or_else(|| self.calls.iter().position(|call| call.id.is_alike(id)))
        });
        by_id.or_else(|| (self.calls.len() == 1 && transport == Transport::Json).then_some(0))
    }

    fn call_ended(
        &mut self,
        tool: String,
        status: ExecutionStatus,
        transport: Transport,
        now: Timestamp,
    ) {
        self.facts.push(Fact::Call(CallEnded {
            session: self.session.clone(),
            tool,
            status,
            http_status: self.http_status,
            transport,
            started_at: self.request_ended_at.min(now),
            ended_at: now,
        }));
    }

    fn session_end(&mut self, now: Timestamp) {
        let is_success = (200..300).contains(&self.http_status);
        let reason = match self.request {
            Request::Delete if is_success => SessionEnd::ClientDelete,
            Request::Messages(_) | Request::Delete | Request::Other if self.http_status == 404 => {
                SessionEnd::SessionGone
            }
            _ => return,
        };
        if self.names_session {
            self.facts.push(Fact::SessionEnd { session: self.session.clone(), reason, at: now });
        }
    }
}

/// What an exchange has observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// For the accountant, in the order in which they came about.
    pub facts: Vec<Fact>,
    /// For the stats.
    pub counts: Vec<Counter>,
}

fn tool_name(message: &Message) -> String {
    match &message.tool {
        Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
        _ => UNNAMED_TOOL.to_owned(),
    }
}

fn identity_level(source: Option<&IdentitySource>, headers: Headers<'_>) -> String {
    let text = match source {
        Some(IdentitySource::Value(value)) => return value.clone(),
        Some(IdentitySource::TrustedHeader(name)) => {
            String::from_utf8_lossy(headers.get(name).unwrap_or_default())
        }
        None => return ANONYMOUS.to_owned(),
    };
    let mut end = text.len().min(IDENTITY_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    match text.get(..end) {
        Some(kept) if !kept.is_empty() => kept.to_owned(),
        _ => ANONYMOUS.to_owned(),
    }
}

//! One HTTP stream that carries messages of the Model Context Protocol.
//!
//! To the next maintainer: a call exists once its request message is complete, and its fact is made
//! once its response message is complete, not at the end of the stream: a stream may stay open for
//! hours, and the client may act on the response at once. `end` settles what is still open and
//! takes `self`, so an exchange cannot end twice.

mod answers;
mod calls;
pub(super) mod requests;
mod scope;

use std::collections::VecDeque;
use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::product::Product;
use crate::domain::call::Transport;
use crate::domain::ids::TraceId;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::{BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd};
use crate::exchange::link::task_link;
use crate::exchange::mcp::requests::{Intent, OpenRequest};
use crate::exchange::mcp::scope::Scope;
use crate::exchange::starts::CallStarts;
use crate::fact::Fact;
use crate::fact::call::Observation;
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::mcp::message::{Message, Method};
use crate::protocol::mcp::message_reader::MessageReader;
use crate::protocol::mcp::reported::{Reported, reported_in_headers};
use crate::protocol::mcp::response_body::McpResponseBody;
use crate::protocol::request_body::RequestBody;
use crate::wire::boundary::Unit;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::doubt::Doubt;
use crate::wire::http::{ResponseHead, is_redirect, is_success};
use crate::wire::json_rpc::Id;
use crate::wire::media_type::MediaType;

/// How the exchange reads the request.
#[derive(Debug)]
enum Request {
    /// A `POST`, whose body contains messages.
    Messages,
    /// A `GET`: its event stream may carry responses to other requests.
    Stream,
    /// A `DELETE`, which ends the session if the server agrees.
    Delete,
    /// Any other method.
    Other,
}

/// The state of one such stream.
#[derive(Debug)]
pub(super) struct McpExchange {
    /// Names the exchange. The ids of its calls begin with it.
    id: String,
    calls_seen: u32,
    others_seen: usize,
    messages_seen: u64,
    starts: CallStarts,
    /// True if events tell the JSON-RPC ids of calls.
    tells_rpc_ids: bool,
    product: Rc<Product>,
    session: SessionRef,
    has_session_id: bool,
    /// True if nothing names the session.
    is_window: bool,
    /// True if the message may name the session. It then takes precedence over the head.
    may_body_name: bool,
    is_stateless: bool,
    /// Which other streams its requests and answers may belong to.
    scope: Scope,
    request: Request,
    /// Reads the body until it ends.
    body: Option<Box<RequestBody<MessageReader>>>,
    request_ended_at: Timestamp,
    is_request_complete: bool,
    /// Why it is not certain what the request asks for. Then the response decides whether it was a
    /// tool call.
    doubt: Option<Doubt>,
    /// True if it is not certain which tools the calls of the request name.
    is_tool_doubtful: bool,
    /// How much of its bodies the worker decodes.
    share: DecodeShare,
    /// See [`RequestHead::says_tool_call`].
    says_tool_call: bool,
    /// The ids of the calls that the exchange counted by their responses alone.
    inferred: Vec<Option<Id>>,
    /// In the order in which they came, as most answers do.
    requests: VecDeque<OpenRequest>,
    /// How calls end to which no response comes, because the server refused something of the
    /// request without naming it.
    refused_as: Option<(ExecutionStatus, Transport)>,
    http_status: u16,
    /// `None` if the exchange does not read the response's body, or has not seen its head.
    response: Option<McpResponseBody>,
    /// True if the exchange cannot decode the response.
    is_response_undecodable: bool,
    /// True if the response of the calls that are still open could not be decoded.
    is_outcome_inferred: bool,
    /// True if the response answers the request, and is a stream that the filter can end in the
    /// middle.
    is_stream: bool,
    /// True if the response is an event stream.
    is_event_stream: bool,
    /// True if the server says of a request that it is wrong, or its method unknown: it knows the
    /// session, whatever the HTTP status.
    is_request_wrong: bool,
    /// What the response's headers report about the generations of its call.
    reported: Option<Box<Reported>>,
    observed: Observed,
}

impl McpExchange {
    pub(super) fn start(
        config: &Config,
        product: Rc<Product>,
        head: RequestHead<'_>,
        id: String,
    ) -> Self {
        let request = match head.method {
            b"POST" => Request::Messages,
            b"GET" => Request::Stream,
            b"DELETE" => Request::Delete,
            _ => Request::Other,
        };
        let scope = Scope::of(&product, &head);
        let share = head.body.share.clone();
        let body = RequestBody::new(MessageReader::new(config.has_loops()), head.body);
        let has_session_id = matches!(head.session_key, SessionKey::McpSessionId(_));
        let is_window = head.session_key == SessionKey::Window;
        let session = session_ref(&product, head.identity, head.session_key);
        let mut counts = vec![Counter::Exchanges];
        counts.extend(head.resumes_unnamed.then_some(Counter::ResumesUnnamed));
        Self {
            id,
            calls_seen: 0,
            others_seen: 0,
            messages_seen: 0,
            starts: CallStarts::new(config, &product, head.traces),
            tells_rpc_ids: config.correlation.rpc_id,
            has_session_id,
            is_window,
            may_body_name: head.may_body_name,
            is_stateless: head.is_stateless,
            request,
            request_ended_at: head.arrived_at,
            body: Some(Box::new(body)),
            is_request_complete: false,
            says_tool_call: head.says_tool_call,
            doubt: None,
            is_tool_doubtful: false,
            share,
            inferred: Vec::new(),
            requests: VecDeque::new(),
            refused_as: None,
            http_status: 0,
            response: None,
            is_response_undecodable: false,
            is_outcome_inferred: false,
            is_stream: false,
            is_event_stream: false,
            is_request_wrong: false,
            reported: None,
            scope,
            observed: Observed { facts: Vec::new(), counts },
            session,
            product,
        }
    }
}

impl Exchange for McpExchange {
    fn wants_proof(&self) -> bool {
        matches!(self.request, Request::Messages) && self.starts.wants_proof()
    }

    fn set_proof(&mut self, proof: TraceId) {
        self.starts.set_proof(proof);
    }

    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_ended_at = now;
        let mut body = self.body.take()?;
        for message in body.feed(chunk) {
            self.sent(message, now);
        }
        self.doubts(body.doubt(false), !body.is_empty());
        self.body = Some(body);
        None
    }

    fn request_end(&mut self, now: Timestamp) {
        self.request_ended_at = now;
        self.is_request_complete = true;
        if let Some(mut body) = self.body.take() {
            self.doubts(body.doubt(true), !body.is_empty());
        }
        if self.doubt.is_some() {
            self.observed.counts.push(Counter::RequestUnparsed);
        }
    }

    fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        self.http_status = head.status;
        if is_redirect(head.status) {
            return BodyInterest::None;
        }
        let is_of_interest = match self.request {
            // A server may respond before the request has ended, may answer something else with
            // the result of a tool, and may report on other calls in an event stream.
            Request::Messages => {
                !self.is_request_complete
                    || self.doubt.is_some()
                    || !self.requests.is_empty()
                    || head.media_type == MediaType::EventStream
            }
            Request::Stream => self.doubt.is_some() || head.media_type == MediaType::EventStream,
            Request::Delete | Request::Other => self.doubt.is_some(),
        };
        if !is_of_interest {
            return BodyInterest::None;
        }
        let reported_usage = &self.product.reported_usage;
        self.response = McpResponseBody::new(head.coding, head.media_type, reported_usage);
        match &mut self.response {
            Some(response) => response.limit(&self.share),
            None => self.is_response_undecodable = true,
        }
        self.is_event_stream = head.media_type == MediaType::EventStream;
        self.is_stream = head.is_plain_event_stream() && matches!(self.request, Request::Messages);
        self.reported = reported_in_headers(&reported_usage.trusted_headers, head.headers);
        if self.response.is_none() && self.is_success() && self.has_open_call() {
            self.observed.counts.push(Counter::ResponseUnparsed);
        }
        BodyInterest::bytes_if(self.response.is_some())
    }

    fn response_body(&mut self, chunk: &[u8], _is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        let reader = self.response.as_mut()?;
        let items = reader.feed(chunk);
        let transport = reader.transport();
        if let Some(endpoint) = &items.endpoint {
            self.scope.announced(endpoint);
        }
        self.scope.saw(&items.events);
        for message in &items.messages {
            self.on_server_message(message, transport, now);
        }
        None
    }

    fn end(mut self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed {
        if is_redirect(self.http_status) {
            self.redirect_calls(now);
            return self.observed;
        }
        let is_unreadable = self.response.as_mut().is_some_and(McpResponseBody::is_unreadable);
        if self.is_success() && is_unreadable && self.has_open_call() {
            self.observed.counts.push(Counter::ResponseUnparsed);
        }
        let is_undecodable = self.is_response_undecodable
            || self.response.as_ref().is_some_and(McpResponseBody::is_undecodable);
        let by_http = ExecutionStatus::of_http(self.http_status);
        let is_cancelled = self.is_stateless && end == StreamEnd::Aborted;
        let status = match self.refused_as.map_or(by_http, |(status, _)| status) {
            ExecutionStatus::Unknown if is_cancelled => ExecutionStatus::Cancelled,
            // The client chooses codings, and often the text. What the filter cannot decode of a
            // whole response with a 2xx status counts as a result.
            ExecutionStatus::Unknown
                if is_undecodable && end == StreamEnd::Complete && self.is_success() =>
            {
                self.is_outcome_inferred = true;
                ExecutionStatus::Success
            }
            status => status,
        };
        let expires_at = now.plus(self.product.call_timeout.millis());
        // A server that accepts a message says so with any 2xx status, and any text that answers
        // nothing.
        let may_come_elsewhere =
            matches!(status, ExecutionStatus::Unknown | ExecutionStatus::Cancelled);
        self.leave_requests(status, may_come_elsewhere, expires_at, now);
        self.end_unread(status, now);
        self.session_end(now);
        self.observed
    }

    fn time_out(&mut self, now: Timestamp) {
        if now.saturating_since(self.request_ended_at) < self.product.call_timeout.millis() {
            return;
        }
        // The accountant knows whether the client has cancelled a call.
        let may_come_elsewhere = self.refused_as.is_none();
        let status = self.refused_as.map_or(ExecutionStatus::Timeout, |(status, _)| status);
        self.leave_requests(status, may_come_elsewhere, now, now);
    }

    fn take_observed(&mut self) -> Observed {
        core::mem::take(&mut self.observed)
    }

    fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        self.has_open_call().then_some((&self.session, self.request_ended_at))
    }

    fn product(&self) -> &Rc<Product> {
        &self.product
    }

    fn customer(&self) -> &str {
        &self.session.identity.customer
    }

    fn policy_request(&self) -> PolicyRequest {
        let call = |request: &OpenRequest| match &request.intent {
            Intent::ToolCall(call) => {
                Some(((call.call_id.clone(), call.tool.clone()), request.id.clone()))
            }
            _ => None,
        };
        let (calls, ids) = self.requests.iter().filter_map(call).unzip();
        PolicyRequest {
            session: self.session.clone(),
            calls,
            ids: Some(ids),
            is_in_body: matches!(self.request, Request::Messages),
            may_body_name: self.may_body_name,
        }
    }

    fn refuse(mut self: Box<Self>, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.is_request_complete = false;
        self.leave_requests(ExecutionStatus::Blocked, false, now, now);
        self.end_unread(ExecutionStatus::Blocked, now);
        self.observed
    }

    fn stream_unit(&self) -> Option<Unit> {
        self.is_stream.then_some(Unit::Event)
    }

    fn stop(&mut self, refusal: &Refusal, now: Timestamp) -> Option<Vec<u8>> {
        let calls = self.requests.iter().filter(|request| request.is_call());
        let answer = |request: &OpenRequest| {
            format!("event: message\ndata: {}\n\n", refusal.json_rpc(Some(&request.id)))
        };
        let last: String = calls.map(answer).collect();
        if last.is_empty() {
            return None;
        }
        self.response = None;
        self.leave_requests(ExecutionStatus::Cancelled, false, now, now);
        Some(last.into_bytes())
    }
}

impl McpExchange {
    fn is_success(&self) -> bool {
        is_success(self.http_status)
    }

    fn has_open_call(&self) -> bool {
        self.requests.iter().any(OpenRequest::is_call)
    }

    /// Handles a message from the client.
    fn sent(&mut self, message: Message, now: Timestamp) {
        self.messages_seen = self.messages_seen.saturating_add(1);
        self.doubts(message.doubt, true);
        if message.method == Method::None && !message.is_answer() {
            self.doubts(Some(Doubt::NotAMessage), true);
        }
        if let (true, Some(name)) = (self.may_body_name, &message.session_id) {
            let identity = self.session.identity.clone();
            self.session = session_ref(&self.product, identity, SessionKey::Meta(name));
            self.is_window = false;
        }
        let is_counted = |id: &Id| self.inferred.iter().flatten().any(|inferred| inferred == id);
        if message.id.as_ref().is_some_and(is_counted) {
            return;
        }
        let task = message.params_task.id.as_ref().map(|id| task_link(&self.product.id, id));
        let intent = match (message.method, task) {
            (Method::ToolsCall, _) if message.id.is_some() => self.started(&message, now),
            (Method::TasksResult, Some(task)) => Intent::TaskResult(task),
            (Method::TaskStatus, Some(task)) => Intent::TaskStatus(task),
            (Method::TasksList, _) => Intent::TaskList,
            (Method::Cancelled, _) => {
                if let Some(id) = &message.request_id {
                    self.cancelled(id, now);
                }
                return;
            }
            (Method::None | Method::TaskNotification, _) => return,
            (Method::ToolsCall | Method::TasksResult | Method::TaskStatus | Method::Other, _) => {
                Intent::Other
            }
        };
        let Some(id) = message.id else { return };
        // What is no call takes no call's place, and is not followed beyond the bound.
        let request = OpenRequest { id, intent };
        if request.is_call() && self.calls_followed() > CALLS_PER_EXCHANGE_MAX {
            self.observed.counts.push(Counter::CallsOverLimit);
            self.doubts(Some(Doubt::TooManyRequests), true);
        } else if request.is_call() || self.others_seen < CALLS_PER_EXCHANGE_MAX {
            self.others_seen = self.others_seen.saturating_add(usize::from(!request.is_call()));
            self.requests.push_back(request);
        }
    }

    /// Notes the first reason for doubt. Only a `POST` carries messages.
    fn doubts(&mut self, doubt: Option<Doubt>, has_body: bool) {
        let is_odd = has_body && !matches!(self.request, Request::Messages);
        let doubt = if is_odd { Some(Doubt::HttpMethod) } else { doubt };
        self.is_tool_doubtful |= doubt.is_some_and(|doubt| !doubt.leaves_tool_certain());
        self.doubt = self.doubt.or(doubt);
    }

    fn calls_followed(&self) -> usize {
        usize::try_from(self.calls_seen).unwrap_or(usize::MAX)
    }

    /// What an answer to a call on another stream shows.
    fn ended(&self, answer: &Message, transport: Transport) -> Observation {
        Observation::Ended {
            status: ExecutionStatus::of_answer(answer, self.http_status),
            http_status: self.http_status,
            transport,
            receipt: answer.payment.as_ref().map(|reading| Box::new(reading.payment())),
        }
    }

    fn session_end(&mut self, now: Timestamp) {
        let reason = match self.request {
            Request::Delete if self.is_success() => SessionEnd::ClientDelete,
            // To a `GET` it says that there is no event stream.
            Request::Messages | Request::Delete
                if self.http_status == 404 && !self.is_request_wrong =>
            {
                SessionEnd::SessionGone
            }
            _ => return,
        };
        if self.has_session_id {
            let session = self.session.clone();
            self.observed.facts.push(Fact::SessionEnd { session, reason, at: now });
        }
    }
}

//! One HTTP stream that carries messages of the Model Context Protocol.
//!
//! To the next maintainer: a call exists once its request message is complete, and its fact is made
//! once its response message is complete, not at the end of the stream: a stream may stay open for
//! hours, and the client may act on the response at once. `end` settles what is still open and
//! takes `self`, so an exchange cannot end twice.

mod answers;
pub(super) mod requests;

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::limits::{CALLS_PER_EXCHANGE_MAX, ENDPOINT_BYTES_MAX};
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::product::Product;
use crate::domain::call::Transport;
use crate::domain::ids::{Link, TraceId};
use crate::domain::session::{SessionEnd, SessionRef};
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::{BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd};
use crate::exchange::link::{IdNamespace, resolve_endpoint, task_link};
use crate::exchange::mcp::requests::{Intent, OpenRequest, ToolCall, tool_name};
use crate::exchange::starts::CallStarts;
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallKind, CallOpen, CallUpdate, Observation};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::mcp::message::{Message, MessageReader, Method};
use crate::protocol::mcp::reported::{Reported, reported_in_headers};
use crate::protocol::mcp::response_body::McpResponseBody;
use crate::protocol::request_body::RequestBody;
use crate::protocol::trace_context::traceparent;
use crate::wire::boundary::Unit;
use crate::wire::http::ResponseHead;
use crate::wire::json_rpc::Id;
use crate::wire::media_type::MediaType;

/// How the exchange reads the request.
#[derive(Debug)]
enum Request {
    /// A `POST`, with the reader of its body until the body ends.
    Messages(Option<Box<RequestBody<MessageReader>>>),
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
    starts: CallStarts,
    product: Rc<Product>,
    session: SessionRef,
    has_session_id: bool,
    /// True if nothing names the session.
    is_window: bool,
    /// True if the message may name the session. It then takes precedence over the head.
    may_body_name: bool,
    is_stateless: bool,
    path: Vec<u8>,
    request: Request,
    request_ended_at: Timestamp,
    is_request_complete: bool,
    /// Whether the request body was understood. If a `POST` body was not, the response decides
    /// whether it was a tool call.
    is_understood: bool,
    /// `Mcp-Name` if `Mcp-Method` is `tools/call` (2026-07-28). A name in the body takes
    /// precedence.
    named_tool: Option<Vec<u8>>,
    /// The ids of the calls that the exchange counted by their responses alone.
    guessed: Vec<Id>,
    requests: Vec<OpenRequest>,
    http_status: u16,
    /// `None` if the exchange does not read the response's body, or has not seen its head.
    response: Option<McpResponseBody>,
    /// True if the response answers the request, and is a stream that the filter can end in the
    /// middle.
    is_stream: bool,
    /// The namespace of the ids of responses on this stream, if it is known.
    scope: Option<IdNamespace>,
    /// What the response's headers report about the generations of its call.
    reported: Option<Reported>,
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
            b"POST" => {
                let reader = RequestBody::new(MessageReader::new(config.has_loops()), head.coding);
                Request::Messages(Some(Box::new(reader)))
            }
            b"GET" => Request::Stream,
            b"DELETE" => Request::Delete,
            _ => Request::Other,
        };
        let is_understood = !matches!(request, Request::Messages(_));
        let has_session_id = matches!(head.session_key, SessionKey::McpSessionId(_));
        let is_window = head.session_key == SessionKey::Window;
        let session = session_ref(&product, head.identity, head.session_key);
        Self {
            id,
            calls_seen: 0,
            starts: CallStarts::new(config, &product, head.traces),
            has_session_id,
            is_window,
            may_body_name: head.may_body_name,
            is_stateless: head.is_stateless,
            path: head.path.get(..ENDPOINT_BYTES_MAX).unwrap_or(head.path).to_vec(),
            request,
            // A call can start only with the body's first chunk, which sets this.
            request_ended_at: Timestamp::default(),
            is_request_complete: false,
            is_understood,
            named_tool: head.named_tool,
            guessed: Vec::new(),
            requests: Vec::new(),
            http_status: 0,
            response: None,
            is_stream: false,
            reported: None,
            scope: has_session_id.then(|| IdNamespace::session(&session)),
            observed: Observed { facts: Vec::new(), counts: vec![Counter::Exchanges] },
            session,
            product,
        }
    }
}

impl Exchange for McpExchange {
    fn wants_proof(&self) -> bool {
        matches!(self.request, Request::Messages(_)) && self.starts.wants_proof()
    }

    fn set_proof(&mut self, proof: TraceId) {
        self.starts.set_proof(proof);
    }

    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_ended_at = now;
        let Request::Messages(Some(reader)) = &mut self.request else { return None };
        for message in reader.feed(chunk) {
            self.sent(message, now);
        }
        None
    }

    fn request_end(&mut self, now: Timestamp) {
        self.request_ended_at = now;
        self.is_request_complete = true;
        if let Request::Messages(reader) = &mut self.request
            && let Some(mut reader) = reader.take()
        {
            self.is_understood |= reader.is_empty();
            if reader.is_unreadable() {
                self.observed.counts.push(Counter::RequestUnparsed);
            }
        }
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        self.http_status = head.status;
        let is_of_interest = match self.request {
            // A server may respond before the request has ended; an event stream may report on
            // other calls.
            Request::Messages(_) => {
                !self.is_request_complete
                    || !self.is_understood
                    || self.requests.iter().any(|request| request.intent != Intent::Other)
                    || head.media_type == MediaType::EventStream
            }
            Request::Stream => head.media_type == MediaType::EventStream,
            Request::Delete | Request::Other => false,
        };
        if !is_of_interest {
            return BodyInterest::None;
        }
        let reported_usage = &self.product.reported_usage;
        self.response = McpResponseBody::new(head.coding, head.media_type, reported_usage);
        self.is_stream =
            head.is_plain_event_stream() && matches!(self.request, Request::Messages(_));
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
        if let Some(endpoint) = items.endpoint
            && !self.has_session_id
        {
            let endpoint = resolve_endpoint(&self.path, &endpoint);
            self.scope = Some(IdNamespace::endpoint(&self.session, &endpoint));
        }
        for message in &items.messages {
            self.on_server_message(message, transport, now);
        }
        None
    }

    fn end(mut self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed {
        let is_unreadable = self.response.as_mut().is_some_and(McpResponseBody::is_unreadable);
        if self.is_success() && is_unreadable && self.has_open_call() {
            self.observed.counts.push(Counter::ResponseUnparsed);
        }
        let by_http = ExecutionStatus::of_http(self.http_status);
        let is_cancelled = self.is_stateless && end == StreamEnd::Aborted;
        let status = match by_http {
            ExecutionStatus::Unknown if is_cancelled => ExecutionStatus::Cancelled,
            status => status,
        };
        let expires_at = now.plus(self.product.call_timeout.millis());
        let transport = self.response.as_mut().map_or(Transport::None, McpResponseBody::transport);
        // If a JSON body ended without the response message, that message does not come elsewhere
        // either.
        let may_come_elsewhere = status == ExecutionStatus::Unknown
            && (end == StreamEnd::Aborted
                || self.http_status == ACCEPTED
                || (transport == Transport::Sse && !is_unreadable));
        let scope = if may_come_elsewhere { self.scope_of_calls() } else { None };
        self.leave_calls(status, scope, expires_at, now);
        self.session_end(now);
        self.observed
    }

    fn time_out(&mut self, now: Timestamp) {
        if now.saturating_since(self.request_ended_at) < self.product.call_timeout.millis() {
            return;
        }
        // The accountant knows whether the client has cancelled a call.
        let scope = self.scope_of_calls();
        self.leave_calls(ExecutionStatus::Timeout, scope, now, now);
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
            is_in_body: matches!(self.request, Request::Messages(_)),
            may_body_name: self.may_body_name,
        }
    }

    fn refuse(mut self: Box<Self>, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.leave_calls(ExecutionStatus::Blocked, None, now, now);
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
        self.leave_calls(ExecutionStatus::Cancelled, None, now, now);
        Some(last.into_bytes())
    }
}

impl McpExchange {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.http_status)
    }

    fn has_open_call(&self) -> bool {
        self.requests.iter().any(OpenRequest::is_call)
    }

    /// Handles a message from the client.
    fn sent(&mut self, message: Message, now: Timestamp) {
        self.is_understood |= message.method != Method::None || message.is_answer();
        if let (true, Some(name)) = (self.may_body_name, &message.session_id) {
            let identity = self.session.identity.clone();
            self.session = session_ref(&self.product, identity, SessionKey::Meta(name));
            self.is_window = false;
        }
        let task = message.params_task.id.as_ref().map(|id| task_link(&self.product.id, id));
        let intent = match (message.method, task) {
            (Method::ToolsCall, _) if message.id.is_some() => self.started(&message, now),
            (Method::TasksResult, Some(task)) => Intent::TaskResult(task),
            (Method::TaskStatus, Some(task)) => Intent::TaskStatus(task),
            (Method::TasksList, _) => Intent::TaskList,
            (Method::Cancelled, _) => {
                if let (Some(id), Some(scope)) = (&message.request_id, self.scope_of_calls()) {
                    let links = scope.links(id).to_vec();
                    self.update_call(links, Observation::Cancelled, now);
                }
                return;
            }
            (Method::None | Method::TaskNotification, _) => return,
            (Method::ToolsCall | Method::TasksResult | Method::TaskStatus | Method::Other, _) => {
                Intent::Other
            }
        };
        let Some(id) = message.id else { return };
        if self.guessed.contains(&id) {
            return;
        }
        if self.requests.len() >= CALLS_PER_EXCHANGE_MAX {
            let is_call = matches!(intent, Intent::ToolCall(_));
            self.observed.counts.extend(is_call.then_some(Counter::CallsOverLimit));
        } else {
            self.requests.push(OpenRequest { id, intent });
        }
    }

    /// Reports that a call has started. Returns the intent of its request.
    fn started(&mut self, message: &Message, now: Timestamp) -> Intent {
        self.observed.counts.push(Counter::Calls);
        let (call_id, tool) = (self.next_call_id(), tool_name(message.tool.as_deref()));
        let named = message.traceparent.as_deref().and_then(traceparent);
        let started = self.starts.started(&call_id, &self.session, &tool, named, now);
        self.observed.facts.extend(started);
        Intent::ToolCall(ToolCall { call_id, tool, arguments: message.arguments })
    }

    fn next_call_id(&mut self) -> String {
        let number = self.calls_seen;
        self.calls_seen = number.saturating_add(1);
        format!("{}.{number}", self.id)
    }

    /// Lets go of the calls without a response. With a scope, they wait for a response on another
    /// stream; without one, they end here.
    fn leave_calls(
        &mut self,
        status: ExecutionStatus,
        scope: Option<IdNamespace>,
        expires_at: Timestamp,
        now: Timestamp,
    ) {
        for OpenRequest { id, intent } in core::mem::take(&mut self.requests) {
            let Intent::ToolCall(call) = intent else { continue };
            let call = self.call(call, status, Transport::None, now);
            match scope {
                Some(scope) => self.open(call, scope.link(&id), expires_at),
                None => self.observed.facts.push(Fact::Call(call)),
            }
        }
    }

    fn call(
        &self,
        call: ToolCall,
        status: ExecutionStatus,
        transport: Transport,
        now: Timestamp,
    ) -> CallEnded {
        let ToolCall { call_id, tool, arguments } = call;
        CallEnded {
            call_id,
            kind: CallKind::Tool,
            session: self.session.clone(),
            tool,
            arguments,
            status,
            http_status: self.http_status,
            transport,
            started_at: self.request_ended_at.min(now),
            ended_at: now,
        }
    }

    /// The namespace of the ids of this client's requests: its session or, without one, the address
    /// that the client sends them to (2024-11-05). In MCP 2026-07-28 a server answers a request on
    /// the request's own stream or not at all.
    fn scope_of_calls(&self) -> Option<IdNamespace> {
        if self.is_stateless {
            return None;
        }
        Some(self.scope.unwrap_or_else(|| IdNamespace::endpoint(&self.session, &self.path)))
    }

    fn open(&mut self, call: CallEnded, link: Link, expires_at: Timestamp) {
        // If the server only accepted a call, the call belongs to the event stream that announced
        // the address to which the client sent it.
        let session = if self.http_status == ACCEPTED && self.is_window {
            let identity = self.session.identity.clone();
            session_ref(&self.product, identity, SessionKey::Endpoint(&self.path))
        } else {
            call.session.clone()
        };
        let call = CallEnded { session, ..call };
        self.observed.facts.push(Fact::Open(CallOpen { call, link, expires_at }));
    }

    fn ended(&self, status: ExecutionStatus, transport: Transport) -> Observation {
        Observation::Ended { status, http_status: self.http_status, transport }
    }

    fn update_call(&mut self, links: Vec<Link>, observation: Observation, at: Timestamp) {
        self.observed.facts.push(Fact::CallUpdate(CallUpdate { links, at, observation }));
    }

    fn session_end(&mut self, now: Timestamp) {
        let reason = match self.request {
            Request::Delete if self.is_success() => SessionEnd::ClientDelete,
            _ if self.http_status == 404 => SessionEnd::SessionGone,
            _ => return,
        };
        if self.has_session_id {
            let session = self.session.clone();
            self.observed.facts.push(Fact::SessionEnd { session, reason, at: now });
        }
    }
}

/// HTTP 202: the server took the message and responds on another stream.
const ACCEPTED: u16 = 202;

//! A request to an A2A agent. Each message from the client begins a turn of the agent, which is one
//! step.
//!
//! To the next maintainer: the first message of a conversation does not name the conversation; the
//! server names it in its response. So a step's session is determined when its fact is made, and
//! only `CallStarted` relies on the request alone.

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::product::Product;
use crate::domain::call::{Certainty, Transport, UNNAMED_TOOL};
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::{BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd};
use crate::exchange::link::task_link;
use crate::exchange::starts::{CallStarts, rpc_id};
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallKind, CallOpen, CallUpdate, Observation};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::a2a::outcome::{Step, of_task};
use crate::protocol::a2a::response_body::A2aResponseBody;
use crate::protocol::a2a::{
    Answer, Binding, Operation, Request, RequestReader, Route, TaskState, route,
};
use crate::protocol::request_body::RequestBody;
use crate::protocol::trace_context::traceparent;
use crate::shared_data::shares::holder_of;
use crate::wire::boundary::Unit;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::doubt::Doubt;
use crate::wire::http::{ResponseHead, is_redirect};

/// The state of one such HTTP stream.
#[derive(Debug)]
pub(super) struct A2aExchange {
    call_id: String,
    product: Rc<Product>,
    session: SessionRef,
    /// True if the conversation may name the session. It then takes precedence over the head.
    may_body_name: bool,
    starts: CallStarts,
    /// True if events tell the JSON-RPC id.
    tells_rpc_ids: bool,
    route: Route,
    reader: RequestBody<RequestReader>,
    request: Option<Request>,
    /// Why it is not certain what the request asks for.
    doubt: Option<Doubt>,
    /// True once there was a step, which may be over.
    had_step: bool,
    /// How much of its bodies the worker decodes.
    share: DecodeShare,
    request_ended_at: Timestamp,
    is_request_complete: bool,
    /// The step, until it has ended.
    step: Option<Step>,
    http_status: u16,
    response: Option<A2aResponseBody>,
    /// True if the response is a stream that the filter can end in the middle.
    is_stream: bool,
    observed: Observed,
}

impl A2aExchange {
    /// Starts an exchange, or returns `None` if the request asks nothing of the agent.
    pub(super) fn start(
        config: &Config,
        product: Rc<Product>,
        head: RequestHead<'_>,
        id: &str,
    ) -> Option<Self> {
        // Any reading that names an operation does; else the body names it.
        let routes = || {
            let paths = |method| head.target.paths().filter_map(move |path| route(method, path));
            head.methods().flat_map(paths)
        };
        let route =
            routes().find(|route| route.binding == Binding::Rest).or_else(|| routes().next())?;
        let share = head.body.share.clone();
        Some(Self {
            call_id: format!("{id}.0"),
            session: session_ref(&product, head.identity, head.session_key),
            may_body_name: head.may_body_name,
            starts: CallStarts::new(config, &product, head.traces),
            tells_rpc_ids: config.correlation.rpc_id,
            reader: RequestBody::new(RequestReader::new(route.clone()), head.body),
            route,
            request: None,
            doubt: None,
            had_step: false,
            share,
            request_ended_at: head.arrived_at,
            is_request_complete: false,
            step: None,
            http_status: 0,
            response: None,
            is_stream: false,
            observed: Observed::default(),
            product,
        })
    }
}

impl Exchange for A2aExchange {
    fn wants_proof(&self) -> bool {
        self.starts.wants_proof()
    }

    fn set_proof(&mut self, proof: TraceId) {
        self.starts.set_proof(proof);
    }

    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_ended_at = now;
        for request in self.reader.feed(chunk) {
            self.begin(request, now);
        }
        self.doubts(false);
        None
    }

    fn request_end(&mut self, now: Timestamp) {
        self.request_ended_at = now;
        self.is_request_complete = true;
        if self.request.is_none() && self.reader.is_empty() {
            self.begin(Request::of_route(&self.route), now);
        }
        self.doubts(true);
        if self.doubt.is_some() {
            self.observed.counts.push(Counter::RequestUnparsed);
            self.begin_by_head(now);
        }
    }

    fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        self.http_status = head.status;
        self.begin_by_head(self.request_ended_at);
        // What was not read may be a step: the answer tells.
        let is_about_task = |request: &Request| request.operation.is_about_task();
        let is_of_interest = self.step.is_some()
            || self.doubt.is_some()
            || self.request.as_ref().is_none_or(is_about_task);
        if !is_of_interest {
            return BodyInterest::None;
        }
        self.response = A2aResponseBody::new(self.route.binding, head.coding, head.media_type);
        if let Some(response) = &mut self.response {
            response.limit(&self.share);
        }
        self.is_stream = head.is_plain_event_stream();
        if self.response.is_none() && self.step.is_some() {
            self.observed.counts.push(Counter::ResponseUnparsed);
        }
        BodyInterest::bytes_if(self.response.is_some())
    }

    fn response_body(&mut self, chunk: &[u8], _is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        let reader = self.response.as_mut()?;
        let answers = reader.feed(chunk);
        let transport = reader.transport();
        for answer in &answers {
            let is_unread = self.request.is_none() || self.doubt.is_some();
            if is_unread && !self.had_step && answer.subject.is_of_step() {
                // Whatever the request looked like, the agent took a turn for it.
                let operation = match transport {
                    Transport::Sse => Operation::Stream,
                    Transport::Json | Transport::None => Operation::Send,
                };
                self.request = None;
                self.begin(Request { operation, ..Request::default() }, now);
            }
            match &mut self.step {
                Some(step) => {
                    if let Some(status) = step.update(answer, self.http_status) {
                        let call = self.call(status, transport, now);
                        let receipt = answer.payment.as_ref().map(|reading| reading.payment());
                        let call = call.settled_by(receipt);
                        self.step = None;
                        self.observed.facts.push(Fact::Call(call));
                    }
                }
                None => self.on_task_report(answer, transport, now),
            }
        }
        None
    }

    fn end(mut self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed {
        self.begin_by_head(now);
        if self.request.is_none() && !self.is_request_complete {
            self.observed.counts.push(Counter::ExchangesUnread);
        }
        let Some(step) = &self.step else { return self.observed };
        if is_redirect(self.http_status) {
            self.observed.redirected(self.call_id, &self.session, now);
            return self.observed;
        }
        let task = step.task_id().map(|task| task_link(&self.product.id, task));
        let status = match (step.end(self.http_status), end) {
            (ExecutionStatus::Unknown, StreamEnd::Aborted) => ExecutionStatus::Cancelled,
            (status, _) => status,
        };
        let transport = self.response.as_mut().map_or(Transport::None, A2aResponseBody::transport);
        let call = self.call(status, transport, now);
        let fact = match (status, task) {
            (ExecutionStatus::Pending, Some(link)) => {
                let expires_at = now.plus(self.product.call_timeout.millis());
                Fact::Open(CallOpen { call, links: vec![link], expires_at })
            }
            _ => Fact::Call(call),
        };
        self.observed.facts.push(fact);
        self.observed
    }

    fn take_observed(&mut self) -> Observed {
        core::mem::take(&mut self.observed)
    }

    fn product(&self) -> &Rc<Product> {
        &self.product
    }

    fn customer(&self) -> &str {
        &self.session.identity.customer
    }

    fn policy_request(&self) -> PolicyRequest {
        let context_id = self.request.as_ref().and_then(|request| request.context_id.as_deref());
        let asks = self.request.as_ref().map(|request| request.operation).unwrap_or_default();
        let call = (self.call_id.clone(), operation(asks).to_owned());
        PolicyRequest {
            session: self.session_of(context_id),
            calls: self.step.is_some().then_some(call).into_iter().collect(),
            ids: (self.route.binding == Binding::JsonRpc)
                .then(|| self.request.iter().filter_map(|request| request.id.clone()).collect()),
            is_in_body: true,
            may_body_name: self.may_body_name,
        }
    }

    fn refuse(mut self: Box<Self>, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.is_request_complete = false;
        if self.step.is_some() {
            let call = self.call(ExecutionStatus::Blocked, Transport::None, now);
            self.observed.facts.push(Fact::Call(call));
        }
        self.observed
    }

    fn stream_unit(&self) -> Option<Unit> {
        self.is_stream.then_some(Unit::Event)
    }

    fn stop(&mut self, refusal: &Refusal, now: Timestamp) -> Option<Vec<u8>> {
        self.step.as_ref()?;
        let call = self.call(ExecutionStatus::Cancelled, Transport::Sse, now);
        self.observed.facts.push(Fact::Call(call));
        self.step = None;
        self.response = None;
        let id = self.request.as_ref().and_then(|request| request.id.as_ref());
        let error = match self.route.binding {
            Binding::JsonRpc => refusal.json_rpc(id),
            Binding::Rest => refusal.json(),
        };
        Some(format!("data: {error}\n\n").into_bytes())
    }

    fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        let is_named = !self.may_body_name;
        (self.step.is_some() && is_named).then_some((&self.session, self.request_ended_at))
    }
}

impl A2aExchange {
    /// Notes the first reason for doubt about the JSON-RPC message.
    fn doubts(&mut self, is_end: bool) {
        if self.route.binding == Binding::JsonRpc {
            let of_message = self.request.as_ref().and_then(|request| request.doubt);
            self.doubt = self.doubt.or(of_message).or_else(|| self.reader.doubt(is_end));
        }
    }

    /// Begins the step that the head of a request over HTTP+JSON asks for, if its body was not read:
    /// it never came, came after the answer, or cannot be read.
    fn begin_by_head(&mut self, now: Timestamp) {
        if self.request.is_none() && self.route.operation.is_step() {
            self.begin(Request::of_route(&self.route), now);
        }
    }

    fn begin(&mut self, request: Request, now: Timestamp) {
        if self.request.is_some() {
            // The protocol has no batches.
            self.doubt = self.doubt.or(Some(Doubt::TooManyRequests));
            return;
        }
        if request.operation.is_step() {
            self.step = Some(Step::default());
            self.had_step = true;
            let named = request.traceparent.as_deref().and_then(traceparent);
            let session = self.session_of(request.context_id.as_deref());
            let tool = operation(request.operation);
            let started = self.starts.started(&self.call_id, &session, tool, named, now);
            self.observed.facts.extend(started);
        }
        self.request = Some(request);
    }

    /// Handles a response about a task that an earlier step began.
    fn on_task_report(&mut self, answer: &Answer, transport: Transport, now: Timestamp) {
        let one = answer.task_id.as_ref().zip(answer.state);
        let listed = answer.tasks.iter().filter_map(|task| task.id.as_ref().zip(task.state));
        let answered: Vec<(Vec<u8>, TaskState)> =
            one.into_iter().chain(listed).map(|(id, state)| (id.clone(), state)).collect();
        for (task, state) in answered {
            let http_status = self.http_status;
            let observation = match of_task(state) {
                Some(status) => {
                    Observation::Ended { status, http_status, transport, receipt: None }
                }
                None => {
                    Observation::Alive { expires_at: now.plus(self.product.call_timeout.millis()) }
                }
            };
            let links = vec![task_link(&self.product.id, &task)];
            let holder = holder_of(&self.session.identity.customer);
            let update = CallUpdate { holder, links, at: now, observation, answer: None };
            self.observed.facts.push(Fact::CallUpdate(update));
        }
    }

    fn call(&self, status: ExecutionStatus, transport: Transport, now: Timestamp) -> CallEnded {
        let answered = self.step.as_ref().and_then(Step::context_id);
        let asked = self.request.as_ref().and_then(|request| request.context_id.as_deref());
        let asks = self.request.as_ref().map(|request| request.operation).unwrap_or_default();
        let (certainty, tool) = match self.doubt {
            None => (Certainty::Certain, operation(asks)),
            Some(_) => (Certainty::Inferred, UNNAMED_TOOL),
        };
        CallEnded {
            call_id: self.call_id.clone(),
            kind: CallKind::Step,
            certainty,
            session: self.session_of(asked.or(answered)),
            tool: tool.to_owned(),
            arguments: None,
            status,
            http_status: self.http_status,
            transport,
            is_request_sent: self.is_request_complete,
            started_at: self.request_ended_at.min(now),
            ended_at: now,
            answer: None,
            payment: self.request.as_ref().and_then(|request| {
                request.payment.as_ref().map(|reading| Box::new(reading.payment()))
            }),
            correlation: self
                .request
                .as_ref()
                .and_then(|request| request.id.as_ref().filter(|_| self.tells_rpc_ids).map(rpc_id)),
        }
    }

    /// Returns the session: the one that the conversation names, if it may name the session.
    fn session_of(&self, context_id: Option<&[u8]>) -> SessionRef {
        match context_id.filter(|_| self.may_body_name) {
            Some(context_id) => {
                let identity = self.session.identity.clone();
                session_ref(&self.product, identity, SessionKey::Meta(context_id))
            }
            None => self.session.clone(),
        }
    }
}

/// Returns the step's name in events: the same for every version and binding of the protocol.
fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Stream => "message/stream",
        _ => "message/send",
    }
}

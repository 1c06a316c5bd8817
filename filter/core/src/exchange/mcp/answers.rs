//! What the messages of a server say about the calls of an exchange, and about calls on other
//! streams.

use std::collections::VecDeque;

use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport, UNNAMED_TOOL};
use crate::domain::ids::Link;
use crate::domain::names::escaped;
use crate::domain::price_factors::{Modifiers, ServiceTier};
use crate::domain::status::ExecutionStatus;
use crate::domain::units::Units;
use crate::domain::usage::Completeness;
use crate::exchange::link::task_link;
use crate::exchange::mcp::requests::{Intent, OpenRequest, ToolCall, position_of};
use crate::exchange::mcp::{McpExchange, Request};
use crate::fact::Fact;
use crate::fact::call::{AnswerKind, AnswerLook, AnswerSeen, CallEnded, Observation};
use crate::fact::generation::GenerationEnded;
use crate::host::counter::Counter;
use crate::protocol::llm::provider::Provider;
use crate::protocol::mcp::message::{Message, Method, ResultType, TaskReport};
use crate::protocol::mcp::reported::Reported;
use crate::protocol::mcp::response_body::ServerMessage;

impl McpExchange {
    /// Handles a message from the server.
    pub(super) fn on_server_message(
        &mut self,
        answer: &ServerMessage,
        transport: Transport,
        now: Timestamp,
    ) {
        let ServerMessage { message, text, event } = answer;
        let look = AnswerLook { text: *text, event: *event };
        if message.method == Method::TaskNotification {
            self.on_task_report(&message.params_task, None, transport, now);
            return;
        }
        for task in &message.listed_tasks {
            self.on_task_report(task, None, transport, now);
        }
        // What was not understood of several messages may have been another call.
        let may_be_only =
            transport == Transport::Json && (self.doubt.is_none() || self.messages_seen <= 1);
        let asked = position_of(&self.requests, message, may_be_only);
        if let Some(request) = asked.and_then(|at| self.requests.remove(at)) {
            self.is_request_wrong |= matches!(message.rpc_error(), Some(-32601 | -32602));
            if request.intent == Intent::Other && message.has_tool_result {
                // Whatever the request looked like, the server ran a tool for it.
                self.infer(message, transport, now);
            } else {
                self.answered(request, message, look, transport, now);
            }
        } else if self.refuses_something(message, transport) {
            // It refuses all requests of the exchange, or only a message that the server could not
            // read: a call ends so if no result follows.
            let status = ExecutionStatus::of_answer(message, self.http_status);
            self.refused_as = Some((status, transport));
            let requests = core::mem::take(&mut self.requests);
            let (calls, others): (VecDeque<_>, VecDeque<_>) =
                requests.into_iter().partition(OpenRequest::is_call);
            self.requests = calls;
            for request in others {
                self.answered(request, message, look, transport, now);
            }
        } else if let Some(task) = &message.related_task {
            let links = vec![task_link(&self.product.id, task)];
            let observation = self.ended(message, transport);
            self.update_call(links, observation, None, now);
        } else if message.has_tool_result && self.may_be_a_call(transport) {
            let only = self.only_tool().filter(|_| self.doubt.is_none());
            match only.and_then(|at| self.requests.remove(at)) {
                Some(request) => self.answered(request, message, look, transport, now),
                None => self.infer(message, transport, now),
            }
        } else {
            self.answered_elsewhere(message, look, transport, now);
        }
    }

    /// Handles a message that may answer the request of another stream.
    fn answered_elsewhere(
        &mut self,
        message: &Message,
        look: AnswerLook,
        transport: Transport,
        now: Timestamp,
    ) {
        let identity = &self.session.identity;
        let links =
            message.id.as_ref().map(|id| self.scope.links_of_answer(&self.product, identity, id));
        let Some(links) = links.filter(|links| !links.is_empty()) else {
            self.observed.counts.push(Counter::AnswerUnmatched);
            return;
        };
        let status = ExecutionStatus::of_answer(message, self.http_status);
        let observation = match (status, &message.result_task.id) {
            (ExecutionStatus::Pending, Some(task)) => {
                Observation::BecameTask(task_link(&self.product.id, task))
            }
            _ => self.ended(message, transport),
        };
        let answer = AnswerSeen { kind: kind_of(message), look };
        self.update_call(links, observation, Some(answer), now);
    }

    /// Whether a message is an error that names none of the open requests, and may be about all: it
    /// has no id, or the server changed the id of the only one.
    fn refuses_something(&self, message: &Message, transport: Transport) -> bool {
        let may_be_changed = transport == Transport::Json && self.requests.len() == 1;
        let is_possible = message.id.is_none() || may_be_changed;
        message.has_error && is_possible && !self.requests.is_empty()
    }

    /// Whether the result of a tool that no request explains is the response to a call in this
    /// request.
    fn may_be_a_call(&self, transport: Transport) -> bool {
        // The server may respond before the request has ended. An event stream of a session may
        // repeat the responses to other calls.
        let is_early = !self.is_request_complete
            && matches!(self.request, Request::Messages)
            && (transport == Transport::Json || !self.scope.has_session());
        // Servers may change an id, as JavaScript does with numbers of many digits.
        let is_of_open_call = transport == Transport::Json && self.has_open_call();
        self.doubt.is_some() || is_early || is_of_open_call
    }

    /// The place of an open call, if all open calls are of one tool.
    fn only_tool(&self) -> Option<usize> {
        let mut tools = self.requests.iter().filter_map(|request| match &request.intent {
            Intent::ToolCall(call) => Some(&call.tool),
            _ => None,
        });
        let first = tools.next()?;
        let is_only = tools.all(|tool| tool == first);
        self.requests.iter().position(|request| is_only && request.is_call())
    }

    /// Counts a call by its response alone: it is not certain what the request asked for, but this
    /// is the result of a tool.
    fn infer(&mut self, answer: &Message, transport: Transport, now: Timestamp) {
        let id = answer.id.clone();
        // An event stream may repeat a response. What was not understood may have asked for several
        // calls with one id, or without ids.
        let may_replay = self.doubt.is_none() || matches!(self.request, Request::Stream);
        if may_replay && transport == Transport::Sse && self.inferred.contains(&id) {
            return;
        }
        if self.inferred.len() >= CALLS_PER_EXCHANGE_MAX {
            self.observed.counts.extend([Counter::Calls, Counter::CallsOverLimit]);
            return;
        }
        self.inferred.push(id);
        let status = ExecutionStatus::of_answer(answer, self.http_status);
        let call = ToolCall::of(self.next_call_id(), UNNAMED_TOOL.to_owned());
        let call = self.call(call, status, transport, now);
        let call = CallEnded { certainty: Certainty::Inferred, ..call };
        self.observed.facts.push(Fact::Call(call));
    }

    fn answered(
        &mut self,
        request: OpenRequest,
        answer: &Message,
        look: AnswerLook,
        transport: Transport,
        now: Timestamp,
    ) {
        let OpenRequest { id, intent } = request;
        let status = ExecutionStatus::of_answer(answer, self.http_status);
        match intent {
            Intent::ToolCall(call) => {
                let call = self.call(call, status, transport, now);
                let call = CallEnded { answer: self.answer_in_session(&id, look), ..call };
                let call = call.settled_by(answer.payment.as_ref().map(|told| told.payment()));
                let task = answer.result_task.id.as_ref();
                match (status, task) {
                    (ExecutionStatus::Pending, Some(task)) => {
                        let links = vec![task_link(&self.product.id, task)];
                        let expires_at = now.plus(self.product.call_timeout.millis());
                        self.open(call, links, expires_at);
                    }
                    _ => {
                        let in_result = answer.reported.clone();
                        if let Some(reported) = in_result.or_else(|| self.reported.take()) {
                            self.report(*reported, &call);
                        }
                        self.observed.facts.push(Fact::Call(call));
                    }
                }
            }
            // "No such task" says nothing about the call; any other response is the call's.
            Intent::TaskResult(link) => {
                if status != ExecutionStatus::ValidationFailed && self.is_success() {
                    let observation = self.ended(answer, transport);
                    self.update_call(vec![link], observation, None, now);
                }
            }
            Intent::TaskStatus(link) => {
                if answer.has_result && self.is_success() {
                    self.on_task_report(&answer.result_task, Some(link), transport, now);
                }
            }
            // `on_server_message` has already handled every task in the list.
            Intent::TaskList | Intent::Other => {
                // The same again, on another stream, must not pass for the answer to a call.
                if kind_of(answer) == AnswerKind::OfAny
                    && let Some(answer) = self.answer_in_session(&id, look)
                {
                    let answered = Fact::OtherAnswered { answer, holder: self.holder(), at: now };
                    self.observed.facts.push(answered);
                }
            }
        }
    }

    /// Reports the generations that a call made inside, as the call's response reports them.
    fn report(&mut self, reported: Reported, call: &CallEnded) {
        let Some(seller) = self.product.reported_usage.provider else { return };
        let Reported { usage, model, source, is_inconsistent } = reported;
        self.observed.counts.push(Counter::Generations);
        self.observed.facts.push(Fact::Generation(Box::new(GenerationEnded {
            generation_id: format!("{}.g", call.call_id),
            session: call.session.clone(),
            product_id: self.product.id.clone(),
            caused_by: Some((call.call_id.clone(), call.tool.clone())),
            provider: Provider::named(seller),
            model: model.map(escaped),
            model_requested: None,
            models_in_doubt: Vec::new(),
            service_tier: ServiceTier::Standard,
            modifiers: Modifiers::default(),
            location: None,
            completeness: if usage.is_unknown() {
                Completeness::Failed
            } else {
                Completeness::Complete
            },
            is_thinking: usage.reasoning.is_some_and(|tokens| tokens > 0),
            usage,
            units: Units::default(),
            reported_cost: None,
            is_estimated: false,
            may_go_on: false,
            is_of_batch: false,
            is_inconsistent,
            further: Vec::new(),
            source,
            seen_as: None,
            correlation: None,
            http_status: call.http_status,
            is_streamed: call.transport == Transport::Sse,
            started_at: call.started_at,
            ended_at: call.ended_at,
        })));
    }

    /// Handles a report on a task: the task that the client asked for, or else the one that the
    /// report names.
    fn on_task_report(
        &mut self,
        task: &TaskReport,
        asked: Option<Link>,
        transport: Transport,
        now: Timestamp,
    ) {
        let named = task.id.as_ref().map(|id| task_link(&self.product.id, id));
        let (Some(state), Some(link)) = (task.state, asked.or(named)) else { return };
        let observation = match ExecutionStatus::of_task(state, task.is_error) {
            Some(status) => {
                let http_status = self.http_status;
                Observation::Ended { status, http_status, transport, receipt: None }
            }
            None => Observation::Alive { expires_at: now.plus(self.product.call_timeout.millis()) },
        };
        self.update_call(vec![link], observation, None, now);
    }
}

/// What a message may be the answer to.
fn kind_of(message: &Message) -> AnswerKind {
    let is_of_call = message.has_tool_result
        || message.has_task
        || matches!(message.result_type, ResultType::Task | ResultType::InputRequired);
    match message {
        _ if message.has_error => AnswerKind::OfAny,
        _ if is_of_call => AnswerKind::OfCall,
        _ if message.has_other_result => AnswerKind::OfOther,
        _ => AnswerKind::OfAny,
    }
}

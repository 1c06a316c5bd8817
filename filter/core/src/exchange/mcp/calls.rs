//! The tool calls of an exchange, from their start to the facts about them.

use crate::admission::session::{SessionKey, session_ref};
use crate::base::text::numbered;
use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport, UNNAMED_TOOL};
use crate::domain::ids::Link;
use crate::domain::status::ExecutionStatus;
use crate::exchange::mcp::requests::{Intent, OpenRequest, ToolCall, tool_name};
use crate::exchange::mcp::{McpExchange, Request};
use crate::exchange::starts::rpc_id;
use crate::fact::Fact;
use crate::fact::call::{
    Answer, AnswerLook, AnswerSeen, CallEnded, CallKind, CallOpen, CallUpdate, Observation,
    OtherOpen,
};
use crate::host::counter::Counter;
use crate::protocol::mcp::message::Message;
use crate::protocol::trace_context::traceparent;
use crate::shared_data::shares::{Holder, holder_of};
use crate::wire::json_rpc::Id;

impl McpExchange {
    /// Reports that a call has started. Returns the intent of its request.
    pub(super) fn started(&mut self, message: &Message, now: Timestamp) -> Intent {
        let (call_id, tool) = (self.next_call_id(), tool_name(message.tool.as_deref()));
        let named = message.traceparent.as_deref().and_then(traceparent);
        let started = self.starts.started(&call_id, &self.session, &tool, named, now);
        self.observed.facts.extend(started);
        let payment = message.payment.as_ref().map(|reading| Box::new(reading.payment()));
        let told = message.id.as_ref().filter(|_| self.tells_rpc_ids);
        let (arguments, correlation) = (message.arguments, told.map(rpc_id));
        Intent::ToolCall(ToolCall { call_id, tool, arguments, payment, correlation })
    }

    /// Ends an exchange whose message was not read: a local reply of Envoy, a reset, or a server
    /// that answered early came before it. If the head says that the message is a call, there is
    /// one. The head is no evidence of its price, so the call has no tool's name.
    pub(super) fn end_unread(&mut self, status: ExecutionStatus, now: Timestamp) {
        let is_unread = !self.is_request_complete || self.doubt.is_some();
        if !matches!(self.request, Request::Messages) || !is_unread || self.calls_seen > 0 {
            return;
        }
        if self.says_tool_call {
            let call = ToolCall::of(self.next_call_id(), UNNAMED_TOOL.to_owned());
            let call = self.call(call, status, Transport::None, now);
            let call = CallEnded { certainty: Certainty::Inferred, ..call };
            self.observed.facts.push(Fact::Call(call));
        } else if !self.is_request_complete {
            self.observed.counts.push(Counter::ExchangesUnread);
        }
    }

    pub(super) fn next_call_id(&mut self) -> String {
        let number = self.calls_seen;
        self.calls_seen = number.saturating_add(1);
        numbered(&self.id, u64::from(number))
    }

    /// Lets go of the requests without a response. If that may come on another stream, they wait for
    /// it there; else the calls among them end here.
    pub(super) fn leave_requests(
        &mut self,
        status: ExecutionStatus,
        may_come_elsewhere: bool,
        expires_at: Timestamp,
        now: Timestamp,
    ) {
        let transport = self.refused_as.map_or(Transport::None, |(_, transport)| transport);
        for OpenRequest { id, intent } in core::mem::take(&mut self.requests) {
            let links = if may_come_elsewhere { self.links_of_request(&id) } else { Vec::new() };
            match intent {
                Intent::ToolCall(call) => {
                    let call = self.call(call, status, transport, now);
                    if links.is_empty() {
                        self.observed.facts.push(Fact::Call(call));
                    } else {
                        self.open(call, links, expires_at);
                    }
                }
                _ if links.is_empty() => {}
                _ => {
                    let started_at = self.request_ended_at.min(now);
                    let other = OtherOpen { holder: self.holder(), links, started_at, expires_at };
                    self.observed.facts.push(Fact::OtherOpen(other));
                }
            }
        }
    }

    /// Lets go of the calls of a request that the server sent elsewhere.
    pub(super) fn redirect_calls(&mut self, now: Timestamp) {
        for request in core::mem::take(&mut self.requests) {
            if let Intent::ToolCall(ToolCall { call_id, .. }) = request.intent {
                self.observed.redirected(call_id, &self.session, now);
            }
        }
    }

    /// The client no longer waits for its request with this id.
    pub(super) fn cancelled(&mut self, id: &Id, now: Timestamp) {
        let other = Id { is_string: !id.is_string, text: id.text.clone() };
        let mut links = self.links_of_request(id);
        // Some servers change the type of an id.
        links.extend(self.links_of_request(&other));
        if !links.is_empty() {
            self.update_call(links, Observation::Cancelled, None, now);
        }
    }

    pub(super) fn holder(&self) -> Holder {
        holder_of(&self.session.identity.customer)
    }

    fn links_of_request(&self, id: &Id) -> Vec<Link> {
        self.scope.links_of_request(&self.product, &self.session.identity, id)
    }

    pub(super) fn update_call(
        &mut self,
        links: Vec<Link>,
        observation: Observation,
        answer: Option<AnswerSeen>,
        at: Timestamp,
    ) {
        let update = CallUpdate { holder: self.holder(), links, at, observation, answer };
        self.observed.facts.push(Fact::CallUpdate(update));
    }

    /// The answer to the request with this id, as it may be sent again in the session.
    pub(super) fn answer_in_session(&self, id: &Id, look: AnswerLook) -> Option<Answer> {
        if !self.scope.has_session() {
            return None;
        }
        let link = self.links_of_request(id).into_iter().next()?;
        Some(Answer { link, look })
    }

    pub(super) fn call(
        &self,
        call: ToolCall,
        status: ExecutionStatus,
        transport: Transport,
        now: Timestamp,
    ) -> CallEnded {
        let ToolCall { call_id, tool, arguments, payment, correlation } = call;
        let is_inferred = self.doubt.is_some() || self.is_outcome_inferred;
        CallEnded {
            call_id,
            kind: CallKind::Tool,
            certainty: if is_inferred { Certainty::Inferred } else { Certainty::Certain },
            session: self.session.clone(),
            tool: if self.is_tool_doubtful { UNNAMED_TOOL.to_owned() } else { tool },
            arguments,
            status,
            http_status: self.http_status,
            transport,
            is_request_sent: self.is_request_complete,
            started_at: self.request_ended_at.min(now),
            ended_at: now,
            answer: None,
            payment,
            correlation,
        }
    }

    pub(super) fn open(&mut self, call: CallEnded, links: Vec<Link>, expires_at: Timestamp) {
        // If the server only accepted a call, the call belongs to the event stream that announced
        // the address to which the client sent it.
        let is_accepted = self.is_success() && !self.is_event_stream;
        let session = if is_accepted && self.is_window && call.status != ExecutionStatus::Pending {
            let identity = self.session.identity.clone();
            let endpoint = SessionKey::Endpoint(&self.scope.endpoint().key);
            session_ref(&self.product, identity, endpoint)
        } else {
            call.session.clone()
        };
        let call = CallEnded { session, ..call };
        self.observed.facts.push(Fact::Open(CallOpen { call, links, expires_at }));
    }
}

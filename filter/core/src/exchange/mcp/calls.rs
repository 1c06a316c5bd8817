//! The tool calls of an exchange, from their start to the facts about them.

use crate::admission::session::{SessionKey, session_ref};
use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport, UNNAMED_TOOL};
use crate::domain::ids::Link;
use crate::domain::status::ExecutionStatus;
use crate::exchange::link::IdNamespace;
use crate::exchange::mcp::requests::{Intent, OpenRequest, ToolCall, tool_name};
use crate::exchange::mcp::{ACCEPTED, McpExchange, Request};
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallKind, CallOpen};
use crate::host::counter::Counter;
use crate::protocol::mcp::message::Message;
use crate::protocol::trace_context::traceparent;

impl McpExchange {
    /// Reports that a call has started. Returns the intent of its request.
    pub(super) fn started(&mut self, message: &Message, now: Timestamp) -> Intent {
        let (call_id, tool) = (self.next_call_id(), tool_name(message.tool.as_deref()));
        let named = message.traceparent.as_deref().and_then(traceparent);
        let started = self.starts.started(&call_id, &self.session, &tool, named, now);
        self.observed.facts.extend(started);
        Intent::ToolCall(ToolCall { call_id, tool, arguments: message.arguments })
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
            let (call_id, tool) = (self.next_call_id(), UNNAMED_TOOL.to_owned());
            let call = ToolCall { call_id, tool, arguments: None };
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
        format!("{}.{number}", self.id)
    }

    /// Lets go of the calls without a response. With a scope, they wait for a response on another
    /// stream; without one, they end here.
    pub(super) fn leave_calls(
        &mut self,
        status: ExecutionStatus,
        scope: Option<IdNamespace>,
        expires_at: Timestamp,
        now: Timestamp,
    ) {
        let transport = self.refused_as.map_or(Transport::None, |(_, transport)| transport);
        for OpenRequest { id, intent } in core::mem::take(&mut self.requests) {
            let Intent::ToolCall(call) = intent else { continue };
            let call = self.call(call, status, transport, now);
            match scope {
                Some(scope) => self.open(call, scope.link(&id), expires_at),
                None => self.observed.facts.push(Fact::Call(call)),
            }
        }
    }

    pub(super) fn call(
        &self,
        call: ToolCall,
        status: ExecutionStatus,
        transport: Transport,
        now: Timestamp,
    ) -> CallEnded {
        let ToolCall { call_id, tool, arguments } = call;
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
        }
    }

    pub(super) fn open(&mut self, call: CallEnded, link: Link, expires_at: Timestamp) {
        // If the server only accepted a call, the call belongs to the event stream that announced
        // the address to which the client sent it.
        let session = if self.http_status == ACCEPTED && self.is_window {
            let identity = self.session.identity.clone();
            session_ref(&self.product, identity, SessionKey::Endpoint(&self.endpoint))
        } else {
            call.session.clone()
        };
        let call = CallEnded { session, ..call };
        self.observed.facts.push(Fact::Open(CallOpen { call, link, expires_at }));
    }
}

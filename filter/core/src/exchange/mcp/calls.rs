//! The tool calls of an exchange, from their start to the facts about them.

use crate::admission::session::{SessionKey, session_ref};
use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport, UNNAMED_TOOL};
use crate::domain::ids::Link;
use crate::domain::status::ExecutionStatus;
use crate::exchange::link::IdNamespace;
use crate::exchange::mcp::requests::{Intent, OpenRequest, ToolCall, tool_name};
use crate::exchange::mcp::{ACCEPTED, McpExchange};
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallKind, CallOpen, CallStarted};
use crate::host::counter::Counter;
use crate::protocol::mcp::message::Message;
use crate::protocol::trace_context::{add, traceparent};

impl McpExchange {
    /// Reports that a call has started. Returns the intent of its request.
    pub(super) fn started(&mut self, message: &Message, now: Timestamp) -> Intent {
        self.observed.counts.push(Counter::Calls);
        let (call_id, tool) = (self.next_call_id(), tool_name(message.tool.as_deref()));
        if self.tells_starts {
            let mut traces = self.traces.clone();
            add(&mut traces, message.traceparent.as_deref().and_then(traceparent));
            if !traces.is_empty() || self.may_infer {
                let (call_id, tool) = (call_id.clone(), tool.clone());
                let session = self.session.clone();
                let started = CallStarted { call_id, session, tool, traces, at: now };
                self.observed.facts.push(Fact::CallStarted(started));
            }
        }
        Intent::ToolCall(ToolCall { call_id, tool, arguments: message.arguments })
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
        for OpenRequest { id, intent } in core::mem::take(&mut self.requests) {
            let Intent::ToolCall(call) = intent else { continue };
            let call = self.call(call, status, Transport::None, now);
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

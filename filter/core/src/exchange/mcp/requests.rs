//! The requests of one MCP exchange that wait for their responses.

use std::collections::VecDeque;

use crate::domain::call::UNNAMED_TOOL;
use crate::domain::correlation::Correlation;
use crate::domain::ids::Link;
use crate::domain::names::escaped;
use crate::domain::payment::Payment;
use crate::protocol::mcp::message::Message;
use crate::wire::json_rpc::Id;

/// A request that waits for its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenRequest {
    pub(super) id: Id,
    pub(super) intent: Intent,
}

impl OpenRequest {
    /// Whether the request is a tool call.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.intent, Intent::ToolCall(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolCall {
    pub(super) call_id: String,
    pub(super) tool: String,
    /// See [`Message::arguments`].
    pub(super) arguments: Option<u64>,
    /// What the client offers for it.
    pub(super) payment: Option<Box<Payment>>,
    /// Its JSON-RPC id, if events tell it.
    pub(super) correlation: Option<Box<Correlation>>,
}

impl ToolCall {
    /// A call of which only the tool's name is known.
    pub(super) const fn of(call_id: String, tool: String) -> Self {
        Self { call_id, tool, arguments: None, payment: None, correlation: None }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// `tools/call`.
    ToolCall(ToolCall),
    /// `tasks/result`: the response is the result of the call.
    TaskResult(Link),
    /// `tasks/get` or `tasks/cancel`: the response contains the status of the task.
    TaskStatus(Link),
    /// `tasks/list`: the response contains the status of several tasks.
    TaskList,
    /// Another request, whose response is of no interest.
    Other,
}

/// Returns the position of the open request that a response belongs to: by its id or, because some
/// servers change or drop ids, because it is the only one of a plain JSON exchange, if it `may_be_only`.
/// An error under another id, or without one, may be about a message that is no request.
pub(super) fn position_of(
    requests: &VecDeque<OpenRequest>,
    answer: &Message,
    may_be_only: bool,
) -> Option<usize> {
    let by_id = answer.id.as_ref().and_then(|id| {
        let exact = requests.iter().position(|request| request.id.is_same(id));
        exact.or_else(|| requests.iter().position(|request| request.id.is_alike(id)))
    });
    let is_only = requests.len() == 1 && may_be_only && !answer.has_error;
    by_id.or_else(|| is_only.then_some(0))
}

/// Returns the name of a tool as events tell it, also if the client did not name it.
pub(super) fn tool_name(name: Option<&[u8]>) -> String {
    match name {
        Some(name) if !name.is_empty() => escaped(String::from_utf8_lossy(name).into_owned()),
        _ => UNNAMED_TOOL.to_owned(),
    }
}

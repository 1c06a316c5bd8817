//! The requests of one MCP exchange that wait for their answers.

use crate::domain::call::Transport;
use crate::domain::ids::Link;
use crate::protocol::mcp::message::Message;
use crate::wire::json_rpc::Id;

/// What stands for a tool that the request did not name.
pub const UNNAMED_TOOL: &str = "__unnamed__";

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenRequest {
    pub(super) id: Id,
    pub(super) intent: Intent,
}

impl OpenRequest {
    /// Whether it is a tool call.
    pub(super) fn is_call(&self) -> bool {
        matches!(self.intent, Intent::ToolCall(_))
    }
}

/// A tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolCall {
    pub(super) call_id: String,
    pub(super) tool: String,
    /// See [`Message::arguments`].
    pub(super) arguments: Option<u64>,
}

/// What a request intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// `tools/call`.
    ToolCall(ToolCall),
    /// `tasks/result`: the answer is what the call came to.
    TaskResult(Link),
    /// `tasks/get`, `tasks/cancel`: the answer tells how the task stands.
    TaskStatus(Link),
    /// `tasks/list`: the answer tells how several stand.
    TaskList,
    /// Something else, whose answer is of no interest.
    Other,
}

/// The open request that an answer belongs to: by id, or, because some servers change or drop ids, by being the only
/// one in a plain JSON exchange.
pub(super) fn position_of(
    requests: &[OpenRequest],
    answer: &Message,
    transport: Transport,
) -> Option<usize> {
    let by_id = answer.id.as_ref().and_then(|id| {
        let exact = requests.iter().position(|request| request.id.is_same(id));
        exact.or_else(|| requests.iter().position(|request| request.id.is_alike(id)))
    });
    let is_only = requests.len() == 1 && transport == Transport::Json;
    by_id.or_else(|| is_only.then_some(0))
}

/// The name of a tool, for one that the client did not name too.
pub(super) fn tool_name(name: Option<&[u8]>) -> String {
    match name {
        Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
        _ => UNNAMED_TOOL.to_owned(),
    }
}

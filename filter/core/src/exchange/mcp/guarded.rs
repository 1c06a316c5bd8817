//! What guards ask of an MCP exchange, and do to it.

use crate::base::time::Timestamp;
use crate::domain::status::ExecutionStatus;
use crate::exchange::mcp::requests::{Asks, OpenRequest};
use crate::exchange::mcp::{McpExchange, Request};
use crate::exchange::observed::{Asked, Observed};
use crate::guard::refusal::Refusal;

impl McpExchange {
    /// What the request asks, as far as it has come.
    pub(in crate::exchange) fn asked(&self) -> Asked {
        let call = |request: &OpenRequest| match &request.asks {
            Asks::ToolCall(call) => {
                Some(((call.call_id.clone(), call.tool.clone()), request.id.clone()))
            }
            _ => None,
        };
        let (calls, ids) = self.requests.iter().filter_map(call).unzip();
        Asked {
            session: self.session.clone(),
            calls,
            ids: Some(ids),
            is_in_message: matches!(self.request, Request::Messages(_)),
            may_message_name: self.may_message_name,
        }
    }

    /// The request is answered by the filter.
    pub(in crate::exchange) fn refuse(mut self, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.leave_calls(ExecutionStatus::Blocked, None, now, now);
        self.observed
    }

    /// The filter ends the response. Gives an answer to each call that has none, or `None` if all have: their calls end
    /// here, whatever the server still makes of them.
    pub(in crate::exchange) fn stop(
        &mut self,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
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

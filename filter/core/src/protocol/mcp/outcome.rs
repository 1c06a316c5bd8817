//! Determines the outcome of a call by the response of an MCP server. The table is in
//! `filter/README.md`.

use crate::domain::status::ExecutionStatus;
use crate::protocol::mcp::message::{Message, ResultType, TaskState};
use crate::wire::http::is_success;

impl ExecutionStatus {
    /// The outcome that a response reports. A JSON-RPC error whose code says something takes
    /// precedence over the HTTP status; a result counts only with a 2xx status, because clients
    /// discard it with any other.
    pub(crate) fn of_answer(answer: &Message, http_status: u16) -> Self {
        let is_success = is_success(http_status);
        if answer.has_error {
            return match answer.rpc_error() {
                // x402 over MCP says it so; the `Payment` scheme in its codes, the first of which also
                // asks for a visit elsewhere (MCP 2025-11-25).
                Some(402) => Self::PaymentRequired,
                Some(-32042 | -32043) if answer.challenge.in_error => Self::PaymentRequired,
                Some(-32602) => Self::ValidationFailed,
                Some(-32042) => Self::HitlRequired,
                // As in the Language Server Protocol; the official Python server sends it.
                Some(-32800) => Self::Cancelled,
                // The TypeScript SDK's name of a timeout. Under 404 its servers say so that the
                // session is gone; drafts of 2026-07-28 said so that headers do not match.
                Some(-32001) if is_success => Self::Timeout,
                Some(code) if is_success || says_something(code) => Self::Error,
                None if is_success => Self::Error,
                Some(_) | None => Self::of_http(http_status),
            };
        }
        if !is_success {
            return Self::of_http(http_status);
        }
        match answer.result_type {
            ResultType::InputRequired => Self::HitlRequired,
            ResultType::Task => Self::Pending,
            ResultType::Unknown => Self::Unknown,
            ResultType::Complete if answer.has_task => Self::Pending,
            ResultType::Complete if answer.is_error && answer.challenge.is_in_result() => {
                Self::PaymentRequired
            }
            ResultType::Complete if answer.is_error => Self::Error,
            ResultType::Complete => Self::Success,
        }
    }

    /// The outcome of a task in this state, if the state is final. In 2025-11-25 a task whose tool
    /// reports an error is `failed`; in 2026-07-28 it is `completed`, and its result has `isError`.
    pub fn of_task(state: TaskState, is_error: bool) -> Option<Self> {
        match state {
            TaskState::Open => None,
            TaskState::Completed if is_error => Some(Self::Error),
            TaskState::Completed => Some(Self::Success),
            TaskState::Failed => Some(Self::Error),
            TaskState::Cancelled => Some(Self::Cancelled),
        }
    }
}

/// Whether an error code says more than an HTTP status beside it: the codes that JSON-RPC 2.0
/// defines, and those that MCP 2026-07-28 does. Else -32000 to -32099 are left to servers, and all
/// outside of that range to applications, among them gateways that repeat the HTTP status.
fn says_something(code: i64) -> bool {
    matches!(code, -32700 | -32603..=-32600 | -32022..=-32020)
}

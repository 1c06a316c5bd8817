//! What a call's outcome is called, by what an MCP server answers. The table is in `filter/README.md`.

use crate::domain::status::ExecutionStatus;
use crate::protocol::mcp::message::{Message, ResultType, TaskState};

impl ExecutionStatus {
    /// The outcome that an answer tells. A JSON-RPC error decides before the HTTP status; a result counts only
    /// under a 2xx, because clients discard it under any other.
    pub fn of_answer(answer: &Message, http_status: u16) -> Self {
        if answer.has_error {
            return match answer.error_code {
                Some(-32602) => Self::ValidationFailed,
                Some(-32001) => Self::Timeout,
                Some(-32042) => Self::HitlRequired,
                // As in the Language Server Protocol; the official Python server answers so.
                Some(-32800) => Self::Cancelled,
                _ => Self::Error,
            };
        }
        if !(200..300).contains(&http_status) {
            return Self::of_http(http_status);
        }
        match answer.result_type {
            ResultType::InputRequired => Self::HitlRequired,
            ResultType::Task => Self::Pending,
            ResultType::Unknown => Self::Unknown,
            ResultType::Complete if answer.has_task => Self::Pending,
            ResultType::Complete if answer.is_error => Self::Error,
            ResultType::Complete => Self::Success,
        }
    }

    /// The outcome that a task's state tells, if it is final. In 2025-11-25 a task whose tool reports an error is
    /// `failed`; in 2026-07-28 it is `completed`, and its result says `isError`.
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

//! What a call's outcome is called. The table is in `filter/README.md`.

use serde::{Deserialize, Serialize};

use crate::exchange::StreamEnd;
use crate::observe::mcp::{Message, ResultType, TaskState};

/// The outcome of a call; the names are those of the billing domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionStatus {
    /// A result without `isError: true`.
    Success,
    /// A result with `isError: true`, a JSON-RPC error, or an HTTP error.
    Error,
    /// JSON-RPC error -32602, HTTP 400 or 422.
    ValidationFailed,
    /// HTTP 401, 403 or 429.
    Blocked,
    /// HTTP 408 or 504, JSON-RPC error -32001.
    Timeout,
    /// The client left first, where the protocol says that this cancels (2026-07-28).
    Cancelled,
    /// `input_required`, or JSON-RPC error -32042: a leg of a call that goes on.
    HitlRequired,
    /// A task was accepted.
    Pending,
    /// The stream ended without an answer.
    Unknown,
}

impl ExecutionStatus {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Error,
        Self::ValidationFailed,
        Self::Blocked,
        Self::Timeout,
        Self::Cancelled,
        Self::HitlRequired,
        Self::Pending,
        Self::Unknown,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Error => "ERROR",
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::Blocked => "BLOCKED",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::HitlRequired => "HITL_REQUIRED",
            Self::Pending => "PENDING",
            Self::Unknown => "UNKNOWN",
        }
    }

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

    /// The outcome of an API call, of which the body says nothing.
    pub fn of_api(http_status: u16, end: StreamEnd) -> Self {
        match (http_status, end) {
            (100..400, StreamEnd::Complete) => Self::Success,
            (0, StreamEnd::Aborted) => Self::Cancelled,
            _ => Self::of_http(http_status),
        }
    }

    /// The outcome of a call that got no answer in JSON-RPC, by the HTTP status alone.
    pub fn of_http(http_status: u16) -> Self {
        match http_status {
            400 | 422 => Self::ValidationFailed,
            401 | 403 | 429 => Self::Blocked,
            408 | 504 => Self::Timeout,
            400.. => Self::Error,
            _ => Self::Unknown,
        }
    }
}

//! The names of a call's outcomes. The table is in `filter/README.md`.

use serde::{Deserialize, Serialize};

/// The outcome of a call; the names are those of the billing domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// HTTP 402, or a challenge of x402 or MPP: the server asks for a payment and executes nothing.
    PaymentRequired,
    /// HTTP 408 or 504, JSON-RPC error -32001.
    Timeout,
    /// The client left first, and the protocol says that this cancels the call (2026-07-28).
    Cancelled,
    /// `input_required`, or JSON-RPC error -32042: one leg of a call that continues.
    HitlRequired,
    /// The server accepted the call as a task.
    Pending,
    /// The stream ended without a response.
    Unknown,
}

impl ExecutionStatus {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Error,
        Self::ValidationFailed,
        Self::Blocked,
        Self::PaymentRequired,
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
            Self::PaymentRequired => "PAYMENT_REQUIRED",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::HitlRequired => "HITL_REQUIRED",
            Self::Pending => "PENDING",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The outcome of a call without a JSON-RPC response, by the HTTP status alone.
    pub fn of_http(http_status: u16) -> Self {
        match http_status {
            400 | 422 => Self::ValidationFailed,
            401 | 403 | 429 => Self::Blocked,
            402 => Self::PaymentRequired,
            408 | 504 => Self::Timeout,
            // A redirection executes nothing: the client calls again elsewhere.
            300.. => Self::Error,
            _ => Self::Unknown,
        }
    }

    /// The outcome of a gRPC call with this `grpc-status` (grpc.io, Status codes). Codes that the
    /// protocol does not define are errors, as for its clients.
    pub fn of_grpc(code: u32) -> Self {
        match code {
            // OK
            0 => Self::Success,
            // CANCELLED: typically by the caller.
            1 => Self::Cancelled,
            // INVALID_ARGUMENT: wrong whatever the state of the system. FAILED_PRECONDITION and
            // OUT_OF_RANGE depend on that state: the request was valid.
            3 => Self::ValidationFailed,
            // DEADLINE_EXCEEDED
            4 => Self::Timeout,
            // PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED: as HTTP 403, 429, 401.
            7 | 8 | 16 => Self::Blocked,
            _ => Self::Error,
        }
    }
}

//! The outcome of a gRPC call. HTTP says 200 whatever the outcome; the header `grpc-status` says
//! what became of the call, in the head of a response without a body, else in the trailers.
//!
//! gRPC-Web has its trailers in the body, which the filter does not read: without `grpc-status` in
//! the head, HTTP alone decides. Envoy's own `grpc_web` filter makes gRPC of it for the filters
//! that stand behind it.

use crate::domain::status::ExecutionStatus;
use crate::wire::http::Headers;

/// What a response of gRPC has said about its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcOutcome {
    /// Nothing yet: the trailers tell it.
    Awaited,
    /// The outcome.
    Known(ExecutionStatus),
}

impl GrpcOutcome {
    /// Reads the head of a response; `None` if the outcome is that of HTTP.
    pub(crate) fn of_head(headers: Headers<'_>) -> Option<Self> {
        let media_type = headers.get("content-type").unwrap_or_default();
        let is_of = |name: &[u8]| {
            media_type.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        if !is_of(b"application/grpc") {
            return None;
        }
        match status_of(headers) {
            Some(status) => Some(Self::Known(status)),
            None => (!is_of(b"application/grpc-web")).then_some(Self::Awaited),
        }
    }

    /// Reads the trailers of the response.
    pub(crate) fn read_trailers(&mut self, trailers: Headers<'_>) {
        if let (Self::Awaited, Some(status)) = (*self, status_of(trailers)) {
            *self = Self::Known(status);
        }
    }

    /// The outcome when the response has ended. UNKNOWN if the server never said it.
    pub(crate) fn status(self) -> ExecutionStatus {
        match self {
            Self::Awaited => ExecutionStatus::Unknown,
            Self::Known(status) => status,
        }
    }
}

fn status_of(headers: Headers<'_>) -> Option<ExecutionStatus> {
    let code = headers.get("grpc-status")?;
    let code = core::str::from_utf8(code).ok().and_then(|text| text.trim().parse().ok());
    // Clients take a code that is not one for UNKNOWN, which is an error.
    Some(code.map_or(ExecutionStatus::Error, ExecutionStatus::of_grpc))
}

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
        if !is_grpc(headers) {
            return None;
        }
        match status_of(headers) {
            Some(status) => Some(Self::Known(status)),
            None => (!is_of(headers, b"application/grpc-web")).then_some(Self::Awaited),
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

/// Whether a body is one of gRPC or gRPC-Web.
pub(crate) fn is_grpc(headers: Headers<'_>) -> bool {
    is_of(headers, b"application/grpc")
}

/// Whether the media type begins like this one.
fn is_of(headers: Headers<'_>, name: &[u8]) -> bool {
    let media_type = headers.get("content-type").unwrap_or_default();
    media_type.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn status_of(headers: Headers<'_>) -> Option<ExecutionStatus> {
    let code = headers.get("grpc-status")?;
    let code = core::str::from_utf8(code).ok().and_then(|text| text.trim().parse().ok());
    // Clients take a code that is not one for UNKNOWN, which is an error.
    Some(code.map_or(ExecutionStatus::Error, ExecutionStatus::of_grpc))
}

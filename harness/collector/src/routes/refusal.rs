//! Answers that are not 2xx, and the counts of writes that were refused.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::event::error::IngestError;

/// An answer that is not 2xx: `{"error": "..."}`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    header: Option<(header::HeaderName, HeaderValue)>,
    /// Why a write was refused; `None` for anything else.
    reason: Option<Reason>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into(), header: None, reason: None }
    }

    pub(super) fn of_write(
        reason: Reason,
        status: StatusCode,
        error: impl Into<String>,
    ) -> Refusal {
        Refusal { reason: Some(reason), ..Refusal::new(status, error) }
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: &'static str) -> Refusal {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let answer = Json(serde_json::json!({"error": self.error}));
        let mut response = (self.status, answer).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Refusal {
        let (reason, status) = match &error {
            IngestError::MediaType(_) => (Reason::MediaType, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            IngestError::Malformed(_) => (Reason::Malformed, StatusCode::BAD_REQUEST),
            IngestError::TooMany(_) => (Reason::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            IngestError::Foreign => (Reason::Foreign, StatusCode::FORBIDDEN),
            IngestError::Ledger(error) => {
                tracing::error!("ledger failed: {error:#}");
                (Reason::Ledger, StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        Refusal::of_write(reason, status, error.to_string())
    }
}

/// What a route answers.
pub(super) type Answer = Result<Response, Refusal>;

/// A failure of our own.
pub(super) fn failed(error: &anyhow::Error) -> Refusal {
    tracing::error!("request failed: {error:#}");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// Why a whole POST of events was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It came without a secret, or with a wrong one.
    Unauthorized,
    /// Its sources belong to another secret.
    Foreign,
    /// It came under a host that is not known.
    Host,
    /// A browser sent it for another site's page.
    Origin,
    /// Its content type or coding is none of those accepted.
    MediaType,
    /// It is not JSON, or not of the shape its content type promises.
    Malformed,
    /// It has too many bytes or events.
    TooLarge,
    /// It did not come to an end in time.
    Timeout,
    /// Other bodies take all memory that there is for them.
    Busy,
    /// The ledger failed.
    Ledger,
}

impl Reason {
    const ALL: [(Reason, &str); 10] = [
        (Reason::Unauthorized, "unauthorized"),
        (Reason::Foreign, "foreign"),
        (Reason::Host, "host"),
        (Reason::Origin, "origin"),
        (Reason::MediaType, "media_type"),
        (Reason::Malformed, "malformed"),
        (Reason::TooLarge, "too_large"),
        (Reason::Timeout, "timeout"),
        (Reason::Busy, "busy"),
        (Reason::Ledger, "ledger"),
    ];
}

/// How many writes were refused since the collector started, for each reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<Reason, u64>>);

impl Refusals {
    pub(super) fn count(&self, reason: Reason) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(reason).or_default() += 1;
    }

    /// In Prometheus' text format, each reason whether it occurred or not.
    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        let name = "agent_meter_collector_refused_writes_total";
        writeln!(text, "# HELP {name} Whole POSTs of events refused since the collector started.")?;
        writeln!(text, "# TYPE {name} counter")?;
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, label) in Reason::ALL {
            let count = counts.get(&reason).copied().unwrap_or(0);
            writeln!(text, "{name}{{reason=\"{label}\"}} {count}")?;
        }
        Ok(())
    }
}

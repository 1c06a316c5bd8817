//! Why a whole POST of events is refused.

use std::fmt;

use crate::sql;

/// Why the collector refused a whole POST; it stored no event of it.
#[derive(Debug)]
pub enum IngestError {
    /// The content type is none of those accepted (HTTP 415).
    MediaType(String),
    /// The body is not JSON, or not of the shape its content type promises (HTTP 400).
    Malformed(String),
    /// More events than one POST may have, which is this many (HTTP 413).
    TooMany(usize),
    /// All of its events are of sources that another sender wrote for first (HTTP 403).
    Foreign,
    /// The ledger failed; the same bytes may be sent again (HTTP 500).
    Ledger(anyhow::Error),
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IngestError::MediaType(found) => write!(
                f,
                "content-type: must be application/cloudevents-batch+json, \
                 application/cloudevents+json or application/json, found {found:?}"
            ),
            IngestError::TooMany(most) => write!(f, "body: must be at most {most} events"),
            IngestError::Foreign => {
                f.write_str("source: another sender wrote for it first, with another secret")
            }
            IngestError::Malformed(reason) => write!(f, "body: {reason}"),
            IngestError::Ledger(error) => write!(f, "ledger: {error:#}"),
        }
    }
}

impl std::error::Error for IngestError {}

impl From<sql::Error> for IngestError {
    fn from(error: sql::Error) -> IngestError {
        IngestError::Ledger(error.into())
    }
}

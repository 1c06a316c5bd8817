//! The media type of a body, from its `content-type` header (RFC 9110, section 8.3.1).

/// The body formats that the filter can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`, or any `+json` type.
    Json,
    /// `text/event-stream`.
    EventStream,
    /// `application/vnd.amazon.eventstream`.
    AmazonEventStream,
    /// `application/x-ndjson` and similar types: one JSON text for each line.
    JsonLines,
    /// Anything else, or no header.
    Other,
}

/// The media types of JSON lines; the third is Cohere's.
const JSON_LINES: &[&str] =
    &["application/x-ndjson", "application/jsonl", "application/stream+json"];

impl MediaType {
    /// Reads a header value. Types are case-insensitive; the parser ignores parameters.
    pub fn parse(value: &[u8]) -> Self {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::EventStream
        } else if essence.eq_ignore_ascii_case(b"application/vnd.amazon.eventstream") {
            Self::AmazonEventStream
        } else if JSON_LINES.iter().any(|name| essence.eq_ignore_ascii_case(name.as_bytes())) {
            Self::JsonLines
        } else if essence.eq_ignore_ascii_case(b"application/json")
            || essence
                .len()
                .checked_sub(5)
                .and_then(|at| essence.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(b"+json"))
        {
            Self::Json
        } else {
            Self::Other
        }
    }
}

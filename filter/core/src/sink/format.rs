//! What a format is.

use core::fmt::Debug;

use crate::sink::reply::Reply;
use crate::sink::stored_event::StoredEvent;

/// How events become a request, and what the collector's reply means. The same events make the same
/// bytes, every time and in every VM.
pub trait Format: Debug + Sync {
    /// The media type of a request's body.
    fn media_type(&self) -> &'static str;

    /// Headers that each request carries besides its media type.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// What one request may hold at most.
    fn limits(&self) -> Limits {
        Limits { events: u32::MAX, bytes: usize::MAX }
    }

    /// One event, without line breaks.
    fn event(&self, source: &str, event: &StoredEvent) -> String;

    /// The body of one request, made of events in this format.
    fn batch(&self, events: &mut dyn Iterator<Item = String>) -> Vec<u8>;

    /// What a reply means: its HTTP status (0 when there was none), `Retry-After` and body.
    fn reply(&self, http_status: u16, retry_after: Option<&[u8]>, body: &[u8]) -> Reply {
        Reply::parse(http_status, retry_after, body)
    }
}

/// What one request may hold at most, beside what the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: u32,
    /// Bytes of the body, roughly: see [`StoredEvent::size`].
    pub bytes: usize,
}

/// Texts between two others, with a third between each two of them.
pub(super) fn joined(
    open: &str,
    texts: &mut dyn Iterator<Item = String>,
    between: &str,
    end: &str,
) -> Vec<u8> {
    let mut body = open.as_bytes().to_vec();
    for (at, text) in texts.enumerate() {
        if at > 0 {
            body.extend_from_slice(between.as_bytes());
        }
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(end.as_bytes());
    body
}

//! What each format of events implements.

use core::fmt::Debug;

use crate::base::secret::Secrets;
use crate::sink::reply::{HttpReply, Reply};
use crate::sink::stored_event::StoredEvent;

/// How events become a request, and what the collector's reply means. The same events always give
/// the same bytes, in every VM.
pub trait Format: Debug + Sync {
    /// The media type of a request's body.
    fn media_type(&self) -> &'static str;

    /// Headers that each request carries besides its media type.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The limits of one request.
    fn limits(&self) -> Limits {
        Limits { events: u32::MAX, bytes: usize::MAX }
    }

    /// Whether an event is sent at all.
    fn sends(&self, _: &StoredEvent) -> Sends {
        Sends::Yes
    }

    /// Writes one event that is sent, without line breaks.
    fn event(&self, options: Options<'_>, source: &str, event: &StoredEvent) -> String;

    /// Writes the body of one request from events in this format.
    fn batch(&self, events: &mut dyn Iterator<Item = String>) -> Vec<u8>;

    /// Interprets a reply.
    fn reply(&self, reply: &HttpReply<'_>) -> Reply {
        Reply::parse(reply)
    }
}

/// What a configuration asks of a format.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whether records of OpenTelemetry have the attributes of money.
    pub cost_attributes: bool,
    /// The receiver's names of our units, by `metric_id`; a unit without one has our name.
    pub metric_names: &'a Secrets,
}

/// Whether a format sends an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// It does.
    Yes,
    /// It does not, as the receiver has no use for the event.
    No,
    /// It does not, although the receiver may then charge too little.
    Withheld,
}

/// The most that one request may hold, beside the limits in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The number of events.
    pub events: u32,
    /// The size of the body in bytes, approximately: see [`StoredEvent::size`].
    pub bytes: usize,
}

/// Joins texts: `open`, then the texts with `between` in between, then `end`.
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

//! An event as the outbox keeps it until the collector has it: its content, not yet in a format.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

/// A recorded event. Its number, time and content are fixed, so a format always makes the same
/// bytes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// 1, 2, 3, ... without a gap within one source; the event's id.
    pub sequence: u64,
    /// The time that the content of the event refers to.
    pub time: Timestamp,
    /// The type, without the prefix that a format may give it.
    pub event_type: Box<str>,
    /// The customer that the event concerns.
    pub subject: Box<str>,
    /// The content: the JSON object that `filter/EVENTS.md` describes as `data`, without line
    /// breaks.
    pub data: Box<str>,
}

impl StoredEvent {
    /// The approximate size of the event in a format, in bytes.
    pub fn size(&self) -> usize {
        let parts = [self.event_type.len(), self.subject.len(), self.data.len(), ENVELOPE_BYTES];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    /// The id: the number padded to 20 digits, so that ids sort as the events do.
    pub fn id(&self) -> String {
        format!("{:020}", self.sequence)
    }
}

/// Bytes that a CloudEvents envelope adds, with a source of usual length.
const ENVELOPE_BYTES: usize = 300;

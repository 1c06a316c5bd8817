//! An event as it is kept until the collector has it: what it says, in no format yet.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;

/// An event that was made. Its number, time and words are fixed, so a format makes the same bytes of it
/// every time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// 1, 2, 3, ... without a hole for a source; the event's id.
    pub sequence: u64,
    /// When what the event says happened.
    pub time: Timestamp,
    /// Its type, without the prefix that a format may give it.
    pub event_type: Box<str>,
    /// The customer that it is about.
    pub subject: Box<str>,
    /// What it says: the JSON object that `filter/EVENTS.md` describes as `data`, without line breaks.
    pub data: Box<str>,
}

impl StoredEvent {
    /// About how many bytes a format makes of it.
    pub fn size(&self) -> usize {
        let parts = [self.event_type.len(), self.subject.len(), self.data.len(), ENVELOPE_BYTES];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    /// The id: the number in digits of one length, so that ids sort as the events do.
    pub fn id(&self) -> String {
        format!("{:020}", self.sequence)
    }
}

/// What a CloudEvents envelope adds, with a source of usual length.
const ENVELOPE_BYTES: usize = 300;

//! What the accountant remembers about itself: its source, its next sequence number, and how many
//! slots there are.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::event::{Event, EventStamp, write};
use crate::sink::stored_event::StoredEvent;

/// What the accountant has to know besides sessions, batches and cursors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) source: String,
    pub(super) next_sequence: u64,
    pub(super) acked: u64,
    pub(super) spilled: u64,
    /// Calls that have ended.
    pub(super) calls: u64,
    /// When the last heartbeat was made, and its number if the source ended with it.
    pub(super) heartbeat_at: Timestamp,
    pub(super) ended_with: u64,
    pub(super) sessions_high: u32,
    pub(super) joins_high: u32,
    pub(super) calls_high: u32,
    pub(super) generations_high: u32,
    pub(super) corrections_high: u32,
    pub(super) awaited_high: u32,
    pub(super) results_at: usize,
    /// True if every page of results was written.
    pub(super) has_all_results: bool,
    pub(super) seen_at: usize,
    pub(super) used_at: usize,
    pub(super) scopes_high: u32,
    pub(super) reservations_high: u32,
    pub(super) batches: (u64, u64),
}

impl Meta {
    /// The state of the first accountant of an Envoy process.
    pub(super) fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            next_sequence: 1,
            acked: 0,
            spilled: 0,
            calls: 0,
            heartbeat_at: Timestamp::default(),
            ended_with: 0,
            sessions_high: 0,
            joins_high: 0,
            calls_high: 0,
            generations_high: 0,
            corrections_high: 0,
            awaited_high: 0,
            results_at: 0,
            has_all_results: false,
            seen_at: 0,
            used_at: 0,
            scopes_high: 0,
            reservations_high: 0,
            batches: (0, 0),
        }
    }

    /// Assigns an event its sequence number, and writes it.
    pub(super) fn write(&mut self, event: &Event<'_>, time: Timestamp) -> StoredEvent {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.saturating_add(1);
        write(EventStamp { sequence, time }, event)
    }
}

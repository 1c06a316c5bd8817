//! The event by which a collector knows what is missing at the end of a source.

use serde::Serialize;

use crate::base::time::Millis;
use crate::event::EventStamp;
use crate::event::common::stored_about;
use crate::sink::stored_event::StoredEvent;

#[derive(Serialize)]
struct Heartbeat {
    event_type: &'static str,
    sequence_max: String,
    interval_ms: u64,
    open_sessions: u64,
    events: u64,
    calls: u64,
    is_last: bool,
}

/// Writes one. Its own number is the highest that the source has given.
pub(super) fn heartbeat(
    stamp: EventStamp,
    interval: Millis,
    open_sessions: u64,
    calls: u64,
    is_last: bool,
) -> StoredEvent {
    let data = Heartbeat {
        event_type: "heartbeat",
        sequence_max: format!("{:020}", stamp.sequence),
        interval_ms: interval.0,
        open_sessions,
        events: stamp.sequence,
        calls,
        is_last,
    };
    stored_about(stamp, "heartbeat", "", data)
}

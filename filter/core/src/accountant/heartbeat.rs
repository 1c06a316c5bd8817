//! Tells the collector that the source lives, so that it knows what is missing after the last event
//! that it has.

use crate::accountant::Accountant;
use crate::base::time::{Timestamp, len_u64};
use crate::event::Event;
use crate::host::Host;

impl Accountant {
    /// Makes a heartbeat if one is due. A source begins with its first event; and while the collector
    /// is down, the events that wait for it say enough.
    pub(super) fn heartbeat(&mut self, host: &mut impl Host, now: Timestamp) {
        if self.meta.heartbeat_at == Timestamp::default() && self.meta.next_sequence > 1 {
            self.meta.heartbeat_at = now;
        }
        let interval = self.config.delivery.heartbeat_interval.millis();
        let waited = now.saturating_since(self.meta.heartbeat_at);
        // If the clock was set back, the collector must not wait for ever.
        let is_due = waited >= interval || now < self.meta.heartbeat_at;
        if is_due && !self.outbox.is_failing() && !self.is_draining() {
            self.make_heartbeat(host, false, now);
        }
    }

    /// Makes the last heartbeat of the source, unless nothing has happened since the last one.
    pub(super) fn last_heartbeat(&mut self, host: &mut impl Host, now: Timestamp) {
        if self.meta.ended_with < self.meta.next_sequence.saturating_sub(1) {
            self.make_heartbeat(host, true, now);
            self.meta.ended_with = self.meta.next_sequence.saturating_sub(1);
        }
    }

    /// Sessions that are not closed.
    pub(super) fn open_sessions(&self) -> u64 {
        len_u64(self.sessions.len())
    }

    fn make_heartbeat(&mut self, host: &mut impl Host, is_last: bool, now: Timestamp) {
        let interval = self.config.delivery.heartbeat_interval.millis();
        if interval.0 == 0 || self.meta.next_sequence <= 1 {
            return;
        }
        self.meta.heartbeat_at = now;
        let open_sessions = self.open_sessions();
        let event = Event::Heartbeat { interval, open_sessions, calls: self.meta.calls, is_last };
        let event = self.meta.write(&event, now);
        self.push(host, event, now);
    }
}

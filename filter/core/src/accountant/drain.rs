//! Carries out an operator's order to drain.

use crate::accountant::Accountant;
use crate::base::time::Timestamp;
use crate::host::Host;
use crate::session::CloseReason;
use crate::shared_data::drain::{Drain, DrainOrder, DrainProgress};

impl Accountant {
    /// Carries on with the order that holds, if there is one: closes sessions by it, and notes that everything has been read up
    /// to this time.
    pub(super) fn drain(
        &mut self,
        host: &mut impl Host,
        order: Option<DrainOrder>,
        read_until: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Some(order) = order else {
            self.drain = None;
            return;
        };
        let under_way = self.drain.filter(|drain| drain.order.id == order.id);
        let mut until_batch = under_way.and_then(|drain| drain.until_batch);
        if until_batch.is_none() && read_until.is_some_and(|until| until >= order.at) {
            if order.closes_sessions {
                // Those that begin later stay open: their clients are not drained yet.
                for slot in self.sessions.slots() {
                    self.close(host, slot, CloseReason::Drain, now, now);
                }
            }
            self.last_heartbeat(host, now);
            until_batch = Some(self.outbox.range().1);
        }
        self.drain = Some(Drain { order, until_batch });
    }

    /// Whether an order is under way: then the source tells nothing but what happens.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Tells how far the order under way is.
    pub(super) fn tell_drain(&self, host: &mut impl Host) {
        let Some(Drain { order, until_batch }) = self.drain else { return };
        let (open_sessions, events_waiting) = (self.open_sessions(), self.outbox.len());
        let is_done = until_batch.is_some_and(|until| self.outbox.range().0 >= until);
        let progress = DrainProgress { id: order.id, open_sessions, events_waiting, is_done };
        progress.tell(host, &self.prefix);
    }
}

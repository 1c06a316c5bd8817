//! Sessions that end when all journals have been read once more, by a reading that began later.

use serde::{Deserialize, Serialize};

use crate::base::limits::SESSION_ENDS_MAX;
use crate::base::time::Timestamp;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::shared_data::shares::{Counts, Holder, holder_of};

/// A session that the client or the server has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingEnd {
    holder: Holder,
    pub(super) session: SessionRef,
    pub(super) reason: SessionEnd,
    /// When a worker saw it.
    at: Timestamp,
    /// When the session ends, unless something shows until then that it goes on.
    due_at: Timestamp,
    /// True if the present reading of all journals began after the end was read.
    #[serde(skip)]
    is_due: bool,
}

/// All ends that wait, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct PendingEnds {
    ends: Vec<PendingEnd>,
    counts: Counts,
    is_dirty: bool,
}

impl PendingEnds {
    /// The ends that were read from shared data.
    pub(super) fn new(ends: Vec<PendingEnd>) -> Self {
        let counts = ends.iter().map(|end| end.holder).collect();
        Self { ends, counts, is_dirty: false }
    }

    /// Adds an end. Returns how many it dropped for that: where there is no room, the last of the
    /// customer with the most.
    pub(super) fn push(
        &mut self,
        session: SessionRef,
        reason: SessionEnd,
        at: Timestamp,
        due_at: Timestamp,
    ) -> u64 {
        // What was told to be gone may be told so again.
        self.retain(|known| known.session.key != session.key || known.reason != reason);
        let holder = holder_of(&session.identity.customer);
        let is_full = self.ends.len() >= SESSION_ENDS_MAX;
        if is_full {
            let giver = self.counts.who_gives_way(&holder);
            if giver == holder {
                return 1;
            }
            if let Some(at) = self.ends.iter().rposition(|end| end.holder == giver) {
                self.ends.remove(at);
                self.counts.take(&giver);
            }
        }
        self.counts.add(holder);
        self.ends.push(PendingEnd { holder, session, reason, at, due_at, is_due: false });
        self.is_dirty = true;
        u64::from(is_full)
    }

    /// Notes that a reading of all journals begins.
    pub(super) fn reading_begins(&mut self) {
        self.ends.iter_mut().for_each(|end| end.is_due = true);
    }

    /// Forgets that the session is gone, if that was seen by `at`: a call that started then was
    /// answered.
    pub(super) fn disproved(&mut self, session_key: &[u8; 16], at: Timestamp) {
        self.retain(|end| {
            let is_gone = end.reason == SessionEnd::SessionGone && end.at <= at;
            !is_gone || end.session.key != *session_key
        });
    }

    fn retain(&mut self, is_kept: impl Fn(&PendingEnd) -> bool) {
        let Self { ends, counts, is_dirty } = self;
        ends.retain(|end| {
            let is_kept = is_kept(end);
            if !is_kept {
                counts.take(&end.holder);
                *is_dirty = true;
            }
            is_kept
        });
    }

    /// Takes out the ends that are due, and for which the reading that is now complete was the next.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<PendingEnd> {
        let ends = core::mem::take(&mut self.ends);
        let (due, rest): (Vec<_>, Vec<_>) =
            ends.into_iter().partition(|end| end.is_due && end.due_at <= now);
        due.iter().for_each(|end| self.counts.take(&end.holder));
        self.is_dirty |= !due.is_empty();
        self.ends = rest;
        due
    }

    /// The ends, if they have changed since this was last called.
    pub(super) fn take_dirty(&mut self) -> Option<&[PendingEnd]> {
        core::mem::take(&mut self.is_dirty).then_some(&self.ends)
    }
}

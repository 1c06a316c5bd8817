//! Sessions that end when all journals have been read once more, by a reading that began later.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::base::limits::SESSION_ENDS_MAX;
use crate::base::time::Timestamp;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::shared_data::fair_queue::{FairQueue, GivesUp, Held};
use crate::shared_data::shares::{Holder, holder_of};

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

impl PendingEnd {
    fn key(&self) -> Key {
        (self.session.key, self.reason)
    }
}

impl Held for PendingEnd {
    fn holder(&self) -> Holder {
        self.holder
    }
}

/// A session, and why it ends.
type Key = ([u8; 16], SessionEnd);

/// All ends that wait, in the order in which they were read: one for each session and reason.
#[derive(Debug, Default)]
pub(super) struct PendingEnds {
    ends: FairQueue<PendingEnd>,
    keys: HashSet<Key>,
    is_dirty: bool,
}

impl PendingEnds {
    /// The ends that were read from shared data.
    pub(super) fn new(ends: FairQueue<PendingEnd>) -> Self {
        let keys = ends.iter().map(PendingEnd::key).collect();
        Self { ends, keys, is_dirty: false }
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
        let holder = holder_of(&session.identity.customer);
        let end = PendingEnd { holder, session, reason, at, due_at, is_due: false };
        let key = end.key();
        if !self.keys.insert(key) {
            let ends_now =
                |known: &PendingEnd| known.key() == key && known.is_due && known.due_at <= at;
            // Who tells it again and again does not put it off.
            if self.ends.iter().any(ends_now) {
                return 0;
            }
            // What was told to be gone may be told so again.
            self.ends.retain(|known| known.key() != key);
        }
        self.is_dirty = true;
        let dropped = self.ends.push(end, SESSION_ENDS_MAX, GivesUp::Last);
        if let Some(dropped) = &dropped {
            self.keys.remove(&dropped.key());
        }
        u64::from(dropped.is_some())
    }

    /// Notes that a reading of all journals begins.
    pub(super) fn reading_begins(&mut self) {
        self.ends.iter_mut().for_each(|end| end.is_due = true);
    }

    /// Forgets that the session is gone, if that was seen by `at`: a call that started then was
    /// answered.
    pub(super) fn disproved(&mut self, session_key: &[u8; 16], at: Timestamp) {
        let key = (*session_key, SessionEnd::SessionGone);
        if !self.keys.contains(&key) {
            return;
        }
        if self.ends.retain(|end| end.at > at || end.key() != key) > 0 {
            self.keys.remove(&key);
            self.is_dirty = true;
        }
    }

    /// Takes out the next end that is due, and for which the reading that is now complete was the
    /// next.
    pub(super) fn next_due(&mut self, now: Timestamp) -> Option<PendingEnd> {
        let end = self.ends.take_first(|end| end.is_due && end.due_at <= now)?;
        self.keys.remove(&end.key());
        self.is_dirty = true;
        Some(end)
    }

    /// The ends, if they have changed since this was last called.
    pub(super) fn take_dirty(&mut self) -> Option<&FairQueue<PendingEnd>> {
        core::mem::take(&mut self.is_dirty).then_some(&self.ends)
    }
}

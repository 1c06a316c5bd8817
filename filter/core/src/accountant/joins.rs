//! Calls whose response may come on another stream, and updates that arrived before their call. The
//! accountant reads the facts of different workers in any order, so either may come first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::base::limits::EVIDENCE_MAX;
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::domain::ids::Link;
use crate::fact::call::{CallEnded, CallUpdate};
use crate::shared_data::free_slots::FreeSlots;
use crate::shared_data::shares::{Counts, Holder, Shares, holder_of};

/// A call that waits for its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// The call. Its status and end apply if nothing more arrives.
    pub call: CallEnded,
    /// The link that a response will carry.
    pub link: Link,
    /// When the call is over without a response.
    pub(crate) expires_at: Timestamp,
}

/// All waiting calls, in numbered slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinTable {
    slots: BTreeMap<u32, Join>,
    free: FreeSlots,
    by_link: HashMap<Link, VecDeque<u32>>,
    by_session: HashMap<[u8; 16], BTreeSet<u32>>,
    due: BTreeSet<(Timestamp, u32)>,
    shares: Shares,
    dirty: BTreeSet<u32>,
}

/// Names the customer of a call.
fn holder(call: &CallEnded) -> Holder {
    holder_of(&call.session.identity.customer)
}

impl JoinTable {
    /// The number of waiting calls.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The number of slots that were ever in use.
    pub(crate) fn high(&self) -> u32 {
        self.free.high()
    }

    /// The waiting call in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Join> {
        self.slots.get(&slot)
    }

    /// Adds a waiting call.
    pub(crate) fn insert(&mut self, join: Join) {
        let slot = self.free.take();
        self.dirty.insert(slot);
        self.put(slot, join);
    }

    /// Puts back a call that was read from shared data. A slot without one becomes free.
    pub(crate) fn restore(&mut self, slot: u32, join: Option<Join>) {
        self.free.restore(slot, join.is_some());
        if let Some(join) = join {
            self.put(slot, join);
        }
    }

    fn put(&mut self, slot: u32, join: Join) {
        self.by_link.entry(join.link).or_default().push_back(slot);
        self.by_session.entry(join.call.session.key).or_default().insert(slot);
        self.due.insert((join.expires_at, slot));
        self.shares.insert(holder(&join.call), join.call.started_at, slot);
        self.slots.insert(slot, join);
    }

    /// Takes out the first call with this link that had started by `at`, because a client may use
    /// an id again later.
    pub(crate) fn take(&mut self, link: &Link, at: Timestamp) -> Option<Join> {
        let has_started =
            |slot: &&u32| self.slots.get(slot).is_some_and(|join| join.call.started_at <= at);
        let slot = *self.by_link.get(link)?.iter().find(has_started)?;
        self.remove(slot)
    }

    /// Takes out the call that expires first, if it has expired by `now`.
    pub(crate) fn take_expired(&mut self, now: Timestamp) -> Option<Join> {
        let &(expires_at, slot) = self.due.first()?;
        if expires_at > now { None } else { self.remove(slot) }
    }

    /// Takes out the oldest call of the customer who gives way to this one in a full table.
    pub(crate) fn take_for(&mut self, newcomer: &CallEnded) -> Option<Join> {
        let giver = self.shares.who_gives_way(&holder(newcomer))?;
        let (_, slot) = self.shares.first(&giver)?;
        self.remove(slot)
    }

    /// Takes out one call of this session.
    pub(crate) fn take_of_session(&mut self, session_key: &[u8; 16]) -> Option<Join> {
        let slot = *self.by_session.get(session_key)?.first()?;
        self.remove(slot)
    }

    /// Returns the slots that have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<u32> {
        core::mem::take(&mut self.dirty)
    }

    fn remove(&mut self, slot: u32) -> Option<Join> {
        let join = self.slots.remove(&slot)?;
        if let Some(slots) = self.by_link.get_mut(&join.link) {
            slots.retain(|&other| other != slot);
            if slots.is_empty() {
                self.by_link.remove(&join.link);
            }
        }
        if let Some(slots) = self.by_session.get_mut(&join.call.session.key) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_session.remove(&join.call.session.key);
            }
        }
        self.due.remove(&(join.expires_at, slot));
        self.shares.remove(&holder(&join.call), join.call.started_at, slot);
        self.free.give_back(slot);
        self.dirty.insert(slot);
        Some(join)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    update: CallUpdate,
    until: Timestamp,
}

/// Updates that no call has claimed yet, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldUpdates {
    held: VecDeque<Held>,
    #[serde(skip)]
    counts: Counts,
    #[serde(skip)]
    is_dirty: bool,
}

impl HeldUpdates {
    /// The same as read from shared data, which holds no counts.
    pub(crate) fn counted(self) -> Self {
        Self { counts: self.held.iter().map(|held| held.update.holder).collect(), ..self }
    }

    /// Keeps an update for as long as its call may stay open. Returns how many updates it dropped
    /// for that: where there is no room, the oldest of the customer with the most.
    pub(crate) fn keep(&mut self, update: CallUpdate, wait: Millis, now: Timestamp) -> u64 {
        let is_full = self.held.len() >= EVIDENCE_MAX;
        if is_full {
            let giver = self.counts.who_gives_way(&update.holder);
            let oldest = self.held.iter().position(|held| held.update.holder == giver);
            oldest.map(|at| self.remove(at));
        }
        self.counts.add(update.holder);
        self.held.push_back(Held { update, until: now.plus(wait) });
        self.is_dirty = true;
        u64::from(is_full)
    }

    /// Takes out the update that arrived first about a call with this link that started at
    /// `started_at`.
    pub(crate) fn claim(&mut self, link: &Link, started_at: Timestamp) -> Option<CallUpdate> {
        let is_about =
            |held: &Held| held.update.links.contains(link) && held.update.at >= started_at;
        let at = self.held.iter().position(is_about)?;
        self.remove(at)
    }

    fn remove(&mut self, at: usize) -> Option<CallUpdate> {
        let held = self.held.remove(at)?;
        self.counts.take(&held.update.holder);
        self.is_dirty = true;
        Some(held.update)
    }

    /// Drops the updates that no call has claimed in time. Returns how many.
    pub(crate) fn drop_expired(&mut self, now: Timestamp) -> u64 {
        let before = self.held.len();
        let Self { held, counts, .. } = self;
        held.retain(|held| {
            let is_kept = held.until > now;
            if !is_kept {
                counts.take(&held.update.holder);
            }
            is_kept
        });
        let dropped = before.saturating_sub(self.held.len());
        self.is_dirty |= dropped > 0;
        len_u64(dropped)
    }

    /// Whether the updates have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> bool {
        core::mem::take(&mut self.is_dirty)
    }
}

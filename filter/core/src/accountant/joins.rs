//! Calls whose response may come on another stream.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::fact::call::CallEnded;
use crate::shared_data::free_slots::FreeSlots;
use crate::shared_data::shares::{Holder, Shares, holder_of};

/// A call that waits for its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// The call. Its status and end apply if nothing more arrives.
    pub call: CallEnded,
    /// The links that a response may carry.
    pub links: Vec<Link>,
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
        for link in &join.links {
            self.by_link.entry(*link).or_default().push_back(slot);
        }
        self.by_session.entry(join.call.session.key).or_default().insert(slot);
        self.due.insert((join.expires_at, slot));
        self.shares.insert(holder(&join.call), join.call.started_at, slot);
        self.slots.insert(slot, join);
    }

    /// Takes out the first call with this link that had started by `at`, because a client may use
    /// an id again later, and for which `is_own` holds.
    pub(crate) fn take(
        &mut self,
        link: &Link,
        at: Timestamp,
        is_own: impl Fn(&CallEnded) -> bool,
    ) -> Option<Join> {
        let fits = |slot: &&u32| {
            let join = self.slots.get(slot);
            join.is_some_and(|join| join.call.started_at <= at && is_own(&join.call))
        };
        let slot = *self.by_link.get(link)?.iter().find(fits)?;
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
        for link in &join.links {
            if let Some(slots) = self.by_link.get_mut(link) {
                slots.retain(|&other| other != slot);
                if slots.is_empty() {
                    self.by_link.remove(link);
                }
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

//! All sessions that are not closed, and which of them are due.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::base::hash::hash;
use crate::base::time::{Timestamp, len_u64};
use crate::config::SessionRules;
use crate::domain::identity::identity_key;
use crate::domain::ids::ConfigId;
use crate::domain::session::SessionRef;
use crate::session::{Session, SessionState};
use crate::shared_data::free_slots::FreeSlots;
use crate::shared_data::shares::{Holder, Shares};

/// The key by which sessions count together, by these rules of the session's product.
fn limited(session: &SessionRef, rules: &SessionRules) -> [u8; 16] {
    identity_key(rules.group_of(&session.product_id), &session.identity)
}

/// Names the customer of a session.
fn holder(session: &SessionRef) -> Holder {
    hash(&[session.identity.customer.as_bytes()])
}

/// A session that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The session in this slot became idle at this time.
    Idle(u32, Timestamp),
    /// The session in this slot timed out at this time.
    TimedOut(u32, Timestamp),
}

#[derive(Clone, Debug)]
struct Slot {
    session: Session,
    due_entry: Timestamp,
    recent_entry: Timestamp,
    /// Its key in `by_identity`, if its product limits the sessions of one identity.
    identity: Option<[u8; 16]>,
}

/// All sessions that are not closed, in numbered slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionTable {
    slots: BTreeMap<u32, Slot>,
    free: FreeSlots,
    by_key: HashMap<([u8; 16], String), u32>,
    due: BTreeSet<(Timestamp, u32)>,
    /// The sessions of each customer, by the time at which each was active, or earlier.
    shares: Shares,
    /// The sessions of each identity, for products that limit their number.
    by_identity: HashMap<[u8; 16], BTreeSet<u32>>,
    dirty: BTreeSet<u32>,
}

impl SessionTable {
    /// The number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The number of slots that were ever used.
    pub(crate) fn high(&self) -> u32 {
        self.free.high()
    }

    /// The slot of a session in this currency.
    pub(crate) fn find(&self, session: &SessionRef, currency: &str) -> Option<u32> {
        self.by_key.get(&(session.key, currency.to_owned())).copied()
    }

    /// The session in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(&slot).map(|slot| &slot.session)
    }

    /// The session in a slot, for a change.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        let found = self.slots.get_mut(&slot)?;
        self.dirty.insert(slot);
        Some(&mut found.session)
    }

    /// Notes the configuration by which the session's latest call is priced.
    pub(crate) fn is_priced_by(&mut self, slot: u32, config: ConfigId) {
        if let Some(found) = self.slots.get_mut(&slot)
            && found.session.reference.config != config
        {
            found.session.reference.config = config;
            self.dirty.insert(slot);
        }
    }

    /// Moves the session's entry to the time at which it is due now.
    pub(crate) fn reschedule(&mut self, slot: u32, rules: &SessionRules) {
        let Some(found) = self.slots.get_mut(&slot) else { return };
        self.due.remove(&(found.due_entry, slot));
        found.due_entry = found.session.due_at(rules);
        self.due.insert((found.due_entry, slot));
    }

    /// Adds a session in the first free slot.
    pub(crate) fn insert(&mut self, session: Session, rules: &SessionRules) -> u32 {
        let slot = self.free.take();
        self.put(slot, session, rules);
        self.dirty.insert(slot);
        slot
    }

    /// Restores a slot from shared data; a slot without a session becomes free.
    pub(crate) fn restore(&mut self, slot: u32, session: Option<Session>, rules: &SessionRules) {
        self.free.restore(slot, session.is_some());
        if let Some(session) = session {
            self.put(slot, session, rules);
        }
    }

    fn put(&mut self, slot: u32, session: Session, rules: &SessionRules) {
        let due_entry = session.due_at(rules);
        let recent_entry = session.active_at;
        let identity = (rules.per_identity_max > 0).then(|| limited(&session.reference, rules));
        if let Some(identity) = identity {
            self.by_identity.entry(identity).or_default().insert(slot);
        }
        self.by_key.insert((session.reference.key, session.currency.clone()), slot);
        self.due.insert((due_entry, slot));
        self.shares.insert(holder(&session.reference), recent_entry, slot);
        self.slots.insert(slot, Slot { session, due_entry, recent_entry, identity });
    }

    /// Removes a session.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Session> {
        let Slot { session, due_entry, recent_entry, identity } = self.slots.remove(&slot)?;
        self.by_key.remove(&(session.reference.key, session.currency.clone()));
        self.due.remove(&(due_entry, slot));
        self.shares.remove(&holder(&session.reference), recent_entry, slot);
        if let Some(identity) = identity
            && let Some(slots) = self.by_identity.get_mut(&identity)
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        self.free.give_back(slot);
        self.dirty.insert(slot);
        Some(session)
    }

    /// The least recently active session of an identity that has as many as its product allows.
    pub(crate) fn over_identity_limit(
        &self,
        session: &SessionRef,
        rules: &SessionRules,
    ) -> Option<u32> {
        if rules.per_identity_max == 0 {
            return None;
        }
        let slots = self.by_identity.get(&limited(session, rules))?;
        let is_full = len_u64(slots.len()) >= u64::from(rules.per_identity_max);
        let active_at = |slot: &&u32| self.get(**slot).map(|session| session.active_at);
        is_full.then(|| slots.iter().min_by_key(active_at).copied()).flatten()
    }

    /// The slot of the session that gives way to this one in a full table: the least recently active
    /// one of the customer with the most.
    pub(crate) fn gives_way(&mut self, newcomer: &SessionRef) -> Option<u32> {
        let giver = self.shares.who_gives_way(&holder(newcomer))?;
        while let Some((entry, slot)) = self.shares.first(&giver) {
            let active_at = self.slots.get(&slot).map_or(entry, |found| found.session.active_at);
            if active_at <= entry {
                return Some(slot);
            }
            self.shares.remove(&giver, entry, slot);
            self.shares.insert(giver, active_at, slot);
            if let Some(found) = self.slots.get_mut(&slot) {
                found.recent_entry = active_at;
            }
        }
        None
    }

    /// The next session that became idle or timed out by `now`. Marks a session that became idle.
    pub(crate) fn next_due<'a>(
        &mut self,
        now: Timestamp,
        rules_of: impl Fn(&SessionRef) -> &'a SessionRules,
    ) -> Option<Due> {
        while let Some(&(entry, slot)) = self.due.first() {
            if entry > now {
                return None;
            }
            self.due.pop_first();
            let Some(found) = self.slots.get_mut(&slot) else { continue };
            let rules = rules_of(&found.session.reference);
            let due_at = found.session.due_at(rules);
            if due_at > now {
                found.due_entry = due_at;
                self.due.insert((due_at, slot));
                continue;
            }
            if found.session.state == SessionState::Idle {
                // The entry stays until the caller removes the session.
                self.due.insert((entry, slot));
                return Some(Due::TimedOut(slot, due_at));
            }
            found.session.state = SessionState::Idle;
            found.due_entry = found.session.due_at(rules);
            self.due.insert((found.due_entry, slot));
            self.dirty.insert(slot);
            return Some(Due::Idle(slot, due_at));
        }
        None
    }

    /// The slots of all sessions.
    pub(crate) fn slots(&self) -> Vec<u32> {
        self.slots.keys().copied().collect()
    }

    /// The slots that changed since the last call of this function.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<u32> {
        core::mem::take(&mut self.dirty)
    }
}

//! Estimated generations of which the provider may still tell the truth: the client may poll the
//! response, or resume its stream. They wait for it, because an event that has been sent is final.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::accountant::attribution::Cause;
use crate::base::limits::{ESTIMATE_WAIT_MS, ESTIMATES_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::domain::ids::Link;
use crate::fact::generation::GenerationEnded;
use crate::shared_data::slots::Slots;

/// An estimated generation that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    /// What the truth will carry.
    pub link: Link,
    /// What is billed if the truth does not come.
    pub generation: Box<GenerationEnded>,
    /// Who bears the cost.
    pub cause: Cause,
    expires_at: Timestamp,
}

/// All estimated generations that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimates {
    /// The estimates, in slots of shared data.
    pub slots: Slots<Estimate>,
    by_link: HashMap<Link, u32>,
    due: BTreeSet<(Timestamp, u32)>,
}

impl Estimates {
    /// Whether an estimate waits under this link.
    pub(crate) fn has(&self, link: &Link) -> bool {
        self.by_link.contains_key(link)
    }

    /// Lets an estimate wait. Returns the one that has to go for it, if too many wait.
    pub(crate) fn insert(
        &mut self,
        link: Link,
        generation: Box<GenerationEnded>,
        cause: Cause,
        now: Timestamp,
    ) -> Option<Estimate> {
        let is_full = self.slots.len() >= ESTIMATES_MAX;
        let first = if is_full { self.take_expired(Timestamp(u64::MAX)) } else { None };
        let expires_at = now.plus(Millis(ESTIMATE_WAIT_MS));
        let slot = self.slots.insert(Estimate { link, generation, cause, expires_at });
        self.index(slot);
        first
    }

    /// Puts an estimate back that was read from shared data.
    pub(crate) fn restore(&mut self, slot: u32, estimate: Option<Estimate>) {
        self.slots.restore(slot, estimate);
        self.index(slot);
    }

    /// Takes out the estimate under this link.
    pub(crate) fn take(&mut self, link: &Link) -> Option<Estimate> {
        let slot = *self.by_link.get(link)?;
        self.remove(slot)
    }

    /// Takes out the estimate that has waited longest, if it has waited long enough by `now`.
    pub(crate) fn take_expired(&mut self, now: Timestamp) -> Option<Estimate> {
        let &(expires_at, slot) = self.due.first()?;
        if expires_at > now { None } else { self.remove(slot) }
    }

    /// Takes out one estimate of this session.
    pub(crate) fn take_of_session(&mut self, session_key: &[u8; 16]) -> Option<Estimate> {
        let is_of = |estimate: &Estimate| estimate.cause.session.key == *session_key;
        let slot = self.slots.iter().find(|(_, estimate)| is_of(estimate)).map(|(slot, _)| slot)?;
        self.remove(slot)
    }

    fn index(&mut self, slot: u32) {
        if let Some(estimate) = self.slots.get(slot) {
            self.by_link.insert(estimate.link, slot);
            self.due.insert((estimate.expires_at, slot));
        }
    }

    fn remove(&mut self, slot: u32) -> Option<Estimate> {
        let estimate = self.slots.remove(slot)?;
        self.by_link.remove(&estimate.link);
        self.due.remove(&(estimate.expires_at, slot));
        Some(estimate)
    }
}

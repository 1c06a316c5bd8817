//! Estimated generations of which the provider may still tell the truth: the client may poll the
//! response, or resume its stream. They wait for it for a while, which spares an event that takes
//! the place of another.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::accountant::attribution::Cause;
use crate::base::limits::{ESTIMATE_WAIT_MS, ESTIMATES_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::domain::ids::Link;
use crate::fact::generation::{GenerationEnded, Told};

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

/// All estimated generations that wait, the first to expire first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Estimates {
    waiting: VecDeque<Estimate>,
    #[serde(skip)]
    is_dirty: bool,
}

impl Estimates {
    /// How far the estimate under this link was told, if one waits.
    pub(crate) fn told(&self, link: &Link) -> Option<Told> {
        let waiting = self.waiting.iter().find(|estimate| estimate.link == *link)?;
        Some(waiting.generation.told())
    }

    /// Lets an estimate wait. Returns the one that has to go for it, if too many wait.
    pub(crate) fn insert(
        &mut self,
        link: Link,
        generation: Box<GenerationEnded>,
        cause: Cause,
        now: Timestamp,
    ) -> Option<Estimate> {
        let is_full = self.waiting.len() >= ESTIMATES_MAX;
        let first = if is_full { self.waiting.pop_front() } else { None };
        let expires_at = now.plus(Millis(ESTIMATE_WAIT_MS));
        self.waiting.push_back(Estimate { link, generation, cause, expires_at });
        self.is_dirty = true;
        first
    }

    /// Takes out the estimate under this link.
    pub(crate) fn take(&mut self, link: &Link) -> Option<Estimate> {
        self.take_first(|estimate| estimate.link == *link)
    }

    /// Takes out one estimate that has waited long enough by `now`.
    pub(crate) fn take_expired(&mut self, now: Timestamp) -> Option<Estimate> {
        self.take_first(|estimate| estimate.expires_at <= now)
    }

    /// Takes out one estimate of this session.
    pub(crate) fn take_of_session(&mut self, session_key: &[u8; 16]) -> Option<Estimate> {
        self.take_first(|estimate| estimate.cause.session.key == *session_key)
    }

    /// Whether the estimates have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> bool {
        core::mem::take(&mut self.is_dirty)
    }

    fn take_first(&mut self, is_it: impl FnMut(&Estimate) -> bool) -> Option<Estimate> {
        let at = self.waiting.iter().position(is_it)?;
        self.is_dirty = true;
        self.waiting.remove(at)
    }
}

//! What workers saw of requests on other streams than the requests' own: updates that no call has
//! claimed yet, requests that are no calls and may be answered there, and answers that were used.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::base::limits::EVIDENCE_MAX;
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::domain::ids::Link;
use crate::fact::call::{AnswerLook, CallUpdate, OtherOpen};
use crate::shared_data::fair_queue::{FairQueue, GivesUp, Held};
use crate::shared_data::recent::Recent;
use crate::shared_data::shares::Holder;

/// An update that waits for its call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HeldUpdate {
    pub(super) update: CallUpdate,
    until: Timestamp,
}

impl Held for HeldUpdate {
    fn holder(&self) -> Holder {
        self.update.holder
    }
}

impl Held for OtherOpen {
    fn holder(&self) -> Holder {
        self.holder
    }
}

/// The evidence, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    held: FairQueue<HeldUpdate>,
    others: FairQueue<OtherOpen>,
    #[serde(skip)]
    pub(super) used: UsedAnswers,
    #[serde(skip)]
    is_dirty: bool,
    /// True if something has come that may fit to something else.
    #[serde(skip)]
    is_new: bool,
}

impl Evidence {
    /// Keeps an update for as long as its call may stay open. Returns how many updates it dropped
    /// for that: where there is no room, the oldest of the customer with the most.
    pub(crate) fn keep(&mut self, update: CallUpdate, wait: Millis, now: Timestamp) -> u64 {
        let held = HeldUpdate { update, until: now.plus(wait) };
        let dropped = self.held.push(held, EVIDENCE_MAX, GivesUp::First);
        self.is_dirty = true;
        self.is_new = true;
        u64::from(dropped.is_some())
    }

    /// Keeps a request that is no call and may be answered on another stream.
    pub(crate) fn other_open(&mut self, other: OtherOpen) {
        self.others.push(other, EVIDENCE_MAX, GivesUp::First);
        self.is_dirty = true;
        self.is_new = true;
    }

    /// Something has come that an update may fit to.
    pub(crate) fn look_again(&mut self) {
        self.is_new = true;
    }

    /// Takes out all updates in the order in which workers saw them, if something is new that may
    /// fit to those up to `until`.
    pub(super) fn take_new(&mut self, until: Timestamp) -> Option<FairQueue<HeldUpdate>> {
        if !self.is_new {
            return None;
        }
        let mut held = core::mem::take(&mut self.held);
        held.sort_by_key(|held| held.update.at);
        self.is_new = held.iter().next_back().is_some_and(|last| last.update.at > until);
        Some(held)
    }

    /// Puts back the updates that fit to nothing.
    pub(super) fn put_back(&mut self, held: FairQueue<HeldUpdate>, are_some_used: bool) {
        self.is_dirty |= are_some_used;
        self.held = held;
    }

    /// Takes out the first request that is no call and which an answer seen at `at` with one of these
    /// links may answer. Returns its link.
    pub(crate) fn take_other(&mut self, links: &[Link], at: Timestamp) -> Option<Link> {
        let link_of = |other: &OtherOpen| {
            links.iter().find(|link| other.started_at <= at && other.links.contains(link)).copied()
        };
        let other = self.others.take_first(|other| link_of(other).is_some())?;
        self.is_dirty = true;
        link_of(&other)
    }

    /// Remembers that an answer that looks like this was used at `at` for the request with this
    /// link, on the request's own stream.
    pub(crate) fn used_on_own_stream(&mut self, link: Link, look: AnswerLook, at: Timestamp) {
        self.used.remember(link, Used { look, at, is_own: true });
    }

    /// The same of an answer that came on another stream.
    pub(crate) fn used_elsewhere(&mut self, link: Link, look: AnswerLook, at: Timestamp) {
        self.used.remember(link, Used { look, at, is_own: false });
    }

    /// Whether an answer is one that was used before, sent again. For a request that had started
    /// before that, the same text says so. The own answer of a later one may have the same text, but
    /// not the same event; and a server that answers all requests elsewhere may give no events.
    pub(crate) fn is_repeat(
        &self,
        links: &[Link],
        look: AnswerLook,
        started_at: Timestamp,
    ) -> bool {
        self.used.any(links, |used| {
            let is_same_text = look.text != 0 && look.text == used.look.text;
            let has_no_events = look.event == 0 || used.look.event == 0;
            let is_again = started_at <= used.at || (used.is_own && has_no_events);
            used.is_same_event(look) || (is_same_text && is_again)
        })
    }

    /// Whether the event of an answer was used before.
    pub(crate) fn is_same_event(&self, links: &[Link], look: AnswerLook) -> bool {
        self.used.any(links, |used| used.is_same_event(look))
    }

    /// Drops what nobody has claimed in time. Returns how many updates it dropped.
    pub(crate) fn drop_expired(&mut self, now: Timestamp) -> u64 {
        let updates = self.held.retain(|held| held.until > now);
        let others = self.others.retain(|other| other.expires_at > now);
        self.is_dirty |= updates > 0 || others > 0;
        len_u64(updates)
    }

    /// Whether the evidence has changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> bool {
        core::mem::take(&mut self.is_dirty)
    }
}

/// An answer that was used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Used {
    look: AnswerLook,
    at: Timestamp,
    is_own: bool,
}

impl Used {
    fn is_same_event(&self, look: AnswerLook) -> bool {
        let is_other_text = look.text != 0 && self.look.text != 0 && look.text != self.look.text;
        look.event != 0 && look.event == self.look.event && !is_other_text
    }
}

/// The answers that were used, the latest, by the links of their requests. They have pages of their
/// own in shared data.
#[derive(Clone, Debug, Default)]
pub(super) struct UsedAnswers {
    pub(super) recent: Recent<(Link, Used)>,
    by_link: HashMap<Link, Vec<Used>>,
}

impl UsedAnswers {
    /// Puts back what was read from shared data.
    pub(super) fn restore(recent: Recent<(Link, Used)>) -> Self {
        let mut by_link = HashMap::<Link, Vec<Used>>::new();
        for (link, used) in recent.iter() {
            by_link.entry(*link).or_default().push(*used);
        }
        Self { recent, by_link }
    }

    fn remember(&mut self, link: Link, used: Used) {
        self.by_link.entry(link).or_default().push(used);
        for (forgotten, _) in self.recent.push((link, used)) {
            if let Some(of_link) = self.by_link.get_mut(&forgotten) {
                // The oldest of a link come first.
                of_link.remove(0);
                if of_link.is_empty() {
                    self.by_link.remove(&forgotten);
                }
            }
        }
    }

    fn any(&self, links: &[Link], is_it: impl Fn(&Used) -> bool) -> bool {
        links.iter().filter_map(|link| self.by_link.get(link)).flatten().any(is_it)
    }
}

//! Remembers counted generations, so that a polled response or a resumed stream is not billed
//! twice.

use std::collections::HashSet;

use crate::base::limits::SEEN_AGE_MAX_S;
use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::shared_data::recent::Recent;

/// The counted generations. The oldest are forgotten first.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenGenerations {
    pub(super) recent: Recent<Link>,
    links: HashSet<Link>,
}

impl SeenGenerations {
    /// Puts back what was read from shared data.
    pub(crate) fn restore(recent: Recent<Link>) -> Self {
        let links = recent.iter().copied().collect();
        Self { recent, links }
    }

    /// Whether a generation has not been counted yet, as far as this remembers. `created_at` is
    /// when the client asked for it, in seconds since 1970, if that is known: a generation that is
    /// too old to be remembered was counted long ago.
    pub(crate) fn is_new(&self, link: &Link, created_at: Option<u64>, now: Timestamp) -> bool {
        let oldest_s = (now.0 / 1000).saturating_sub(SEEN_AGE_MAX_S);
        !self.links.contains(link) && created_at.is_none_or(|created_at| created_at >= oldest_s)
    }

    /// Remembers a generation.
    pub(crate) fn remember(&mut self, link: Link) {
        if self.links.insert(link) {
            for forgotten in self.recent.push(link) {
                self.links.remove(&forgotten);
            }
        }
    }
}

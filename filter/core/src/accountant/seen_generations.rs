//! Remembers counted generations, so that a polled response or a resumed stream is not billed
//! twice.

use std::collections::HashSet;

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

    /// Whether a generation was counted, as far as this remembers.
    pub(crate) fn has(&self, link: &Link) -> bool {
        self.links.contains(link)
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

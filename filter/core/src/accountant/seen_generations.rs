//! Remembers counted generations, so that a polled response or a resumed stream is not billed
//! twice. A ring of pages in shared data contains the latest ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::base::limits::{SEEN_AGE_MAX_S, SEEN_PAGE_LINKS, SEEN_PAGES};
use crate::base::time::Timestamp;
use crate::domain::ids::Link;

/// The counted generations. The oldest are forgotten first.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenGenerations {
    pages: BTreeMap<u32, Vec<Link>>,
    links: HashSet<Link>,
    /// The number of the page that is being filled.
    at: u32,
    dirty: BTreeSet<u32>,
}

impl SeenGenerations {
    /// Puts back what was read from shared data: the pages, and the number of the page that was
    /// being filled.
    pub(crate) fn restore(pages: BTreeMap<u32, Vec<Link>>, at: u32) -> Self {
        let links = pages.values().flatten().copied().collect();
        Self { pages, links, at, dirty: BTreeSet::new() }
    }

    /// The number of the page that is being filled.
    pub(crate) fn at(&self) -> u32 {
        self.at
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
        if !self.links.insert(link) {
            return;
        }
        if self.pages.entry(self.at).or_default().len() >= SEEN_PAGE_LINKS {
            self.at = self.at.saturating_add(1) % SEEN_PAGES;
            for forgotten in self.pages.remove(&self.at).unwrap_or_default() {
                self.links.remove(&forgotten);
            }
        }
        self.pages.entry(self.at).or_default().push(link);
        self.dirty.insert(self.at);
    }

    /// Returns the pages that have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> Vec<(u32, &Vec<Link>)> {
        let dirty = core::mem::take(&mut self.dirty);
        dirty.into_iter().filter_map(|at| self.pages.get(&at).map(|page| (at, page))).collect()
    }
}

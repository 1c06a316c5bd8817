//! The latest of what the accountant remembers, in a ring of pages: a commit writes only the pages
//! that have changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::limits::{RECENT_PAGE_ITEMS, RECENT_PAGES};

/// The latest items, about [`RECENT_PAGES`] times [`RECENT_PAGE_ITEMS`] of them.
#[derive(Clone, Debug)]
pub(crate) struct Recent<T> {
    pages: BTreeMap<u32, Vec<T>>,
    /// The number of the page that is being filled.
    at: u32,
    dirty: BTreeSet<u32>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), at: 0, dirty: BTreeSet::new() }
    }
}

impl<T> Recent<T> {
    /// Puts back what was read from shared data: the number of the page that was being filled, and
    /// what each page contains, if it is there.
    pub(crate) fn restore(at: u32, mut page: impl FnMut(u32) -> Option<Vec<T>>) -> Self {
        let pages = (0..RECENT_PAGES).filter_map(|number| Some((number, page(number)?))).collect();
        Self { pages, at, dirty: BTreeSet::new() }
    }

    /// The number of the page that is being filled.
    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// The items, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let newer = self.pages.range(..=self.at);
        let older = self.pages.range(self.at.saturating_add(1)..);
        older.chain(newer).flat_map(|(_, page)| page)
    }

    /// Adds an item. Returns those that are forgotten for it, the oldest first.
    pub(crate) fn push(&mut self, item: T) -> Vec<T> {
        let mut forgotten = None;
        if self.pages.entry(self.at).or_default().len() >= RECENT_PAGE_ITEMS {
            self.at = self.at.saturating_add(1) % RECENT_PAGES;
            forgotten = self.pages.remove(&self.at);
        }
        self.pages.entry(self.at).or_default().push(item);
        self.dirty.insert(self.at);
        forgotten.unwrap_or_default()
    }

    /// Returns the pages that have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> Vec<(u32, &Vec<T>)> {
        let dirty = core::mem::take(&mut self.dirty);
        dirty.into_iter().filter_map(|at| self.pages.get(&at).map(|page| (at, page))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_the_oldest_page_and_its_successor_knows_the_same() {
        let all = RECENT_PAGE_ITEMS * usize::try_from(RECENT_PAGES).unwrap();
        let mut recent = Recent::default();
        for item in 0..all {
            assert!(recent.push(item).is_empty());
        }
        assert_eq!(recent.push(all), (0..RECENT_PAGE_ITEMS).collect::<Vec<_>>());
        let kept: Vec<usize> = recent.iter().copied().collect();
        assert_eq!(kept, (RECENT_PAGE_ITEMS..=all).collect::<Vec<_>>());
        let dirty = recent.take_dirty();
        let stored: BTreeMap<u32, Vec<usize>> =
            dirty.into_iter().map(|(at, page)| (at, page.clone())).collect();
        assert!(recent.take_dirty().is_empty());
        let next = Recent::restore(recent.at(), |at| stored.get(&at).cloned());
        assert_eq!(next.iter().copied().collect::<Vec<_>>(), kept);
    }
}

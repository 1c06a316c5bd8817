//! The latest of what the accountant remembers, in a ring of pages: a commit writes only the pages
//! that have changed.

use crate::base::limits::{RECENT_PAGE_ITEMS, RECENT_PAGES};

/// The latest items, about [`RECENT_PAGES`] times [`RECENT_PAGE_ITEMS`] of them.
#[derive(Clone, Debug)]
pub(crate) struct Recent<T> {
    pages: Vec<Page<T>>,
    /// The number of the page that is being filled.
    at: usize,
}

#[derive(Clone, Debug)]
struct Page<T> {
    items: Vec<T>,
    is_dirty: bool,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self::restore(0, |_| None)
    }
}

impl<T> Recent<T> {
    /// Puts back what was read from shared data: the number of the page that was being filled, and
    /// what each page contains, if it is there.
    pub(crate) fn restore(at: usize, items: impl FnMut(usize) -> Option<Vec<T>>) -> Self {
        Self::of_pages(RECENT_PAGES, at, items)
    }

    /// The same for a ring of so many pages.
    pub(crate) fn of_pages(
        pages: usize,
        at: usize,
        mut items: impl FnMut(usize) -> Option<Vec<T>>,
    ) -> Self {
        let page = |number| Page { items: items(number).unwrap_or_default(), is_dirty: false };
        Self { pages: (0..pages).map(page).collect(), at: at.checked_rem(pages).unwrap_or(0) }
    }

    /// The number of the page that is being filled.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The items, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let older = self.pages.iter().skip(self.at.saturating_add(1));
        older.chain(&self.pages).take(self.pages.len()).flat_map(|page| &page.items)
    }

    /// Adds an item. Returns those that are forgotten for it, the oldest first.
    pub(crate) fn push(&mut self, item: T) -> Vec<T> {
        let mut forgotten = Vec::new();
        if self.pages.get(self.at).is_some_and(|page| page.items.len() >= RECENT_PAGE_ITEMS) {
            self.at = self.at.saturating_add(1).checked_rem(self.pages.len()).unwrap_or(0);
            if let Some(page) = self.pages.get_mut(self.at) {
                forgotten = core::mem::take(&mut page.items);
            }
        }
        if let Some(page) = self.pages.get_mut(self.at) {
            page.items.push(item);
            page.is_dirty = true;
        }
        forgotten
    }

    /// Returns the pages that have changed since this was last called.
    pub(crate) fn take_dirty(&mut self) -> impl Iterator<Item = (usize, &Vec<T>)> {
        let pages = self.pages.iter_mut().enumerate();
        pages.filter(|(_, page)| page.is_dirty).map(|(at, page)| {
            page.is_dirty = false;
            (at, &page.items)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_forgets_the_oldest_page_and_its_successor_knows_the_same() {
        let all = RECENT_PAGE_ITEMS * RECENT_PAGES;
        let mut recent = Recent::default();
        for item in 0..all {
            assert!(recent.push(item).is_empty());
        }
        assert_eq!(recent.push(all), (0..RECENT_PAGE_ITEMS).collect::<Vec<_>>());
        let kept: Vec<usize> = recent.iter().copied().collect();
        assert_eq!(kept, (RECENT_PAGE_ITEMS..=all).collect::<Vec<_>>());
        let stored: BTreeMap<usize, Vec<usize>> =
            recent.take_dirty().map(|(at, page)| (at, page.clone())).collect();
        assert_eq!(recent.take_dirty().count(), 0);
        let next = Recent::restore(recent.at(), |at| stored.get(&at).cloned());
        assert_eq!(next.iter().copied().collect::<Vec<_>>(), kept);
    }
}

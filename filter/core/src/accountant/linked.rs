//! Things that a later response about the same generation seeks by its link, in slots of shared data.

use std::collections::HashMap;

use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::shared_data::shares::{Holder, Shares};
use crate::shared_data::slots::Slots;

/// What is sought by a link.
pub(crate) trait Linked {
    /// What a later response about it carries.
    fn link(&self) -> Link;
    /// Whose it is.
    fn holder(&self) -> Holder;
    /// Its time. The oldest goes first.
    fn at(&self) -> Timestamp;
}

/// All things of a kind. If there are too many, the customer with the most gives up its oldest.
#[derive(Debug)]
pub(crate) struct LinkTable<T> {
    pub(super) slots: Slots<T>,
    by_link: HashMap<Link, u32>,
    shares: Shares,
}

impl<T> Default for LinkTable<T> {
    fn default() -> Self {
        Self { slots: Slots::default(), by_link: HashMap::new(), shares: Shares::default() }
    }
}

impl<T: Linked> LinkTable<T> {
    /// Puts one back that was read from shared data.
    pub(crate) fn restore(&mut self, slot: u32, thing: Option<T>) {
        self.slots.restore(slot, thing);
        self.index(slot);
    }

    /// The one under this link.
    pub(crate) fn get(&self, link: &Link) -> Option<&T> {
        self.by_link.get(link).and_then(|slot| self.slots.get(*slot))
    }

    /// The number of things.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds one in the place of the one under its link, if there is one. Where there are `max`, one
    /// has to go for it. Returns whether one had to.
    pub(crate) fn insert(&mut self, thing: T, max: usize) -> bool {
        self.take(&thing.link());
        let is_full = self.len() >= max;
        if is_full
            && let Some(holder) = self.shares.who_gives_way(&thing.holder())
            && let Some((_, slot)) = self.shares.first(&holder)
        {
            self.remove(slot);
        }
        let slot = self.slots.insert(thing);
        self.index(slot);
        is_full
    }

    /// Takes out the one under this link.
    pub(crate) fn take(&mut self, link: &Link) -> Option<T> {
        self.remove(*self.by_link.get(link)?)
    }

    fn index(&mut self, slot: u32) {
        let Some(thing) = self.slots.get(slot) else { return };
        self.by_link.insert(thing.link(), slot);
        self.shares.insert(thing.holder(), thing.at(), slot);
    }

    fn remove(&mut self, slot: u32) -> Option<T> {
        let thing = self.slots.remove(slot)?;
        self.by_link.remove(&thing.link());
        self.shares.remove(&thing.holder(), thing.at(), slot);
        Some(thing)
    }
}

//! A short queue of bounded length that customers share: whoever has the most in it gives way.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::shared_data::shares::{Counts, Holder};

/// What a customer has in a queue.
pub(crate) trait Held {
    /// The customer.
    fn holder(&self) -> Holder;
}

/// Which of its items a customer gives up for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivesUp {
    /// The one that came first.
    First,
    /// The one that came last, which may be the newcomer itself.
    Last,
}

/// Items in order, and how many each customer has.
#[derive(Clone, Debug)]
pub(crate) struct FairQueue<T> {
    items: Vec<T>,
    counts: Counts,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { items: Vec::new(), counts: Counts::default() }
    }
}

impl<T: Held> FairQueue<T> {
    /// The items in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    /// The items in order. Their customers must stay the same.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut()
    }

    /// The number of items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds an item. If there are `items_max` already, the customer with the most gives one up,
    /// which is returned.
    pub(crate) fn push(&mut self, item: T, items_max: usize, gives_up: GivesUp) -> Option<T> {
        let mut given_up = None;
        if self.items.len() >= items_max {
            let newcomer = item.holder();
            let giver = self.counts.who_gives_way(&newcomer);
            let is_givers = |held: &T| held.holder() == giver;
            let at = match gives_up {
                GivesUp::Last if giver == newcomer => return Some(item),
                GivesUp::Last => self.items.iter().rposition(is_givers),
                GivesUp::First => self.items.iter().position(is_givers),
            };
            given_up = at.map(|at| self.remove(at));
        }
        self.counts.add(item.holder());
        self.items.push(item);
        given_up
    }

    /// Takes out the first item for which `is_it` holds.
    pub(crate) fn take_first(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.items.iter().position(is_it)?;
        Some(self.remove(at))
    }

    /// Drops the items for which `is_kept` does not hold. Returns how many.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) -> usize {
        let before = self.items.len();
        let Self { items, counts } = self;
        items.retain(|item| {
            let is_kept = is_kept(item);
            if !is_kept {
                counts.take(&item.holder());
            }
            is_kept
        });
        before.saturating_sub(self.items.len())
    }

    /// Puts the items in another order.
    pub(crate) fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&T) -> K) {
        self.items.sort_by_key(key);
    }

    fn remove(&mut self, at: usize) -> T {
        let item = self.items.remove(at);
        self.counts.take(&item.holder());
        item
    }
}

impl<T: Held> FromIterator<T> for FairQueue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        let counts = items.iter().map(Held::holder).collect();
        Self { items, counts }
    }
}

impl<T: Serialize> Serialize for FairQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl<'de, T: Held + Deserialize<'de>> Deserialize<'de> for FairQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from_iter)
    }
}

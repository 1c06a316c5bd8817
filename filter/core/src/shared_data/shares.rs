//! Fair shares of a bounded table: who has how much of it, and who gives way when it is full. The
//! one who has the most does, so a flood costs only the one who makes it.
//!
//! To the next maintainer: an entry's time may be earlier than the last activity of its thing, as
//! activity moves no entry. A caller that reads an entry that is too early moves it.

use std::collections::{BTreeSet, HashMap};

use crate::base::hash::hash_again;
use crate::base::time::Timestamp;

/// Names a holder, such as a customer: a hash.
pub(crate) type Holder = [u8; 16];

/// Names a customer.
pub(crate) fn holder_of(customer: &str) -> Holder {
    hash_again(&[customer.as_bytes()])
}

/// How many things each holder has in a short queue that keeps their order itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    by_holder: HashMap<Holder, usize>,
}

impl Counts {
    /// Counts one more.
    pub(crate) fn add(&mut self, holder: Holder) {
        let count = self.by_holder.entry(holder).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts one less.
    pub(crate) fn take(&mut self, holder: &Holder) {
        let left = self.of(holder).saturating_sub(1);
        if left == 0 {
            self.by_holder.remove(holder);
        } else {
            self.by_holder.insert(*holder, left);
        }
    }

    /// How many the holder has.
    pub(crate) fn of(&self, holder: &Holder) -> usize {
        self.by_holder.get(holder).copied().unwrap_or_default()
    }

    /// Who has the most, and how many.
    pub(crate) fn most(&self) -> Option<(usize, Holder)> {
        self.by_holder.iter().map(|(holder, count)| (*count, *holder)).max()
    }

    /// Who gives way to something new of `newcomer` in a full queue: see
    /// [`Shares::who_gives_way`].
    pub(crate) fn who_gives_way(&self, newcomer: &Holder) -> Holder {
        match self.most() {
            Some((most, holder)) if self.of(newcomer) < most => holder,
            _ => *newcomer,
        }
    }
}

impl FromIterator<Holder> for Counts {
    fn from_iter<I: IntoIterator<Item = Holder>>(holders: I) -> Self {
        let mut counts = Self::default();
        holders.into_iter().for_each(|holder| counts.add(holder));
        counts
    }
}

/// What each holder has in a table, with the times by which the oldest goes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    by_holder: HashMap<Holder, BTreeSet<(Timestamp, u32)>>,
    by_count: BTreeSet<(usize, Holder)>,
}

impl Shares {
    /// Adds a slot to what the holder has.
    pub(crate) fn insert(&mut self, holder: Holder, at: Timestamp, slot: u32) {
        let slots = self.by_holder.entry(holder).or_default();
        let before = slots.len();
        slots.insert((at, slot));
        let after = slots.len();
        self.count(holder, before, after);
    }

    /// Takes a slot from what the holder has.
    pub(crate) fn remove(&mut self, holder: &Holder, at: Timestamp, slot: u32) {
        let Some(slots) = self.by_holder.get_mut(holder) else { return };
        let before = slots.len();
        slots.remove(&(at, slot));
        let after = slots.len();
        if after == 0 {
            self.by_holder.remove(holder);
        }
        self.count(*holder, before, after);
    }

    fn count(&mut self, holder: Holder, before: usize, after: usize) {
        self.by_count.remove(&(before, holder));
        if after > 0 {
            self.by_count.insert((after, holder));
        }
    }

    /// How many slots the holder has.
    pub(crate) fn len(&self, holder: &Holder) -> usize {
        self.by_holder.get(holder).map_or(0, BTreeSet::len)
    }

    /// The slots that the holder has.
    pub(crate) fn of(&self, holder: &Holder) -> impl Iterator<Item = u32> {
        self.by_holder.get(holder).into_iter().flatten().map(|(_, slot)| *slot)
    }

    /// The holder's earliest entry.
    pub(crate) fn first(&self, holder: &Holder) -> Option<(Timestamp, u32)> {
        self.by_holder.get(holder)?.first().copied()
    }

    /// Who gives way to something new of `newcomer` in a full table: the one who has the most, and
    /// the newcomer where it has as many as that. `None` if the table is empty.
    pub(crate) fn who_gives_way(&self, newcomer: &Holder) -> Option<Holder> {
        let (most, holder) = self.by_count.last()?;
        Some(if self.len(newcomer) >= *most { *newcomer } else { *holder })
    }
}

#[cfg(test)]
mod tests {
    use super::{Shares, Timestamp};

    #[test]
    fn the_one_who_has_the_most_gives_way() {
        let mut shares = Shares::default();
        assert_eq!(shares.who_gives_way(&[1; 16]), None);
        for slot in 0..3 {
            shares.insert([9; 16], Timestamp(u64::from(10 - slot)), slot);
        }
        shares.insert([1; 16], Timestamp(1), 7);
        assert_eq!(shares.who_gives_way(&[1; 16]), Some([9; 16]));
        assert_eq!(shares.who_gives_way(&[2; 16]), Some([9; 16]), "who has nothing yet");
        assert_eq!(shares.who_gives_way(&[9; 16]), Some([9; 16]));
        assert_eq!(shares.first(&[9; 16]), Some((Timestamp(8), 2)), "its own oldest");
        shares.remove(&[9; 16], Timestamp(8), 2);
        shares.remove(&[9; 16], Timestamp(9), 1);
        assert_eq!(shares.who_gives_way(&[1; 16]), Some([1; 16]), "as many as anyone");
        shares.remove(&[9; 16], Timestamp(10), 0);
        assert_eq!((shares.len(&[9; 16]), shares.of(&[1; 16]).count()), (0, 1));
    }
}

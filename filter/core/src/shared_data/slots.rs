//! Things in numbered slots of shared data, and the slots that changed since the last commit.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::base::encoded::encoded;
use crate::shared_data::free_slots::FreeSlots;

/// A set of things, each in its own slot.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    things: BTreeMap<u32, T>,
    free: FreeSlots,
    dirty: BTreeSet<u32>,
    /// Whether shared data has a value for the slot of this number. What comes and goes between two
    /// commits is never written.
    is_stored: Vec<bool>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            things: BTreeMap::new(),
            free: FreeSlots::default(),
            dirty: BTreeSet::new(),
            is_stored: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// The number of things.
    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    /// The number of slots that were ever in use.
    pub(crate) fn high(&self) -> u32 {
        self.free.high()
    }

    /// Puts a thing into the first free slot and returns the slot's number.
    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        let slot = self.free.take();
        self.dirty.insert(slot);
        self.things.insert(slot, thing);
        slot
    }

    /// Restores a thing that the accountant read from shared data; a slot without one becomes free.
    pub(crate) fn restore(&mut self, slot: u32, thing: Option<T>) {
        self.free.restore(slot, thing.is_some());
        // A value that could not be read is there too.
        self.swap_stored(slot, true);
        if let Some(thing) = thing {
            self.things.insert(slot, thing);
        }
    }

    /// Removes a thing and frees its slot.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let thing = self.things.remove(&slot)?;
        self.free.give_back(slot);
        self.dirty.insert(slot);
        Some(thing)
    }

    /// The thing in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.things.get(&slot)
    }

    /// The thing in a slot, for a change; marks the slot as changed.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let thing = self.things.get_mut(&slot)?;
        self.dirty.insert(slot);
        Some(thing)
    }

    /// All things with the numbers of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.things.iter().map(|(slot, thing)| (*slot, thing))
    }

    /// What has to be written of the slots that changed since the last call: each key, and its value,
    /// which is empty for a slot that is free.
    pub(crate) fn take_writes(
        &mut self,
        key: impl Fn(u32) -> String,
    ) -> impl Iterator<Item = (String, Vec<u8>)>
    where
        T: Serialize,
    {
        let dirty = core::mem::take(&mut self.dirty).into_iter();
        dirty.filter_map(move |slot| {
            let value = self.get(slot).map(encoded).unwrap_or_default();
            let was_stored = self.swap_stored(slot, !value.is_empty());
            (was_stored || !value.is_empty()).then(|| (key(slot), value))
        })
    }

    /// Notes whether a slot has a value in shared data. Returns whether it had one before.
    fn swap_stored(&mut self, slot: u32, is_stored: bool) -> bool {
        let Ok(at) = usize::try_from(slot) else { return true };
        if self.is_stored.len() <= at {
            self.is_stored.resize(at.saturating_add(1), false);
        }
        self.is_stored.get_mut(at).is_none_or(|place| core::mem::replace(place, is_stored))
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    /// The keys that a commit writes, each with whether it has a value.
    fn writes(slots: &mut Slots<u8>) -> Vec<(String, bool)> {
        let writes = slots.take_writes(|slot| slot.to_string());
        writes.map(|(key, value)| (key, !value.is_empty())).collect()
    }

    #[test]
    fn what_comes_and_goes_between_two_commits_is_never_written() {
        let mut slots = Slots::default();
        let slot = slots.insert(7);
        slots.remove(slot);
        assert_eq!(writes(&mut slots), []);
        let slot = slots.insert(8);
        assert_eq!(writes(&mut slots), [("0".to_owned(), true)]);
        slots.remove(slot);
        assert_eq!(writes(&mut slots), [("0".to_owned(), false)]);
        assert_eq!(writes(&mut slots), []);
    }

    #[test]
    fn what_was_read_from_shared_data_is_emptied_there_when_it_goes() {
        let mut slots = Slots::default();
        slots.restore(0, Some(7));
        // A value that cannot be read: the slot is free, and the value is still there.
        slots.restore(1, None);
        assert_eq!(slots.remove(0), Some(7));
        let second = [slots.insert(8), slots.insert(9)];
        assert_eq!(second, [0, 1]);
        slots.remove(0);
        slots.remove(1);
        assert_eq!(writes(&mut slots), [("0".to_owned(), false), ("1".to_owned(), false)]);
    }
}

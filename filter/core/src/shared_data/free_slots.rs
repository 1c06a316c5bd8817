//! Numbers for slots in shared data. Shared data cannot delete keys, so a new slot takes the lowest
//! free number, and the filter creates as few keys as possible.

use std::collections::BTreeSet;

/// The set of free numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeSlots {
    free: BTreeSet<u32>,
    high: u32,
}

impl FreeSlots {
    /// The number of slots that were ever in use.
    pub(crate) fn high(&self) -> u32 {
        self.high
    }

    /// Takes the lowest free number.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            let slot = self.high;
            self.high = self.high.saturating_add(1);
            slot
        })
    }

    /// Returns a number to the free ones.
    pub(crate) fn give_back(&mut self, slot: u32) {
        self.free.insert(slot);
    }

    /// Restores a number that was in use before; `is_in_use` says whether it still is.
    pub(crate) fn restore(&mut self, slot: u32, is_in_use: bool) {
        self.high = self.high.max(slot.saturating_add(1));
        if !is_in_use {
            self.free.insert(slot);
        }
    }
}

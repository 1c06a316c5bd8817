//! Numbers for slots in shared data, which has no delete: the lowest free number is used first, so that as few keys as
//! possible are ever made.

use std::collections::BTreeSet;

/// Which numbers are free.
#[derive(Clone, Debug, Default)]
pub struct FreeSlots {
    free: BTreeSet<u32>,
    high: u32,
}

impl FreeSlots {
    /// The number of slots that were ever in use.
    pub fn high(&self) -> u32 {
        self.high
    }

    /// Takes the lowest free number.
    pub fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            let slot = self.high;
            self.high = self.high.saturating_add(1);
            slot
        })
    }

    /// Gives a number back.
    pub fn give_back(&mut self, slot: u32) {
        self.free.insert(slot);
    }

    /// Notes a number that was in use before, and whether it still is.
    pub fn restore(&mut self, slot: u32, is_in_use: bool) {
        self.high = self.high.max(slot.saturating_add(1));
        if !is_in_use {
            self.free.insert(slot);
        }
    }
}

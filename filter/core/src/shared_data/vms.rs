//! Which VMs live, and under which configuration each.
//!
//! To the next maintainer: each VM has a seat, the key `z{i}` after the plugin's prefix. It writes
//! the time there on each tick, and marks the seat as free when it stops. Who is silent for
//! [`VM_SILENT_TICKS_MAX`] ticks of the VM that looks counts as dead, since clocks may step; of whom
//! it had not seen before, [`VM_SILENCE_MS_MAX`] decides. If a living VM counts as dead, sessions are
//! closed that could have gone on, and nothing is lost.
//!
//! Envoy tries each configuration first in a VM that it throws away without a word, so that a VM has
//! a seat of its own only from its first tick on. Until then a seat of nobody says that VMs of the
//! configuration are coming; the first of them that ticks or stops gives that back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::base::encoded::encoded;
use crate::base::limits::{VM_SILENCE_MS_MAX, VM_SILENT_TICKS_MAX, VMS_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::domain::ids::ConfigId;
use crate::host::{Expect, Host};

/// Stands for all VMs of a configuration that have not ticked yet.
const NOBODY: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Distinguishes the VM from all others; or [`NOBODY`].
    vm: u64,
    config: ConfigId,
    at: Timestamp,
    is_free: bool,
}

impl Entry {
    fn is_alive(&self, now: Timestamp) -> bool {
        let limit = Millis(VM_SILENCE_MS_MAX);
        let distance = now.saturating_since(self.at).max(self.at.saturating_since(now));
        !self.is_free && distance <= limit
    }

    fn is_same_nobody(&self, other: &Self) -> bool {
        self.vm == NOBODY && self.config == other.config
    }
}

fn key(prefix: &str, index: u32) -> String {
    format!("{prefix}z{index}")
}

fn read(host: &mut impl Host, prefix: &str, index: u32) -> Option<(Option<Entry>, u32)> {
    let (bytes, version) = host.get(&key(prefix, index))?;
    Some((postcard::from_bytes(&bytes).ok(), version))
}

/// Writes an entry to the first seat that no living VM has, or that is nobody's of the same
/// configuration. Returns which that is.
fn put(host: &mut impl Host, prefix: &str, entry: Entry, now: Timestamp) -> Option<u32> {
    for index in 0..VMS_MAX {
        let expect = match read(host, prefix, index) {
            None => Expect::Absent,
            Some((Some(other), _)) if other.is_alive(now) && !other.is_same_nobody(&entry) => {
                continue;
            }
            Some((_, version)) => Expect::Version(version),
        };
        // On a conflict another VM was faster: try the next seat.
        if host.set(&key(prefix, index), &encoded(&entry), expect).is_ok() {
            return Some(index);
        }
    }
    None
}

/// The place of one VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    vm: u64,
    config: ConfigId,
    index: Option<u32>,
}

impl Seat {
    /// Says that this VM is coming.
    pub(crate) fn announce(
        host: &mut impl Host,
        prefix: &str,
        (vm, config): (u64, ConfigId),
        now: Timestamp,
    ) -> Self {
        let coming = Entry { vm: NOBODY, config, at: now, is_free: false };
        put(host, prefix, coming, now);
        Self { vm, config, index: None }
    }

    /// Shows that the VM lives; a VM for which there is no seat counts as dead.
    pub(crate) fn beat(&mut self, host: &mut impl Host, prefix: &str, now: Timestamp) {
        let entry = Entry { vm: self.vm, config: self.config, at: now, is_free: false };
        if !self.write(host, prefix, entry) {
            self.index = put(host, prefix, entry, now);
            self.has_come(host, prefix);
        }
    }

    /// Gives back the seats of nobody. A configuration with a VM that has a seat needs none, and one
    /// whose VMs stop must not seem to come.
    fn has_come(&self, host: &mut impl Host, prefix: &str) {
        for index in 0..VMS_MAX {
            let Some((entry, version)) = read(host, prefix, index) else { return };
            let is_of = |entry: &Entry| (entry.vm, entry.config) == (NOBODY, self.config);
            if let Some(entry) = entry.filter(|entry| is_of(entry) && !entry.is_free) {
                let free = encoded(&Entry { is_free: true, ..entry });
                // On a conflict another VM gave it back, or one more is coming.
                let _ = host.set(&key(prefix, index), &free, Expect::Version(version));
            }
        }
    }

    /// Gives the seat back.
    pub(crate) fn leave(&mut self, host: &mut impl Host, prefix: &str) {
        let (vm, config) = (self.vm, self.config);
        let free = Entry { vm, config, at: Timestamp::default(), is_free: true };
        self.write(host, prefix, free);
        self.index = None;
        self.has_come(host, prefix);
    }

    /// Whether the seat was still this VM's, and now holds the entry.
    fn write(&self, host: &mut impl Host, prefix: &str, entry: Entry) -> bool {
        let Some(index) = self.index else { return false };
        match read(host, prefix, index) {
            Some((Some(Entry { vm, config, .. }), version))
                if (vm, config) == (self.vm, self.config) =>
            {
                host.set(&key(prefix, index), &encoded(&entry), Expect::Version(version)).is_ok()
            }
            _ => false,
        }
    }
}

/// What a VM sees of the others.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Of each seat the VM, what it wrote last, and for how many ticks that has been so.
    seen: Vec<(u64, Timestamp, u32)>,
}

impl Watch {
    /// The configurations of the VMs that live. With each tick that passes, a VM that is silent comes
    /// closer to being dead; of one that was seen for the first time only the time tells.
    pub(crate) fn live_configurations(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        ticks: u32,
        now: Timestamp,
    ) -> BTreeSet<ConfigId> {
        let mut live = BTreeSet::new();
        let mut before = core::mem::take(&mut self.seen).into_iter();
        for index in 0..VMS_MAX {
            let Some((entry, _)) = read(host, prefix, index) else { break };
            let before = before.next();
            let Some(entry) = entry else {
                self.seen.push((0, Timestamp::default(), 0));
                continue;
            };
            let is_same = |(vm, at, _): &(u64, Timestamp, u32)| (*vm, *at) == (entry.vm, entry.at);
            let silent_ticks =
                before.filter(is_same).map_or(0, |(_, _, silent)| silent.saturating_add(ticks));
            self.seen.push((entry.vm, entry.at, silent_ticks));
            if silent_ticks < VM_SILENT_TICKS_MAX && entry.is_alive(now) {
                live.insert(entry.config);
            }
        }
        live
    }
}

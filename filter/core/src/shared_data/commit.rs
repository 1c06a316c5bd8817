//! The accountant's state in shared data: a lease, and slots that change together or not at all.
//!
//! To the next maintainer: shared data writes one key at a time. A VM can die between any two
//! writes, or pause for seconds and then continue. So a commit has three steps: (1) the accountant
//! writes all new slot values under one *redo* key; (2) it writes the *head*, if the head is still
//! as this VM read it: this write is the commit; (3) it writes the slots. A VM that takes the lease
//! repeats step 3 from the redo key. Each term has its own redo key (one of `REDO_KEYS`), and each
//! slot carries the term and the number of the commit that wrote it, so a VM that wakes up late can
//! neither commit nor overwrite what its successor wrote.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::base::encoded::encoded;
use crate::base::limits::{LEASE_TICKS_LAST, LEASE_TICKS_MAIN, LEASE_TICKS_WORKER};
use crate::host::{Conflict, Expect, Host};

/// Redo keys, which terms use in turn, so that a VM of an old term cannot touch the current one.
const REDO_KEYS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    term: u64,
    /// True if the holder gave the lease back.
    is_released: bool,
    /// Counts the holder's ticks.
    beat: u64,
    /// The last commit, and the term whose redo key contains it.
    commit: u64,
    redo_term: u64,
}

/// Precedes the value of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct CommitId {
    term: u64,
    commit: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Redo {
    stamp: CommitId,
    writes: Vec<(String, ByteBuf)>,
}

fn head_key(prefix: &str) -> String {
    format!("{prefix}h")
}

fn redo_key(prefix: &str, term: u64) -> String {
    format!("{prefix}r{}", term % REDO_KEYS)
}

fn read_head(host: &mut impl Host, prefix: &str) -> Option<(Head, u32)> {
    let (bytes, version) = host.get(&head_key(prefix))?;
    // A head from another version of this module counts as a lease that nobody holds.
    let nobody = Head { term: 0, is_released: true, beat: 0, commit: 0, redo_term: 0 };
    Some((postcard::from_bytes(&bytes).unwrap_or(nobody), version))
}

fn write_head(
    host: &mut impl Host,
    prefix: &str,
    head: Head,
    expect: Expect,
) -> Result<(), Conflict> {
    host.set(&head_key(prefix), &encoded(&head), expect)
}

/// The value of a slot, or `None` if it was never written or was emptied.
pub fn read_slot(host: &mut impl Host, key: &str) -> Option<Vec<u8>> {
    let (bytes, _) = host.get(key)?;
    let (_, value) = postcard::take_from_bytes::<CommitId>(&bytes).ok()?;
    (!value.is_empty()).then(|| value.to_vec())
}

/// A VM that does not hold the lease and watches the holder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate {
    last_seen: Option<(u64, u64)>,
    silent_ticks: u32,
}

impl Candidate {
    /// Checks the head once for each tick. Takes the lease if its holder has been silent for long
    /// enough. `as_worker` is `None` if the VM may not take it now, and else distinguishes a
    /// worker's VM from the one on the main thread, which should hold the lease.
    pub(crate) fn tick(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        as_worker: Option<bool>,
    ) -> Option<Lease> {
        let found = read_head(host, prefix);
        let seen = found.map(|(head, _)| (head.term, head.beat));
        if seen == self.last_seen {
            self.silent_ticks = self.silent_ticks.saturating_add(1);
        } else {
            self.last_seen = seen;
            self.silent_ticks = 0;
        }
        let is_worker = as_worker?;
        let ticks_max = if is_worker { LEASE_TICKS_WORKER } else { LEASE_TICKS_MAIN };
        if self.silent_ticks >= ticks_max || (is_vacant(found) && !is_worker) {
            self.silent_ticks = 0;
            return take(host, prefix, found);
        }
        None
    }

    /// Takes the lease when Envoy stops, if nobody holds it or its holder seems to be dead. Envoy
    /// stops the VM on the main thread last; if that VM lives and holds the lease, it does the
    /// remaining work.
    pub(crate) fn take_last(&mut self, host: &mut impl Host, prefix: &str) -> Option<Lease> {
        let found = read_head(host, prefix);
        if is_vacant(found) || self.is_dead(found) { take(host, prefix, found) } else { None }
    }

    /// Gives back the lease of a holder that seems to be dead, when this VM stops and leaves its work
    /// to others: they may have come a moment ago, and have not seen that it is silent.
    pub(crate) fn free_dead(&self, host: &mut impl Host, prefix: &str) {
        let found = read_head(host, prefix);
        if let Some((head, version)) = found.filter(|_| !is_vacant(found) && self.is_dead(found)) {
            let free = Head { is_released: true, ..head };
            // On a conflict it lives, or another VM was faster.
            let _ = write_head(host, prefix, free, Expect::Version(version));
        }
    }

    /// Whether the holder has been silent for as long as this VM has looked, and long enough.
    fn is_dead(&self, found: Option<(Head, u32)>) -> bool {
        let is_same = found.map(|(head, _)| (head.term, head.beat)) == self.last_seen;
        is_same && self.silent_ticks >= LEASE_TICKS_LAST
    }
}

fn is_vacant(found: Option<(Head, u32)>) -> bool {
    found.is_none_or(|(head, _)| head.is_released)
}

fn take(host: &mut impl Host, prefix: &str, found: Option<(Head, u32)>) -> Option<Lease> {
    let (head, expect) = match found {
        None => {
            (Head { term: 1, is_released: false, beat: 0, commit: 0, redo_term: 0 }, Expect::Absent)
        }
        Some((head, version)) => (
            Head { term: head.term.saturating_add(1), is_released: false, ..head },
            Expect::Version(version),
        ),
    };
    write_head(host, prefix, head, expect).ok()?;
    let lease = Lease { head };
    lease.repeat(host, prefix).ok()?;
    Some(lease)
}

/// The right to write the accountant's state.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    head: Head,
}

/// Proof that the VM held the lease a moment ago, with the version that a commit needs; valid for
/// one commit.
#[derive(Debug)]
pub struct Held {
    version: u32,
}

impl Lease {
    /// How often the lease has changed hands; unique for each holder.
    pub(crate) fn term(&self) -> u64 {
        self.head.term
    }

    /// Checks that this VM still holds the lease.
    pub(crate) fn check(&self, host: &mut impl Host, prefix: &str) -> Result<Held, Conflict> {
        match read_head(host, prefix) {
            Some((head, version)) if head == self.head => Ok(Held { version }),
            _ => Err(Conflict),
        }
    }

    /// Writes all of the slots or none. `Err` means that another VM has taken over: this commit was
    /// kept in full or not at all, and the caller must discard its state in memory.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used up")]
    pub(crate) fn commit(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        held: Held,
        writes: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Conflict> {
        let mut head = Head { beat: self.head.beat.wrapping_add(1), ..self.head };
        let Held { version } = held;
        if writes.is_empty() {
            write_head(host, prefix, head, Expect::Version(version))?;
            self.head = head;
            return Ok(());
        }
        head.commit = head.commit.saturating_add(1);
        head.redo_term = head.term;
        let stamp = CommitId { term: head.term, commit: head.commit };
        let writes = writes.into_iter().map(|(key, value)| (key, ByteBuf::from(value)));
        let redo = Redo { stamp, writes: writes.collect() };
        let bytes = encoded(&redo);
        host.set(&redo_key(prefix, head.term), &bytes, Expect::Any)?;
        write_head(host, prefix, head, Expect::Version(version))?;
        self.head = head;
        apply(host, &redo.writes, stamp)
    }

    /// Gives the lease back, so that the next VM does not have to wait.
    pub(crate) fn release(self, host: &mut impl Host, prefix: &str) {
        if let Ok(Held { version }) = self.check(host, prefix) {
            let head = Head { is_released: true, ..self.head };
            // On a conflict another VM already holds it.
            let _ = write_head(host, prefix, head, Expect::Version(version));
        }
    }

    /// Repeats the writes of the last commit, which the previous holder may not have finished.
    fn repeat(&self, host: &mut impl Host, prefix: &str) -> Result<(), Conflict> {
        let Some((bytes, _)) = host.get(&redo_key(prefix, self.head.redo_term)) else {
            return Ok(());
        };
        let Ok(redo) = postcard::from_bytes::<Redo>(&bytes) else { return Ok(()) };
        // An earlier holder wrote the redo record of a later commit, but never made that commit.
        if redo.stamp != (CommitId { term: self.head.redo_term, commit: self.head.commit }) {
            return Ok(());
        }
        let stamp = CommitId { term: self.head.term, commit: self.head.commit };
        apply(host, &redo.writes, stamp)
    }
}

fn apply(
    host: &mut impl Host,
    writes: &[(String, ByteBuf)],
    stamp: CommitId,
) -> Result<(), Conflict> {
    let mut bytes = encoded(&stamp);
    let head = bytes.len();
    for (key, value) in writes {
        let expect = match host.get(key) {
            None => Expect::Absent,
            Some((bytes, version)) => match postcard::take_from_bytes::<CommitId>(&bytes) {
                Ok((found, _)) if found > stamp => return Err(Conflict),
                _ => Expect::Version(version),
            },
        };
        bytes.truncate(head);
        bytes.extend_from_slice(value);
        host.set(key, &bytes, expect)?;
    }
    Ok(())
}

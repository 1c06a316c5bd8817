//! How facts get from a worker to the accountant without waking another thread: each worker VM has
//! a ring of pages in shared data, with one writer and one reader.
//!
//! To the next maintainer: the keys, after the plugin's prefix, are `j{i}` for the owner record and
//! `j{i}.{half}.{slot}` for the pages. A journal belongs to one VM for one *epoch*. The writer
//! keeps its last page in memory, appends to it, and writes the whole page with one call. It may
//! start page `n` only after the reader has gone beyond page `n - JOURNAL_PAGES`. The reader looks
//! for page `n + 1` *before* it reads page `n`: if the next page exists, page `n` is final. A VM
//! that dies leaves its journal as it is. When the owner's beat has not moved for long and the
//! reader has read everything, the reader marks the journal as free. The next VM takes it with the
//! next epoch, in the other half of the keys, so that the reader still finds a late fact of the old
//! owner. The beat counts ticks, because clocks may step. Writers may be as fast as the reader for
//! long, so the reader is not always at the end of a journal: see [`Poll::is_complete`].

use serde::{Deserialize, Serialize};

use crate::base::encoded::encoded;
use crate::base::limits::{
    JOURNAL_ORPHAN_READINGS, JOURNAL_PAGE_BYTES_MAX, JOURNAL_PAGES, JOURNALS_MAX,
};
use crate::host::{Conflict, Expect, Host};
use crate::shared_data::commit::read_slot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    epoch: u32,
    is_free: bool,
    /// Counts the owner's ticks.
    beat: u32,
}

/// Precedes the facts of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PageHead {
    epoch: u32,
    number: u64,
}

/// The position of the reader in one journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch that the reader is reading.
    pub(crate) epoch: u32,
    /// The page that the reader is reading.
    pub page: u64,
    /// The number of facts of that page that the reader has read.
    pub facts: u32,
}

fn owner_key(prefix: &str, index: u32) -> String {
    format!("{prefix}j{index}")
}

fn page_key(prefix: &str, index: u32, epoch: u32, page: u64) -> String {
    format!("{prefix}j{index}.{}.{}", epoch % 2, page % JOURNAL_PAGES)
}

/// The key under which the accountant keeps its cursor for a journal.
pub(crate) fn cursor_key(prefix: &str, index: u32) -> String {
    format!("{prefix}c{index}")
}

fn read<T: for<'a> Deserialize<'a>>(host: &mut impl Host, key: &str) -> Option<(Option<T>, u32)> {
    host.get(key).map(|(bytes, version)| (postcard::from_bytes(&bytes).ok(), version))
}

/// The writer could not store the fact: its journal is full, or none is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The worker's end of its journal.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    index: u32,
    epoch: u32,
    beat: u32,
    page: u64,
    /// The key of that page; empty until it is needed.
    key: String,
    name: String,
    bytes: Vec<u8>,
    /// The first page that the reader has not finished, as far as the writer knows.
    reader_page: u64,
}

impl Writer {
    /// Names the journal and its epoch; no two owners have the same name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Claims the first free journal.
    pub(crate) fn claim(host: &mut impl Host, prefix: &str) -> Result<Self, Full> {
        for index in 0..JOURNALS_MAX {
            let key = owner_key(prefix, index);
            let (epoch, expect) = match read::<Owner>(host, &key) {
                None => (1, Expect::Absent),
                Some((Some(owner), version)) if owner.is_free => {
                    (owner.epoch.wrapping_add(1), Expect::Version(version))
                }
                Some(_) => continue,
            };
            let owner = Owner { epoch, is_free: false, beat: 0 };
            // A conflict means that another VM was faster: try the next journal.
            if host.set(&key, &encoded(&owner), expect).is_ok() {
                let bytes = encoded(&PageHead { epoch, number: 0 });
                let (name, key) = (format!("{index}.{epoch}"), String::new());
                return Ok(Self {
                    index,
                    epoch,
                    beat: 0,
                    page: 0,
                    key,
                    name,
                    bytes,
                    reader_page: 0,
                });
            }
        }
        Err(Full)
    }

    /// Appends a fact. The fact is in shared data when this function returns `Ok`.
    pub(crate) fn append(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        fact: &[u8],
    ) -> Result<(), Full> {
        let length = u16::try_from(fact.len()).map_err(|_| Full)?;
        let needed = self.bytes.len().saturating_add(2).saturating_add(fact.len());
        if needed > JOURNAL_PAGE_BYTES_MAX {
            self.next_page(host, prefix)?;
        }
        let kept = self.bytes.len();
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(fact);
        if self.key.is_empty() {
            self.key = page_key(prefix, self.index, self.epoch, self.page);
        }
        let written = host.set(&self.key, &self.bytes, Expect::Any);
        written.map_err(|Conflict| {
            self.bytes.truncate(kept);
            Full
        })
    }

    /// Shows that the VM is alive. `Err` means that another VM owns the journal or may claim it:
    /// the caller must claim a new one.
    pub(crate) fn beat(&mut self, host: &mut impl Host, prefix: &str) -> Result<(), Conflict> {
        let key = owner_key(prefix, self.index);
        let Some((Some(owner), version)) = read::<Owner>(host, &key) else { return Err(Conflict) };
        if owner.is_free || owner.epoch != self.epoch {
            return Err(Conflict);
        }
        self.beat = self.beat.wrapping_add(1);
        let owner = Owner { beat: self.beat, ..owner };
        host.set(&key, &encoded(&owner), Expect::Version(version))
    }

    fn next_page(&mut self, host: &mut impl Host, prefix: &str) -> Result<(), Full> {
        let next = self.page.saturating_add(1);
        let is_free = |reader_page: u64| next.saturating_sub(reader_page) < JOURNAL_PAGES;
        if !is_free(self.reader_page) {
            let cursor = read_slot(host, &cursor_key(prefix, self.index));
            if let Some(cursor) =
                cursor.and_then(|bytes| postcard::from_bytes::<Cursor>(&bytes).ok())
                && cursor.epoch == self.epoch
            {
                self.reader_page = cursor.page;
            }
            if !is_free(self.reader_page) {
                return Err(Full);
            }
        }
        self.page = next;
        self.key.clear();
        self.bytes = encoded(&PageHead { epoch: self.epoch, number: next });
        Ok(())
    }
}

/// What one call of [`Reader::poll`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// The new facts: see [`crate::fact::Fact::decode`].
    pub facts: Vec<Vec<u8>>,
    /// True if this call completed a reading: the reader has read everything that the writers had
    /// written when the reading began.
    pub is_complete: bool,
    /// True if this call read everything that the writers had written when the call began.
    pub is_drained: bool,
}

/// The accountant's end of all journals.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    journals: Vec<Journal>,
    /// The place of the journal from which the next page comes.
    next: usize,
    /// True from the first call of a reading to the one that completes it.
    is_reading: bool,
}

#[derive(Clone, Debug, Default)]
struct Journal {
    index: u32,
    /// The owner's record and its version, unless it cannot be read.
    owner: Option<(Owner, u32)>,
    cursor: Cursor,
    is_moved: bool,
    last_beat: u32,
    /// Readings in a row without a sign of life of the owner.
    silent_readings: u32,
    /// Pages of the present epoch that the reader has left behind in this reading.
    pages_read: u64,
    /// True if the reader was at the end during this call.
    is_at_end: bool,
    /// True if the reader was at the end during this reading.
    was_drained: bool,
}

impl Reader {
    /// Continues at the cursors in shared data.
    pub fn resume(host: &mut impl Host, prefix: &str) -> Self {
        let mut journals = Vec::new();
        for index in 0..JOURNALS_MAX {
            if host.get(&owner_key(prefix, index)).is_none() {
                break;
            }
            let cursor = read_slot(host, &cursor_key(prefix, index))
                .and_then(|bytes| postcard::from_bytes(&bytes).ok())
                .unwrap_or_default();
            journals.push(Journal { index, cursor, ..Journal::default() });
        }
        Self { journals, ..Self::default() }
    }

    /// Reads up to `facts_max` new facts, and the rest of the page that contains the last of them.
    pub fn poll(&mut self, host: &mut impl Host, prefix: &str, facts_max: usize) -> Poll {
        let is_first = !core::mem::replace(&mut self.is_reading, true);
        self.look_at_owners(host, prefix, is_first);
        let mut facts = Vec::new();
        let is_drained = self.read_pages(host, prefix, facts_max, &mut facts);
        let is_complete = is_drained || self.journals.iter().all(Journal::is_read);
        self.is_reading = !is_complete;
        Poll { facts, is_complete, is_drained }
    }

    /// Finds new journals, and which owners have given a sign of life since the last reading.
    fn look_at_owners(&mut self, host: &mut impl Host, prefix: &str, is_first: bool) {
        let mut index: u32 = 0;
        for at in 0.. {
            let Some((owner, version)) = read::<Owner>(host, &owner_key(prefix, index)) else {
                return;
            };
            if self.journals.len() == at {
                self.journals.push(Journal { index, ..Journal::default() });
            }
            if let Some(journal) = self.journals.get_mut(at) {
                journal.owner = owner.map(|owner| (owner, version));
                journal.is_at_end = false;
                if is_first {
                    journal.reading_begins();
                }
            }
            index = index.saturating_add(1);
        }
    }

    /// Reads a page of each journal in turn, so that a worker with many facts does not keep those of
    /// the others waiting. The next call goes on where this one has stopped. Returns whether nothing
    /// is left.
    fn read_pages(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        facts_max: usize,
        facts: &mut Vec<Vec<u8>>,
    ) -> bool {
        let count = self.journals.len();
        // How many in a row are at their end.
        let mut ended: usize = 0;
        while ended < count {
            if facts.len() >= facts_max {
                return false;
            }
            let at = self.next.checked_rem(count).unwrap_or_default();
            self.next = at.saturating_add(1);
            let Some(journal) = self.journals.get_mut(at) else { return false };
            if !journal.is_at_end {
                journal.is_at_end = journal.read_page(host, prefix, facts);
            }
            ended = if journal.is_at_end { ended.saturating_add(1) } else { 0 };
        }
        true
    }

    /// The cursors that moved since the last call, with the numbers of their journals.
    pub(crate) fn take_moved(&mut self) -> Vec<(u32, Cursor)> {
        let mut moved = Vec::new();
        for (index, journal) in (0..).zip(&mut self.journals) {
            if core::mem::take(&mut journal.is_moved) {
                moved.push((index, journal.cursor));
            }
        }
        moved
    }
}

impl Journal {
    /// True if the reader has read everything that was there when the reading began: a journal
    /// never has more pages than [`JOURNAL_PAGES`].
    fn is_read(&self) -> bool {
        self.was_drained || self.pages_read >= JOURNAL_PAGES
    }

    /// Notes that a reading of all journals begins.
    fn reading_begins(&mut self) {
        (self.pages_read, self.was_drained) = (0, false);
        let Some((owner, _)) = self.owner else { return };
        if owner.beat != self.last_beat {
            self.last_beat = owner.beat;
            self.silent_readings = 0;
        } else if !owner.is_free {
            self.silent_readings = self.silent_readings.saturating_add(1);
        }
    }

    /// Reads the present page. Returns whether nothing is left behind it.
    fn read_page(&mut self, host: &mut impl Host, prefix: &str, facts: &mut Vec<Vec<u8>>) -> bool {
        let Some((owner, version)) = self.owner else { return true };
        // The facts that the previous owner left come first.
        if !self.read_own_page(host, prefix, facts) {
            return false;
        }
        if self.cursor.epoch != owner.epoch {
            self.cursor = Cursor { epoch: owner.epoch, page: 0, facts: 0 };
            self.pages_read = 0;
            self.is_moved = true;
            return false;
        }
        if self.silent_readings >= JOURNAL_ORPHAN_READINGS {
            self.silent_readings = 0;
            let free = Owner { is_free: true, ..owner };
            // On a conflict the owner is alive after all.
            let key = owner_key(prefix, self.index);
            let _ = host.set(&key, &encoded(&free), Expect::Version(version));
        }
        self.was_drained = true;
        true
    }

    /// The same for the epoch that the reader is reading.
    fn read_own_page(
        &mut self,
        host: &mut impl Host,
        prefix: &str,
        facts: &mut Vec<Vec<u8>>,
    ) -> bool {
        let epoch = self.cursor.epoch;
        if epoch == 0 {
            return true;
        }
        let next = self.cursor.page.saturating_add(1);
        let has_next = page(host, prefix, self.index, epoch, next).is_some();
        let page = page(host, prefix, self.index, epoch, self.cursor.page).unwrap_or_default();
        let mut rest = page.as_slice();
        let mut place: u32 = 0;
        while let Some((fact, behind)) = split_fact(rest) {
            rest = behind;
            if place >= self.cursor.facts {
                facts.push(fact.to_vec());
            }
            place = place.saturating_add(1);
        }
        if place > self.cursor.facts {
            self.cursor.facts = place;
            self.is_moved = true;
        }
        if has_next {
            self.cursor = Cursor { epoch, page: next, facts: 0 };
            self.pages_read = self.pages_read.saturating_add(1);
            self.is_moved = true;
        }
        !has_next
    }
}

/// The facts of a page, if shared data contains the page with this epoch and number.
fn page(
    host: &mut impl Host,
    prefix: &str,
    index: u32,
    epoch: u32,
    number: u64,
) -> Option<Vec<u8>> {
    let (bytes, _) = host.get(&page_key(prefix, index, epoch, number))?;
    let (head, facts) = postcard::take_from_bytes::<PageHead>(&bytes).ok()?;
    (head == PageHead { epoch, number }).then(|| facts.to_vec())
}

fn split_fact(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

//! Remembers in a file how far each log has been read, by the beginning of the log: so a log that
//! was renamed, copied or compressed since is known again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex::hex;

/// How much of a log tells it from others: some lines, with their times.
const HEAD_BYTES_MAX: u64 = 1024;
/// The version of the file.
const VERSION: u32 = 1;
/// The most logs that are remembered under one path: what waits, and what rotation keeps.
const LOGS_MAX: usize = 96;

/// The beginning of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// How many bytes.
    bytes: u64,
    /// Their SHA-256.
    sha256: String,
}

impl Head {
    /// Reads the beginning of a log that stands at its start.
    pub(super) fn read(log: impl Read) -> io::Result<Self> {
        let mut start = Vec::new();
        log.take(HEAD_BYTES_MAX).read_to_end(&mut start)?;
        Ok(Self { bytes: start.len() as u64, sha256: hex(&Sha256::digest(&start)) })
    }

    /// Whether a log that stands at its start begins so.
    pub(super) fn is_of(&self, log: impl Read) -> io::Result<bool> {
        let mut start = Vec::new();
        log.take(self.bytes).read_to_end(&mut start)?;
        Ok(self.bytes > 0 && hex(&Sha256::digest(&start)) == self.sha256)
    }

    /// Whether the log may have grown beyond what was seen of its beginning.
    pub(super) fn is_short(&self) -> bool {
        self.bytes < HEAD_BYTES_MAX
    }
}

/// How far a log was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) head: Head,
    /// The first byte that may not have arrived at the target.
    pub(super) offset: u64,
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// By the path under which they are followed, the latest last.
    logs: BTreeMap<String, Vec<Position>>,
}

impl State {
    /// Reads the file; without one nothing has been read.
    ///
    /// # Errors
    ///
    /// If it is there and no state of this version.
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
        let state: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{name}: no state of `recover --follow`"))?;
        ensure!(state.version == VERSION, "{name}: version {} is not known", state.version);
        Ok(state)
    }

    /// The positions that were known under a path, the latest first.
    pub(super) fn under(&self, path: &Path) -> impl Iterator<Item = &Position> {
        self.logs.get(&key(path)).into_iter().flatten().rev()
    }

    /// Adds what is known of the logs under a path, the oldest first; says whether anything is new.
    /// Others stay known for a while, as their files may still be there.
    pub(super) fn set(&mut self, path: &Path, positions: Vec<Position>) -> bool {
        if positions.is_empty() {
            return false;
        }
        let known = self.logs.entry(key(path)).or_default();
        if positions.iter().all(|position| known.contains(position)) {
            return false;
        }
        known.retain(|old| !positions.iter().any(|new| new.head == old.head));
        known.extend(positions);
        let surplus = known.len().saturating_sub(LOGS_MAX);
        known.drain(..surplus);
        true
    }

    /// Forgets a path that is gone.
    pub(super) fn forget(&mut self, path: &Path) {
        self.logs.remove(&key(path));
    }

    /// Forgets all paths that are gone.
    pub(super) fn forget_gone(&mut self) {
        self.logs.retain(|path, _| Path::new(path).exists());
    }

    /// Writes the file, whole or not at all.
    pub(super) fn save(&mut self, file: &Path) -> anyhow::Result<()> {
        self.version = VERSION;
        let aside = file.with_extension("new");
        let write = || {
            let mut out = fs::File::create(&aside)?;
            out.write_all(&serde_json::to_vec(&self)?)?;
            out.sync_all()?;
            fs::rename(&aside, file)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The path as the file names it.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

//! The ledger: a SQLite file with every event, written by one connection (`writer.rs`) and read by
//! another.
//! An event goes `intake` -> `derive` -> the tables of `tables.rs`; guards go through `fleet`.
//!
//! To the next maintainer. `events` is the truth; `calls`, `generations` and `sessions` are derived
//! from it in the transaction that stores an event, and are made again from `raw` when an older
//! file is opened. Events may arrive in any order, so the tables must be the same in each order: a
//! call and a generation are rows of their own, and a session is the event with the highest
//! `fold_order`. A change of the tables needs a new `SCHEMA_VERSION` in `schema.rs`.

mod column;
pub(crate) mod decide;
mod derive;
mod files;
pub(crate) mod fleet;
pub(crate) mod handover;
mod health;
pub(crate) mod intake;
pub(crate) mod lost;
mod outgoing;
mod quarantine;
pub(crate) mod receipt;
mod schema;
mod sources;
mod sums;
pub(crate) mod tables;
pub(crate) mod tally;
mod tokens;
pub(crate) mod units;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, OpenFlags, Transaction};

use crate::clock::Clock;
use crate::ledger::schema::{prepare, reader};
use crate::ledger::tally::Tally;
use crate::ledger::writer::{Writer, lock};

/// A handle to one ledger; a clone is the same ledger. Its calls block, so keep them off async
/// threads.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    url: String,
    /// `None` in memory.
    path: Option<PathBuf>,
    clock: Clock,
    writer: Writer,
    /// `None` in memory, where a second connection would be a second database.
    reader: Option<Mutex<Connection>>,
    /// Counts since the ledger was opened.
    tally: Mutex<Tally>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.0.url).finish()
    }
}

impl Ledger {
    /// Opens or creates a ledger: `sqlite::memory:`, `sqlite:PATH`, `sqlite://PATH` or a path.
    ///
    /// # Errors
    ///
    /// Names the URL if it has another scheme, or if the file is no ledger or a newer program's.
    pub fn open(url: &str) -> anyhow::Result<Ledger> {
        Ledger::open_at(url, Clock::default())
    }

    /// The same, with another clock than the machine's.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub fn open_at(url: &str, clock: Clock) -> anyhow::Result<Ledger> {
        let path = file_of(url)?;
        let open = || -> anyhow::Result<_> {
            let Some(path) = &path else {
                return Ok((prepare(Connection::open_in_memory()?)?, None));
            };
            files::keep_private(path);
            let writer = prepare(Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE
                    | OpenFlags::SQLITE_OPEN_CREATE
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?)?;
            Ok((writer, Some(Mutex::new(reader(path)?))))
        };
        let (writer, reader) = open().with_context(|| format!("ledger {url:?}"))?;
        let (url, writer, tally) = (url.to_owned(), Writer::new(writer), Mutex::default());
        Ok(Ledger(Arc::new(Shared { url, path, clock, writer, reader, tally })))
    }

    /// Opens a ledger only if its file exists, so that a misspelt name is an error and not an empty
    /// ledger.
    ///
    /// # Errors
    ///
    /// If there is no file, and as [`Ledger::open`].
    pub fn open_existing(url: &str) -> anyhow::Result<Ledger> {
        if let Some(path) = file_of(url)? {
            ensure!(path.is_file(), "no ledger at {url}");
        }
        Ledger::open(url)
    }

    /// Runs queries on one snapshot of the ledger, while the writer goes on.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(reader) = &self.0.reader else { return self.0.writer.alone().read(work) };
        work(&lock(reader).transaction()?)
    }

    /// Changes the ledger: does all of `work` or nothing.
    pub(crate) fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.0.writer.alone().write(work)
    }

    /// Bytes of the ledger on disk; in memory, of its pages.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        if let Some(path) = &self.0.path {
            return Ok(files::bytes(path));
        }
        self.read(|ledger| {
            let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
            let bytes: i64 = ledger.query_row(sql, [], |row| row.get(0))?;
            Ok(bytes.unsigned_abs())
        })
    }

    /// Milliseconds since 1970, UTC.
    pub(crate) fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.0.tally).clone()
    }
}

/// The path in a URL; `None` for a ledger in memory.
fn file_of(url: &str) -> anyhow::Result<Option<PathBuf>> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        bail!("ledger: postgres:// is not supported yet, expected sqlite:PATH");
    }
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
    match path {
        ":memory:" => Ok(None),
        "" => bail!("ledger: no path in {url:?}, expected sqlite:PATH or sqlite::memory:"),
        path if path.contains("://") => {
            bail!("ledger: unknown scheme in {url:?}, expected sqlite:PATH or sqlite::memory:")
        }
        path => Ok(Some(PathBuf::from(path))),
    }
}

//! The ledger: a database with every event. It is a SQLite file, written by one connection
//! (`writer.rs`) and read by another, or a database of PostgreSQL, which many collectors share.
//! An event goes `intake` -> `derive` -> the tables of `tables.rs`, and from there into the sums by
//! hour of `hours`; guards go through `fleet`.
//!
//! To the next maintainer. `events` is the truth; `calls`, `generations` and `sessions` are derived
//! from it in the transaction that stores an event, and are made again from `raw` when an older
//! file is opened. Events may arrive in any order, so the tables must be the same in each order: a
//! call and a generation are rows of their own, and a session is the event with the highest
//! `fold_order`. A change of the tables needs a new `SCHEMA_VERSION` in `schema.rs`.

pub(crate) mod balance;
pub(crate) mod column;
pub(crate) mod corrected;
pub(crate) mod corrections;
pub(crate) mod decide;
mod derive;
pub(crate) mod digest;
mod files;
pub(crate) mod fleet;
pub(crate) mod follow;
pub(crate) mod handover;
mod health;
pub(crate) mod hours;
pub(crate) mod in_force;
pub(crate) mod intake;
pub(crate) mod invoices;
mod lists;
pub(crate) mod lost;
pub(crate) mod merges;
mod outgoing;
mod quarantine;
pub(crate) mod receipt;
mod schema;
mod sources;
pub(crate) mod tables;
pub(crate) mod tally;
mod tokens;
pub(crate) mod top_ups;
pub(crate) mod units;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::clock::Clock;
use crate::ledger::balance::settled::Settled;
use crate::ledger::schema::{prepare, prepare_postgres, reader};
use crate::ledger::tally::Tally;
use crate::ledger::writer::{Writer, lock};
use crate::sql::postgres::Postgres;
use crate::sql::{self, Transaction};

/// A handle to one ledger; a clone is the same ledger. Its calls block, so keep them off async
/// threads.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    /// As it is shown: without a password.
    name: String,
    clock: Clock,
    database: Database,
    /// Counts since the ledger was opened.
    tally: Mutex<Tally>,
    /// What balances had come to when their usage was past.
    settled: Settled,
}

enum Database {
    Sqlite(Box<Sqlite>),
    Postgres(Postgres),
}

struct Sqlite {
    /// `None` in memory.
    path: Option<PathBuf>,
    /// `None` in memory, where a second connection would be a second database. It is closed before
    /// the writer: the last connection brings the log of writes into the file, and only if it may
    /// write.
    reader: Option<Mutex<Connection>>,
    writer: Writer,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.0.name).finish()
    }
}

impl Ledger {
    /// Opens or creates a ledger: `sqlite::memory:`, `sqlite:PATH`, `sqlite://PATH` or a path, or
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    ///
    /// # Errors
    ///
    /// Names the URL, without its password, if it has another scheme, if the file or the database is
    /// no ledger or a newer program's, or if the server does not answer.
    pub fn open(url: &str) -> anyhow::Result<Ledger> {
        Ledger::open_at(url, Clock::default())
    }

    /// The same, with another clock than the machine's.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    pub fn open_at(url: &str, clock: Clock) -> anyhow::Result<Ledger> {
        Ledger::open_with(url, None, clock)
    }

    /// The same, with another database for queries, such as a replica of PostgreSQL.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`], and if only one of the URLs names PostgreSQL.
    pub fn open_with(url: &str, read_url: Option<&str>, clock: Clock) -> anyhow::Result<Ledger> {
        let name = shown(url);
        let database = match location(url)? {
            Location::Sqlite(path) => {
                ensure!(read_url.is_none(), "ledger: only PostgreSQL has a second URL for queries");
                Sqlite::open(path).map(|opened| Database::Sqlite(Box::new(opened)))
            }
            Location::Postgres => open_postgres(url, read_url).map(Database::Postgres),
        };
        let database = database.with_context(|| format!("ledger {name:?}"))?;
        let tally = Mutex::default();
        Ok(Ledger(Arc::new(Shared { name, clock, database, tally, settled: Settled::default() })))
    }

    /// Opens a ledger only if it is there, so that a misspelt name is an error and not an empty
    /// ledger.
    ///
    /// # Errors
    ///
    /// If there is none, and as [`Ledger::open`].
    pub fn open_existing(url: &str) -> anyhow::Result<Ledger> {
        let is_there = match location(url)? {
            Location::Sqlite(path) => path.is_none_or(|path| path.is_file()),
            Location::Postgres => has_tables(url).with_context(|| shown(url))?,
        };
        ensure!(is_there, "no ledger at {}", shown(url));
        Ledger::open(url)
    }

    /// Runs queries on one snapshot of the ledger, while the writer goes on.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match &self.0.database {
            Database::Postgres(postgres) => postgres.read(work),
            Database::Sqlite(sqlite) => match &sqlite.reader {
                Some(reader) => work(&Transaction::Sqlite(&*lock(reader).transaction()?)),
                None => sqlite.writer.alone().read(work),
            },
        }
    }

    /// The same on what is committed last, without waiting for reports that read.
    pub(crate) fn read_committed<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match &self.0.database {
            Database::Postgres(postgres) => postgres.read(work),
            Database::Sqlite(sqlite) => sqlite.writer.alone().read(work),
        }
    }

    /// Changes the ledger: does all of `work` or nothing.
    pub(crate) fn write<T, E: From<sql::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        match &self.0.database {
            Database::Postgres(postgres) => postgres.write(work),
            Database::Sqlite(sqlite) => sqlite.writer.alone().write(work),
        }
    }

    /// The same for a batch of so many events, perhaps together with others. `work` may run again.
    pub(crate) fn write_batch<T, E: From<sql::Error>>(
        &self,
        events: usize,
        work: impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        match &self.0.database {
            Database::Postgres(postgres) => postgres.write(work),
            Database::Sqlite(sqlite) => sqlite.writer.together(events, work),
        }
    }

    /// Bytes of the ledger on disk; in memory, of its pages; in PostgreSQL, of the database.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        let sql = match &self.0.database {
            Database::Sqlite(sqlite) => match &sqlite.path {
                Some(path) => return Ok(files::bytes(path)),
                None => "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            },
            Database::Postgres(_) => "SELECT pg_database_size(current_database())",
        };
        self.read(|ledger| {
            let bytes: i64 = ledger.prepare_cached(sql)?.query_row(&[], |row| row.get(0))?;
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

impl Sqlite {
    /// Opens or creates a file; in memory without a path.
    fn open(path: Option<PathBuf>) -> anyhow::Result<Sqlite> {
        let Some(path) = path else {
            let writer = Writer::new(prepare(Connection::open_in_memory()?)?);
            return Ok(Sqlite { path: None, reader: None, writer });
        };
        files::keep_private(&path);
        let writer = prepare(Connection::open_with_flags(
            &path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?)?;
        let reader = Some(Mutex::new(reader(&path)?));
        Ok(Sqlite { path: Some(path), reader, writer: Writer::new(writer) })
    }
}

fn open_postgres(url: &str, read_url: Option<&str>) -> anyhow::Result<Postgres> {
    let postgres = Postgres::open(url, read_url)?;
    postgres.write(prepare_postgres)?;
    Ok(postgres)
}

/// Whether a database of PostgreSQL has the tables of a ledger.
fn has_tables(url: &str) -> anyhow::Result<bool> {
    Postgres::open(url, None)?.read(|ledger| Ok(schema::version_of_postgres(ledger)?.is_some()))
}

/// Where a ledger is.
enum Location {
    /// In this file; `None` in memory.
    Sqlite(Option<PathBuf>),
    Postgres,
}

fn location(url: &str) -> anyhow::Result<Location> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Location::Postgres);
    }
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
    match path {
        ":memory:" => Ok(Location::Sqlite(None)),
        "" => bail!("ledger: no path in {url:?}, {EXPECTED}"),
        path if path.contains("://") => bail!("ledger: unknown scheme in {url:?}, {EXPECTED}"),
        path => Ok(Location::Sqlite(Some(PathBuf::from(path)))),
    }
}

const EXPECTED: &str = "expected sqlite:PATH, sqlite::memory: or postgres://HOST/DATABASE";

/// The URL without its password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may be a parameter too.
    let query = if query.is_empty() { "" } else { "?…" };
    let place = match place.rsplit_once('@') {
        Some((user, place)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}@{place}")
        }
        None => place.to_owned(),
    };
    format!("{scheme}://{place}{query}")
}

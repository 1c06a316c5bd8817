//! The ledger: a SQLite file with every event, written by one connection and read by another.
//! It decides what is new, what is a duplicate and what is a conflict, and folds sessions; the
//! reports over it are in `usage.rs`, `sessions.rs` and `gaps.rs`.
//!
//! To the next maintainer. `events` is the truth; `calls` and `sessions` are derived from it in
//! the transaction that stores an event, and could be made again from `raw`. Events may arrive in
//! any order, so both must come out the same in each order: a call is a row of its own, and a
//! session is the event with the highest `fold_order`. A change of the tables needs a new
//! `SCHEMA_VERSION` and a migration in `prepare`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params, params_from_iter};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::ingest::{self, Body, Call, Event, Identity, IngestError, Receipt, Rejected};
use super::query::{BadQuery, Conditions, Page, Parameters};
use super::sessions::SessionState;
use super::{money, query};

/// Kept in the file as `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;

/// `position` is the order of insertion and the cursor of lists. Money is TEXT, a decimal without
/// trailing zeros. Times in `_ms` are milliseconds since 1970, UTC.
const SCHEMA: &str = "
CREATE TABLE events (
    position    INTEGER PRIMARY KEY,
    source      TEXT NOT NULL,
    id          TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    type        TEXT NOT NULL,
    time        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    session_id  TEXT,
    raw         TEXT NOT NULL,
    received_at TEXT NOT NULL,
    UNIQUE (source, id)
) STRICT;
CREATE INDEX events_session ON events (session_id);

CREATE TABLE calls (
    position      INTEGER PRIMARY KEY REFERENCES events (position),
    source        TEXT NOT NULL,
    sequence      INTEGER NOT NULL,
    session_id    TEXT NOT NULL,
    call_id       TEXT NOT NULL,
    time_ms       INTEGER NOT NULL,
    day           TEXT NOT NULL,
    customer      TEXT NOT NULL,
    team          TEXT NOT NULL,
    agent         TEXT NOT NULL,
    product       TEXT NOT NULL,
    product_type  TEXT NOT NULL,
    tool          TEXT NOT NULL,
    status        TEXT NOT NULL,
    tier          TEXT NOT NULL,
    duration_ms   INTEGER NOT NULL,
    http_status   INTEGER NOT NULL,
    transport     TEXT NOT NULL,
    billable      INTEGER NOT NULL,
    price         TEXT NOT NULL,
    provider_cost TEXT NOT NULL,
    currency      TEXT NOT NULL
) STRICT;
CREATE INDEX calls_session ON calls (session_id, source);
CREATE INDEX calls_customer ON calls (customer);

CREATE TABLE sessions (
    position     INTEGER PRIMARY KEY,
    source       TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    fold_order   INTEGER NOT NULL,
    state        TEXT NOT NULL,
    session_key  TEXT NOT NULL,
    product      TEXT NOT NULL,
    product_type TEXT NOT NULL,
    customer     TEXT NOT NULL,
    team         TEXT NOT NULL,
    agent        TEXT NOT NULL,
    started_at   TEXT,
    ended_at     TEXT,
    ended_ms     INTEGER,
    close_reason TEXT,
    totals       TEXT,
    currency     TEXT,
    UNIQUE (source, session_id)
) STRICT;
CREATE INDEX sessions_state ON sessions (state);
";

/// A handle to one ledger; a clone is the same ledger. Its calls block, so keep them off async
/// threads.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    url: String,
    writer: Mutex<Connection>,
    /// `None` in memory, where a second connection would be a second database.
    reader: Option<Mutex<Connection>>,
    tally: Mutex<Tally>,
}

/// Events by (outcome, type) since the ledger was opened.
pub(super) type Tally = BTreeMap<(&'static str, &'static str), u64>;

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.0.url).finish()
    }
}

impl Ledger {
    /// Opens or creates a ledger: `sqlite::memory:`, `sqlite:PATH`, `sqlite://PATH` or a path.
    pub fn open(url: &str) -> anyhow::Result<Ledger> {
        let path = file_of(url)?;
        let open = || -> anyhow::Result<_> {
            let Some(path) = &path else {
                return Ok((prepare(Connection::open_in_memory()?)?, None));
            };
            let writer = prepare(Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE
                    | OpenFlags::SQLITE_OPEN_CREATE
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?)?;
            Ok((writer, Some(Mutex::new(reader(path)?))))
        };
        let (writer, reader) = open().with_context(|| format!("ledger {url:?}"))?;
        let (url, writer, tally) = (url.to_owned(), Mutex::new(writer), Mutex::default());
        Ok(Ledger(Arc::new(Shared { url, writer, reader, tally })))
    }

    /// Stores the valid events of one POST body in one transaction, each (source, id) once.
    /// When this returns, what it accepted is in the ledger.
    pub fn insert_batch(&self, body: &[u8], content_type: &str) -> Result<Receipt, IngestError> {
        let events: Vec<_> =
            ingest::split(body, content_type)?.into_iter().map(ingest::read).collect();
        let received_at = query::rfc3339(chrono::Utc::now().timestamp_millis());
        let mut receipt = Receipt::default();
        let mut tally = Tally::new();
        let mut connection = lock(&self.0.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (index, event) in events.into_iter().enumerate() {
            let mut reject = |id, reason| receipt.rejected.push(Rejected { index, id, reason });
            let (outcome, event_type) = match event {
                Err((id, reason)) => {
                    reject(id, reason);
                    ("rejected", "invalid")
                }
                Ok(event) => {
                    let outcome = match insert(&transaction, &event, &received_at)? {
                        Inserted::New => {
                            receipt.accepted += 1;
                            "accepted"
                        }
                        Inserted::Duplicate => {
                            receipt.duplicates += 1;
                            "duplicate"
                        }
                        Inserted::Conflict => {
                            let reason = "id: this source and id are in the ledger with different \
                                          content, which was kept";
                            reject(event.id.clone(), reason.to_owned());
                            "rejected"
                        }
                    };
                    (outcome, metric_type(&event.event_type))
                }
            };
            *tally.entry((outcome, event_type)).or_default() += 1;
        }
        transaction.commit()?;
        drop(connection);
        let mut total = lock(&self.0.tally);
        for (kind, count) in tally {
            *total.entry(kind).or_default() += count;
        }
        Ok(receipt)
    }

    /// How many events are stored, of known and unknown types.
    pub fn count_events(&self) -> anyhow::Result<u64> {
        self.read(|ledger| {
            let count: i64 =
                ledger.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Stored events, byte for byte as they came, in the order they were stored.
    pub fn events(&self, query: &EventsQuery) -> anyhow::Result<EventsPage> {
        let mut conditions = Conditions::default();
        conditions.and_equal("source", query.source.as_deref());
        conditions.and_equal("type", query.event_type.as_deref());
        conditions.and_equal("session_id", query.session_id.as_deref());
        if let Some(after) = query.page.after {
            conditions.and("position > ?", after);
        }
        let sql = format!(
            "SELECT position, raw FROM events{} ORDER BY position LIMIT {}",
            conditions.sql(),
            query.page.limit + 1
        );
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(conditions.values), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
            let next = query.page.cut(&mut rows);
            let events = rows.into_iter().map(|(_, raw)| RawValue::from_string(raw));
            Ok(EventsPage { events: events.collect::<Result<_, _>>()?, next })
        })
    }

    /// Runs queries on one snapshot of the ledger, while the writer goes on.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut connection = lock(self.0.reader.as_ref().unwrap_or(&self.0.writer));
        work(&connection.transaction()?)
    }

    pub(super) fn tally(&self) -> Tally {
        lock(&self.0.tally).clone()
    }
}

/// Which stored events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only of this source.
    pub source: Option<String>,
    /// Only of this CloudEvents type, such as `agent-meter.tool_invocation`.
    pub event_type: Option<String>,
    /// Only of this session.
    pub session_id: Option<String>,
    /// Which page.
    pub page: Page,
}

impl EventsQuery {
    /// Reads the parameters `source`, `type`, `session_id`, `after` and `limit`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<EventsQuery, BadQuery> {
        let known = ["source", "type", "session_id", "after", "limit"];
        let mut parameters = Parameters::new(pairs, &known)?;
        Ok(EventsQuery {
            source: parameters.take("source"),
            event_type: parameters.take("type"),
            session_id: parameters.take("session_id"),
            page: parameters.take_page()?,
        })
    }
}

/// One page of stored events.
#[derive(Debug, Serialize)]
pub struct EventsPage {
    /// Each event's own JSON text.
    pub events: Vec<Box<RawValue>>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// The lock's data is sound after a panic: an open transaction has rolled back by then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`: in memory.
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

/// Makes the tables of a new file, or checks the version of an old one before touching it.
fn prepare(mut connection: Connection) -> anyhow::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(10))?;
    money::register(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 if tables == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        newer if newer > SCHEMA_VERSION => bail!(
            "schema version {newer} is newer than {SCHEMA_VERSION}, the newest this program \
             knows; use a newer agent-meter"
        ),
        _ => bail!("this is a SQLite database, but not a ledger of agent-meter"),
    }
    transaction.commit()?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // In WAL, NORMAL survives a crash of the process. A crash of the machine may lose the last
    // commits, never tear one: the file stays consistent and `gaps` names what is missing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

fn reader(path: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    money::register(&connection)?;
    Ok(connection)
}

enum Inserted {
    New,
    Duplicate,
    Conflict,
}

fn insert(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    received_at: &str,
) -> rusqlite::Result<Inserted> {
    let rows = ledger
        .prepare_cached(
            "INSERT INTO events
             (source, id, sequence, type, time, subject, session_id, raw, received_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, id) DO NOTHING",
        )?
        .execute(params![
            event.source,
            event.id,
            event.sequence,
            event.event_type,
            event.time,
            event.subject,
            event.session_id,
            event.raw,
            received_at,
        ])?;
    if rows == 0 {
        let stored: String = ledger
            .prepare_cached("SELECT raw FROM events WHERE source = ? AND id = ?")?
            .query_row([&event.source, &event.id], |row| row.get(0))?;
        let same = stored == event.raw || same_content(&stored, event.raw);
        return Ok(if same { Inserted::Duplicate } else { Inserted::Conflict });
    }
    let position = ledger.last_insert_rowid();
    match &event.body {
        Body::Call(call) => insert_call(ledger, event, call, position)?,
        Body::Session(change) => {
            let closing = change.closing.as_ref();
            fold(
                ledger,
                &Fold {
                    source: &event.source,
                    order: event.sequence,
                    state: change.state,
                    identity: &change.identity,
                    started_at: Some(&change.started_at),
                    closing,
                },
            )?;
        }
        Body::Unknown => {}
    }
    Ok(Inserted::New)
}

/// Whether two texts differ in nothing but space and the order of members, as after a proxy or a
/// log has written the event again.
fn same_content(stored: &str, raw: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    read(stored).is_some_and(|stored| read(raw) == Some(stored))
}

fn insert_call(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    call: &Call,
    position: i64,
) -> rusqlite::Result<()> {
    let identity = &call.identity;
    let day = query::rfc3339(event.time_ms).split('T').next().unwrap_or_default().to_owned();
    ledger
        .prepare_cached(
            "INSERT INTO calls
             (position, source, sequence, session_id, call_id, time_ms, day, customer, team, agent,
              product, product_type, tool, status, tier, duration_ms, http_status, transport,
              billable, price, provider_cost, currency)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            position,
            event.source,
            event.sequence,
            identity.session_id,
            call.call_id,
            event.time_ms,
            day,
            identity.customer,
            identity.team,
            identity.agent,
            identity.product,
            identity.product_type,
            call.tool,
            call.status,
            call.tier,
            call.duration_ms,
            call.http_status,
            call.transport,
            call.billable,
            call.price.to_string(),
            call.provider_cost.to_string(),
            call.currency,
        ])?;
    // A call whose session events are late or lost still shows its session. Negative, so that
    // each session event wins over each call, and of the calls the first one wins.
    fold(
        ledger,
        &Fold {
            source: &event.source,
            order: -event.sequence,
            state: SessionState::Active,
            identity,
            started_at: None,
            closing: None,
        },
    )
}

struct Fold<'a> {
    source: &'a str,
    order: i64,
    state: SessionState,
    identity: &'a Identity,
    started_at: Option<&'a str>,
    closing: Option<&'a ingest::Closing>,
}

/// Keeps for a session what the event with the highest order tells, in whatever order they come.
fn fold(ledger: &Transaction<'_>, fold: &Fold<'_>) -> rusqlite::Result<()> {
    let (identity, closing) = (fold.identity, fold.closing);
    let totals = closing.map(|closing| serde_json::to_string(&closing.totals)).transpose();
    let totals = totals.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    ledger
        .prepare_cached(
            "INSERT INTO sessions
             (source, session_id, fold_order, state, session_key, product, product_type, customer,
              team, agent, started_at, ended_at, ended_ms, close_reason, totals, currency)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (source, session_id) DO UPDATE SET
              (fold_order, state, session_key, product, product_type, customer, team, agent,
               started_at, ended_at, ended_ms, close_reason, totals, currency)
              = (excluded.fold_order, excluded.state, excluded.session_key, excluded.product,
               excluded.product_type, excluded.customer, excluded.team, excluded.agent,
               excluded.started_at, excluded.ended_at, excluded.ended_ms, excluded.close_reason,
               excluded.totals, excluded.currency)
             WHERE excluded.fold_order > sessions.fold_order",
        )?
        .execute(params![
            fold.source,
            identity.session_id,
            fold.order,
            fold.state.name(),
            identity.session_key,
            identity.product,
            identity.product_type,
            identity.customer,
            identity.team,
            identity.agent,
            fold.started_at,
            closing.map(|closing| &closing.ended_at),
            closing.map(|closing| closing.ended_ms),
            closing.map(|closing| &closing.close_reason),
            totals,
            closing.and_then(|closing| closing.totals.currency.as_ref()),
        ])?;
    Ok(())
}

/// A closed list, so that traffic cannot make metrics without end.
fn metric_type(event_type: &str) -> &'static str {
    match event_type {
        "agent-meter.tool_invocation" => "tool_invocation",
        "agent-meter.session_created" => "session_created",
        "agent-meter.session_active" => "session_active",
        "agent-meter.session_idle" => "session_idle",
        "agent-meter.session_closed" => "session_closed",
        _ => "other",
    }
}

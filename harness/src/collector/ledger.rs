//! The ledger: a SQLite file with every event, written by one connection and read by another.
//! It decides what is new, what is a duplicate and what is a conflict, and folds sessions; the
//! reports over it are in `usage.rs`, `sessions.rs` and `gaps.rs`.
//!
//! To the next maintainer. `events` is the truth; `calls`, `generations` and `sessions` are derived
//! from it (`derive.rs`) in the transaction that stores an event, and are made again from `raw` when
//! an older file is opened. Events may arrive in any order, so all must come out the same in each
//! order: a call and a generation are rows of their own, and a session is the event with the highest
//! `fold_order`. A change of the tables needs a new `SCHEMA_VERSION` in `schema.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params, params_from_iter};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::derive::derive;
use super::ingest::{self, Body, Event, IngestError, Receipt, Rejected};
use super::metrics::{self, Tally};
use super::query::{self, BadQuery, Conditions, Page, Parameters};
use super::schema::{prepare, reader};
use super::verdict::Question;
use super::webhook::queue;

/// A handle to one ledger; a clone is the same ledger. Its calls block, so keep them off async
/// threads.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    url: String,
    writer: Mutex<Connection>,
    /// `None` in memory, where a second connection would be a second database.
    reader: Option<Mutex<Connection>>,
    /// Since the ledger was opened.
    tally: Mutex<Tally>,
}

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
    /// Nobody is told of scopes that crossed a level.
    pub fn insert_batch(&self, body: &[u8], content_type: &str) -> Result<Receipt, IngestError> {
        self.insert_batch_and_tell(body, content_type, &[]).map(|(receipt, _)| receipt)
    }

    /// The same, and in the same transaction queues what `webhooks` are to be told; also tells how
    /// many rows that were.
    pub(super) fn insert_batch_and_tell(
        &self,
        body: &[u8],
        content_type: &str,
        webhooks: &[String],
    ) -> Result<(Receipt, usize), IngestError> {
        let events: Vec<_> =
            ingest::split(body, content_type)?.into_iter().map(ingest::read).collect();
        let received_ms = chrono::Utc::now().timestamp_millis();
        let received_at = query::rfc3339(received_ms);
        let mut questions = BTreeMap::new();
        let mut queued = 0;
        let mut receipt = Receipt::default();
        let mut tally = Tally::default();
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
                        Inserted::New(position) => {
                            receipt.accepted += 1;
                            tally.accept(&event.body);
                            if let Body::LevelChange(change) = &event.body {
                                let told = webhooks.iter().filter(|name| change.is_for(name));
                                queued += queue::add(&transaction, position, told, received_ms)?;
                            }
                            ask(&mut questions, &event);
                            "accepted"
                        }
                        Inserted::Duplicate => {
                            receipt.duplicates += 1;
                            ask(&mut questions, &event);
                            "duplicate"
                        }
                        Inserted::Conflict => {
                            let reason = "id: this source and id are in the ledger with different \
                                          content, which was kept";
                            reject(event.id.clone(), reason.to_owned());
                            "rejected"
                        }
                    };
                    (outcome, metrics::type_name(&event.event_type))
                }
            };
            tally.count(outcome, event_type);
        }
        for question in questions.into_values() {
            receipt.verdicts.extend(question.answer(&transaction)?);
        }
        transaction.commit()?;
        drop(connection);
        lock(&self.0.tally).merge(tally);
        Ok((receipt, queued))
    }

    /// How many events are stored, of known and unknown types.
    pub fn count_events(&self) -> anyhow::Result<u64> {
        self.read(|ledger| {
            let count: i64 =
                ledger.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Stored events, byte for byte as they came, in the order they were stored; without
    /// `guard_totals`, of which the text is not kept.
    pub fn events(&self, query: &EventsQuery) -> anyhow::Result<EventsPage> {
        let mut conditions = Conditions::default();
        conditions.and("raw <> ?", String::new());
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

    /// Shows `each` event of all pages, from the query's on, one page after the other.
    pub fn each_event(
        &self,
        mut query: EventsQuery,
        mut each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let page = self.events(&query)?;
            for event in &page.events {
                each(serde_json::from_str(event.get())?)?;
            }
            let Some(next) = page.next else { return Ok(()) };
            query.page.after = Some(next.parse()?);
        }
    }

    /// Runs queries on one snapshot of the ledger, while the writer goes on.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut connection = lock(self.0.reader.as_ref().unwrap_or(&self.0.writer));
        work(&connection.transaction()?)
    }

    /// Changes the ledger outside of the intake of events; all of `work` or nothing.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut connection = lock(&self.0.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
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

enum Inserted {
    /// At this position.
    New(i64),
    Duplicate,
    Conflict,
}

/// Notes what a batch asks, once for each scope.
fn ask(questions: &mut BTreeMap<(String, String, String, i64), Question>, event: &Event<'_>) {
    if let Some(question) = Question::of(event) {
        match questions.entry(question.key()) {
            Entry::Vacant(entry) => drop(entry.insert(question)),
            Entry::Occupied(mut entry) => entry.get_mut().learn(question),
        }
    }
}

fn insert(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    received_at: &str,
) -> rusqlite::Result<Inserted> {
    let kept = match &event.body {
        Body::GuardTotals(_) => "",
        Body::Call(_)
        | Body::Generation(_)
        | Body::Session(_)
        | Body::LevelChange(_)
        | Body::Unknown => event.raw,
    };
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
            kept,
            received_at,
        ])?;
    if rows == 0 {
        let (event_type, stored): (String, String) = ledger
            .prepare_cached("SELECT type, raw FROM events WHERE source = ? AND id = ?")?
            .query_row([&event.source, &event.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let same = match stored.as_str() {
            "" => event_type == event.event_type,
            stored => stored == event.raw || same_content(stored, event.raw),
        };
        return Ok(if same { Inserted::Duplicate } else { Inserted::Conflict });
    }
    let position = ledger.last_insert_rowid();
    derive(ledger, event, position)?;
    Ok(Inserted::New(position))
}

/// Whether two texts differ in nothing but space and the order of members, as after a proxy or a
/// log has written the event again.
fn same_content(stored: &str, raw: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    read(stored).is_some_and(|stored| read(raw) == Some(stored))
}

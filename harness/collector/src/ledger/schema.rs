//! The tables of the ledger's file, their versions, and the way from an older version to this one.
//! It knows no event: what becomes of one is in `derive.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use serde_json::value::RawValue;

use crate::ledger::derive::derive;
use crate::{event, money};

/// Kept in the file as `PRAGMA user_version`.
/// Version 1 knew no generations, version 2 no calls but those of tools, and no keys, version 3 no
/// guards.
const SCHEMA_VERSION: i64 = 4;

/// `position` is the order of insertion and the cursor of lists. Money is TEXT, a decimal without
/// trailing zeros. Times in `_ms` are milliseconds since 1970, UTC.
const EVENTS: &str = "
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
";

/// What `derive.rs` makes of the events. What is not known, or does not apply, is NULL, never 0.
const DERIVED: &str = "
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
    api_key_hash  TEXT,
    credential_type TEXT,
    product       TEXT NOT NULL,
    product_type  TEXT NOT NULL,
    kind          TEXT NOT NULL,
    tool          TEXT NOT NULL,
    status        TEXT NOT NULL,
    tier          TEXT NOT NULL,
    duration_ms   INTEGER NOT NULL,
    http_status   INTEGER NOT NULL,
    transport     TEXT,
    request_bytes INTEGER,
    response_bytes INTEGER,
    billable      INTEGER NOT NULL,
    price         TEXT NOT NULL,
    currency      TEXT NOT NULL
) STRICT;
CREATE INDEX calls_session ON calls (session_id, source);
CREATE INDEX calls_customer ON calls (customer);
CREATE INDEX calls_call ON calls (source, call_id);

CREATE TABLE generations (
    position        INTEGER PRIMARY KEY REFERENCES events (position),
    source          TEXT NOT NULL,
    sequence        INTEGER NOT NULL,
    session_id      TEXT NOT NULL,
    generation_id   TEXT NOT NULL,
    call_id         TEXT,
    tool            TEXT,
    attribution     TEXT NOT NULL,
    time_ms         INTEGER NOT NULL,
    day             TEXT NOT NULL,
    customer        TEXT NOT NULL,
    team            TEXT NOT NULL,
    agent           TEXT NOT NULL,
    api_key_hash    TEXT,
    credential_type TEXT,
    product         TEXT NOT NULL,
    product_type    TEXT NOT NULL,
    provider        TEXT NOT NULL,
    model           TEXT NOT NULL,
    service_tier    TEXT NOT NULL,
    completeness    TEXT NOT NULL,
    estimated       INTEGER NOT NULL,
    input           INTEGER,
    output          INTEGER,
    reasoning       INTEGER,
    cache_read      INTEGER,
    cache_write     INTEGER,
    provider_cost   TEXT,
    unpriced_reason TEXT,
    rate_card       TEXT,
    price           TEXT NOT NULL,
    currency        TEXT NOT NULL
) STRICT;
CREATE INDEX generations_session ON generations (session_id, source);
CREATE INDEX generations_customer ON generations (customer);

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
    api_key_hash TEXT,
    credential_type TEXT,
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

/// `sequence` is that of the event that told the totals, 0 before there was one, and
/// `level_sequence` that of the event that told the level. `period_ms` is when the period began, -1
/// for a session, and levels are counted from 0, the mildest. Unlike the tables above this one
/// cannot be made again: of `guard_totals` only the id is kept, in an event with an empty `raw`.
const GUARDS: &str = "
CREATE TABLE guard_totals (
    guard_id       TEXT NOT NULL,
    scope_key      TEXT NOT NULL,
    period_ms      INTEGER NOT NULL,
    source         TEXT NOT NULL,
    kind           TEXT NOT NULL,
    mode           TEXT,
    scope          TEXT NOT NULL,
    customer       TEXT NOT NULL,
    product        TEXT,
    agent          TEXT,
    session_key    TEXT,
    tool           TEXT,
    metric         TEXT,
    period         TEXT NOT NULL,
    period_start   TEXT,
    sequence       INTEGER NOT NULL,
    provider_cost  TEXT NOT NULL,
    revenue        TEXT NOT NULL,
    calls          INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    currency       TEXT,
    level_sequence INTEGER NOT NULL,
    level          INTEGER NOT NULL,
    told_ms        INTEGER NOT NULL,
    PRIMARY KEY (guard_id, scope_key, period_ms, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_alerts ON events (position) WHERE type IN
    ('agent-meter.margin_level_changed', 'agent-meter.budget_level_changed',
     'agent-meter.loop_level_changed');
";

/// One row for each event and webhook that is to be told of it. `state` is `waiting`, `delivered`
/// or `given_up`.
const WEBHOOKS: &str = "
CREATE TABLE webhook_deliveries (
    position  INTEGER NOT NULL REFERENCES events (position),
    webhook   TEXT NOT NULL,
    state     TEXT NOT NULL,
    failures  INTEGER NOT NULL,
    queued_ms INTEGER NOT NULL,
    due_ms    INTEGER NOT NULL,
    error     TEXT,
    PRIMARY KEY (position, webhook)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, due_ms)
    WHERE state = 'waiting';
";

/// Makes the tables of a new file, or checks the version of an old one before touching it.
pub(crate) fn prepare(mut connection: Connection) -> anyhow::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(10))?;
    money::register(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 if tables == 0 => {
            transaction.execute_batch(EVENTS)?;
            transaction.execute_batch(DERIVED)?;
            transaction.execute_batch(GUARDS)?;
            transaction.execute_batch(WEBHOOKS)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        1..=3 => {
            transaction.execute_batch(GUARDS)?;
            transaction.execute_batch(WEBHOOKS)?;
            if version == 3 {
                // Kept as events of unknown types, if a filter sent them before this version.
                let guards =
                    "WHERE type = 'agent-meter.guard_totals' OR type LIKE '%level_changed'";
                derive_stored(&transaction, guards)?;
            } else {
                transaction.execute_batch(
                    "DROP TABLE calls; DROP TABLE IF EXISTS generations; DROP TABLE sessions;",
                )?;
                transaction.execute_batch(DERIVED)?;
                derive_stored(&transaction, "")?;
            }
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

pub(crate) fn reader(path: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    money::register(&connection)?;
    Ok(connection)
}

/// Makes what is derived from the stored events of a condition, in the order in which they came.
fn derive_stored(ledger: &Transaction<'_>, condition: &str) -> anyhow::Result<()> {
    let sql = format!("SELECT position, raw FROM events {condition} ORDER BY position");
    let mut statement = ledger.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let raw = RawValue::from_string(row.get(1)?)?;
        match event::read(&raw) {
            Ok(event) => derive(ledger, &event, position)?,
            // Stored when its type was not known yet; it counts in nothing, as before.
            Err((id, reason)) => tracing::warn!(id, reason, "a stored event is not valid"),
        }
    }
    Ok(())
}

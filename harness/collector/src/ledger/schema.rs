//! Makes the tables of a new ledger file, and brings an older file up to date.
//! Their columns are in `tables.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use serde_json::value::RawValue;

use crate::event;
use crate::ledger::derive::derive;
use crate::ledger::tables::{
    CALLS, EVENTS, GENERATIONS, GUARD_TOTALS, SESSIONS, superseded_schema,
};
use crate::ledger::units;
use crate::money;

/// Kept in the file as `PRAGMA user_version`.
/// Version 1 had no generations, version 2 only calls of tools and no keys, version 3 no guards,
/// version 4 one call in each event, version 5 only tokens, version 6 no generation that supersedes
/// another, version 7 no mark of counts that contradict each other.
const SCHEMA_VERSION: i64 = 8;

/// One row for each event and each webhook that it is for. `state` is `waiting`, `delivered` or
/// `given_up`. Rows are written and updated by column, never whole, so it has no list of columns.
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

const ADD_UNITS: &str = "
ALTER TABLE generations ADD COLUMN units TEXT;
ALTER TABLE generations ADD COLUMN has_unpriced_units INTEGER NOT NULL DEFAULT 0;
ALTER TABLE generations ADD COLUMN is_unknown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE generations ADD COLUMN reported_cost TEXT;
UPDATE generations SET is_unknown = (input IS NULL AND output IS NULL);
";

const ADD_QUANTITY: &str = "ALTER TABLE calls ADD COLUMN quantity INTEGER NOT NULL DEFAULT 1;";

/// The events that supersede others.
const SUPERSEDING: &str = "WHERE type = 'agent-meter.token_consumption'
    AND json_extract(raw, '$.data.supersedes') IS NOT NULL";

/// The mark is also in the events that were stored before the ledger had a column for it.
fn add_inconsistent(table: &str) -> String {
    format!(
        "ALTER TABLE {table} ADD COLUMN is_inconsistent INTEGER NOT NULL DEFAULT 0;
UPDATE {table} SET is_inconsistent = 1 WHERE position IN
    (SELECT position FROM events WHERE type = 'agent-meter.token_consumption'
     AND json_extract(raw, '$.data.inconsistent') = 1);\n"
    )
}

/// What lets generations supersede others, in a file without it.
fn add_supersedes() -> String {
    let indexes = "CREATE INDEX generations_generation ON generations (source, generation_id);
CREATE INDEX generations_supersedes ON generations (source, supersedes)
    WHERE supersedes IS NOT NULL;\n";
    let column = "ALTER TABLE generations ADD COLUMN supersedes TEXT;\n";
    [column, indexes, &superseded_schema()].concat()
}

/// The tables that are made again from the events.
fn derived() -> String {
    [CALLS.schema(), GENERATIONS.schema(), superseded_schema(), SESSIONS.schema()].concat()
}

/// Makes the tables of a new file, or checks the version of an old one before touching it.
pub(crate) fn prepare(mut connection: Connection) -> anyhow::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(10))?;
    register(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 if tables == 0 => {
            transaction.execute_batch(&EVENTS.schema())?;
            transaction.execute_batch(&derived())?;
            transaction.execute_batch(&GUARD_TOTALS.schema())?;
            transaction.execute_batch(WEBHOOKS)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        1..=3 => {
            transaction.execute_batch(&GUARD_TOTALS.schema())?;
            transaction.execute_batch(WEBHOOKS)?;
            if version == 3 {
                transaction.execute_batch(ADD_QUANTITY)?;
                transaction.execute_batch(ADD_UNITS)?;
                transaction.execute_batch(&add_supersedes())?;
                transaction.execute_batch(&add_inconsistent("generations"))?;
                // Kept as events of unknown types, if a filter sent them before this version.
                let guards =
                    "WHERE type = 'agent-meter.guard_totals' OR type LIKE '%level_changed'";
                derive_stored(&transaction, guards)?;
            } else {
                transaction.execute_batch(
                    "DROP TABLE calls; DROP TABLE IF EXISTS generations; DROP TABLE sessions;",
                )?;
                transaction.execute_batch(&derived())?;
                derive_stored(&transaction, "")?;
            }
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        4..=6 => {
            if version == 4 {
                transaction.execute_batch(ADD_QUANTITY)?;
            }
            if version <= 5 {
                transaction.execute_batch(ADD_UNITS)?;
            }
            transaction.execute_batch(&add_supersedes())?;
            transaction.execute_batch(&add_inconsistent("generations"))?;
            // A filter may have sent some before this version knew them.
            transaction.execute_batch(&format!(
                "DELETE FROM generations
                 WHERE position IN (SELECT position FROM events {SUPERSEDING});"
            ))?;
            derive_stored(&transaction, SUPERSEDING)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        7 => {
            transaction.execute_batch(&add_inconsistent("generations"))?;
            transaction.execute_batch(&add_inconsistent("superseded"))?;
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
    register(&connection)?;
    Ok(connection)
}

/// Adds the functions of this program to SQL.
fn register(connection: &Connection) -> rusqlite::Result<()> {
    money::register(connection)?;
    units::register(connection)
}

/// Makes the derived rows of the stored events of a condition, in the order in which they came.
fn derive_stored(ledger: &Transaction<'_>, condition: &str) -> anyhow::Result<()> {
    let sql = format!("SELECT position, raw FROM events {condition} ORDER BY position");
    let mut statement = ledger.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let raw = RawValue::from_string(row.get(1)?)?;
        match event::read(&raw) {
            Ok(event) => drop(derive(ledger, &event, position)?),
            // The ledger stored it before it knew the type. It counts in nothing, as before.
            Err((id, reason)) => tracing::warn!(id, reason, "a stored event is not valid"),
        }
    }
    Ok(())
}

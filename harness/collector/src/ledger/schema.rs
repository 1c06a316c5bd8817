//! Makes the tables of a new ledger file, and brings an older file up to date.
//! Their columns are in `tables.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde_json::value::RawValue;

use crate::event;
use crate::event::tokens::TokenTotals;
use crate::ledger::derive::derive_one;
use crate::ledger::tables::{
    CALLS, CORRECTED_CALLS, CORRECTED_GENERATIONS, EVENTS, GENERATIONS, GUARD_TOTALS, SESSIONS,
    superseded_schema,
};
use crate::ledger::{corrections, handover, hours, invoices, quarantine, sources, top_ups, units};
use crate::query::rfc3339;
use crate::sql::postgres::{count_tables, table_types};
use crate::sql::{self, Transaction, values};

/// Kept in the file as `PRAGMA user_version`.
/// Version 1 had no generations, version 2 only calls of tools and no keys, version 3 no guards,
/// version 4 one call in each event, version 5 only tokens, version 6 no generation that supersedes
/// another, version 7 no mark of counts that contradict each other, version 8 no sources and no
/// quarantine, version 9 no digests and no sinks, version 10 no usage by hour and no corrections,
/// version 11 no guards by team, user and API key, version 12 no top-ups.
const SCHEMA_VERSION: i64 = 13;

/// Memory for pages of the ledger, in KiB. With SQLite's 2 MiB a batch of a thousand events does not
/// fit, and its pages go to the file and back within one transaction.
const CACHE_KIB: i64 = 64 * 1024;

/// Pages of 4 KiB in the log of writes before they go to the ledger itself: a page that many batches
/// change is then written once.
const CHECKPOINT_PAGES: i64 = 8192;

/// Statements of the writer that are kept prepared: more than one kind of batch needs, and than
/// rusqlite's 16.
const STATEMENTS_MAX: usize = 64;

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

/// One row, with when the ledger was last found well.
const HEALTH: &str = "
CREATE TABLE health (
    position   INTEGER PRIMARY KEY CHECK (position = 1),
    checked_ms INTEGER NOT NULL
) STRICT;
";

const ADD_STATE_BEFORE: &str = "
ALTER TABLE sessions ADD COLUMN state_before TEXT;
CREATE INDEX sessions_lost ON sessions (source) WHERE state_before IS NOT NULL;
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

/// The tables that version 9 brought.
fn since_9() -> String {
    [sources::SCHEMA, quarantine::SCHEMA, HEALTH].concat()
}

const ADD_DIGEST: &str = "ALTER TABLE events ADD COLUMN digest TEXT;";

/// What version 10 brought to the sources.
const ADD_CHAIN: &str = "ALTER TABLE sources ADD COLUMN chain TEXT;";

/// Signed roots of the digests of all events up to a position; see the room `proof`.
const ROOTS: &str = "
CREATE TABLE roots (
    number    INTEGER PRIMARY KEY,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    events    INTEGER NOT NULL,
    root      TEXT NOT NULL,
    previous  TEXT NOT NULL,
    sealed_at TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
";

/// The tables that version 11 brought.
fn since_11() -> String {
    let corrected = [CORRECTED_CALLS.schema(), CORRECTED_GENERATIONS.schema()].concat();
    [&corrected, corrections::SCHEMA, invoices::SCHEMA, &hours::schema()].concat()
}

/// The index that version 11 brought: a withdrawn generation is looked up by it.
const ADD_SUPERSEDED_INDEX: &str =
    "CREATE INDEX superseded_generation ON superseded (source, generation_id);";

/// What version 12 brought to the scopes of guards.
const ADD_SCOPE_IDENTITY: &str = "ALTER TABLE guard_totals ADD COLUMN identity TEXT;";

/// Reports read usage by hour of a customer, and rows only of a time.
const INDEXES_BY_TIME: &str = "
DROP INDEX calls_customer;
DROP INDEX generations_customer;
CREATE INDEX calls_time ON calls (time_ms);
CREATE INDEX generations_time ON generations (time_ms);
";

/// The tables that are made again from the events.
fn derived() -> String {
    [CALLS.schema(), GENERATIONS.schema(), superseded_schema(), SESSIONS.schema()].concat()
}

/// All tables.
fn tables() -> String {
    let since_9 = [&since_9(), ROOTS, handover::SCHEMA].concat();
    let [events, guards] = [EVENTS.schema(), GUARD_TOTALS.schema()];
    let since_11 = [&since_11(), ADD_SUPERSEDED_INDEX].concat();
    let since_13 = top_ups::SCHEMA.to_owned();
    [events, derived(), guards, WEBHOOKS.to_owned(), since_9, since_11, since_13].concat()
}

/// The functions that the ledger's SQL needs, in PostgreSQL.
const POSTGRES_FUNCTIONS: &str = include_str!("../sql/postgres/functions.sql");

/// The version of the tables of PostgreSQL, in one row.
const POSTGRES_VERSION: &str = "CREATE TABLE ledger (version BIGINT NOT NULL);";

/// The statements with SQLite's types: an amount is TEXT, which keeps each digit.
fn sqlite_types(schema: &str) -> String {
    schema.replace("DECIMAL", "TEXT")
}

/// The version of the tables in PostgreSQL; `None` if there are none.
pub(crate) fn version_of_postgres(ledger: &Transaction<'_>) -> sql::Result<Option<i64>> {
    if count_tables(ledger, "ledger")? == 0 {
        return Ok(None);
    }
    ledger.prepare_cached("SELECT version FROM ledger")?.query_optional(&[], |row| row.get(0))
}

/// Makes the tables in PostgreSQL, or checks their version before touching them. Several collectors
/// may do so at once: who writes, writes alone.
pub(crate) fn prepare_postgres(ledger: &Transaction<'_>) -> anyhow::Result<()> {
    let Transaction::Postgres(session) = ledger else { return Ok(()) };
    match version_of_postgres(ledger)? {
        Some(SCHEMA_VERSION) => {}
        Some(older @ 10..SCHEMA_VERSION) => {
            session.batch(&table_types(top_ups::SCHEMA))?;
            if older == 10 {
                session.batch("DROP AGGREGATE count_sum(bigint)")?;
                session.batch(POSTGRES_FUNCTIONS)?;
                session.batch(&table_types(&[&since_11(), ADD_SUPERSEDED_INDEX].concat()))?;
                session.batch(INDEXES_BY_TIME)?;
                hours::fill(ledger)?;
            }
            if older <= 11 {
                session.batch(ADD_SCOPE_IDENTITY)?;
            }
            ledger.execute("UPDATE ledger SET version = ?", values![SCHEMA_VERSION])?;
        }
        Some(newer) => bail!(
            "schema version {newer} is newer than {SCHEMA_VERSION}, the newest this program \
             knows; use a newer agent-meter"
        ),
        None => {
            session.batch(POSTGRES_FUNCTIONS)?;
            session.batch(&table_types(&tables()))?;
            session.batch(POSTGRES_VERSION)?;
            let version = values![SCHEMA_VERSION];
            ledger.execute("INSERT INTO ledger (version) VALUES (?)", version)?;
        }
    }
    Ok(())
}

/// Makes the tables of a new file, or checks the version of an old one before touching it.
pub(crate) fn prepare(mut connection: Connection) -> anyhow::Result<Connection> {
    connection.busy_timeout(Duration::from_secs(10))?;
    register(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 if found == 0 => {
            transaction.execute_batch(&sqlite_types(&tables()))?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        1..SCHEMA_VERSION => {
            // Where hours change, their tables are asked for.
            transaction.execute_batch(&sqlite_types(top_ups::SCHEMA))?;
            if (4..=11).contains(&version) {
                transaction.execute_batch(ADD_SCOPE_IDENTITY)?;
            }
            if version <= 10 {
                upgrade_to_11(&transaction, version)?;
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
    // What is acknowledged must survive a crash of the machine: the filter then forgets it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Brings the tables of version 10 or older to version 11.
fn upgrade_to_11(transaction: &Connection, version: i64) -> anyhow::Result<()> {
    // What is derived below needs them and is counted there; and all of it at last.
    transaction.execute_batch(&sqlite_types(&since_11()))?;
    if version <= 9 {
        upgrade_to_10(transaction, version)?;
    }
    if version >= 3 {
        transaction.execute_batch(INDEXES_BY_TIME)?;
    }
    transaction.execute_batch(ADD_SUPERSEDED_INDEX)?;
    hours::fill(&Transaction::Sqlite(transaction))?;
    Ok(())
}

/// Brings the tables of version 9 or older to version 10.
fn upgrade_to_10(transaction: &Connection, version: i64) -> anyhow::Result<()> {
    transaction.execute_batch(ADD_DIGEST)?;
    if version <= 8 {
        upgrade(transaction, version)?;
        transaction.execute_batch(&since_9())?;
        transaction.execute_batch(sources::FILL)?;
        hold_implausible(transaction)?;
    } else {
        transaction.execute_batch(ADD_CHAIN)?;
    }
    transaction.execute_batch(ROOTS)?;
    transaction.execute_batch(&sqlite_types(handover::SCHEMA))?;
    Ok(())
}

/// Brings the tables of version 8 or older to version 8, and those of sessions to version 9.
fn upgrade(transaction: &Connection, version: i64) -> anyhow::Result<()> {
    if version >= 3 {
        transaction.execute_batch(ADD_STATE_BEFORE)?;
    }
    match version {
        1..=2 => {
            transaction.execute_batch(&sqlite_types(&GUARD_TOTALS.schema()))?;
            transaction.execute_batch(WEBHOOKS)?;
            transaction.execute_batch(
                "DROP TABLE calls; DROP TABLE IF EXISTS generations; DROP TABLE sessions;",
            )?;
            transaction.execute_batch(&sqlite_types(&derived()))?;
            derive_stored(transaction, "")?;
        }
        3 => {
            transaction.execute_batch(&sqlite_types(&GUARD_TOTALS.schema()))?;
            transaction.execute_batch(WEBHOOKS)?;
            transaction.execute_batch(ADD_QUANTITY)?;
            transaction.execute_batch(ADD_UNITS)?;
            transaction.execute_batch(&sqlite_types(&add_supersedes()))?;
            transaction.execute_batch(&add_inconsistent("generations"))?;
            // Kept as events of unknown types, if a filter sent them before this version.
            let guards = "WHERE type = 'agent-meter.guard_totals' OR type LIKE '%level_changed'";
            derive_stored(transaction, guards)?;
        }
        4..=6 => {
            if version == 4 {
                transaction.execute_batch(ADD_QUANTITY)?;
            }
            if version <= 5 {
                transaction.execute_batch(ADD_UNITS)?;
            }
            transaction.execute_batch(&sqlite_types(&add_supersedes()))?;
            transaction.execute_batch(&add_inconsistent("generations"))?;
            // A filter may have sent some before this version knew them.
            transaction.execute_batch(&format!(
                "DELETE FROM generations
                 WHERE position IN (SELECT position FROM events {SUPERSEDING});"
            ))?;
            derive_stored(transaction, SUPERSEDING)?;
        }
        7 => {
            transaction.execute_batch(&add_inconsistent("generations"))?;
            transaction.execute_batch(&add_inconsistent("superseded"))?;
        }
        _ => {}
    }
    Ok(())
}

/// Keeps stored events apart whose numbers are not plausible, as if they came now.
fn hold_implausible(ledger: &Connection) -> anyhow::Result<()> {
    let more = |columns: &[&str], most: &str| {
        let columns = columns.iter().map(|column| format!("CAST({column} AS REAL) > {most}"));
        columns.collect::<Vec<_>>().join(" OR ")
    };
    let tokens = more(TokenTotals::KINDS, "1e10");
    let of_generations = |table: &str| {
        let money = more(&["price", "provider_cost", "reported_cost"], "1e12");
        format!(
            "SELECT position FROM {table} WHERE {tokens} OR {money} OR EXISTS
              (SELECT 1 FROM json_each(units) WHERE CAST(value AS REAL) > 1e12)"
        )
    };
    let sql = format!(
        "SELECT position, raw,
          coalesce(CAST(round((julianday(received_at) - 2440587.5) * 86400000) AS INTEGER), 0)
         FROM events WHERE position IN (SELECT position FROM calls WHERE {} OR {}
          UNION {} UNION {})",
        more(&["price"], "1e12"),
        more(&["request_bytes", "response_bytes"], "1e15"),
        of_generations(GENERATIONS.name),
        of_generations("superseded"),
    );
    let mut statement = ledger.prepare(&sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let found: Vec<(i64, String, i64)> = rows.collect::<Result<_, _>>()?;
    for (position, raw, received_ms) in found {
        let raw = RawValue::from_string(raw)?;
        let Ok(event) = event::read(&raw) else { continue };
        let Some(beyond) = &event.beyond else { continue };
        tracing::warn!(position, detail = beyond.detail, "a stored event is kept apart");
        quarantine::hold(
            &Transaction::Sqlite(ledger),
            &event,
            position,
            beyond,
            None,
            received_ms,
        )?;
        ledger.execute("UPDATE events SET raw = '' WHERE position = ?", [position])?;
        for table in [CALLS.name, GENERATIONS.name, "superseded"] {
            ledger.execute(&format!("DELETE FROM {table} WHERE position = ?"), [position])?;
        }
    }
    Ok(())
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
    sql::register(connection)?;
    units::register(connection)?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("rfc3339", 1, flags, |context| {
        Ok(context.get::<Option<i64>>(0)?.map(rfc3339))
    })
}

/// Makes the derived rows of the stored events of a condition, in the order in which they came.
fn derive_stored(ledger: &Connection, condition: &str) -> anyhow::Result<()> {
    let sql = format!("SELECT position, raw FROM events {condition} ORDER BY position");
    let mut statement = ledger.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position: i64 = row.get(0)?;
        let raw = RawValue::from_string(row.get(1)?)?;
        match event::read(&raw) {
            Ok(event) => derive_one(&Transaction::Sqlite(ledger), &event, position)?,
            // The ledger stored it before it knew the type. It counts in nothing, as before.
            Err((id, reason)) => tracing::warn!(id, reason, "a stored event is not valid"),
        }
    }
    Ok(())
}

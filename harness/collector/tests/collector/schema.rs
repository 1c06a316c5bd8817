//! Tests that the tables of a new ledger are those of older files.

use agent_meter_collector::Ledger;
use rusqlite::Connection;
use serde_json::json;

use super::generations::{generation, usage as generations};
use super::{call, gaps, insert, ledger_of, memory, open, reconcile, sessions, usage};

/// The tables of version 4, as version 4 itself wrote them, by hand.
pub(super) const VERSION_4: &str = include_str!("schema_4.sql");

/// Takes away what version 13 brought.
pub(super) const BEFORE_13: &str =
    "DROP TABLE top_ups; DROP TABLE prepaid_customers; DROP TABLE usage_head;";

/// Takes away what version 12 brought.
pub(super) const BEFORE_12: &str = "ALTER TABLE guard_totals DROP COLUMN identity;";

/// Takes away what version 11 brought.
pub(super) const BEFORE_11: &str =
    "DROP TABLE backfilled; DROP TABLE corrections; DROP TABLE invoices;
    DROP TABLE corrected_calls; DROP TABLE corrected_generations;
    DROP INDEX IF EXISTS superseded_generation;
    DROP TABLE call_hours; DROP TABLE generation_hours;
    DROP INDEX calls_time; DROP INDEX generations_time;
    CREATE INDEX calls_customer ON calls (customer);
    CREATE INDEX generations_customer ON generations (customer);";

/// Takes away what versions 9 and 10 brought.
pub(super) const BEFORE_9: &str = "ALTER TABLE events DROP COLUMN digest; DROP TABLE roots; DROP TABLE sources; DROP TABLE quarantine; DROP TABLE health;
    DROP INDEX sessions_lost; ALTER TABLE sessions DROP COLUMN state_before;";

/// The statements that made a database, with white space removed.
fn statements(connection: &Connection) -> Vec<String> {
    let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name";
    let mut statement = connection.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let words = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.map(|sql| words(sql.expect("text")).replace(" ,", ",").replace(" )", ")")).collect()
}

#[test]
fn the_tables_are_those_of_version_4_and_the_columns_since() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    open(path.to_str().expect("UTF-8"));
    let made = Connection::open(&path).expect("a database");
    let version: i64 =
        made.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
    let written = Connection::open_in_memory().expect("a database");
    written.execute_batch(VERSION_4).expect("tables");
    for column in [
        "calls ADD COLUMN quantity INTEGER NOT NULL DEFAULT 1",
        "generations ADD COLUMN units TEXT",
        "generations ADD COLUMN has_unpriced_units INTEGER NOT NULL DEFAULT 0",
        "generations ADD COLUMN is_unknown INTEGER NOT NULL DEFAULT 0",
        "generations ADD COLUMN reported_cost TEXT",
        "generations ADD COLUMN supersedes TEXT",
        "generations ADD COLUMN is_inconsistent INTEGER NOT NULL DEFAULT 0",
        "sessions ADD COLUMN state_before TEXT",
        "events ADD COLUMN digest TEXT",
        "guard_totals ADD COLUMN identity TEXT",
    ] {
        written.execute_batch(&format!("ALTER TABLE {column}")).expect("a column");
    }
    let new = [
        "TABLE sources",
        "quarantine",
        "TABLE health",
        "TABLE roots",
        "sessions_lost",
        "TABLE sinks",
        "sink_events",
        "corrected_",
        "corrections",
        "backfilled",
        "TABLE invoices",
        "invoices_customer",
        "top_ups",
        "prepaid_customers",
        "usage_head",
        "call_hours",
        "generation_hours",
        "_customer ON",
        "_time ON",
    ];
    let is_old = |sql: &String| {
        let is_new = new.iter().any(|name| sql.contains(name));
        !is_new && (!sql.contains("supersede") || sql.starts_with("CREATE TABLE g"))
    };
    let old = |connection: &Connection| {
        let statements = statements(connection).into_iter().filter(is_old);
        statements.filter(|sql| !sql.contains("generations_generation")).collect::<Vec<_>>()
    };
    assert_eq!((version, old(&made)), (13, old(&written)));
    // What no longer counts keeps all that it was.
    let columns = |table: &str| -> Vec<String> {
        let sql = format!("SELECT name || ' ' || type FROM pragma_table_info('{table}')");
        let mut statement = made.prepare(&sql).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.map(|name| name.expect("text")).collect()
    };
    let by = ["superseded_by INTEGER".to_owned()];
    assert_eq!(columns("superseded"), [columns("generations").as_slice(), &by].concat());
}

#[test]
fn a_file_whose_tables_were_written_by_hand_takes_events_and_answers_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    let old = Connection::open(&path).expect("a database");
    old.execute_batch(VERSION_4).expect("tables");
    old.pragma_update(None, "user_version", 4).expect("a version");
    drop(old);
    let (old, new) = (open(path.to_str().expect("UTF-8")), memory());
    for ledger in [&old, &new] {
        let receipt = insert(ledger, &[call(1, json!({})), call(2, json!({"price": "0.5"}))]);
        assert_eq!(receipt.accepted, 2);
    }
    for report in [gaps, reconcile, |ledger: &Ledger| usage(ledger, "group_by=tool")] {
        assert_eq!(report(&old), report(&new));
    }
    assert_eq!(sessions(&old, ""), sessions(&new, ""));
}

#[test]
fn an_event_of_several_calls_counts_as_many_everywhere() {
    let ledger = memory();
    let events =
        [call(1, json!({"price": "0.5"})), call(2, json!({"quantity": 1000, "price": "500"}))];
    assert_eq!(insert(&ledger, &events).accepted, 2);
    let row = &usage(&ledger, "group_by=tool")[0];
    assert_eq!((&row["calls"], &row["billable_calls"]), (&json!(1001), &json!(1001)));
    assert_eq!(row["revenue"], "500.5");
    let session = sessions(&ledger, "").to_string();
    assert!(session.contains("\"total_tool_calls\":1001"), "{session}");
    assert!(session.contains("\"billable_tool_calls\":1001"), "{session}");
}

#[test]
fn what_a_newer_filter_superseded_before_the_ledger_knew_it_is_made_up_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    let path = path.to_str().expect("UTF-8");
    let events = [
        generation(1, json!({"generation_id": "0.1.5"})),
        generation(2, json!({"generation_id": "0.1.6", "supersedes": "0.1.5"})),
    ];
    let expected = generations(&ledger_of(&events), "");
    drop(insert(&open(path), &events));
    // As version 6 had it: both count.
    let old = Connection::open(path).expect("a database");
    old.execute_batch(
        "INSERT INTO generations SELECT position, source, sequence, session_id, generation_id,
             call_id, tool, attribution, time_ms, day, customer, team, agent, api_key_hash,
             credential_type, product, product_type, provider, model, service_tier, completeness,
             estimated, input, output, reasoning, cache_read, cache_write, provider_cost,
             unpriced_reason, rate_card, price, currency, units, has_unpriced_units, is_unknown,
             reported_cost, supersedes, is_inconsistent FROM superseded;
         DROP TABLE superseded;
         DROP INDEX generations_generation;
         DROP INDEX generations_supersedes;
         ALTER TABLE generations DROP COLUMN supersedes;
         ALTER TABLE generations DROP COLUMN is_inconsistent;
         PRAGMA user_version = 6;",
    )
    .expect("tables");
    old.execute_batch(&[BEFORE_13, BEFORE_12, BEFORE_11, BEFORE_9].concat()).expect("tables");
    drop(old);
    assert_eq!(generations(&open(path), ""), expected);
}

#[test]
fn what_was_inconsistent_before_the_ledger_kept_it_is_made_up_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    let path = path.to_str().expect("UTF-8");
    let events = [
        generation(1, json!({"generation_id": "0.1.5", "inconsistent": true})),
        generation(2, json!({"generation_id": "0.1.6", "supersedes": "0.1.5"})),
        generation(3, json!({"generation_id": "0.1.7", "inconsistent": true})),
        generation(4, json!({"generation_id": "0.1.8", "inconsistent": false})),
    ];
    drop(insert(&open(path), &events));
    let marks = || -> Vec<(String, bool)> {
        let ledger = Connection::open(path).expect("a database");
        let sql = "SELECT generation_id, is_inconsistent FROM generations
            UNION SELECT generation_id, is_inconsistent FROM superseded ORDER BY 1";
        let mut statement = ledger.prepare(sql).expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    };
    let expected = [("0.1.5", true), ("0.1.6", false), ("0.1.7", true), ("0.1.8", false)];
    let expected = expected.map(|(id, mark)| (id.to_owned(), mark));
    assert_eq!(marks(), expected);
    // As version 7 had it, and as version 5 did.
    let before_7 = "ALTER TABLE generations DROP COLUMN units;
        ALTER TABLE generations DROP COLUMN has_unpriced_units;
        ALTER TABLE generations DROP COLUMN is_unknown;
        ALTER TABLE generations DROP COLUMN reported_cost;
        DROP TABLE superseded;
        DROP INDEX generations_generation;
        DROP INDEX generations_supersedes;
        ALTER TABLE generations DROP COLUMN supersedes;";
    for (version, statements) in
        [(7, "ALTER TABLE superseded DROP COLUMN is_inconsistent;"), (5, before_7)]
    {
        let old = Connection::open(path).expect("a database");
        old.execute_batch(statements).expect("tables");
        old.execute_batch(&[BEFORE_13, BEFORE_12, BEFORE_11, BEFORE_9].concat()).expect("tables");
        old.execute_batch("ALTER TABLE generations DROP COLUMN is_inconsistent;").expect("tables");
        old.pragma_update(None, "user_version", version).expect("a version");
        drop(old);
        drop(open(path));
        // Of version 5 the generation that is superseded was stored, and is gone from this file.
        let expected = if version == 7 { &expected[..] } else { &expected[1..] };
        assert_eq!(marks(), expected, "version {version}");
    }
}

#[test]
fn a_ledger_that_is_closed_is_one_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    let ledger = open(path.to_str().expect("UTF-8"));
    insert(&ledger, &[call(1, json!({}))]);
    assert_eq!(usage(&ledger, "group_by=tool")[0]["calls"], 1);
    drop(ledger);
    let files = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(files, 1, "what was written beside the file is in it");
}

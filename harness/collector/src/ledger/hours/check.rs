//! Makes the hours from the rows of calls and generations, and compares them with these.

use std::collections::BTreeMap;

use crate::ledger::hours::changes::{Collected, Rows};
use crate::ledger::hours::hour::HOUR_MS;
use crate::ledger::hours::sums::Sum;
use crate::ledger::hours::{CALL_HOURS, GENERATION_HOURS, HourTable};
use crate::query::rfc3339;
use crate::sql::{self, Transaction, Value, values};

/// Makes all hours anew from the rows.
pub(crate) fn fill(ledger: &Transaction<'_>) -> sql::Result<()> {
    for table in tables() {
        ledger.execute(&format!("DELETE FROM {}", table.name), &[])?;
        for hour_ms in hours(ledger, table)? {
            of_rows(ledger, table, hour_ms)?.store(ledger)?;
        }
    }
    Ok(())
}

/// Names the hours that are not what the rows add up to.
pub(crate) fn differences(ledger: &Transaction<'_>) -> sql::Result<Vec<String>> {
    let mut different = Vec::new();
    for table in tables() {
        for hour_ms in hours(ledger, table)? {
            let expected = texts(of_rows(ledger, table, hour_ms)?.into_rows(ledger));
            let found = stored(ledger, table, hour_ms)?;
            if expected != found {
                let (name, at) = (table.name, rfc3339(hour_ms));
                let rows = table.rows;
                different.push(format!("{name}, hour {at}: it is not the sum of {rows}"));
            }
        }
    }
    Ok(different)
}

fn tables() -> [&'static HourTable; 2] {
    [&CALL_HOURS, &GENERATION_HOURS]
}

/// The hours that have rows, or had some.
fn hours(ledger: &Transaction<'_>, table: &HourTable) -> sql::Result<Vec<i64>> {
    let sql = format!(
        "SELECT time_ms - ((time_ms % {HOUR_MS}) + {HOUR_MS}) % {HOUR_MS} FROM {}
         UNION SELECT hour_ms FROM {} ORDER BY 1",
        table.rows, table.name
    );
    ledger.prepare_cached(&sql)?.query_map(&[], |row| row.get(0))
}

/// What the rows of an hour add up to.
fn of_rows<'a>(
    ledger: &Transaction<'_>,
    table: &'static HourTable,
    hour_ms: i64,
) -> sql::Result<Collected<'a>> {
    let mut collected = Collected::new(table);
    let (columns, rows) = (table.stored_columns(), table.rows);
    let sql = format!("SELECT {columns} FROM {rows} WHERE time_ms >= ? AND time_ms < ?");
    let mut statement = ledger.prepare_cached(&sql)?;
    let mut rows = statement.query(values![hour_ms, hour_ms.saturating_add(HOUR_MS)])?;
    while let Some(row) = rows.next_row()? {
        collected.add_stored(&row)?;
    }
    Ok(collected)
}

/// The dimensions as text, and the sums, by key.
type Texts = BTreeMap<(i64, String), (Vec<Option<String>>, Vec<Sum>)>;

fn texts(rows: Rows<'_>) -> Texts {
    let text = |(key, (dimensions, sums)): (_, (Vec<Value<'_>>, _))| {
        (key, (dimensions.iter().map(Value::to_text).collect(), sums))
    };
    rows.into_iter().map(text).collect()
}

/// The rows of an hour as they are stored.
fn stored(ledger: &Transaction<'_>, table: &HourTable, hour_ms: i64) -> sql::Result<Texts> {
    // As text, amounts have each digit.
    let columns = table.names().map(|name| format!("CAST({name} AS TEXT)"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT key, {columns} FROM {} WHERE hour_ms = ?", table.name);
    let width = table.names().count();
    let read = |row: &sql::Row<'_>| {
        let values = (1..=width).map(|place| Ok(row.value(place)?.into_owned()));
        let mut values = values.collect::<sql::Result<Vec<Value<'static>>>>()?;
        let sums = values.split_off(table.dimension_count());
        let dimensions = values.iter().map(Value::to_text).collect();
        Ok(((hour_ms, row.get(0)?), (dimensions, table.stored_sums(&sums)?)))
    };
    let rows = ledger.prepare_cached(&sql)?.query_map(values![hour_ms], read)?;
    Ok(rows.into_iter().collect())
}

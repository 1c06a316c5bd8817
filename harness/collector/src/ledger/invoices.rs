//! Keeps which periods are closed: an event `invoice` for each, which the ledger writes itself, with
//! a row by which it is found.

use crate::event::Event;
use crate::event::billed::Billed;
use crate::sql::{self, Row, Transaction, values};

pub(super) const SCHEMA: &str = "
CREATE TABLE invoices (
    position INTEGER PRIMARY KEY REFERENCES events (position),
    number   TEXT NOT NULL UNIQUE,
    customer TEXT NOT NULL,
    from_ms  INTEGER NOT NULL,
    to_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX invoices_customer ON invoices (customer, from_ms);
";

/// A row of a closed invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) billed: Billed,
    /// The event's text.
    pub(crate) raw: String,
}

pub(super) fn store(
    ledger: &Transaction<'_>,
    invoices: &[(&Event<'_>, &Billed, i64)],
) -> sql::Result<()> {
    for (_, billed, position) in invoices {
        let Billed { number, customer, from_ms, to_ms } = billed;
        ledger.execute(
            "INSERT INTO invoices (position, number, customer, from_ms, to_ms)
             VALUES (?, ?, ?, ?, ?)",
            values![*position, number, customer, *from_ms, *to_ms],
        )?;
    }
    Ok(())
}

const SELECT: &str = "SELECT number, customer, from_ms, to_ms, raw
     FROM invoices JOIN events USING (position)";

/// All closed invoices of these customers, or of all for `None`, the oldest first.
pub(crate) fn of_customers(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
) -> sql::Result<Vec<Closed>> {
    let Some(customers) = customers else {
        let sql = format!("{SELECT} ORDER BY invoices.position");
        return ledger.prepare_cached(&sql)?.query_map(&[], read);
    };
    let sql = format!("{SELECT} WHERE customer = ? ORDER BY invoices.position");
    let mut found = Vec::new();
    for customer in customers {
        found.extend(ledger.prepare_cached(&sql)?.query_map(values![customer], read)?);
    }
    Ok(found)
}

/// The invoice with this number.
pub(crate) fn by_number(ledger: &Transaction<'_>, number: &str) -> sql::Result<Option<Closed>> {
    let sql = format!("{SELECT} WHERE number = ?");
    ledger.prepare_cached(&sql)?.query_optional(values![number], read)
}

/// The closed invoices of periods that have a moment in common with this one.
pub(crate) fn within(
    ledger: &Transaction<'_>,
    from_ms: i64,
    to_ms: i64,
) -> sql::Result<Vec<Closed>> {
    let sql = format!("{SELECT} WHERE from_ms < ? AND to_ms > ? ORDER BY invoices.position");
    ledger.prepare_cached(&sql)?.query_map(values![to_ms, from_ms], read)
}

/// How many there are.
pub(crate) fn count(ledger: &Transaction<'_>) -> sql::Result<i64> {
    ledger.prepare_cached("SELECT count(*) FROM invoices")?.query_row(&[], |row| row.get(0))
}

fn read(row: &Row<'_>) -> sql::Result<Closed> {
    let billed = Billed {
        number: row.get(0)?,
        customer: row.get(1)?,
        from_ms: row.get(2)?,
        to_ms: row.get(3)?,
    };
    Ok(Closed { billed, raw: row.get(4)? })
}

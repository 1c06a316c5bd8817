//! Usage by hour: the sums of calls and of generations, one row for each hour and whatever reports
//! and invoices tell apart, so that these read thousands of rows and not millions.
//!
//! To the next maintainer. The rows change in the transaction that changes `calls` and
//! `generations`: whoever adds a row there or takes one away tells it to [`Changes`]. A sum keeps
//! each digit, so that what is taken back leaves what was there before; a report rounds. The names of
//! units are among the dimensions, and a row of no events is removed: else a report could not tell a
//! unit of which nothing was used from one that was never named. `key` stands for all dimensions,
//! because an index of PostgreSQL takes no long texts: 128 bits of their SHA-256. `verify` compares
//! all of it with the rows (`check.rs`).

mod changes;
mod check;
mod hour;
pub(crate) mod late;
pub(crate) mod parts;
mod sums;
mod table;

use std::sync::LazyLock;

pub(crate) use self::changes::Changes;
pub(crate) use self::check::{differences, fill};
pub(crate) use self::hour::{HOUR_MS, hour_of};
pub(crate) use self::table::HourTable;
use self::table::{Column, Of};
use crate::event::tokens::TokenTotals;
use crate::ledger::tables::{CALLS, GENERATIONS};

/// Whose it was: the first dimensions of both tables.
const OWNER: &[Column] = &[
    Column("customer", "TEXT NOT NULL", Of::Same),
    Column("team", "TEXT NOT NULL", Of::Same),
    Column("agent", "TEXT NOT NULL", Of::Same),
    Column("product", "TEXT NOT NULL", Of::Same),
    Column("product_type", "TEXT NOT NULL", Of::Same),
    Column("currency", "TEXT NOT NULL", Of::Same),
    Column("day", "TEXT NOT NULL", Of::Same),
];

/// Calls by hour. `unit_price` is what one call is charged; `events` is how many rows of `calls` are
/// in it, `calls` how many calls they stand for.
pub(crate) static CALL_HOURS: LazyLock<HourTable> = LazyLock::new(|| {
    let own: &[Column] = &[
        Column("kind", "TEXT NOT NULL", Of::Same),
        Column("tool", "TEXT NOT NULL", Of::Same),
        Column("tier", "TEXT NOT NULL", Of::Same),
        Column("status", "TEXT NOT NULL", Of::Same),
        Column("billable", "INTEGER NOT NULL", Of::Same),
        Column("unit_price", "DECIMAL NOT NULL", Of::UnitPrice),
        Column("events", "INTEGER NOT NULL", Of::One),
        Column("calls", "INTEGER NOT NULL", Of::Sum("quantity")),
        Column("price", "DECIMAL NOT NULL", Of::Sum("price")),
        Column("request_bytes", "DECIMAL NOT NULL", Of::Sum("request_bytes")),
        Column("response_bytes", "DECIMAL NOT NULL", Of::Sum("response_bytes")),
    ];
    HourTable::new("call_hours", CALLS.name, &[OWNER, own].concat())
});

/// Generations by hour that count. `unit_names` is a list in JSON of what was used beside tokens,
/// empty if nothing was; `events` is how many generations they are.
pub(crate) static GENERATION_HOURS: LazyLock<HourTable> = LazyLock::new(|| {
    let own: &[Column] = &[
        Column("tool", "TEXT", Of::Same),
        Column("provider", "TEXT NOT NULL", Of::Same),
        Column("model", "TEXT NOT NULL", Of::Same),
        Column("unit_names", "TEXT NOT NULL", Of::UnitNames),
        Column("events", "INTEGER NOT NULL", Of::One),
        Column("unpriced", "INTEGER NOT NULL", Of::Absent("provider_cost")),
        Column("unknown_usage", "INTEGER NOT NULL", Of::Sum("is_unknown")),
        Column("unpriced_units", "INTEGER NOT NULL", Of::Sum("has_unpriced_units")),
        Column("inconsistent", "INTEGER NOT NULL", Of::Sum("is_inconsistent")),
        Column("price", "DECIMAL NOT NULL", Of::Sum("price")),
        Column("provider_cost", "DECIMAL NOT NULL", Of::Sum("provider_cost")),
        Column("units", "TEXT NOT NULL", Of::Units),
    ];
    let tokens =
        TokenTotals::KINDS.iter().map(|kind| Column(kind, "DECIMAL NOT NULL", Of::Sum(kind)));
    let columns: Vec<Column> = OWNER.iter().chain(own).copied().chain(tokens).collect();
    HourTable::new("generation_hours", GENERATIONS.name, &columns)
});

/// The statements that make the tables.
pub(crate) fn schema() -> String {
    [CALL_HOURS.schema(), GENERATION_HOURS.schema()].concat()
}

//! Sums of what was used beside tokens, as a column of a query.

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

use crate::event::units::Units;
use crate::sql::{self, Row, failure};

/// Adds the SQL function `units_sum(TEXT)` to a connection: the exact sums, as JSON, of quantities in
/// JSON; NULL counts as none. A value that is not such JSON fails the query.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("units_sum", 1, flags, UnitsSum)
}

struct UnitsSum;

impl Aggregate<Units, String> for UnitsSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Units> {
        Ok(Units::default())
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Units) -> rusqlite::Result<()> {
        let Some(text) = context.get::<Option<String>>(0)? else { return Ok(()) };
        let units = Units::from_json(&text);
        let units = units.ok_or_else(|| failure(format!("not units: {text:?}")))?;
        sum.add(units);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Units>) -> rusqlite::Result<String> {
        Ok(sum.unwrap_or_default().to_json())
    }
}

/// Reads a column of `units_sum`.
pub(crate) fn column(row: &Row<'_>, name: &str) -> sql::Result<Units> {
    let text: String = row.get(name)?;
    Units::from_json(&text)
        .ok_or_else(|| sql::Error::Column(format!("{name}: not units: {text:?}")))
}

//! Sums of counts in queries. SQLite's own `sum` fails on an overflow, and one row that is wrong must
//! not keep a report from the others.

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

/// Adds the SQL function `count_sum(INTEGER)` to a connection: the sum, or the largest number if it
/// does not fit; 0 for no rows; NULL counts as none.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("count_sum", 1, flags, CountSum)
}

struct CountSum;

impl Aggregate<i64, i64> for CountSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<i64> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut i64) -> rusqlite::Result<()> {
        if let Some(count) = context.get::<Option<i64>>(0)? {
            *sum = sum.saturating_add(count);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<i64>) -> rusqlite::Result<i64> {
        Ok(sum.unwrap_or_default())
    }
}

//! The functions of this program that SQLite gets. PostgreSQL's are in `postgres/functions.sql`.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::{Connection, Error};
use rust_decimal::Decimal;

use crate::money;

/// Adds the functions to a connection:
///
/// - `decimal_sum(amount)`: the exact sum, without trailing zeros; 0 for no rows; NULL counts as
///   none. A value that is not money fails the query.
/// - `count_sum(number)`: the sum, or the largest number if it does not fit: SQLite's own `sum` fails
///   then, and one row that is wrong must not keep a report from the others; 0 for no rows; NULL
///   counts as none.
/// - `least(a, b)` and `greatest(a, b)` of two numbers.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("decimal_sum", 1, flags, DecimalSum)?;
    connection.create_aggregate_function("count_sum", 1, flags, CountSum)?;
    connection.create_scalar_function("least", 2, flags, |context| {
        Ok(context.get::<i64>(0)?.min(context.get(1)?))
    })?;
    connection.create_scalar_function("greatest", 2, flags, |context| {
        Ok(context.get::<i64>(0)?.max(context.get(1)?))
    })
}

/// The error of a function.
pub(crate) fn failure(reason: String) -> Error {
    Error::UserFunctionError(reason.into())
}

struct DecimalSum;

impl Aggregate<Decimal, String> for DecimalSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Decimal> {
        Ok(Decimal::ZERO)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Decimal) -> rusqlite::Result<()> {
        let Some(text) = context.get::<Option<String>>(0)? else { return Ok(()) };
        let amount = money::parse(&text).ok_or_else(|| failure(format!("not money: {text:?}")))?;
        *sum = money::sum(*sum, amount);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Decimal>) -> rusqlite::Result<String> {
        Ok(sum.unwrap_or_default().to_string())
    }
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

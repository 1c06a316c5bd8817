//! The functions of this program that SQLite gets. PostgreSQL's are in `postgres/functions.sql`.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use crate::money::Exact;

/// Adds the functions to a connection:
///
/// - `decimal_sum(amount)`: the sum, without trailing zeros, exact unless it has more digits than an
///   amount can have; 0 for no rows; NULL counts as none. A value that is not money fails the query.
/// - `count_sum(number)`: the sum, or the largest number if it does not fit: SQLite's own `sum` fails
///   then, and one row that is wrong must not keep a report from the others; 0 for no rows; NULL
///   counts as none. A number may be text, as sums are kept.
/// - `decimal_add(a, b)`: the exact sum of two amounts, however many digits it has.
/// - `least(a, b)` and `greatest(a, b)` of two numbers.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("decimal_sum", 1, flags, DecimalSum)?;
    connection.create_aggregate_function("count_sum", 1, flags, CountSum)?;
    connection.create_scalar_function("decimal_add", 2, flags, |context| {
        let mut sum = exact(context, 0)?.unwrap_or_default();
        sum.add(exact(context, 1)?.unwrap_or_default());
        Ok(sum.to_string())
    })?;
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

impl Aggregate<Exact, String> for DecimalSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Exact> {
        Ok(Exact::ZERO)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Exact) -> rusqlite::Result<()> {
        if let Some(amount) = exact(context, 0)? {
            sum.add(amount);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Exact>) -> rusqlite::Result<String> {
        Ok(sum.unwrap_or_default().rounded().to_string())
    }
}

struct CountSum;

impl Aggregate<Exact, i64> for CountSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Exact> {
        Ok(Exact::ZERO)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Exact) -> rusqlite::Result<()> {
        if let Some(count) = exact(context, 0)? {
            sum.add(count);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Exact>) -> rusqlite::Result<i64> {
        Ok(sum.unwrap_or_default().rounded_count())
    }
}

/// A number or an amount in text; `None` for NULL.
fn exact(context: &Context<'_>, argument: usize) -> rusqlite::Result<Option<Exact>> {
    let amount = match context.get_raw(argument) {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(count) => Some(Exact::from(count)),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(Exact::parse),
        ValueRef::Real(_) | ValueRef::Blob(_) => None,
    };
    match amount {
        Some(amount) => Ok(Some(amount)),
        None => Err(failure(format!("not money: {:?}", context.get_raw(argument)))),
    }
}

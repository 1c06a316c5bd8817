//! Rows of a query, read one by one.

use std::borrow::Cow;
use std::pin::Pin;

use rusqlite::types::ValueRef;
use rust_decimal::Decimal;
use tokio_postgres::RowStream;
use tokio_postgres::types::Type;

use crate::sql::postgres::wait::next_row;
use crate::sql::{Error, FromValue, Result, Value};

/// The rows of a query.
pub(crate) enum Rows<'a> {
    Sqlite(rusqlite::Rows<'a>),
    /// And the row that was read last.
    Postgres(Pin<Box<RowStream>>, Option<tokio_postgres::Row>),
}

impl Rows<'_> {
    /// The next row; `None` behind the last.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row<'_>>> {
        match self {
            Rows::Sqlite(rows) => Ok(rows.next()?.map(Row::Sqlite)),
            Rows::Postgres(rows, last) => {
                *last = next_row(rows)?;
                Ok(last.as_ref().map(Row::Postgres))
            }
        }
    }
}

/// One row.
pub(crate) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

/// The number of a column from 0, or its name.
pub(crate) trait Place {
    fn at(self, row: &Row<'_>) -> Result<usize>;
}

impl Place for usize {
    fn at(self, _: &Row<'_>) -> Result<usize> {
        Ok(self)
    }
}

impl Place for &str {
    fn at(self, row: &Row<'_>) -> Result<usize> {
        match row {
            Row::Sqlite(row) => Ok(row.as_ref().column_index(self)?),
            Row::Postgres(row) => {
                let at = row.columns().iter().position(|column| column.name() == self);
                at.ok_or_else(|| Error::Column(format!("no column {self}")))
            }
        }
    }
}

impl Row<'_> {
    /// Reads a column.
    pub(crate) fn get<P: Place, T: FromValue>(&self, place: P) -> Result<T> {
        let at = place.at(self)?;
        let value = self.value(at)?;
        T::from_value(value.clone()).ok_or_else(|| {
            let wanted = std::any::type_name::<T>();
            Error::Column(format!("column {at}: expected {wanted}, found {value:.60?}"))
        })
    }

    /// The text of a column: [`Value::to_text`].
    pub(crate) fn text(&self, at: usize) -> Result<Option<String>> {
        Ok(self.value(at)?.to_text())
    }

    /// A column as it is.
    pub(crate) fn value(&self, at: usize) -> Result<Value<'_>> {
        match self {
            Row::Sqlite(row) => match row.get_ref(at)? {
                ValueRef::Null => Ok(Value::Null),
                ValueRef::Integer(number) => Ok(Value::Integer(number)),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Value::Text(Cow::Borrowed(text))),
                    Err(error) => Err(Error::Column(format!("column {at}: {error}"))),
                },
                ValueRef::Real(_) | ValueRef::Blob(_) => {
                    Err(Error::Column(format!("column {at}: neither a number nor text")))
                }
            },
            Row::Postgres(row) => of_postgres(row, at),
        }
    }
}

fn of_postgres(row: &tokio_postgres::Row, at: usize) -> Result<Value<'_>> {
    let column = row.columns().get(at);
    let kind = column.ok_or_else(|| Error::Column(format!("no column {at}")))?.type_();
    let value = match *kind {
        Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map(Value::from),
        Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map(|it| Value::Integer(it.into())),
        Type::BOOL => row.try_get::<_, Option<bool>>(at)?.map(Value::from),
        // More digits than an amount can have: a sum for a report stays at the largest.
        Type::NUMERIC => match row.try_get::<_, Option<Decimal>>(at) {
            Ok(amount) => amount.map(Value::from),
            Err(_) => Some(Value::Decimal(Decimal::MAX)),
        },
        _ => row.try_get::<_, Option<&str>>(at)?.map(Value::from),
    };
    Ok(value.unwrap_or(Value::Null))
}

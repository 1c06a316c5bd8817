//! Values on their way into a statement and out of a row.

use std::borrow::Cow;
use std::error::Error as StdError;

use rusqlite::types::{ToSqlOutput, Value as SqliteValue};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::money::{self, Exact};
use crate::sql::postgres::kept_text;

/// A value of a row or a parameter. A truth value is 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    /// An exact amount: TEXT in SQLite, which keeps each digit, and NUMERIC in PostgreSQL.
    Decimal(Decimal),
}

impl Value<'_> {
    /// The same, borrowed from nothing.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Integer(number) => Value::Integer(number),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Decimal(amount) => Value::Decimal(amount),
        }
    }

    /// The value as text, the same from both databases; `None` for NULL.
    pub(crate) fn to_text(&self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::Integer(number) => Some(number.to_string()),
            Value::Text(text) => Some(kept_text(text).into_owned()),
            Value::Decimal(amount) => Some(amount.normalize().to_string()),
        }
    }
}

/// A slice of [`Value`]s.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::sql::Value::from($value)),*] as &[$crate::sql::Value<'_>]
    };
}

pub(crate) use values;

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Integer(flag.into())
    }
}

impl From<Decimal> for Value<'_> {
    fn from(amount: Decimal) -> Self {
        Value::Decimal(amount)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Value<'a> {
        value.map_or(Value::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Owned(SqliteValue::Null),
            Value::Integer(number) => ToSqlOutput::Owned(SqliteValue::Integer(*number)),
            Value::Text(text) => ToSqlOutput::from(text.as_ref()),
            Value::Decimal(amount) => ToSqlOutput::Owned(SqliteValue::Text(amount.to_string())),
        })
    }
}

/// A parameter of PostgreSQL, which knows the type that it wants.
impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        wanted: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(number) => match *wanted {
                Type::BOOL => (*number != 0).to_sql(wanted, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(wanted, out),
                Type::NUMERIC => Decimal::from(*number).to_sql(wanted, out),
                _ => number.to_sql(wanted, out),
            },
            Value::Text(text) => match *wanted {
                Type::NUMERIC => money::parse(text).ok_or("not money")?.to_sql(wanted, out),
                _ => kept_text(text).as_ref().to_sql(wanted, out),
            },
            Value::Decimal(amount) => match *wanted {
                Type::NUMERIC => amount.to_sql(wanted, out),
                _ => amount.to_string().to_sql(wanted, out),
            },
        }
    }

    /// Of what the statements of this program have: numbers, amounts, text and truth values.
    fn accepts(wanted: &Type) -> bool {
        let numbers = [Type::BOOL, Type::INT4, Type::INT8, Type::NUMERIC];
        let texts = [Type::TEXT, Type::VARCHAR, Type::NAME];
        numbers.contains(wanted) || texts.contains(wanted)
    }

    to_sql_checked!();
}

/// What can be read from a row.
pub(crate) trait FromValue: Sized {
    /// `None` if the value is of another kind.
    fn from_value(value: Value<'_>) -> Option<Self>;
}

impl FromValue for i64 {
    /// A sum that does not fit is the largest number: one row that is wrong must not keep a report
    /// from the others.
    fn from_value(value: Value<'_>) -> Option<i64> {
        match value {
            Value::Integer(number) => Some(number),
            Value::Decimal(number) => Some(number.to_i64().unwrap_or(i64::MAX)),
            Value::Null | Value::Text(_) => None,
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: Value<'_>) -> Option<u32> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Option<bool> {
        Some(i64::from_value(value)? != 0)
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Option<String> {
        match value {
            Value::Text(text) => Some(text.into_owned()),
            Value::Null | Value::Integer(_) | Value::Decimal(_) => None,
        }
    }
}

impl FromValue for Decimal {
    fn from_value(value: Value<'_>) -> Option<Decimal> {
        match value {
            Value::Text(text) => money::parse(&text),
            Value::Decimal(amount) => Some(amount.normalize()),
            Value::Integer(number) => Some(number.into()),
            Value::Null => None,
        }
    }
}

impl FromValue for Exact {
    fn from_value(value: Value<'_>) -> Option<Exact> {
        match value {
            Value::Text(text) => Exact::parse(&text),
            Value::Decimal(amount) => Some(amount.into()),
            Value::Integer(number) => Some(number.into()),
            Value::Null => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value<'_>) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

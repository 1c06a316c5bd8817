//! Columns of many rows, each as one parameter.

use std::borrow::Cow;
use std::error::Error as StdError;

use rust_decimal::Decimal;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::money;
use crate::sql::postgres::kept_text;
use crate::sql::{Error, Result, Value};

/// The values of one column.
#[derive(Debug)]
pub(crate) enum Array<'a> {
    Integer(Vec<Option<i64>>),
    Text(Vec<Option<Cow<'a, str>>>),
    Decimal(Vec<Option<Decimal>>),
}

impl<'a> Array<'a> {
    /// An empty one for a column of this type.
    pub(crate) fn of_column(sql: &str) -> Array<'a> {
        match sql.split(' ').next() {
            Some("INTEGER") => Array::Integer(Vec::new()),
            Some("DECIMAL") => Array::Decimal(Vec::new()),
            _ => Array::Text(Vec::new()),
        }
    }

    /// The type of a value in PostgreSQL.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Array::Integer(_) => "bigint",
            Array::Text(_) => "text",
            Array::Decimal(_) => "numeric",
        }
    }

    /// Adds the value of the next row.
    pub(crate) fn push(&mut self, value: Value<'a>) -> Result<()> {
        match (self, value) {
            (Array::Integer(all), Value::Null) => all.push(None),
            (Array::Text(all), Value::Null) => all.push(None),
            (Array::Decimal(all), Value::Null) => all.push(None),
            (Array::Integer(all), Value::Integer(number)) => all.push(Some(number)),
            (Array::Decimal(all), Value::Decimal(amount)) => all.push(Some(amount)),
            (Array::Text(all), Value::Decimal(amount)) => all.push(Some(amount.to_string().into())),
            (Array::Text(all), Value::Text(text)) => all.push(Some(match text {
                Cow::Borrowed(text) => kept_text(text),
                Cow::Owned(text) => Cow::Owned(kept_text(&text).into_owned()),
            })),
            (Array::Decimal(all), Value::Text(text)) if money::parse(&text).is_some() => {
                all.push(money::parse(&text));
            }
            (array, value) => {
                let reason = format!("expected {}, found {value:.60?}", array.type_name());
                return Err(Error::Column(reason));
            }
        }
        Ok(())
    }
}

impl ToSql for Array<'_> {
    fn to_sql(
        &self,
        wanted: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Array::Integer(all) => all.to_sql(wanted, out),
            Array::Text(all) => all.to_sql(wanted, out),
            Array::Decimal(all) => all.to_sql(wanted, out),
        }
    }

    fn accepts(wanted: &Type) -> bool {
        [Type::INT8_ARRAY, Type::TEXT_ARRAY, Type::NUMERIC_ARRAY].contains(wanted)
    }

    to_sql_checked!();
}

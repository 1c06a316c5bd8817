//! Tables as lists of columns: the schema, the insert and the select of a table are made from one
//! list, so that a column is one line.

use std::borrow::Cow;
use std::sync::OnceLock;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, ToSql, params_from_iter};
use rust_decimal::Decimal;

use crate::event::Event;
use crate::event::totals::Totals;

/// The source of a row of a table.
#[derive(Debug)]
pub(crate) struct Row<'a, B: ?Sized> {
    /// Where the event is stored; for the table of events itself nothing yet.
    pub(crate) position: Option<i64>,
    pub(crate) event: &'a Event<'a>,
    /// The part of the event that the table is about.
    pub(crate) body: &'a B,
}

/// A value of a row.
#[derive(Debug)]
pub(crate) enum Cell<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Json(&'a Totals),
}

/// A column of a table whose rows are made of a `B`.
#[derive(Debug)]
pub(crate) struct Column<B: ?Sized + 'static> {
    pub(crate) name: &'static str,
    /// Its type and constraints.
    pub(crate) sql: &'static str,
    /// Its value in a row.
    pub(crate) cell: for<'a> fn(&Row<'a, B>) -> Cell<'a>,
}

/// Columns, one a line: the name, the type in SQL, and the cell, made from the row.
macro_rules! columns {
    ($row:ident: $($name:literal $sql:literal = $cell:expr,)*) => {
        &[$($crate::ledger::column::Column {
            name: $name,
            sql: $sql,
            cell: |$row| {
                // Some cells are the same in each row.
                let _ = $row;
                $crate::ledger::column::Cell::from($cell)
            },
        },)*]
    };
}

pub(crate) use columns;

/// A table whose rows are made of a `B`.
#[derive(Debug)]
pub(crate) struct Table<B: ?Sized + 'static> {
    pub(crate) name: &'static str,
    /// In the order of the schema, in parts.
    pub(crate) columns: &'static [&'static [Column<B>]],
    /// A constraint of the whole table; may be empty.
    pub(crate) constraint: &'static str,
    /// Such as `STRICT`.
    pub(crate) options: &'static str,
    /// Statements that make its indexes.
    pub(crate) indexes: &'static str,
    /// What to do about a row that is there already.
    pub(crate) on_conflict: OnConflict,
    /// The statement that inserts a row, once it was needed.
    pub(crate) insertion: OnceLock<String>,
}

/// What an insert does about a row that is there already.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnConflict {
    /// It fails.
    Fail,
    /// It keeps the old row.
    Keep,
    /// It takes all new values but those of the `key`, if the `condition` is true.
    Replace { key: &'static [&'static str], condition: &'static str },
}

impl<B: ?Sized> Table<B> {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().copied().flatten().map(|column| column.name)
    }

    /// Its columns with their types.
    pub(crate) fn column_types(&self) -> Vec<String> {
        let columns = self.columns.iter().copied().flatten();
        columns.map(|column| format!("{} {}", column.name, column.sql)).collect()
    }

    /// The statements that make the table and its indexes.
    pub(crate) fn schema(&self) -> String {
        let columns = self.column_types();
        let mut lines: Vec<String> =
            columns.into_iter().map(|column| format!("    {column}")).collect();
        if !self.constraint.is_empty() {
            lines.push(format!("    {}", self.constraint));
        }
        let (name, options, indexes) = (self.name, self.options, self.indexes);
        format!("CREATE TABLE {name} (\n{}\n) {options};\n{indexes}\n", lines.join(",\n"))
    }

    /// The names of all columns, for a `SELECT` whose rows are read by name.
    pub(crate) fn selection(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }

    fn to_insertion(&self) -> String {
        let names = self.selection();
        let values = self.names().map(|_| "?").collect::<Vec<_>>().join(", ");
        let on_conflict = match self.on_conflict {
            OnConflict::Fail => String::new(),
            OnConflict::Keep => "ON CONFLICT DO NOTHING".to_owned(),
            OnConflict::Replace { key, condition } => {
                let taken = self.names().filter(|name| *name != "position" && !key.contains(name));
                let taken: Vec<String> =
                    taken.map(|name| format!("{name} = excluded.{name}")).collect();
                let (key, taken) = (key.join(", "), taken.join(", "));
                format!("ON CONFLICT ({key}) DO UPDATE SET {taken} WHERE {condition}")
            }
        };
        format!("INSERT INTO {} ({names}) VALUES ({values}) {on_conflict}", self.name)
    }

    /// Inserts a row, and returns how many rows changed.
    pub(crate) fn insert(&self, ledger: &Connection, row: &Row<'_, B>) -> rusqlite::Result<usize> {
        let columns = self.columns.iter().copied().flatten();
        let cells = columns.map(|column| (column.cell)(row));
        let insertion = self.insertion.get_or_init(|| self.to_insertion());
        ledger.prepare_cached(insertion)?.execute(params_from_iter(cells))
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Cell::Text(text) => ToSqlOutput::from(text.as_ref()),
            Cell::Json(totals) => {
                let text = serde_json::to_string(totals);
                let failed = |error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
                ToSqlOutput::Owned(Value::Text(text.map_err(failed)?))
            }
        })
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Cell<'a> {
        Cell::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Cell<'a> {
    fn from(text: &'a String) -> Cell<'a> {
        Cell::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Cell::Text(Cow::Owned(text))
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Cell::Integer(number)
    }
}

impl From<bool> for Cell<'_> {
    fn from(flag: bool) -> Self {
        Cell::Integer(flag.into())
    }
}

/// As TEXT, which keeps each digit.
impl From<Decimal> for Cell<'_> {
    fn from(amount: Decimal) -> Self {
        Cell::Text(Cow::Owned(amount.to_string()))
    }
}

/// As JSON.
impl<'a> From<&'a Totals> for Cell<'a> {
    fn from(totals: &'a Totals) -> Cell<'a> {
        Cell::Json(totals)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Cell<'a> {
        value.map_or(Cell::Null, Into::into)
    }
}

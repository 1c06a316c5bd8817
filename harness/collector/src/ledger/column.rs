//! Tables as lists of columns: the schema, the insert and the select of a table are made from one
//! list, so that a column is one line.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::event::Event;
use crate::sql::postgres::Array;
use crate::sql::{self, Transaction, Value};

/// The source of a row of a table.
#[derive(Debug)]
pub(crate) struct Row<'a, B: ?Sized> {
    /// Where the event is stored; for the table of events itself nothing yet.
    pub(crate) position: Option<i64>,
    pub(crate) event: &'a Event<'a>,
    /// The part of the event that the table is about.
    pub(crate) body: &'a B,
}

impl<B: ?Sized> Row<'_, B> {
    /// The same row: it only points to its parts.
    pub(crate) fn copied(&self) -> Self {
        Row { position: self.position, event: self.event, body: self.body }
    }
}

/// The value of a column in a row.
pub(crate) type Cell<B> = for<'a> fn(&Row<'a, B>) -> Value<'a>;

/// A column of a table whose rows are made of a `B`.
#[derive(Debug)]
pub(crate) struct Column<B: ?Sized + 'static> {
    pub(crate) name: &'static str,
    /// Its type and constraints.
    pub(crate) sql: &'static str,
    /// Its value in a row.
    pub(crate) cell: Cell<B>,
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
                $crate::sql::Value::from($cell)
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

    /// The cells of the columns of these names, in their order.
    pub(crate) fn cells(&self, names: &[&str]) -> Vec<Cell<B>> {
        let columns = self.columns.iter().copied().flatten();
        let of = |name: &&str| columns.clone().find(|column| column.name == *name);
        names.iter().filter_map(of).map(|column| column.cell).collect()
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

    /// Each column with the text of its value in a row, as [`sql::Row::text`] reads it.
    pub(crate) fn texts(&self, row: &Row<'_, B>) -> Vec<(&'static str, Option<String>)> {
        let columns = self.columns.iter().copied().flatten();
        columns.map(|column| (column.name, (column.cell)(row).to_text())).collect()
    }

    /// The columns that an insert gives; the database gives the number of a row itself.
    fn given(&self) -> impl Iterator<Item = &'static Column<B>> {
        let columns = self.columns.iter().copied().flatten();
        columns.filter(|column| column.sql != "INTEGER PRIMARY KEY")
    }

    fn given_names(&self) -> String {
        self.given().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    fn on_conflict(&self) -> String {
        match self.on_conflict {
            OnConflict::Fail => String::new(),
            OnConflict::Keep => "ON CONFLICT DO NOTHING".to_owned(),
            OnConflict::Replace { key, condition } => {
                let taken = self.given().map(|column| column.name);
                let taken: Vec<String> = taken
                    .filter(|name| !key.contains(name))
                    .map(|name| format!("{name} = excluded.{name}"))
                    .collect();
                let (key, taken) = (key.join(", "), taken.join(", "));
                format!("ON CONFLICT ({key}) DO UPDATE SET {taken} WHERE {condition}")
            }
        }
    }

    fn to_insertion(&self) -> String {
        let values = self.given().map(|_| "?").collect::<Vec<_>>().join(", ");
        let (names, on_conflict) = (self.given_names(), self.on_conflict());
        format!("INSERT INTO {} ({names}) VALUES ({values}) {on_conflict}", self.name)
    }

    /// Inserts a row, and returns how many rows changed.
    pub(crate) fn insert(&self, ledger: &Transaction<'_>, row: &Row<'_, B>) -> sql::Result<usize> {
        let cells: Vec<Value<'_>> = self.given().map(|column| (column.cell)(row)).collect();
        ledger.execute(self.insertion.get_or_init(|| self.to_insertion()), &cells)
    }

    /// Inserts rows, in PostgreSQL with one statement.
    pub(crate) fn insert_all(
        &self,
        ledger: &Transaction<'_>,
        rows: &[Row<'_, B>],
    ) -> sql::Result<()> {
        match ledger {
            _ if rows.is_empty() => {}
            Transaction::Sqlite(_) => {
                for row in rows {
                    self.insert(ledger, row)?;
                }
            }
            Transaction::Postgres(session) => {
                session.insert_arrays(&self.to_bulk_insertion(""), &self.to_arrays(rows)?)?;
            }
        }
        Ok(())
    }

    /// Inserts rows of new events, and returns the position that each got; `None` for an event whose
    /// source and id are there already.
    pub(crate) fn insert_new(
        &self,
        ledger: &Transaction<'_>,
        rows: &[Row<'_, B>],
    ) -> sql::Result<Vec<Option<i64>>> {
        let session = match ledger {
            _ if rows.is_empty() => return Ok(Vec::new()),
            Transaction::Postgres(session) => session,
            Transaction::Sqlite(connection) => {
                let insert = |row| {
                    let is_new = self.insert(ledger, row)? > 0;
                    Ok(is_new.then(|| connection.last_insert_rowid()))
                };
                return rows.iter().map(insert).collect();
            }
        };
        let insertion = self.to_bulk_insertion("RETURNING position, source, id");
        let mut inserted = session.insert_arrays(&insertion, &self.to_arrays(rows)?)?;
        let mut positions: HashMap<(String, String), i64> = HashMap::with_capacity(rows.len());
        while let Some(row) = inserted.next_row()? {
            positions.insert((row.get(1)?, row.get(2)?), row.get(0)?);
        }
        let position = |row: &Row<'_, B>| {
            let text = |text: &str| sql::postgres::kept_text(text).into_owned();
            positions.remove(&(text(&row.event.source), text(&row.event.id)))
        };
        Ok(rows.iter().map(position).collect())
    }

    /// The statement that inserts rows of which each column is an array.
    fn to_bulk_insertion(&self, returning: &str) -> String {
        let (names, on_conflict) = (self.given_names(), self.on_conflict());
        let arrays = self.given().zip(1..).map(|(column, number)| {
            let kind = Array::of_column(column.sql).type_name();
            format!("${number}::{kind}[]")
        });
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({names}) SELECT {names}
             FROM unnest({arrays}) WITH ORDINALITY AS given ({names}, place) ORDER BY place
             {on_conflict} {returning}",
            self.name
        )
    }

    fn to_arrays<'a>(&self, rows: &[Row<'a, B>]) -> sql::Result<Vec<Array<'a>>> {
        let array = |column: &'static Column<B>| {
            let mut array = Array::of_column(column.sql);
            for row in rows {
                array.push((column.cell)(row))?;
            }
            Ok(array)
        };
        self.given().map(array).collect()
    }
}

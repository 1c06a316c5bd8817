//! Statements on the database of a ledger, whether it is SQLite or PostgreSQL.
//!
//! Both run the same SQL. What is not the same in both, each makes known under one name: SQLite gets
//! functions of this program (`functions.rs`), PostgreSQL gets functions in its own languages
//! (`postgres/functions.sql`).
//!
//! To the next maintainer. Parameters are `?` or `?1`. A count is a `BIGINT` in PostgreSQL, an
//! amount of money `NUMERIC`, and a truth value a number, as in SQLite: write
//! `count(*) FILTER (WHERE …)` and not `sum(a IS NULL)`, `least` and `greatest` and not `min(a, b)`,
//! and name the table in `ON CONFLICT … SET n = sources.n + excluded.n`.

mod error;
mod functions;
pub(crate) mod postgres;
mod rows;
mod value;

pub(crate) use self::error::{Error, Result};
pub(crate) use self::functions::{failure, register};
use self::postgres::session::Session;
pub(crate) use self::rows::{Row, Rows};
pub(crate) use self::value::{FromValue, Value, values};

/// A transaction of a ledger's database, or a snapshot for queries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transaction<'a> {
    Sqlite(&'a rusqlite::Connection),
    Postgres(&'a Session),
}

impl<'a> Transaction<'a> {
    /// Prepares a statement, and keeps it for the next time: for SQL that does not depend on input.
    pub(crate) fn prepare_cached(&self, sql: &str) -> Result<Statement<'a>> {
        Ok(match *self {
            Transaction::Sqlite(connection) => Statement::Sqlite(connection.prepare_cached(sql)?),
            Transaction::Postgres(session) => {
                Statement::Postgres(session, session.prepare_cached(sql)?)
            }
        })
    }

    /// Runs one statement, and returns how many rows changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize> {
        self.prepare_cached(sql)?.execute(values)
    }
}

/// A prepared statement.
pub(crate) enum Statement<'a> {
    Sqlite(rusqlite::CachedStatement<'a>),
    Postgres(&'a Session, tokio_postgres::Statement),
}

impl Statement<'_> {
    /// Runs it, and returns how many rows changed.
    pub(crate) fn execute(&mut self, values: &[Value<'_>]) -> Result<usize> {
        match self {
            Statement::Sqlite(statement) => {
                Ok(statement.execute(rusqlite::params_from_iter(values))?)
            }
            Statement::Postgres(session, statement) => session.execute(statement, values),
        }
    }

    /// Runs a query.
    pub(crate) fn query(&mut self, values: &[Value<'_>]) -> Result<Rows<'_>> {
        Ok(match self {
            Statement::Sqlite(statement) => {
                Rows::Sqlite(statement.query(rusqlite::params_from_iter(values))?)
            }
            Statement::Postgres(session, statement) => session.query(statement, values)?,
        })
    }

    /// Runs a query, and reads each of its rows.
    pub(crate) fn query_map<T>(
        &mut self,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut rows = self.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next_row()? {
            found.push(read(&row)?);
        }
        Ok(found)
    }

    /// Reads the first row, if there is one.
    pub(crate) fn query_optional<T>(
        &mut self,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut rows = self.query(values)?;
        rows.next_row()?.map(|row| read(&row)).transpose()
    }

    /// Reads the first row; it is an error if there is none.
    pub(crate) fn query_row<T>(
        &mut self,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.query_optional(values, read)?.ok_or(Error::NoRow)
    }

    /// True if there is a row.
    pub(crate) fn exists(&mut self, values: &[Value<'_>]) -> Result<bool> {
        Ok(self.query_optional(values, |_| Ok(()))?.is_some())
    }
}

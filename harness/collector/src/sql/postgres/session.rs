//! One connection to PostgreSQL, and the statements on it.

use std::fmt;

use deadpool_postgres::Object;
use tokio_postgres::Statement;

use crate::sql::postgres::Array;
use crate::sql::postgres::text::with_numbered_parameters;
use crate::sql::postgres::wait::wait;
use crate::sql::{Error, Result, Rows, Value};

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;

/// One connection, within a transaction. If it is not settled, the connection is closed, and the
/// server rolls the transaction back.
pub(crate) struct Session {
    /// `None` only while it is dropped.
    client: Option<Object>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

impl Session {
    pub(super) fn new(client: Object) -> Session {
        Session { client: Some(client) }
    }

    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or(Error::NoRow)
    }

    /// Gives the connection back for others: no transaction is open.
    pub(super) fn settle(mut self) {
        drop(self.client.take());
    }

    /// Runs statements without parameters.
    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        Ok(wait(self.client()?.batch_execute(sql))?)
    }

    /// Prepares a statement, and keeps it for the next time.
    pub(in crate::sql) fn prepare_cached(&self, sql: &str) -> Result<Statement> {
        let client = self.client()?;
        // Reports have as many statements as there are ways to group them.
        if client.statement_cache.size() > STATEMENTS_MAX {
            client.statement_cache.clear();
        }
        Ok(wait(client.prepare_cached(&with_numbered_parameters(sql)))?)
    }

    /// Runs an insert whose parameters are the columns of many rows, and returns what it returns.
    pub(crate) fn insert_arrays(&self, sql: &str, arrays: &[Array<'_>]) -> Result<Rows<'static>> {
        let client = self.client()?;
        let statement = wait(client.prepare_cached(sql))?;
        let rows = wait(client.query_raw(&statement, arrays))?;
        let mut rows = Rows::Postgres(Box::pin(rows), None);
        if statement.columns().is_empty() {
            while rows.next_row()?.is_some() {}
        }
        Ok(rows)
    }

    pub(in crate::sql) fn execute(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<usize> {
        let rows = wait(self.client()?.execute_raw(statement, values))?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    pub(in crate::sql) fn query(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Rows<'static>> {
        let rows = wait(self.client()?.query_raw(statement, values))?;
        Ok(Rows::Postgres(Box::pin(rows), None))
    }
}

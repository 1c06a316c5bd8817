//! Waits for the driver of PostgreSQL, which is asynchronous.

use std::future::Future;
use std::pin::Pin;

use futures_util::TryStreamExt;
use tokio_postgres::RowStream;

use crate::sql::Result;

/// Waits for PostgreSQL on the caller's thread. That may be one that runs an async task, whose share
/// of steps would be used up and never renewed while this waits.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    futures_executor::block_on(tokio::task::unconstrained(future))
}

/// The next row of a query.
pub(in crate::sql) fn next_row(
    rows: &mut Pin<Box<RowStream>>,
) -> Result<Option<tokio_postgres::Row>> {
    Ok(wait(rows.try_next())?)
}

//! Why a statement failed.

use std::error::Error as _;
use std::fmt;

use deadpool_postgres::PoolError;

/// What the database or a row of it says.
#[derive(Debug)]
pub(crate) enum Error {
    Sqlite(rusqlite::Error),
    Postgres(tokio_postgres::Error),
    /// No connection to PostgreSQL could be had.
    Pool(PoolError),
    /// A row is missing that must be there.
    NoRow,
    /// A column has another type, or holds something that this program does not write.
    Column(String),
}

/// What a statement returns.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Sqlite(error) => error.fmt(f),
            Error::Postgres(error) => show(error, f),
            Error::Pool(PoolError::Backend(error)) => {
                f.write_str("cannot connect to PostgreSQL: ")?;
                show(error, f)
            }
            Error::Pool(error) => write!(f, "no connection to PostgreSQL: {error}"),
            Error::NoRow => f.write_str("the ledger has no such row"),
            Error::Column(reason) => f.write_str(reason),
        }
    }
}

/// Shows what the server says, or else the error with its cause.
fn show(error: &tokio_postgres::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (error.as_db_error(), error.source()) {
        (Some(told), _) => write!(f, "{}: {}", told.severity(), told.message()),
        (None, Some(cause)) => write!(f, "{error}: {cause}"),
        (None, None) => write!(f, "{error}"),
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Postgres(error)
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Error {
        Error::Pool(error)
    }
}

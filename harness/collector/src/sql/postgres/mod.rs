//! A ledger in PostgreSQL, which many collectors may share: connections, transactions, statements.
//!
//! To the next maintainer. One collector writes at a time: each transaction that writes takes a lock
//! of the database first, as SQLite's `BEGIN IMMEDIATE` does. What the tables hold is then the same
//! as if one collector had taken all events in one order, positions become visible in their order,
//! so that a cursor misses no event, and no two transactions wait for each other.
//!
//! The calls block: the driver's connection has a runtime of its own, and the caller's thread waits.

mod arrays;
mod schema;
pub(super) mod session;
mod text;
pub(super) mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) use self::arrays::Array;
pub(crate) use self::schema::{count_tables, table_types};
use self::session::Session;
pub(crate) use self::text::kept_text;
use self::wait::wait;
use crate::sql::{Result, Transaction};

/// Connections of one collector to one server.
const CONNECTIONS_MAX: usize = 8;
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Has the password where the URL has none: PostgreSQL's own name for it.
const PASSWORD: &str = "PGPASSWORD";
/// Begins a transaction that writes, and waits until no other in this schema writes. The number is
/// `agent` in ASCII, so that it is nobody else's lock.
const BEGIN_WRITING: &str =
    "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 418581311092))";

/// A database of PostgreSQL.
pub(crate) struct Postgres {
    pool: Pool,
    /// Where queries go that change nothing.
    reading: Pool,
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// A runtime must not be waited for where async tasks run, and a ledger may be dropped there.
impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Postgres {
    /// Connects to a database, and for queries to `read_url`, such as a replica's, if there is one.
    ///
    /// # Errors
    ///
    /// If a URL is malformed. It tells of a server that is not there only when it is used.
    pub(crate) fn open(url: &str, read_url: Option<&str>) -> anyhow::Result<Postgres> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("ledger").enable_all().build()?;
        let pool = pool(url)?;
        let reading = read_url.map(self::pool).transpose()?.unwrap_or_else(|| pool.clone());
        Ok(Postgres { pool, reading, runtime: Some(runtime) })
    }

    fn session(&self, pool: &Pool) -> Result<Session> {
        // The driver starts its tasks, and its timers, in the runtime that is entered.
        let _runtime = self.runtime.as_ref().map(tokio::runtime::Runtime::enter);
        let client = wait(pool.get())?;
        Ok(Session::new(client))
    }

    /// Runs queries on one snapshot.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let session = self.session(&self.reading)?;
        session.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let done = work(&Transaction::Postgres(&session))?;
        session.batch("COMMIT")?;
        session.settle();
        Ok(done)
    }

    /// Changes the database: does all of `work` or nothing.
    pub(crate) fn write<T, E: From<crate::sql::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let session = self.session(&self.pool)?;
        session.batch(BEGIN_WRITING)?;
        let done = work(&Transaction::Postgres(&session))?;
        session.batch("COMMIT")?;
        session.settle();
        Ok(done)
    }
}

fn pool(url: &str) -> anyhow::Result<Pool> {
    // The driver's own text would tell the password.
    let mut config: Config = url.parse().ok().context(
        "malformed URL, expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require",
    )?;
    if let (None, Some(password)) = (config.get_password(), std::env::var_os(PASSWORD)) {
        config.password(password.as_encoded_bytes());
    }
    config.connect_timeout(CONNECT_TIMEOUT);
    if config.get_application_name().is_none() {
        config.application_name("agent-meter");
    }
    let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match config.get_ssl_mode() {
        SslMode::Disable => Manager::from_config(config, NoTls, how),
        _ => Manager::from_config(config, MakeRustlsConnect::new(tls()?), how),
    };
    let pool = Pool::builder(manager).max_size(CONNECTIONS_MAX).runtime(Runtime::Tokio1);
    let pool = pool.wait_timeout(Some(CONNECT_TIMEOUT)).create_timeout(Some(CONNECT_TIMEOUT));
    Ok(pool.build()?)
}

/// Trusts whom the machine trusts; `SSL_CERT_FILE` names others.
fn tls() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let (_, _unusable) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

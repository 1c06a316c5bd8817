//! Where a slice of `ingest` keeps its ledger: in a file, or in a schema of its own on the server of
//! PostgreSQL that `LEDGER_SERVER` names.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio_postgres::{Client, NoTls};

/// The URL of a server of PostgreSQL, as `tests/with-postgres.sh` gives it.
const SERVER: &str = "LEDGER_SERVER";
/// The schema of a ledger that is measured.
const SCHEMA: &str = "agent_meter_bench";

/// A kind of ledgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Sqlite,
    PostgreSql,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Sqlite => "SQLite",
            Kind::PostgreSql => "PostgreSQL",
        })
    }
}

/// The kinds that can be measured here.
pub(super) fn kinds() -> Vec<Kind> {
    match std::env::var_os(SERVER) {
        Some(_) => vec![Kind::Sqlite, Kind::PostgreSql],
        None => vec![Kind::Sqlite],
    }
}

/// The place of one new ledger.
pub(super) enum Place {
    File(PathBuf),
    Schema { server: String, client: Client },
}

impl Place {
    /// A place without a ledger: in this folder, or on the server.
    pub(super) async fn new(kind: Kind, dir: &Path) -> anyhow::Result<Place> {
        if kind == Kind::Sqlite {
            return Ok(Place::File(dir.join("ledger.db")));
        }
        let server = std::env::var(SERVER)?;
        let (client, connection) = tokio_postgres::connect(&server, NoTls).await?;
        tokio::spawn(connection);
        let sql = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}");
        client.batch_execute(&sql).await?;
        Ok(Place::Schema { server, client })
    }

    /// The ledger's URL.
    pub(super) fn url(&self) -> String {
        match self {
            Place::File(path) => format!("sqlite:{}", path.display()),
            Place::Schema { server, .. } => format!("{server}?options=-csearch_path%3D{SCHEMA}"),
        }
    }

    /// Bytes of the ledger, once its collector has stopped.
    pub(super) async fn bytes(&self) -> anyhow::Result<u64> {
        match self {
            Place::File(path) => Ok(fs::metadata(path)?.len()),
            Place::Schema { client, .. } => {
                let sql = "SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
                    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                    WHERE relkind = 'r' AND nspname = $1";
                let bytes: i64 = client.query_one(sql, &[&SCHEMA]).await?.try_get(0)?;
                Ok(bytes.unsigned_abs())
            }
        }
    }

    /// Removes the ledger.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        match self {
            Place::File(path) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut name = path.clone().into_os_string();
                    name.push(suffix);
                    // SQLite has removed what it keeps beside a ledger that was closed.
                    let _ = fs::remove_file(name);
                }
            }
            Place::Schema { client, .. } => {
                client.batch_execute(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await?;
            }
        }
        Ok(())
    }
}

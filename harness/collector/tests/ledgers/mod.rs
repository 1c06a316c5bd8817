//! Where the tests keep their ledgers.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::NoTls;

/// The URL of a new ledger: in memory, or where `LEDGER_SERVER` names a PostgreSQL server, in a
/// schema of its own there (see `tests/with-postgres.sh`).
pub(crate) fn new_ledger() -> String {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    let Ok(server) = std::env::var("LEDGER_SERVER") else { return "sqlite::memory:".to_owned() };
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    let schema = format!("ledger_{}_{number}", std::process::id());
    run(&server, &format!("CREATE SCHEMA {schema}"));
    format!("{server}?options=-csearch_path%3D{schema}")
}

/// Runs SQL on a PostgreSQL server.
pub(crate) fn run(url: &str, sql: &str) {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    // The caller may be an async task, where nothing may block.
    let made = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect(&url);
            tokio::spawn(connection);
            client.batch_execute(&sql).await.expect(&sql);
        });
    });
    made.join().expect("no panic");
}

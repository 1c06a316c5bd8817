//! Queues events for webhooks, in the transaction that stores them: a restart forgets none.
//! The room `webhook` sends them.

use rusqlite::{Connection, params};

/// Queues a new event, once for each webhook, due at once; returns how many rows it made.
pub(crate) fn queue<'a>(
    ledger: &Connection,
    position: i64,
    webhooks: impl Iterator<Item = &'a String>,
    now_ms: i64,
) -> rusqlite::Result<usize> {
    let mut queued = 0;
    for webhook in webhooks {
        queued += ledger
            .prepare_cached(
                "INSERT INTO webhook_deliveries
                 (position, webhook, state, failures, queued_ms, due_ms)
                 VALUES (?1, ?2, 'waiting', 0, ?3, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![position, webhook, now_ms])?;
    }
    Ok(queued)
}

//! Queues events for webhooks, in the transaction that stores them: a restart forgets none.
//! The room `webhook` sends them.

use crate::sql::{self, Transaction, values};

/// Queues a new event, once for each webhook, due at once; returns how many rows it made.
pub(crate) fn queue<'a>(
    ledger: &Transaction<'_>,
    position: i64,
    webhooks: impl Iterator<Item = &'a String>,
    now_ms: i64,
) -> sql::Result<usize> {
    let mut queued = 0;
    for webhook in webhooks {
        queued += ledger
            .prepare_cached(
                "INSERT INTO webhook_deliveries
                 (position, webhook, state, failures, queued_ms, due_ms)
                 VALUES (?1, ?2, 'waiting', 0, ?3, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(values![position, webhook, now_ms])?;
    }
    Ok(queued)
}

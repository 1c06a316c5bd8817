//! Closes the sessions of sources that are gone, with what is known of them; `sources.rs` opens them
//! again if the source speaks after all.
//!
//! To the next maintainer. The row keeps its `fold_order`, so any later event of the session itself
//! replaces it as ever; `state_before` marks a row that is closed by this file alone.

use crate::ledger::Ledger;
use crate::sql::{self, Transaction, values};

/// Why such a session is closed.
pub(crate) const SOURCE_LOST: &str = "source_lost";
/// Sessions closed in one transaction, so that events need not wait long.
const SESSIONS_MAX: i64 = 1000;

impl Ledger {
    /// Closes the sessions of each source that told that it lives, or that it ends, and has been
    /// silent for `silence_ms` since. Returns how many it closed.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn close_lost(&self, silence_ms: i64) -> anyhow::Result<u64> {
        let silent_since_ms = self.now_ms().saturating_sub(silence_ms);
        let mut closed = 0;
        loop {
            let some = self.write(|ledger| close_some(ledger, silent_since_ms))?;
            closed += u64::try_from(some)?;
            if some == 0 {
                return Ok(closed);
            }
        }
    }
}

fn close_some(ledger: &Transaction<'_>, silent_since_ms: i64) -> sql::Result<usize> {
    // A session ended with its last call or generation, as far as anybody knows.
    let of_session =
        "WHERE used.session_id = sessions.session_id AND used.source = sessions.source";
    let last =
        |table| format!("coalesce((SELECT max(time_ms) FROM {table} AS used {of_session}), 0)");
    let currency = |table| format!("(SELECT currency FROM {table} AS used {of_session} LIMIT 1)");
    let closed = ledger
        .prepare_cached(&format!(
            "UPDATE sessions SET state_before = state, state = 'CLOSED', close_reason = ?2,
              ended_ms = coalesce(nullif(greatest({}, {}), 0),
               (SELECT heard_ms FROM sources WHERE sources.source = sessions.source)),
              currency = coalesce({}, {})
             WHERE position IN (SELECT sessions.position FROM sessions JOIN sources USING (source)
              WHERE state IN ('CREATED', 'ACTIVE', 'IDLE') AND heartbeat > 0 AND heard_ms < ?1
              LIMIT ?3)",
            last("calls"),
            last("generations"),
            currency("calls"),
            currency("generations"),
        ))?
        .execute(values![silent_since_ms, SOURCE_LOST, SESSIONS_MAX])?;
    ledger
        .prepare_cached(
            "UPDATE sessions SET
              ended_at = rfc3339(ended_ms)
             WHERE state_before IS NOT NULL AND ended_at IS NULL",
        )?
        .execute(&[])?;
    Ok(closed)
}

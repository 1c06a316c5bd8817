//! Keeps events apart that are not plausible: whole, named with their reason, and in no sum, until
//! the operator releases or discards them (`decide.rs`).
//!
//! To the next maintainer. Such an event has a row in `events` too, with an empty `raw`: its number
//! is taken, so it is neither missing nor taken again. Its text is here, whatever becomes of it.

use crate::event::Event;
use crate::event::bounds::Beyond;
use crate::sql::{self, Transaction, values};

/// `state` is `held`, `released` or `discarded`.
pub(super) const SCHEMA: &str = "
CREATE TABLE quarantine (
    position    INTEGER PRIMARY KEY REFERENCES events (position),
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    writer      TEXT,
    raw         TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    decided_ms  INTEGER
) STRICT;
CREATE INDEX quarantine_state ON quarantine (state, position);
";

/// Stores an event that is not plausible; its row in `events` is there.
pub(super) fn hold(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
    beyond: &Beyond,
    writer: Option<&str>,
    received_ms: i64,
) -> sql::Result<()> {
    ledger
        .prepare_cached(
            "INSERT INTO quarantine (position, state, reason, detail, writer, raw, received_ms)
             VALUES (?, 'held', ?, ?, ?, ?, ?)",
        )?
        .execute(values![
            position,
            beyond.reason.name(),
            &beyond.detail,
            writer,
            event.raw,
            received_ms
        ])?;
    Ok(())
}

/// The text of an event of this source and id that is kept apart, or was.
pub(super) fn text_of(
    ledger: &Transaction<'_>,
    source: &str,
    id: &str,
) -> sql::Result<Option<String>> {
    ledger
        .prepare_cached(
            "SELECT quarantine.raw FROM quarantine JOIN events USING (position)
             WHERE source = ? AND id = ?",
        )?
        .query_optional(values![source, id], |row| row.get(0))
}

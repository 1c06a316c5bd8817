//! Makes the derived rows of one event. The events may come in any order.

use rusqlite::Transaction;

use crate::event::{Body, Event};
use crate::ledger::column::Row;
use crate::ledger::fleet;
use crate::ledger::tables::{CALLS, GENERATIONS, OfSession, SESSIONS};

/// Adds an event that is stored at `position` to calls, generations, sessions and guard totals.
pub(crate) fn derive(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
) -> rusqlite::Result<()> {
    let position = Some(position);
    match &event.body {
        Body::Call(call) => {
            CALLS.insert(ledger, &Row { position, event, body: &**call })?;
            fold(ledger, event, &**call)
        }
        Body::Generation(generation) => {
            GENERATIONS.insert(ledger, &Row { position, event, body: &**generation })?;
            fold(ledger, event, &**generation)
        }
        Body::Session(change) => fold(ledger, event, &**change),
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals),
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change),
        Body::Unknown => Ok(()),
    }
}

/// Keeps what the event with the highest order says about a session.
fn fold(ledger: &Transaction<'_>, event: &Event<'_>, body: &dyn OfSession) -> rusqlite::Result<()> {
    SESSIONS.insert(ledger, &Row { position: None, event, body })?;
    Ok(())
}

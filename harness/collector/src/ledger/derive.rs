//! Makes the derived rows of one event, in whatever order events come.

use rusqlite::Transaction;

use crate::event::session::SessionChange;
use crate::event::{Body, Event};
use crate::ledger::column::{Row, Table};
use crate::ledger::fleet;
use crate::ledger::tables::{CALLS, GENERATIONS, OfSession};

/// Takes an event that is stored at `position` into calls, generations, sessions and guard totals.
pub(crate) fn derive(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
) -> rusqlite::Result<()> {
    let position = Some(position);
    match &event.body {
        Body::Call(call) => {
            let row = Row { position, event, body: &**call };
            CALLS.insert(ledger, &row)?;
            fold(ledger, &row)
        }
        Body::Generation(generation) => {
            let row = Row { position, event, body: &**generation };
            GENERATIONS.insert(ledger, &row)?;
            fold(ledger, &row)
        }
        Body::Session(change) => {
            fold::<SessionChange>(ledger, &Row { position, event, body: change })
        }
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals),
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change),
        Body::Unknown => Ok(()),
    }
}

/// Keeps for a session what the event with the highest order says.
fn fold<B: OfSession>(ledger: &Transaction<'_>, row: &Row<'_, B>) -> rusqlite::Result<()> {
    Table::<B>::SESSIONS.insert(ledger, row)?;
    Ok(())
}

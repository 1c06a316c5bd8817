//! Makes the derived rows of one event. The events may come in any order.

use rusqlite::Transaction;

use crate::event::generation::Generation;
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
            supersede(ledger, event, generation)?;
            fold(ledger, event, &**generation)
        }
        Body::Session(change) => fold(ledger, event, &**change),
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals),
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change),
        Body::Unknown => Ok(()),
    }
}

/// Moves away what this generation supersedes, and the generation itself if another supersedes it.
fn supersede(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    generation: &Generation,
) -> rusqlite::Result<()> {
    if let Some(superseded) = &generation.supersedes {
        move_away(ledger, &event.source, superseded, event.sequence)?;
    }
    let id = generation.generation_id.as_str();
    let of_runs = id.rsplit_once('.').map_or(id, |(own, _)| own);
    let by: Option<i64> = ledger
        .prepare_cached(
            "SELECT min(sequence) FROM (
                 SELECT sequence FROM generations WHERE source = ?1 AND supersedes IN (?2, ?3)
                 UNION ALL
                 SELECT sequence FROM superseded WHERE source = ?1 AND supersedes IN (?2, ?3))",
        )?
        .query_row((&event.source, id, of_runs), |row| row.get(0))?;
    match by {
        Some(by) => move_away(ledger, &event.source, id, by),
        None => Ok(()),
    }
}

/// Moves a generation away, and those of its further runs, whose ids are its own with a dot and a
/// number behind it.
fn move_away(ledger: &Transaction<'_>, source: &str, id: &str, by: i64) -> rusqlite::Result<()> {
    const CONDITION: &str = "source = ?1 AND (generation_id = ?2
         OR (generation_id > ?2 || '.' AND generation_id < ?2 || '/'))";
    let columns = GENERATIONS.selection();
    ledger
        .prepare_cached(&format!(
            "INSERT INTO superseded ({columns}, superseded_by)
             SELECT {columns}, ?3 FROM generations WHERE {CONDITION}"
        ))?
        .execute((source, id, by))?;
    ledger
        .prepare_cached(&format!("DELETE FROM generations WHERE {CONDITION}"))?
        .execute((source, id))?;
    Ok(())
}

/// Keeps what the event with the highest order says about a session.
fn fold(ledger: &Transaction<'_>, event: &Event<'_>, body: &dyn OfSession) -> rusqlite::Result<()> {
    SESSIONS.insert(ledger, &Row { position: None, event, body })?;
    Ok(())
}

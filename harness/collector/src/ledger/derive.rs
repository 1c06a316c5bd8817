//! Makes the derived rows of one event. The events may come in any order.

use rusqlite::Transaction;

use crate::event::generation::Generation;
use crate::event::{Body, Event};
use crate::ledger::column::Row;
use crate::ledger::fleet;
use crate::ledger::tables::{CALLS, GENERATIONS, OfSession, SESSIONS};
use crate::ledger::tally::Counted;

/// Adds an event that is stored at `position` to calls, generations, sessions and guard totals.
/// Returns the generations that count no more by it, perhaps its own among them.
pub(crate) fn derive(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
) -> rusqlite::Result<Vec<Counted>> {
    let position = Some(position);
    let mut superseded = Vec::new();
    match &event.body {
        Body::Call(call) => {
            CALLS.insert(ledger, &Row { position, event, body: &**call })?;
            fold(ledger, event, &**call)?;
        }
        Body::Generation(generation) => {
            GENERATIONS.insert(ledger, &Row { position, event, body: &**generation })?;
            superseded = supersede(ledger, event, generation)?;
            fold(ledger, event, &**generation)?;
        }
        Body::Session(change) => fold(ledger, event, &**change)?,
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals)?,
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change)?,
        Body::Heartbeat(_) | Body::Unknown => {}
    }
    Ok(superseded)
}

/// Moves away what this generation supersedes, and the generation itself if another supersedes it.
fn supersede(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    generation: &Generation,
) -> rusqlite::Result<Vec<Counted>> {
    let mut moved = Vec::new();
    if let Some(superseded) = &generation.supersedes {
        moved = move_away(ledger, &event.source, superseded, event.sequence)?;
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
    if let Some(by) = by {
        moved.extend(move_away(ledger, &event.source, id, by)?);
    }
    Ok(moved)
}

/// Moves a generation away, and those of its further runs, whose ids are its own with a dot and a
/// number behind it. Returns what they counted.
fn move_away(
    ledger: &Transaction<'_>,
    source: &str,
    id: &str,
    by: i64,
) -> rusqlite::Result<Vec<Counted>> {
    const CONDITION: &str = "source = ?1 AND (generation_id = ?2
         OR (generation_id > ?2 || '.' AND generation_id < ?2 || '/'))";
    let counted = Counted::columns();
    let moved = ledger
        .prepare_cached(&format!(
            "SELECT {counted} FROM generations WHERE {CONDITION} GROUP BY position"
        ))?
        .query_map((source, id), Counted::of_row)?
        .collect::<rusqlite::Result<_>>()?;
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
    Ok(moved)
}

/// Keeps what the event with the highest order says about a session.
fn fold(ledger: &Transaction<'_>, event: &Event<'_>, body: &dyn OfSession) -> rusqlite::Result<()> {
    SESSIONS.insert(ledger, &Row { position: None, event, body })?;
    Ok(())
}

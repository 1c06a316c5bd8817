//! Makes the derived rows of events. The events may come in any order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::Connection;

use crate::event::generation::Generation;
use crate::event::{Body, Event};
use crate::ledger::column::Row;
use crate::ledger::fleet;
use crate::ledger::tables::{CALLS, GENERATIONS, OfSession, SESSIONS, fold_order};
use crate::ledger::tally::Counted;

/// What several events say about sessions: of each session only the event with the highest order,
/// so that a session is written once, however many events it has among them.
#[derive(Default)]
pub(super) struct Folds<'a> {
    /// The place in `rows`, by source and session.
    places: HashMap<(&'a str, &'a str), usize>,
    /// In the order in which the sessions came, which is the one in which new ones are stored.
    rows: Vec<Row<'a, dyn OfSession>>,
}

impl<'a> Folds<'a> {
    fn fold(&mut self, event: &'a Event<'a>, body: &'a dyn OfSession) {
        let row = Row { position: None, event, body };
        match self.places.entry((&event.source, &body.identity().session_id)) {
            Entry::Vacant(place) => {
                place.insert(self.rows.len());
                self.rows.push(row);
            }
            Entry::Occupied(place) => {
                let Some(known) = self.rows.get_mut(*place.get()) else { return };
                if fold_order(&row) > fold_order(known) {
                    *known = row;
                }
            }
        }
    }

    /// Writes them to the sessions, which keep what the event with the highest order says.
    pub(super) fn store(self, ledger: &Connection) -> rusqlite::Result<()> {
        for row in &self.rows {
            SESSIONS.insert(ledger, row)?;
        }
        Ok(())
    }
}

/// Adds one event that is stored at `position` to calls, generations, sessions and guard totals.
pub(crate) fn derive_one(
    ledger: &Connection,
    event: &Event<'_>,
    position: i64,
) -> rusqlite::Result<()> {
    let mut folds = Folds::default();
    derive(ledger, event, position, &mut folds)?;
    folds.store(ledger)
}

/// The same, but leaves what it says about its session to `folds`. Returns the generations that
/// count no more by it, perhaps its own among them.
pub(super) fn derive<'a>(
    ledger: &Connection,
    event: &'a Event<'a>,
    position: i64,
    folds: &mut Folds<'a>,
) -> rusqlite::Result<Vec<Counted>> {
    let position = Some(position);
    let mut superseded = Vec::new();
    match &event.body {
        Body::Call(call) => {
            CALLS.insert(ledger, &Row { position, event, body: &**call })?;
            folds.fold(event, &**call);
        }
        Body::Generation(generation) => {
            GENERATIONS.insert(ledger, &Row { position, event, body: &**generation })?;
            superseded = supersede(ledger, event, generation)?;
            folds.fold(event, &**generation);
        }
        Body::Session(change) => folds.fold(event, &**change),
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals)?,
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change)?,
        Body::Heartbeat(_) | Body::Unknown => {}
    }
    Ok(superseded)
}

/// Moves away what this generation supersedes, and the generation itself if another supersedes it.
fn supersede(
    ledger: &Connection,
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
    ledger: &Connection,
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

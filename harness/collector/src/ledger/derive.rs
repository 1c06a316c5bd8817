//! Makes the derived rows of events. The events may come in any order.
//!
//! A batch is derived table by table and not event by event: PostgreSQL then needs a handful of
//! statements for it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::event::generation::Generation;
use crate::event::{Body, Event};
use crate::ledger::column::Row;
use crate::ledger::fleet::ScopeFolds;
use crate::ledger::hours::{Changes, GENERATION_HOURS};
use crate::ledger::tables::{CALLS, GENERATIONS, OfSession, SESSIONS, fold_order};
use crate::ledger::tally::Counted;
use crate::sql::{self, Transaction, Value, values};

/// Ids that one query asks for.
const IDS_MAX: usize = 128;

/// What several events say about sessions: of each session only the event with the highest order,
/// so that a session is written once, however many events it has among them.
#[derive(Default)]
struct Folds<'a> {
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
    fn store(self, ledger: &Transaction<'_>) -> sql::Result<()> {
        SESSIONS.insert_all(ledger, &self.rows)
    }
}

/// Adds one event that is stored at `position` to calls, generations, sessions and guard totals.
pub(crate) fn derive_one(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
) -> sql::Result<()> {
    derive(ledger, &[(event, position)]).map(drop)
}

/// The same for several events, each with its position. Returns for each the generations that count
/// no more by it, perhaps its own among them.
pub(super) fn derive(
    ledger: &Transaction<'_>,
    events: &[(&Event<'_>, i64)],
) -> sql::Result<Vec<Vec<Counted>>> {
    let (mut calls, mut generations) = (Vec::new(), Vec::new());
    let (mut sessions, mut scopes) = (Folds::default(), ScopeFolds::default());
    for (index, (event, position)) in events.iter().enumerate() {
        let position = Some(*position);
        match &event.body {
            Body::Call(call) => {
                calls.push(Row { position, event, body: &**call });
                sessions.fold(event, &**call);
            }
            Body::Generation(generation) => {
                generations.push((index, Row { position, event, body: &**generation }));
                sessions.fold(event, &**generation);
            }
            Body::Session(change) => sessions.fold(event, &**change),
            Body::GuardTotals(totals) => scopes.fold_totals(event, totals),
            Body::LevelChange(change) => scopes.fold_level(event, change),
            Body::Heartbeat(_) | Body::Unknown => {}
        }
    }
    let mut hours = Changes::new();
    CALLS.insert_all(ledger, &calls)?;
    calls.iter().try_for_each(|row| hours.add_call(row))?;
    let rows: Vec<_> = generations.iter().map(|(_, row)| row.copied()).collect();
    GENERATIONS.insert_all(ledger, &rows)?;
    rows.iter().try_for_each(|row| hours.add_generation(row))?;
    let mut counted: Vec<Vec<Counted>> = events.iter().map(|_| Vec::new()).collect();
    for ((index, _), moved) in generations.iter().zip(supersede(ledger, &rows, &mut hours)?) {
        if let Some(counted) = counted.get_mut(*index) {
            *counted = moved;
        }
    }
    hours.store(ledger)?;
    sessions.store(ledger)?;
    scopes.store(ledger)?;
    Ok(counted)
}

/// Moves away what these generations supersede, and those of them that others supersede.
fn supersede(
    ledger: &Transaction<'_>,
    generations: &[Row<'_, Generation>],
    hours: &mut Changes<'_>,
) -> sql::Result<Vec<Vec<Counted>>> {
    let mut moved = Vec::with_capacity(generations.len());
    for Row { event, body, .. } in generations {
        moved.push(match &body.supersedes {
            Some(id) => move_away(ledger, &event.source, id, event.sequence, hours)?,
            None => Vec::new(),
        });
    }
    let by = Superseding::read(ledger, generations)?;
    for (Row { event, body, .. }, moved) in generations.iter().zip(&mut moved) {
        let id = body.generation_id.as_str();
        if let Some(by) = by.of(&event.source, id) {
            moved.extend(move_away(ledger, &event.source, id, by, hours)?);
        }
    }
    Ok(moved)
}

/// The id of a response, of which this is the id of a run: it has a dot and a number behind it.
fn of_runs(id: &str) -> &str {
    id.rsplit_once('.').map_or(id, |(own, _)| own)
}

/// The first sequence of the generations that supersede another, by its source and id.
struct Superseding(HashMap<(String, String), i64>);

impl Superseding {
    fn read(ledger: &Transaction<'_>, generations: &[Row<'_, Generation>]) -> sql::Result<Self> {
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for Row { event, body, .. } in generations {
            let id = body.generation_id.as_str();
            ids.entry(&event.source).or_default().extend([id, of_runs(id)]);
        }
        let mut first = HashMap::new();
        for (source, ids) in ids {
            let ids: Vec<&str> = ids.into_iter().collect();
            for (sql, values) in of_ids(source, &ids, |list| {
                let of = |table| {
                    format!(
                        "SELECT supersedes, sequence FROM {table}
                         WHERE source = ?1 AND supersedes IN {list}"
                    )
                };
                format!(
                    "SELECT supersedes, min(sequence) FROM ({} UNION ALL {}) AS told
                     GROUP BY supersedes",
                    of(GENERATIONS.name),
                    of("superseded")
                )
            }) {
                ledger.prepare_cached(&sql)?.query_map(&values, |row| {
                    first.insert((source.to_owned(), row.get(0)?), row.get(1)?);
                    Ok(())
                })?;
            }
        }
        Ok(Superseding(first))
    }

    fn of(&self, source: &str, id: &str) -> Option<i64> {
        let by = |id: &str| self.0.get(&(source.to_owned(), id.to_owned())).copied();
        [by(id), by(of_runs(id))].into_iter().flatten().min()
    }
}

/// Queries for many ids of one source: the SQL, which `sql` makes of a list of parameters, and its
/// values. There are few forms of such a statement, so that it stays prepared.
pub(super) fn of_ids<'a>(
    source: &'a str,
    ids: &'a [&'a str],
    sql: impl Fn(&str) -> String,
) -> Vec<(String, Vec<Value<'a>>)> {
    let queries = ids.chunks(IDS_MAX).map(|ids| {
        let size = if ids.len() > 1 { IDS_MAX } else { 1 };
        let list: Vec<String> =
            (2..).take(size).map(|number: usize| format!("?{number}")).collect();
        // A list that is not full repeats its last id.
        let last = ids.last().copied().unwrap_or_default();
        let padded = ids.iter().copied().chain(std::iter::repeat(last)).take(size);
        let values = std::iter::once(source).chain(padded).map(Value::from).collect();
        (sql(&format!("({})", list.join(", "))), values)
    });
    queries.collect()
}

/// Moves a generation away, and those of its further runs, whose ids are its own with a dot and a
/// number behind it. Returns what they counted.
fn move_away(
    ledger: &Transaction<'_>,
    source: &str,
    id: &str,
    by: i64,
    hours: &mut Changes<'_>,
) -> sql::Result<Vec<Counted>> {
    const CONDITION: &str = "source = ?1 AND (generation_id = ?2
         OR (generation_id > ?2 || '.' AND generation_id < ?2 || '/'))";
    let (of_hours, counted) = (GENERATION_HOURS.stored_columns(), Counted::columns());
    let moved = ledger
        .prepare_cached(&format!(
            "SELECT {counted}, {of_hours} FROM generations WHERE {CONDITION} GROUP BY position"
        ))?
        .query_map(values![source, id], |row| {
            hours.take_back(&GENERATION_HOURS, row, Counted::WIDTH)?;
            Counted::of_row(row)
        })?;
    if moved.is_empty() {
        return Ok(moved);
    }
    let columns = GENERATIONS.selection();
    ledger
        .prepare_cached(&format!(
            "INSERT INTO superseded ({columns}, superseded_by)
             SELECT {columns}, ?3 FROM generations WHERE {CONDITION}"
        ))?
        .execute(values![source, id, by])?;
    ledger
        .prepare_cached(&format!("DELETE FROM generations WHERE {CONDITION}"))?
        .execute(values![source, id])?;
    Ok(moved)
}

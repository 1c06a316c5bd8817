//! Makes the derived rows of events. The events may come in any order.
//!
//! A batch is derived table by table and not event by event: PostgreSQL then needs a handful of
//! statements for it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;

use crate::event::generation::Generation;
use crate::event::{self, Body, Event};
use crate::ledger::column::Row;
use crate::ledger::corrected::{Corrected, Corrections};
use crate::ledger::fleet::ScopeFolds;
use crate::ledger::hours::{CALL_HOURS, Changes, GENERATION_HOURS};
use crate::ledger::lists::{of_ids, of_positions};
use crate::ledger::tables::{
    CALLS, CORRECTED_CALLS, CORRECTED_GENERATIONS, GENERATIONS, OfSession, SESSIONS, fold_order,
};
use crate::ledger::tally::Counted;
use crate::sql::{self, Transaction, values};

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
    derive_corrected(ledger, events, &correct(ledger, events)?)
}

/// The same for events of which it is known what corrections make of them.
fn derive_corrected(
    ledger: &Transaction<'_>,
    events: &[(&Event<'_>, i64)],
    corrected: &[Corrected],
) -> sql::Result<Vec<Vec<Counted>>> {
    let amended = read_amended(corrected);
    let (mut calls, mut generations) = (Of::default(), Of::default());
    // All generations as they came, each with the place of its event.
    let mut came = Vec::new();
    let (mut sessions, mut scopes) = (Folds::default(), ScopeFolds::default());
    for (index, (event, position)) in events.iter().enumerate() {
        let effect = Effect::of(index, corrected, &amended);
        let position = Some(*position);
        match &event.body {
            _ if matches!(effect, Effect::Withdrawn) => {}
            Body::Call(call) => {
                let row = Row { position, event, body: &**call };
                calls.add(row, effect, |body| match body {
                    Body::Call(call) => Some(&**call),
                    _ => None,
                });
                sessions.fold(event, &**call);
            }
            Body::Generation(generation) => {
                let row = Row { position, event, body: &**generation };
                came.push((index, row.copied()));
                generations.add(row, effect, |body| match body {
                    Body::Generation(generation) => Some(&**generation),
                    _ => None,
                });
                sessions.fold(event, &**generation);
            }
            Body::Session(change) => sessions.fold(event, &**change),
            Body::GuardTotals(totals) => scopes.fold_totals(event, totals),
            Body::LevelChange(change) => scopes.fold_level(event, change),
            Body::Heartbeat(_) | Body::Unknown => {}
            Body::Correction(_) | Body::Billed(_) | Body::TopUp(_) => {}
        }
    }
    let mut hours = Changes::new();
    CALLS.insert_all(ledger, &calls.counted)?;
    calls.counted.iter().try_for_each(|row| hours.add_call(row))?;
    CORRECTED_CALLS.insert_all(ledger, &calls.as_they_came)?;
    GENERATIONS.insert_all(ledger, &generations.counted)?;
    generations.counted.iter().try_for_each(|row| hours.add_generation(row))?;
    CORRECTED_GENERATIONS.insert_all(ledger, &generations.as_they_came)?;
    let mut counted: Vec<Vec<Counted>> = events.iter().map(|_| Vec::new()).collect();
    let (places, came): (Vec<usize>, Vec<_>) = came.into_iter().unzip();
    for (index, moved) in places.iter().zip(supersede(ledger, &came, &mut hours)?) {
        if let Some(counted) = counted.get_mut(*index) {
            *counted = moved;
        }
    }
    hours.store(ledger)?;
    sessions.store(ledger)?;
    scopes.store(ledger)?;
    Ok(counted)
}

/// What corrections make of events; empty if there are none.
fn correct(ledger: &Transaction<'_>, events: &[(&Event<'_>, i64)]) -> sql::Result<Vec<Corrected>> {
    let corrections = Corrections::of(ledger, events)?;
    if corrections.is_empty() {
        return Ok(Vec::new());
    }
    let on = |(event, position): &(&Event<'_>, i64)| match &event.body {
        Body::Call(_) | Body::Generation(_) => corrections.on(event, *position),
        _ => Corrected::AsItCame,
    };
    Ok(events.iter().map(on).collect())
}

/// The amended events, by their place.
fn read_amended(corrected: &[Corrected]) -> HashMap<usize, Event<'_>> {
    let mut amended = HashMap::new();
    for (place, corrected) in corrected.iter().enumerate() {
        // It was read when it was made.
        if let Corrected::Amended(raw) = corrected
            && let Ok(event) = event::read(raw)
        {
            amended.insert(place, event);
        }
    }
    amended
}

/// What an event counts as, with the event that it is amended to.
#[derive(Clone, Copy)]
enum Effect<'a> {
    AsItCame,
    Amended(&'a Event<'a>),
    Voided,
    Withdrawn,
}

impl<'a> Effect<'a> {
    fn of(
        place: usize,
        corrected: &[Corrected],
        amended: &'a HashMap<usize, Event<'a>>,
    ) -> Effect<'a> {
        match (corrected.get(place), amended.get(&place)) {
            (Some(Corrected::Voided), _) => Effect::Voided,
            (Some(Corrected::Withdrawn), _) => Effect::Withdrawn,
            (Some(Corrected::Amended(_)), Some(event)) => Effect::Amended(event),
            _ => Effect::AsItCame,
        }
    }
}

/// The rows of one kind.
struct Of<'a, B> {
    /// Those that count.
    counted: Vec<Row<'a, B>>,
    /// Of those that do not count as they came, how they came.
    as_they_came: Vec<Row<'a, B>>,
}

impl<B> Default for Of<'_, B> {
    fn default() -> Self {
        Of { counted: Vec::new(), as_they_came: Vec::new() }
    }
}

impl<'a, B> Of<'a, B> {
    fn add(
        &mut self,
        row: Row<'a, B>,
        effect: Effect<'a>,
        body_of: impl Fn(&'a Body) -> Option<&'a B>,
    ) {
        match effect {
            Effect::AsItCame => self.counted.push(row),
            Effect::Amended(event) => {
                let body = body_of(&event.body);
                let amended = body.map(|body| Row { position: row.position, event, body });
                self.counted.extend(amended);
                self.as_they_came.push(row);
            }
            Effect::Voided => self.as_they_came.push(row),
            Effect::Withdrawn => {}
        }
    }
}

/// Makes the rows of stored calls and generations again, as their corrections are now.
pub(super) fn derive_again(ledger: &Transaction<'_>, positions: &[i64]) -> sql::Result<()> {
    let read = read_events(ledger, positions)?;
    let read = read_all(&read);
    let events: Vec<_> = read.iter().map(|(event, position)| (event, *position)).collect();
    let corrected = correct(ledger, &events)?;
    remove(ledger, &events)?;
    derive_corrected(ledger, &events, &corrected)?;
    // What a withdrawn event superseded may count again.
    let withdrawn = events.iter().zip(&corrected);
    let withdrawn = withdrawn.filter(|(_, corrected)| matches!(corrected, Corrected::Withdrawn));
    let mut freed = Vec::new();
    for ((event, _), _) in withdrawn {
        let Body::Generation(generation) = &event.body else { continue };
        let Some(id) = &generation.supersedes else { continue };
        let sql = format!("SELECT position FROM superseded WHERE {OF_GENERATION}");
        let rows: Vec<i64> =
            ledger.prepare_cached(&sql)?.query_map(values![&event.source, id], |row| row.get(0))?;
        freed.extend(rows);
    }
    if freed.is_empty() {
        return Ok(());
    }
    let freed = read_events(ledger, &freed)?;
    let freed = read_all(&freed);
    let freed: Vec<_> = freed.iter().map(|(event, position)| (event, *position)).collect();
    remove(ledger, &freed)?;
    derive(ledger, &freed).map(drop)
}

/// The texts of stored calls and generations, by their positions.
fn read_events(
    ledger: &Transaction<'_>,
    positions: &[i64],
) -> sql::Result<BTreeMap<i64, Box<RawValue>>> {
    let mut found = BTreeMap::new();
    for (sql, values) in of_positions(positions, |list| {
        format!("SELECT position, raw FROM events WHERE raw <> '' AND position IN {list}")
    }) {
        ledger.prepare_cached(&sql)?.query_map(&values, |row| {
            let raw: String = row.get(1)?;
            let raw = RawValue::from_string(raw);
            let raw = raw.map_err(|error| sql::Error::Column(error.to_string()))?;
            found.insert(row.get(0)?, raw);
            Ok(())
        })?;
    }
    Ok(found)
}

/// The calls and generations of them; what is not valid counts in nothing.
fn read_all(texts: &BTreeMap<i64, Box<RawValue>>) -> Vec<(Event<'_>, i64)> {
    let read = texts.iter().filter_map(|(position, raw)| Some((event::read(raw).ok()?, *position)));
    read.filter(|(event, _)| matches!(event.body, Body::Call(_) | Body::Generation(_))).collect()
}

/// Removes the rows of events.
fn remove(ledger: &Transaction<'_>, events: &[(&Event<'_>, i64)]) -> sql::Result<()> {
    let positions: Vec<i64> = events.iter().map(|(_, position)| *position).collect();
    let mut hours = Changes::new();
    for (table, of_hours) in [(CALLS.name, &*CALL_HOURS), (GENERATIONS.name, &*GENERATION_HOURS)] {
        let columns = of_hours.stored_columns();
        for (sql, values) in of_positions(&positions, |list| {
            format!("SELECT {columns} FROM {table} WHERE position IN {list} GROUP BY position")
        }) {
            ledger
                .prepare_cached(&sql)?
                .query_map(&values, |row| hours.take_back(of_hours, row, 0))?;
        }
    }
    hours.store(ledger)?;
    let [calls, generations] = [CORRECTED_CALLS.name, CORRECTED_GENERATIONS.name];
    for table in [CALLS.name, GENERATIONS.name, "superseded", calls, generations] {
        for (sql, values) in
            of_positions(&positions, |list| format!("DELETE FROM {table} WHERE position IN {list}"))
        {
            ledger.execute(&sql, &values)?;
        }
    }
    Ok(())
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
                    "SELECT supersedes, min(sequence) FROM ({} UNION ALL {} UNION ALL {}) AS told
                     GROUP BY supersedes",
                    of(GENERATIONS.name),
                    of("superseded"),
                    of(CORRECTED_GENERATIONS.name)
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

/// The generation with the source ?1 and the id ?2, and those of its further runs.
const OF_GENERATION: &str = "source = ?1 AND (generation_id = ?2
     OR (generation_id > ?2 || '.' AND generation_id < ?2 || '/'))";

/// Moves a generation away, and those of its further runs, whose ids are its own with a dot and a
/// number behind it. Returns what they counted.
fn move_away(
    ledger: &Transaction<'_>,
    source: &str,
    id: &str,
    by: i64,
    hours: &mut Changes<'_>,
) -> sql::Result<Vec<Counted>> {
    let (of_hours, counted) = (GENERATION_HOURS.stored_columns(), Counted::columns());
    let moved = ledger
        .prepare_cached(&format!(
            "SELECT {counted}, {of_hours} FROM generations WHERE {OF_GENERATION} GROUP BY position"
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
             SELECT {columns}, ?3 FROM generations WHERE {OF_GENERATION}"
        ))?
        .execute(values![source, id, by])?;
    // One that is voided is in no other table.
    let voided = CORRECTED_GENERATIONS.name;
    ledger
        .prepare_cached(&format!(
            "INSERT INTO superseded ({columns}, superseded_by)
             SELECT {columns}, ?3 FROM {voided} AS voided WHERE {OF_GENERATION} AND NOT EXISTS
              (SELECT 1 FROM superseded WHERE superseded.position = voided.position)"
        ))?
        .execute(values![source, id, by])?;
    ledger
        .prepare_cached(&format!("DELETE FROM generations WHERE {OF_GENERATION}"))?
        .execute(values![source, id])?;
    Ok(moved)
}

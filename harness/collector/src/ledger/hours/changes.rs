//! What a batch changes in the hours: collected first, then written with one statement for each row
//! that changes, in PostgreSQL with one for all.

use std::borrow::Cow;
use std::collections::btree_map::{BTreeMap, Entry as Place};
use std::collections::hash_map::{Entry as New, HashMap};

use sha2::{Digest, Sha256};

use crate::event::call::Call;
use crate::event::generation::Generation;
use crate::hex::hex;
use crate::ledger::column::{Cell, Row};
use crate::ledger::hours::late::{Changed, note_changes};
use crate::ledger::hours::sums::Sum;
use crate::ledger::hours::table::HourTable;
use crate::ledger::hours::{CALL_HOURS, GENERATION_HOURS};
use crate::ledger::tables::{CALLS, GENERATIONS};
use crate::sql::postgres::kept_text;
use crate::sql::{self, Transaction, Value, values};

/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// Rows of calls and generations that come and go in one transaction.
pub(crate) struct Changes<'a> {
    calls: Collected<'a>,
    call_cells: Vec<Cell<Call>>,
    generations: Collected<'a>,
    generation_cells: Vec<Cell<Generation>>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new() -> Self {
        Changes {
            calls: Collected::new(&CALL_HOURS),
            call_cells: CALLS.cells(&CALL_HOURS.inputs),
            generations: Collected::new(&GENERATION_HOURS),
            generation_cells: GENERATIONS.cells(&GENERATION_HOURS.inputs),
        }
    }

    /// Adds a row of `calls`.
    pub(crate) fn add_call(&mut self, row: &Row<'a, Call>) -> sql::Result<()> {
        self.calls.change(&cells(&self.call_cells, row), Way::Add)
    }

    /// Adds a row of `generations`.
    pub(crate) fn add_generation(&mut self, row: &Row<'a, Generation>) -> sql::Result<()> {
        self.generations.change(&cells(&self.generation_cells, row), Way::Add)
    }

    /// Takes back a row that the table of `hours` adds up, and that goes away. `row` has the columns
    /// of [`HourTable::stored_columns`], from place `first` on.
    pub(crate) fn take_back(
        &mut self,
        hours: &'static HourTable,
        row: &sql::Row<'_>,
        first: usize,
    ) -> sql::Result<()> {
        let inputs = stored(hours, row, first)?;
        let all = [&mut self.calls, &mut self.generations];
        let own = all.into_iter().find(|collected| collected.table.name == hours.name);
        own.map_or(Ok(()), |collected| collected.change(&inputs, Way::TakeBack))
    }

    /// Writes all of it.
    pub(crate) fn store(self, ledger: &Transaction<'_>) -> sql::Result<()> {
        let mut changed = Changed::new();
        self.calls.store_noting(ledger, &mut changed)?;
        self.generations.store_noting(ledger, &mut changed)?;
        note_changes(ledger, &changed)
    }
}

fn cells<'a, B: ?Sized>(cells: &[Cell<B>], row: &Row<'a, B>) -> Vec<Value<'a>> {
    cells.iter().map(|cell| cell(row)).collect()
}

/// The inputs of a table from a stored row.
fn stored(table: &HourTable, row: &sql::Row<'_>, first: usize) -> sql::Result<Vec<Value<'static>>> {
    let places = first..first + table.inputs.len();
    places.map(|place| Ok(row.value(place)?.into_owned())).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Add,
    TakeBack,
}

/// The changes of one table.
pub(super) struct Collected<'a> {
    table: &'static HourTable,
    /// By hour and dimensions.
    rows: HashMap<(i64, Vec<Value<'a>>), Vec<Sum>>,
}

/// A row by its hour and key, with its dimensions.
pub(super) type Rows<'a> = BTreeMap<(i64, String), (Vec<Value<'a>>, Vec<Sum>)>;

impl<'a> Collected<'a> {
    pub(super) fn new(table: &'static HourTable) -> Self {
        Collected { table, rows: HashMap::new() }
    }

    /// Adds a stored row of which `row` has the table's inputs.
    pub(super) fn add_stored(&mut self, row: &sql::Row<'_>) -> sql::Result<()> {
        self.change(&stored(self.table, row, 0)?, Way::Add)
    }

    fn change(&mut self, inputs: &[Value<'a>], way: Way) -> sql::Result<()> {
        let entry = self.table.entry(inputs)?;
        let sums = entry.sums.into_iter();
        let sums = sums.map(|sum| if way == Way::Add { sum } else { sum.negated() });
        match self.rows.entry((entry.hour_ms, entry.dimensions)) {
            New::Vacant(row) => drop(row.insert(sums.collect())),
            New::Occupied(row) => add(row.into_mut(), sums),
        }
        Ok(())
    }

    /// The rows as the database has them. Two rows that differ only in what PostgreSQL cannot keep
    /// are one there.
    pub(super) fn into_rows(self, ledger: &Transaction<'_>) -> Rows<'a> {
        let is_postgres = matches!(ledger, Transaction::Postgres(_));
        let mut rows = Rows::new();
        for ((hour_ms, mut dimensions), sums) in self.rows {
            if is_postgres {
                dimensions = dimensions.into_iter().map(kept).collect();
            }
            match rows.entry((hour_ms, key(&dimensions))) {
                Place::Vacant(row) => drop(row.insert((dimensions, sums))),
                Place::Occupied(row) => add(&mut row.into_mut().1, sums.into_iter()),
            }
        }
        rows
    }

    pub(super) fn store(self, ledger: &Transaction<'_>) -> sql::Result<()> {
        self.store_noting(ledger, &mut Changed::new())
    }

    /// The same, and adds to `changed` which hours change.
    fn store_noting(self, ledger: &Transaction<'_>, changed: &mut Changed) -> sql::Result<()> {
        let table = self.table;
        let mut rows = self.into_rows(ledger);
        rows.retain(|_, (_, sums)| !sums.iter().all(Sum::is_zero));
        for ((hour_ms, _), (dimensions, _)) in &rows {
            // The customer is the first dimension.
            let customer = dimensions.first().and_then(Value::to_text).unwrap_or_default();
            let (oldest, newest) = changed.entry(customer).or_insert((*hour_ms, *hour_ms));
            *oldest = (*oldest).min(*hour_ms);
            *newest = (*newest).max(*hour_ms);
        }
        if rows.is_empty() {
            return Ok(());
        }
        match ledger {
            Transaction::Sqlite(_) => {
                let mut addition = ledger.prepare_cached(&table.addition)?;
                for (key, row) in &rows {
                    addition.execute(&all_values(key, row))?;
                }
            }
            Transaction::Postgres(session) => {
                let mut arrays = table.arrays();
                for (key, row) in &rows {
                    for (array, value) in arrays.iter_mut().zip(all_values(key, row)) {
                        array.push(value)?;
                    }
                }
                session.insert_arrays(&table.bulk_addition, &arrays)?;
            }
        }
        // The first sum is how many events there are.
        let fewer = |(_, sums): &(_, Vec<Sum>)| matches!(sums.first(), Some(Sum::Count(..0)));
        for ((hour_ms, key), _) in rows.iter().filter(|(_, row)| fewer(row)) {
            let table = table.name;
            ledger.execute(
                &format!("DELETE FROM {table} WHERE hour_ms = ? AND key = ? AND events = 0"),
                values![*hour_ms, key],
            )?;
        }
        Ok(())
    }
}

fn add(sums: &mut [Sum], more: impl Iterator<Item = Sum>) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| sum.add(more));
}

fn kept(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(text) => Value::Text(match kept_text(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(kept) => Cow::Owned(kept),
        }),
        value => value,
    }
}

fn all_values<'v>(
    (hour_ms, key): &'v (i64, String),
    (dimensions, sums): &'v (Vec<Value<'_>>, Vec<Sum>),
) -> Vec<Value<'v>> {
    let place = [Value::Integer(*hour_ms), Value::from(key)];
    let sums = sums.iter().map(|sum| -> Value<'v> { sum.to_value() });
    place.into_iter().chain(dimensions.iter().cloned()).chain(sums).collect()
}

/// Stands for the dimensions: 32 hexadecimal digits of the SHA-256 of their texts, each with its
/// length before it.
fn key(dimensions: &[Value<'_>]) -> String {
    let mut hash = Sha256::new();
    for value in dimensions {
        match value {
            Value::Text(text) => hash_text(&mut hash, text),
            value => match value.to_text() {
                Some(text) => hash_text(&mut hash, &text),
                None => hash.update("-"),
            },
        }
    }
    let digest = hash.finalize();
    hex(digest.get(..KEY_BYTES).unwrap_or_default())
}

fn hash_text(hash: &mut Sha256, text: &str) {
    hash.update(text.len().to_le_bytes());
    hash.update(text);
}

//! What the ledger has of the generations that bills are about: those in force, added up by day and
//! model, and the ones that ran over midnight by themselves.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bill::amount::Amount;
use crate::bill::fold::{Aside, CELLS_MAX, CURRENCY, Key, tells_batch};
use crate::bill::line::{Item, Kind, Provider};
use crate::bill::models::compared;
use crate::bill::services::unit;
use crate::event;
use crate::ledger::Ledger;
use crate::ledger::corrected::{Corrected, Corrections};
use crate::ledger::in_force::{PENDING, is_pending};
use crate::query::{Conditions, Period};
use crate::sql::Row;

/// How long a request may have run when a day ended, in milliseconds: an hour.
const EDGE_MS: i64 = 60 * 60 * 1000;

/// What the ledger has of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) cost: Amount,
    /// Tokens whose cost is known.
    pub(super) tokens: Amount,
    /// Tokens whose cost is not known.
    pub(super) unpriced: Amount,
}

/// What the ledger has of an item on a day.
#[derive(Clone, Debug, Default)]
pub(super) struct OurCell {
    pub(super) generations: u64,
    pub(super) kinds: BTreeMap<Kind, Counted>,
    /// Generations whose cost is not known, and those of them whose usage is not known either.
    pub(super) unpriced: u64,
    pub(super) unknown: u64,
    /// Generations whose usage was estimated, and what they cost.
    pub(super) estimated: u64,
    pub(super) estimated_cost: Amount,
    /// The cost of the dearest generation.
    pub(super) dearest: Amount,
}

impl OurCell {
    pub(super) fn cost(&self) -> Amount {
        self.kinds.values().map(|counted| counted.cost).sum()
    }

    /// Adds what another one has, or takes it away.
    pub(super) fn merge(&mut self, other: &OurCell, is_added: bool) {
        let sign = |amount: Amount| if is_added { amount } else { -amount };
        let count = |sum: &mut u64, count: u64| {
            *sum = if is_added { *sum + count } else { sum.saturating_sub(count) };
        };
        count(&mut self.generations, other.generations);
        count(&mut self.unpriced, other.unpriced);
        count(&mut self.unknown, other.unknown);
        count(&mut self.estimated, other.estimated);
        self.estimated_cost += sign(other.estimated_cost);
        self.dearest = self.dearest.max(other.dearest);
        for (kind, other) in &other.kinds {
            let counted = self.kinds.entry(*kind).or_default();
            counted.cost += sign(other.cost);
            counted.tokens += sign(other.tokens);
            counted.unpriced += sign(other.unpriced);
        }
    }
}

/// What the ledger has.
#[derive(Debug, Default)]
pub(super) struct Ours {
    pub(super) cells: BTreeMap<Key, OurCell>,
    /// Of these, and of the day behind the last one, what began on the day before, by the day on
    /// which it ended.
    pub(super) edges: BTreeMap<Key, OurCell>,
    /// All that is in `cells`, added up generation by generation.
    pub(super) total: Amount,
    /// By currency.
    pub(super) other_currencies: BTreeMap<String, Aside>,
}

/// Which generations bills are about.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) from: NaiveDate,
    /// The day behind the last one.
    pub(super) to: NaiveDate,
    /// The bill's provider of each of ours.
    pub(super) sellers: BTreeMap<String, Provider>,
}

fn begin_ms(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_millis()
}

/// What an event tells beside its columns.
#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    cost_lines: Vec<CostLine>,
    #[serde(default)]
    unpriced_units: Vec<String>,
    #[serde(default)]
    duration_ms: i64,
}

#[derive(Debug, Deserialize)]
struct CostLine {
    kind: String,
    #[serde(default)]
    quantity: Option<String>,
    cost: String,
}

/// Reads the ledger.
pub(super) fn read(ledger: &Ledger, wanted: &Wanted) -> anyhow::Result<Ours> {
    ledger.read(|ledger| {
        ensure!(!is_pending(ledger)?, PENDING);
        let corrections = Corrections::all(ledger)?;
        let mut ours = Ours::default();
        let sellers: Vec<String> = wanted.sellers.keys().cloned().collect();
        let mut conditions = Conditions::default();
        conditions.and_one_of("provider", Some(&sellers));
        let (from_ms, to_ms) = (begin_ms(wanted.from), begin_ms(wanted.to));
        let period = Period { from_ms: Some(from_ms), to_ms: Some(to_ms + EDGE_MS) };
        conditions.and_within("time_ms", period);
        let sql = format!(
            "SELECT time_ms, provider, model, service_tier, estimated, is_unknown, provider_cost,
             currency, input, output, cache_read, cache_write, raw, generations.position
             FROM generations JOIN events ON events.position = generations.position{}",
            conditions.sql()
        );
        let mut statement = ledger.prepare_cached(&sql)?;
        let mut rows = statement.query(&conditions.values)?;
        while let Some(row) = &rows.next_row()? {
            let raw: String = row.get(12)?;
            let data = data(&raw, row.get(13)?, &corrections);
            ours.add(wanted, &Generation::of_row(row)?, &data)?;
        }
        Ok(ours)
    })
}

/// The data of an event as it counts; empty if it cannot be read, so that only the columns tell.
fn data(raw: &str, position: i64, corrections: &Corrections) -> Data {
    #[derive(Deserialize)]
    struct Told {
        data: Data,
    }
    let told = |text: &str| serde_json::from_str::<Told>(text).map(|told| told.data);
    if corrections.is_empty() {
        return told(raw).unwrap_or_default();
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(raw) else { return Data::default() };
    let Ok(event) = event::read_stored(raw) else { return told(raw.get()).unwrap_or_default() };
    match corrections.on(&event, position) {
        Corrected::Amended(amended) => told(amended.get()).unwrap_or_default(),
        _ => told(raw.get()).unwrap_or_default(),
    }
}

/// The columns of a generation.
struct Generation {
    time_ms: i64,
    provider: String,
    model: String,
    service_tier: String,
    is_estimated: bool,
    is_unknown: bool,
    cost: Option<Amount>,
    currency: String,
    /// In the order of [`Kind::TOKENS`].
    tokens: [Amount; 4],
}

impl Generation {
    fn of_row(row: &Row<'_>) -> anyhow::Result<Generation> {
        let count = |at: usize| -> anyhow::Result<i64> {
            Ok(row.get::<_, Option<i64>>(at)?.unwrap_or(0).max(0))
        };
        let (input, output, read, written) = (count(8)?, count(9)?, count(10)?, count(11)?);
        // Counts that contradict each other make no count below zero.
        let fresh = input.saturating_sub(read).saturating_sub(written).max(0);
        let cost: Option<rust_decimal::Decimal> = row.get(6)?;
        Ok(Generation {
            time_ms: row.get(0)?,
            provider: row.get(1)?,
            model: row.get(2)?,
            service_tier: row.get(3)?,
            is_estimated: row.get(4)?,
            is_unknown: row.get(5)?,
            cost: cost.map(|cost| crate::money::Exact::from(cost).into()),
            currency: row.get(7)?,
            tokens: [fresh, read, written, output].map(Amount::from),
        })
    }

    /// What it adds to its model, and to the units that are billed apart from it.
    fn cells(&self, data: &Data) -> (OurCell, BTreeMap<&'static str, OurCell>) {
        let mut cell = OurCell { generations: 1, ..OurCell::default() };
        let mut units: BTreeMap<&'static str, OurCell> = BTreeMap::new();
        let parts = self.cost.and_then(|cost| parts(cost, &data.cost_lines));
        for (kind, cost) in parts.into_iter().flatten() {
            match kind {
                Part::Unit(name) => {
                    let unit = units.entry(name).or_default();
                    unit.kinds.entry(Kind::Other).or_default().cost += cost;
                    unit.generations = 1;
                }
                Part::Kind(kind) => cell.kinds.entry(kind).or_default().cost += cost,
            }
        }
        for name in data.unpriced_units.iter().filter_map(|name| unit(name)) {
            let unit = units.entry(name).or_default();
            (unit.generations, unit.unpriced) = (1, 1);
        }
        for (kind, tokens) in Kind::TOKENS.into_iter().zip(self.tokens) {
            let counted = cell.kinds.entry(kind).or_default();
            let sum = if self.cost.is_some() { &mut counted.tokens } else { &mut counted.unpriced };
            *sum += tokens;
        }
        cell.unpriced = self.cost.is_none().into();
        cell.unknown = self.is_unknown.into();
        cell.dearest = cell.cost();
        if self.is_estimated {
            cell.estimated = 1;
            cell.estimated_cost = cell.cost();
        }
        (cell, units)
    }
}

enum Part {
    Kind(Kind),
    Unit(&'static str),
}

/// The cost by what it is for; in one part if the lines do not tell.
fn parts(cost: Amount, lines: &[CostLine]) -> Option<Vec<(Part, Amount)>> {
    let mut parts = Vec::new();
    for line in lines {
        let Ok(read) = Amount::parse(&line.cost, 0) else { break };
        let part = match (line.quantity.is_some(), unit(&line.kind)) {
            (true, Some(unit)) => Part::Unit(unit),
            (true, None) => Part::Kind(Kind::Other),
            (false, _) => Part::Kind(kind(&line.kind)),
        };
        parts.push((part, read.amount));
    }
    let sum: Amount = parts.iter().map(|(_, amount)| *amount).sum();
    if sum == cost { Some(parts) } else { Some(vec![(Part::Kind(Kind::Other), cost)]) }
}

/// The kind of tokens of a cost line.
fn kind(name: &str) -> Kind {
    match name {
        name if name.starts_with("cache_read") => Kind::CacheRead,
        name if name.starts_with("cache_write") => Kind::CacheWrite,
        name if name.starts_with("input") => Kind::Input,
        name if name.starts_with("output") || name == "reasoning" => Kind::Output,
        _ => Kind::Other,
    }
}

impl Ours {
    fn add(&mut self, wanted: &Wanted, of: &Generation, data: &Data) -> anyhow::Result<()> {
        let Some(provider) = wanted.sellers.get(&of.provider).copied() else { return Ok(()) };
        let time = DateTime::from_timestamp_millis(of.time_ms);
        let Some(day) = time.map(|time| time.date_naive()) else { return Ok(()) };
        let is_within = day >= wanted.from && day < wanted.to;
        let began_before = data.duration_ms > 0
            && data.duration_ms <= EDGE_MS
            && of.time_ms - data.duration_ms < begin_ms(day);
        if !is_within && !began_before {
            return Ok(());
        }
        if of.currency != CURRENCY {
            if is_within {
                let aside = self.other_currencies.entry(of.currency.clone()).or_default();
                aside.add(of.cost.unwrap_or_default());
            }
            return Ok(());
        }
        let is_batch = of.service_tier == "batch" && tells_batch(provider);
        let model = Item::new(&compared(provider, &of.model), is_batch);
        let (cell, units) = of.cells(data);
        let units = units.into_iter().map(|(name, cell)| (Item::new(name, false), cell));
        for (item, cell) in [(model, cell)].into_iter().chain(units) {
            if is_within {
                self.total += cell.cost();
                merge(&mut self.cells, (provider, day, item.clone()), &cell)?;
            }
            if began_before {
                merge(&mut self.edges, (provider, day, item), &cell)?;
            }
        }
        Ok(())
    }

    /// Adds up the days of which the bill has one sum.
    pub(super) fn sum_days(&mut self, is_sum: impl Fn(Provider, NaiveDate) -> bool) {
        for cells in [&mut self.cells, &mut self.edges] {
            let all: Vec<Key> = cells
                .keys()
                .filter(|(provider, day, _)| is_sum(*provider, *day))
                .cloned()
                .collect();
            for key in all {
                let Some(cell) = cells.remove(&key) else { continue };
                let sum = (key.0, key.1, Item::new(Item::ALL, false));
                cells.entry(sum).or_default().merge(&cell, true);
            }
        }
    }
}

fn merge(cells: &mut BTreeMap<Key, OurCell>, key: Key, cell: &OurCell) -> anyhow::Result<()> {
    if cells.len() == CELLS_MAX && !cells.contains_key(&key) {
        bail!("the ledger has more than {CELLS_MAX} days and models of these");
    }
    cells.entry(key).or_default().merge(cell, true);
    Ok(())
}

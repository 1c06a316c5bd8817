//! A period at one glance: its sums, those of the period before, its course, and who and what has the
//! largest share. One pass over the hours makes all of it, so that a glance costs what one report
//! does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;

use crate::ledger::Ledger;
use crate::money::known::CostKnown;
use crate::money::{self, Exact};
use crate::query::{Period, count};
use crate::report::usage::{Dimension, UsageQuery, entries};
use crate::sql::{self, Row, Transaction, Value};

/// The most names of customers, tools or models that one glance tells apart.
const NAMES_MAX: usize = 200_000;

/// Which period, in how many steps, compared with which.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverviewQuery {
    /// Milliseconds since 1970, UTC; half-open.
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// The length of a step of its course.
    pub(crate) step_ms: i64,
    pub(crate) compared: Option<Compared>,
}

/// What a period is compared with: the first of both up to the same length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared {
    /// Where the compared part of the period ends.
    pub(crate) until_ms: i64,
    pub(crate) before_from_ms: i64,
    pub(crate) before_to_ms: i64,
}

/// The sums of some calls and generations in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    pub(crate) generations: u64,
    unpriced: u64,
    unpriced_units: u64,
    revenue: Exact,
    cost: Exact,
}

impl Sums {
    fn add(&mut self, more: &Sums) {
        self.calls = self.calls.saturating_add(more.calls);
        self.generations = self.generations.saturating_add(more.generations);
        self.unpriced = self.unpriced.saturating_add(more.unpriced);
        self.unpriced_units = self.unpriced_units.saturating_add(more.unpriced_units);
        self.revenue.add(more.revenue);
        self.cost.add(more.cost);
    }

    pub(crate) fn revenue(&self) -> Decimal {
        self.revenue.rounded()
    }

    /// As far as it is known: see [`Sums::cost_known`].
    pub(crate) fn cost(&self) -> Decimal {
        self.cost.rounded()
    }

    pub(crate) fn margin(&self) -> Decimal {
        money::difference(self.revenue(), self.cost())
    }

    pub(crate) fn cost_known(&self) -> CostKnown {
        CostKnown::of(self.generations, self.unpriced, self.unpriced_units)
    }

    /// Generations whose cost is not known, or in part.
    pub(crate) fn without_cost(&self) -> u64 {
        self.unpriced.saturating_add(self.unpriced_units)
    }
}

/// Sums that are never added to one another, by currency.
pub(crate) type ByCurrency = BTreeMap<String, Sums>;

fn add(sums: &mut ByCurrency, currency: &str, more: &Sums) {
    match sums.get_mut(currency) {
        Some(sums) => sums.add(more),
        None => drop(sums.insert(currency.to_owned(), *more)),
    }
}

/// The sums by name.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    by_name: HashMap<String, ByCurrency>,
    /// True if there are more names than are told apart.
    pub(crate) is_cut: bool,
}

impl Shares {
    fn add(&mut self, name: &str, currency: &str, more: &Sums) {
        if let Some(sums) = self.by_name.get_mut(name) {
            add(sums, currency, more);
        } else if self.by_name.len() < NAMES_MAX {
            let sums = ByCurrency::from([(currency.to_owned(), *more)]);
            self.by_name.insert(name.to_owned(), sums);
        } else {
            self.is_cut = true;
        }
    }

    /// How many names there are in a currency.
    pub(crate) fn count(&self, currency: &str) -> usize {
        self.by_name.values().filter(|sums| sums.contains_key(currency)).count()
    }

    /// The first `keep` names in a currency by the largest `rank`, and by name where that is the
    /// same; without those that have none.
    pub(crate) fn first<R: Ord>(
        &self,
        currency: &str,
        keep: usize,
        rank: impl Fn(&Sums) -> Option<R>,
    ) -> Vec<(&str, Sums)> {
        let ranked = self.by_name.iter().filter_map(|(name, sums)| {
            let sums = sums.get(currency)?;
            Some((Reverse(rank(sums)?), name.as_str(), *sums))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        ranked.truncate(keep);
        ranked.into_iter().map(|(_, name, sums)| (name, sums)).collect()
    }
}

/// A period at one glance.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    pub(crate) totals: ByCurrency,
    /// The compared part of the period, and the same part of the period before.
    pub(crate) compared: Option<(ByCurrency, ByCurrency)>,
    /// The sums of each step.
    pub(crate) steps: Vec<ByCurrency>,
    pub(crate) customers: Shares,
    pub(crate) tools: Shares,
    /// By provider and model, with a space between.
    pub(crate) models: Shares,
    /// When the newest hour of the ledger began, in milliseconds since 1970; `None` in an empty one.
    pub(crate) newest_ms: Option<i64>,
}

impl Ledger {
    /// A period at one glance.
    pub(crate) fn overview(&self, query: &OverviewQuery) -> anyhow::Result<Overview> {
        self.read(|ledger| {
            let length_ms = query.to_ms.saturating_sub(query.from_ms);
            let steps = length_ms.div_euclid(query.step_ms.max(1)).saturating_add(1);
            let mut overview = Overview {
                steps: vec![ByCurrency::new(); usize::try_from(steps)?],
                compared: query.compared.map(|_| Default::default()),
                ..Overview::default()
            };
            let period = Period { from_ms: Some(query.from_ms), to_ms: Some(query.to_ms) };
            each(ledger, period, |row| overview.add(query, row))?;
            if let Some((Compared { before_from_ms, before_to_ms, .. }, (_, before))) =
                query.compared.zip(overview.compared.as_mut())
            {
                let period = Period { from_ms: Some(before_from_ms), to_ms: Some(before_to_ms) };
                each(ledger, period, |row| {
                    add(before, text(&row.value(5)?), &sums(row)?);
                    Ok(())
                })?;
            }
            // A step at the end that has no time has nothing.
            if length_ms.rem_euclid(query.step_ms.max(1)) == 0 {
                overview.steps.pop();
            }
            let newest = "SELECT max(hour_ms) FROM (SELECT max(hour_ms) AS hour_ms FROM call_hours
                 UNION ALL SELECT max(hour_ms) FROM generation_hours) AS newest";
            overview.newest_ms = ledger.prepare_cached(newest)?.query_row(&[], |row| row.get(0))?;
            Ok(overview)
        })
    }
}

impl Overview {
    fn add(&mut self, query: &OverviewQuery, row: &Row<'_>) -> sql::Result<()> {
        let sums = sums(row)?;
        let time_ms: i64 = row.get(0)?;
        let currency = row.value(5)?;
        let currency = text(&currency);
        add(&mut self.totals, currency, &sums);
        if let Some((Compared { until_ms, .. }, (now, _))) =
            query.compared.zip(self.compared.as_mut())
            && time_ms < until_ms
        {
            add(now, currency, &sums);
        }
        let step = time_ms.saturating_sub(query.from_ms).div_euclid(query.step_ms.max(1));
        if let Some(step) = usize::try_from(step).ok().and_then(|step| self.steps.get_mut(step)) {
            add(step, currency, &sums);
        }
        self.customers.add(text(&row.value(1)?), currency, &sums);
        self.tools.add(text(&row.value(2)?), currency, &sums);
        if sums.generations > 0 {
            let (provider, model) = (row.value(3)?, row.value(4)?);
            let name = format!("{} {}", text(&provider), text(&model));
            self.models.add(&name, currency, &sums);
        }
        Ok(())
    }
}

/// Passes each row of a period: `time_ms`, customer, tool, provider, model, currency and sums.
fn each(
    ledger: &Transaction<'_>,
    period: Period,
    mut each: impl FnMut(&Row<'_>) -> sql::Result<()>,
) -> anyhow::Result<()> {
    let group_by =
        vec![Dimension::Customer, Dimension::Tool, Dimension::Provider, Dimension::Model];
    let entries = entries(&UsageQuery { group_by, filters: Vec::new(), period });
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT time_ms, customer, tool, provider, model, currency, calls, generations, unpriced,
          unpriced_units, CAST(price AS TEXT), CAST(cost AS TEXT) FROM {}",
        entries.sql()
    ))?;
    let mut rows = statement.query(&entries.values)?;
    while let Some(row) = &rows.next_row()? {
        each(row)?;
    }
    Ok(())
}

fn sums(row: &Row<'_>) -> sql::Result<Sums> {
    let amount =
        |at: usize| Ok::<_, sql::Error>(row.get::<_, Option<Exact>>(at)?.unwrap_or_default());
    Ok(Sums {
        calls: count(row, 6)?,
        generations: count(row, 7)?,
        unpriced: count(row, 8)?,
        unpriced_units: count(row, 9)?,
        revenue: amount(10)?,
        cost: amount(11)?,
    })
}

fn text<'a>(value: &'a Value<'_>) -> &'a str {
    match value {
        Value::Text(text) => text,
        Value::Null | Value::Integer(_) | Value::Decimal(_) => "",
    }
}

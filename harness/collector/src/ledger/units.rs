//! Sums of what was used beside tokens, as a column of a query.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use serde_json::{Map, Value};

use crate::event::units::Units;
use crate::money::Exact;
use crate::sql::{self, Row, failure};

/// Adds the SQL functions of units to a connection. A value that is no such JSON fails the query.
///
/// - `units_sum(TEXT)`: the exact sums, as JSON, of quantities in JSON; NULL counts as none.
/// - `units_add(a, b)`: the same of two.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("units_add", 2, flags, |context| {
        let mut sums = UnitSums::default();
        sums.add_column(context, 0)?;
        sums.add_column(context, 1)?;
        Ok(sums.to_json())
    })?;
    connection.create_aggregate_function("units_sum", 1, flags, UnitsSum)
}

/// Sums of quantities by the name of their unit, exact however many digits they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnitSums(BTreeMap<String, Exact>);

impl UnitSums {
    /// Reads what [`UnitSums::to_json`], [`Units::to_json`] or PostgreSQL wrote; `None` if that is
    /// not it.
    pub(crate) fn from_json(text: &str) -> Option<UnitSums> {
        let object: Map<String, Value> = serde_json::from_str(text).ok()?;
        let read =
            |(name, quantity): (String, Value)| Some((name, Exact::parse(quantity.as_str()?)?));
        object.into_iter().map(read).collect::<Option<_>>().map(UnitSums)
    }

    /// The sums as decimal strings.
    pub(crate) fn to_json(&self) -> String {
        let sums = self.0.iter().map(|(name, sum)| (name.clone(), sum.to_string().into()));
        Value::Object(sums.collect()).to_string()
    }

    /// The names of the units, as JSON; empty without one.
    pub(crate) fn names(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        Value::Array(self.0.keys().cloned().map(Value::from).collect()).to_string()
    }

    pub(crate) fn add(&mut self, other: UnitSums) {
        for (name, quantity) in other.0 {
            self.0.entry(name).or_default().add(quantity);
        }
    }

    /// The same sums below zero.
    pub(crate) fn negated(mut self) -> UnitSums {
        self.0.values_mut().for_each(|sum| *sum = -*sum);
        self
    }

    /// True if nothing is added by it.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.values().all(|sum| *sum == Exact::ZERO)
    }

    fn add_column(&mut self, context: &Context<'_>, argument: usize) -> rusqlite::Result<()> {
        let Some(text) = context.get::<Option<String>>(argument)? else { return Ok(()) };
        let units = UnitSums::from_json(&text);
        self.add(units.ok_or_else(|| failure(format!("not units: {text:?}")))?);
        Ok(())
    }
}

struct UnitsSum;

impl Aggregate<UnitSums, String> for UnitsSum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<UnitSums> {
        Ok(UnitSums::default())
    }

    fn step(&self, context: &mut Context<'_>, sums: &mut UnitSums) -> rusqlite::Result<()> {
        sums.add_column(context, 0)
    }

    fn finalize(&self, _: &mut Context<'_>, sums: Option<UnitSums>) -> rusqlite::Result<String> {
        Ok(sums.unwrap_or_default().to_json())
    }
}

/// Reads a column of `units_sum`, each sum rounded to what an amount can have.
pub(crate) fn column(row: &Row<'_>, name: &str) -> sql::Result<Units> {
    let text: String = row.get(name)?;
    let sums = UnitSums::from_json(&text);
    let sums = sums.ok_or_else(|| sql::Error::Column(format!("{name}: not units: {text:?}")))?;
    Ok(sums.0.into_iter().map(|(name, sum)| (name, sum.rounded())).collect())
}

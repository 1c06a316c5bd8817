//! Usage: calls and money, grouped and filtered by the dimensions of a call.
//! Amounts of different currencies are never added up.

use rusqlite::{Transaction, params_from_iter};
use rust_decimal::Decimal;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::ledger::Ledger;
use super::money;
use super::query::{BadQuery, Conditions, Parameters, Period};

/// What calls can be grouped and filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Who pays.
    Customer,
    /// The customer's team.
    Team,
    /// The team's agent.
    Agent,
    /// The matched product.
    Product,
    /// The session id.
    Session,
    /// The tool as the client named it.
    Tool,
    /// The outcome, such as `SUCCESS`.
    Status,
    /// The cost tier of the price list.
    Tier,
    /// The Envoy process that saw the call.
    Source,
    /// ISO 4217.
    Currency,
    /// The day in UTC, such as `2026-07-01`.
    Day,
}

impl Dimension {
    const ALL: [Dimension; 11] = [
        Dimension::Customer,
        Dimension::Team,
        Dimension::Agent,
        Dimension::Product,
        Dimension::Session,
        Dimension::Tool,
        Dimension::Status,
        Dimension::Tier,
        Dimension::Source,
        Dimension::Currency,
        Dimension::Day,
    ];

    /// The name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Customer => "customer",
            Dimension::Team => "team",
            Dimension::Agent => "agent",
            Dimension::Product => "product",
            Dimension::Session => "session",
            Dimension::Tool => "tool",
            Dimension::Status => "status",
            Dimension::Tier => "tier",
            Dimension::Source => "source",
            Dimension::Currency => "currency",
            Dimension::Day => "day",
        }
    }

    /// The column of `calls`.
    fn column(self) -> &'static str {
        if self == Dimension::Session { "session_id" } else { self.name() }
    }
}

/// Which calls to count, and how to group them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// Empty: one row for all.
    pub group_by: Vec<Dimension>,
    /// Only calls with all these values.
    pub filters: Vec<(Dimension, String)>,
    /// Only calls that ended in this span.
    pub period: Period,
}

impl UsageQuery {
    /// Reads the parameters `group_by` (dimensions with commas between), each dimension as a
    /// filter, `from` and `to`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<UsageQuery, BadQuery> {
        let names = Dimension::ALL.map(Dimension::name);
        let known: Vec<&str> = ["group_by", "from", "to"].into_iter().chain(names).collect();
        let mut parameters = Parameters::new(pairs, &known)?;
        let mut group_by = Vec::new();
        let listed = parameters.take("group_by").unwrap_or_default();
        for name in listed.split(',').filter(|_| !listed.is_empty()) {
            let dimension = Dimension::ALL.into_iter().find(|known| known.name() == name);
            let dimension = dimension.ok_or_else(|| {
                let names = names.join(", ");
                BadQuery::new(format!(
                    "group_by: unknown dimension {name:?}, expected one of {names}"
                ))
            })?;
            if group_by.contains(&dimension) {
                return Err(BadQuery::new(format!("group_by: {name} is given twice")));
            }
            group_by.push(dimension);
        }
        let period = parameters.take_period()?;
        let filters = Dimension::ALL
            .into_iter()
            .filter_map(|dimension| Some((dimension, parameters.take(dimension.name())?)))
            .collect();
        Ok(UsageQuery { group_by, filters, period })
    }
}

/// The answer to a usage query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Sorted by the values of the dimensions.
    pub rows: Vec<UsageRow>,
}

/// The calls of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// As in `group_by`; with the currency at the end when a group had several.
    pub dimensions: Vec<(Dimension, String)>,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls whose price is charged.
    pub billable_calls: u64,
    /// The sum of the prices, in the group's one currency.
    pub revenue: Decimal,
    /// What the calls cost the operator, in the group's one currency.
    pub provider_cost: Decimal,
}

impl Serialize for UsageRow {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut row = to.serialize_map(None)?;
        for (dimension, value) in &self.dimensions {
            row.serialize_entry(dimension.name(), value)?;
        }
        row.serialize_entry("calls", &self.calls)?;
        row.serialize_entry("billable_calls", &self.billable_calls)?;
        row.serialize_entry("revenue", &self.revenue.to_string())?;
        row.serialize_entry("provider_cost", &self.provider_cost.to_string())?;
        row.end()
    }
}

impl Ledger {
    /// Calls and money of the groups that a query asks for.
    pub fn usage(&self, query: &UsageQuery) -> anyhow::Result<Usage> {
        let mut conditions = Conditions::default();
        for (dimension, value) in &query.filters {
            conditions.and_equal(dimension.column(), Some(value));
        }
        conditions.and_within("time_ms", query.period);
        self.read(|ledger| {
            let mut group_by = query.group_by.clone();
            if mixes_currencies(ledger, &group_by, &conditions)? {
                group_by.push(Dimension::Currency);
            }
            Ok(Usage { rows: rows(ledger, &group_by, &conditions)? })
        })
    }
}

fn mixes_currencies(
    ledger: &Transaction<'_>,
    group_by: &[Dimension],
    conditions: &Conditions,
) -> rusqlite::Result<bool> {
    let columns: Vec<&str> = group_by.iter().map(|dimension| dimension.column()).collect();
    let group = if columns.is_empty() { "1 = 1".to_owned() } else { columns.join(", ") };
    ledger
        .prepare_cached(&format!(
            "SELECT 1 FROM calls{} GROUP BY {group} HAVING count(DISTINCT currency) > 1 LIMIT 1",
            conditions.sql()
        ))?
        .exists(params_from_iter(&conditions.values))
}

fn rows(
    ledger: &Transaction<'_>,
    group_by: &[Dimension],
    conditions: &Conditions,
) -> anyhow::Result<Vec<UsageRow>> {
    let columns: Vec<&str> = group_by.iter().map(|dimension| dimension.column()).collect();
    let columns = columns.join(", ");
    let (grouped, separator) = match columns.as_str() {
        "" => (String::new(), ""),
        columns => (format!(" GROUP BY {columns} ORDER BY {columns}"), ", "),
    };
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT count(*), coalesce(sum(billable), 0), decimal_sum(price),
         decimal_sum(provider_cost){separator}{columns} FROM calls{}{grouped}",
        conditions.sql()
    ))?;
    let rows = statement.query_map(params_from_iter(&conditions.values), |row| {
        let dimensions = group_by.iter().zip(4..);
        Ok(UsageRow {
            dimensions: dimensions
                .map(|(dimension, column)| Ok((*dimension, row.get(column)?)))
                .collect::<rusqlite::Result<_>>()?,
            calls: row.get::<_, i64>(0)?.unsigned_abs(),
            billable_calls: row.get::<_, i64>(1)?.unsigned_abs(),
            revenue: money::column(row, 2)?,
            provider_cost: money::column(row, 3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

//! Usage: calls, tokens and money, grouped and filtered by the dimensions of calls and generations.
//! It never adds amounts of different currencies. What belongs to no group has a row of its own, so
//! that the rows have the same sums for every grouping.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::event::tokens::TokenTotals;
use crate::event::units::Units;
use crate::ledger::Ledger;
use crate::ledger::hours::parts::{Union, parts};
use crate::ledger::hours::{CALL_HOURS, GENERATION_HOURS};
use crate::ledger::units::column;
use crate::money;
use crate::money::known::CostKnown;
use crate::query::{BadQuery, Parameters, Period, count};
use crate::sql::{self, Transaction};

/// A column of the call that a generation was made for.
macro_rules! of_its_call {
    ($column:literal) => {
        concat!(
            "coalesce((SELECT ",
            $column,
            " FROM calls AS call WHERE call.source = generation.source
              AND call.call_id = generation.call_id LIMIT 1), '__unattributed__')"
        )
    };
}

/// What is counted of calls and generations in one shape, a column a line: its name, and its SQL for
/// a call, an hour of calls, a generation and an hour of generations. Each kind of token is one more
/// column, which calls do not have.
const COUNTED: [(&str, [&str; 4]); 14] = [
    ("time_ms", ["time_ms", "hour_ms", "time_ms", "hour_ms"]),
    ("calls", ["quantity", "calls", "0", "0"]),
    ("billable", ["billable * quantity", "billable * calls", "0", "0"]),
    ("price", ["price"; 4]),
    ("cost", [NO_MONEY, NO_MONEY, "provider_cost", "provider_cost"]),
    ("generations", ["0", "0", "1", "events"]),
    ("unpriced", ["0", "0", "CASE WHEN provider_cost IS NULL THEN 1 ELSE 0 END", "unpriced"]),
    ("unknown_usage", ["0", "0", "is_unknown", "unknown_usage"]),
    ("unpriced_units", ["0", "0", "has_unpriced_units", "unpriced_units"]),
    ("inconsistent", ["0", "0", "is_inconsistent", "inconsistent"]),
    ("request_bytes", ["request_bytes", "request_bytes", "0", "0"]),
    ("response_bytes", ["response_bytes", "response_bytes", "0", "0"]),
    ("units", [NO_TEXT, NO_TEXT, "units", "units"]),
    ("currency", ["currency"; 4]),
];

/// NULL has a type in PostgreSQL.
const NO_MONEY: &str = "CAST(NULL AS NUMERIC)";
const NO_TEXT: &str = "CAST(NULL AS TEXT)";

/// The calls and generations of a query, with the columns of [`COUNTED`] and those that it groups by.
pub(super) fn entries(query: &UsageQuery) -> Union {
    let mut union = Union::default();
    let tokens = TokenTotals::KINDS.iter().map(|kind| (*kind, ["0", "0", *kind, *kind]));
    let counted: Vec<_> = COUNTED.into_iter().chain(tokens).collect();
    let asked = || query.group_by.iter().chain(query.filters.iter().map(|(filter, _)| filter));
    for (first, hours) in [(0, &CALL_HOURS), (2, &GENERATION_HOURS)] {
        let is_call = first == 0;
        let reads_hours = asked().all(|dimension| dimension.is_in_hours(is_call));
        for mut part in parts(hours, query.period, reads_hours) {
            for (filter, value) in &query.filters {
                part.conditions.and_equal(filter.sql(is_call), Some(value));
            }
            let of_counted = counted.iter().filter_map(|(name, sql)| {
                Some(format!("{} AS {name}", sql.get(first + usize::from(part.is_hours))?))
            });
            let grouped = query.group_by.iter().filter(|it| **it != Dimension::Currency);
            let grouped = grouped.map(|it| format!("{} AS {}", it.sql(is_call), it.column()));
            let columns = of_counted.chain(grouped).collect::<Vec<_>>().join(", ");
            union.add(part, &columns, if is_call { "call" } else { "generation" });
        }
    }
    union
}

/// What calls and generations can be grouped and filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Who pays.
    Customer,
    /// The customer's team.
    Team,
    /// The team's agent, or the app of an API.
    Agent,
    /// The hash of the client's API key; `__none__` where it showed none.
    Key,
    /// The matched product.
    Product,
    /// The product's type, such as `MCP_SERVER`.
    ProductType,
    /// The session id.
    Session,
    /// The type of its event: `tool_invocation`, `api_call`, `agent_step` or
    /// `token_consumption`.
    Kind,
    /// What was called: the tool as the client named it, an API's method and route, or an agent's
    /// operation; `__unattributed__` for generations that belong to no call.
    Tool,
    /// The outcome of the call, such as `SUCCESS`; `__unattributed__` for generations whose call is
    /// none or not in the ledger.
    Status,
    /// The call's cost tier of the price list; `__unattributed__` as for the status.
    Tier,
    /// Who runs the model, such as `openai`; `__none__` for calls.
    Provider,
    /// The model, as answered; `__none__` for calls.
    Model,
    /// The Envoy process that saw the call.
    Source,
    /// ISO 4217.
    Currency,
    /// The day in UTC, such as `2026-07-01`.
    Day,
}

impl Dimension {
    const ALL: [Dimension; 16] = [
        Dimension::Customer,
        Dimension::Team,
        Dimension::Agent,
        Dimension::Key,
        Dimension::Product,
        Dimension::ProductType,
        Dimension::Session,
        Dimension::Kind,
        Dimension::Tool,
        Dimension::Status,
        Dimension::Tier,
        Dimension::Provider,
        Dimension::Model,
        Dimension::Source,
        Dimension::Currency,
        Dimension::Day,
    ];

    pub(crate) fn from_name(name: &str) -> Option<Dimension> {
        Dimension::ALL.into_iter().find(|dimension| dimension.name() == name)
    }

    /// The name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Customer => "customer",
            Dimension::Team => "team",
            Dimension::Agent => "agent",
            Dimension::Key => "key",
            Dimension::Product => "product",
            Dimension::ProductType => "product_type",
            Dimension::Session => "session",
            Dimension::Kind => "kind",
            Dimension::Tool => "tool",
            Dimension::Status => "status",
            Dimension::Tier => "tier",
            Dimension::Provider => "provider",
            Dimension::Model => "model",
            Dimension::Source => "source",
            Dimension::Currency => "currency",
            Dimension::Day => "day",
        }
    }

    /// The column of a query over [`entries`].
    fn column(self) -> &'static str {
        if self == Dimension::Session { "session_id" } else { self.name() }
    }

    /// Whether the hours of calls, or those of generations, tell it apart.
    fn is_in_hours(self, is_call: bool) -> bool {
        match self {
            Dimension::Key | Dimension::Session | Dimension::Source => false,
            Dimension::Status | Dimension::Tier => is_call,
            _ => true,
        }
    }

    /// Its SQL in a row of calls or generations, and of their hours if they have it. A generation
    /// that belongs to no call has no tool, status and tier, and a call has no provider and model.
    fn sql(self, is_call: bool) -> &'static str {
        match (self, is_call) {
            (Dimension::Key, _) => "coalesce(api_key_hash, '__none__')",
            (Dimension::Kind, false) => "'token_consumption'",
            (Dimension::Tool, false) => "coalesce(tool, '__unattributed__')",
            (Dimension::Status, false) => of_its_call!("status"),
            (Dimension::Tier, false) => of_its_call!("tier"),
            (Dimension::Provider | Dimension::Model, true) => "'__none__'",
            _ => self.column(),
        }
    }
}

/// What to count, and how to group them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// Empty: one row for all.
    pub group_by: Vec<Dimension>,
    /// Only calls and generations with all these values.
    pub filters: Vec<(Dimension, String)>,
    /// Only calls and generations that ended in this span.
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
            let dimension = Dimension::from_name(name).ok_or_else(|| {
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

/// The sums of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// As in `group_by`; with the currency at the end when a group had several.
    pub dimensions: Vec<(Dimension, String)>,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls whose price is charged.
    pub billable_calls: u64,
    /// The prices of calls and tokens, in the group's one currency.
    pub revenue: Decimal,
    /// What the generations cost the operator, as far as it is known, in the group's one currency.
    /// In JSON, it and the margin are `null` where nothing of it is known.
    pub provider_cost: Decimal,
    /// Revenue less provider cost; below zero for a loss.
    pub margin: Decimal,
    /// Generations, whether priced or not.
    pub generations: u64,
    /// Generations whose cost is not known, for any reason.
    pub unpriced_generations: u64,
    /// Generations whose input and output are both unknown, and that are not billed by other units
    /// alone.
    pub unknown_usage_generations: u64,
    /// Generations that used something beside tokens of which the rate card has no price: their known
    /// cost is too low.
    pub unpriced_units_generations: u64,
    /// Generations whose counts contradict each other: their cost is by the reading that costs most.
    pub inconsistent_generations: u64,
    /// Tokens, as far as they are known.
    pub tokens: TokenTotals,
    /// What is billed beside tokens.
    pub units: Units,
    /// Bytes of the bodies of requests; only API calls have them.
    pub request_bytes: u64,
    /// Bytes of the bodies of responses; only API calls have them.
    pub response_bytes: u64,
}

impl UsageRow {
    /// The value of a dimension that the query groups by.
    pub(crate) fn dimension(&self, dimension: Dimension) -> Option<&str> {
        let found = self.dimensions.iter().find(|(known, _)| *known == dimension)?;
        Some(&found.1)
    }

    /// How much of `provider_cost` is known.
    pub fn cost_known(&self) -> CostKnown {
        let (unpriced, in_part) = (self.unpriced_generations, self.unpriced_units_generations);
        CostKnown::of(self.generations, unpriced, in_part)
    }
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
        let known = self.cost_known();
        let told = |sum: Decimal| known.told(sum).map(|sum| sum.to_string());
        row.serialize_entry("provider_cost", &told(self.provider_cost))?;
        row.serialize_entry("margin", &told(self.margin))?;
        row.serialize_entry("cost_known", &known)?;
        row.serialize_entry("generations", &self.generations)?;
        row.serialize_entry("unpriced_generations", &self.unpriced_generations)?;
        row.serialize_entry("unknown_usage_generations", &self.unknown_usage_generations)?;
        row.serialize_entry("unpriced_units_generations", &self.unpriced_units_generations)?;
        row.serialize_entry("inconsistent_generations", &self.inconsistent_generations)?;
        for (kind, count) in self.tokens.counts() {
            row.serialize_entry(kind, &count)?;
        }
        row.serialize_entry("units", &self.units)?;
        row.serialize_entry("request_bytes", &self.request_bytes)?;
        row.serialize_entry("response_bytes", &self.response_bytes)?;
        row.end()
    }
}

impl Ledger {
    /// Calls, tokens and money of the groups that a query asks for.
    pub fn usage(&self, query: &UsageQuery) -> anyhow::Result<Usage> {
        self.read(|ledger| {
            let mut query = query.clone();
            let tells_currencies = query.group_by.contains(&Dimension::Currency);
            if !tells_currencies && mixes_currencies(ledger, &query)? {
                query.group_by.push(Dimension::Currency);
            }
            let mut found = Vec::new();
            each_row(ledger, &query, |row| found.push(row))?;
            Ok(Usage { rows: found })
        })
    }

    /// The first `keep` groups in the order of `compare`, of those that `is_wanted`, and how many of
    /// these there are. It keeps no more than twice as many at once, however many groups there are.
    /// The query groups by the currency.
    pub(crate) fn ranked_usage(
        &self,
        query: &UsageQuery,
        keep: usize,
        is_wanted: impl Fn(&UsageRow) -> bool,
        compare: impl Fn(&UsageRow, &UsageRow) -> Ordering,
    ) -> anyhow::Result<(Vec<UsageRow>, u64)> {
        self.read(|ledger| {
            let (mut found, mut wanted) = (Vec::new(), 0_u64);
            each_row(ledger, query, |row| {
                if is_wanted(&row) {
                    wanted = wanted.saturating_add(1);
                    found.push(row);
                    if found.len() >= keep.saturating_mul(2).max(1) {
                        found.sort_by(&compare);
                        found.truncate(keep);
                    }
                }
            })?;
            found.sort_by(&compare);
            found.truncate(keep);
            Ok((found, wanted))
        })
    }
}

fn columns(group_by: &[Dimension]) -> String {
    group_by.iter().map(|dimension| dimension.column()).collect::<Vec<_>>().join(", ")
}

fn mixes_currencies(ledger: &Transaction<'_>, query: &UsageQuery) -> sql::Result<bool> {
    let group = match columns(&query.group_by) {
        none if none.is_empty() => "1 = 1".to_owned(),
        columns => columns,
    };
    let entries = entries(query);
    ledger
        .prepare_cached(&format!(
            "SELECT 1 FROM {} GROUP BY {group} HAVING count(DISTINCT currency) > 1 LIMIT 1",
            entries.sql()
        ))?
        .exists(&entries.values)
}

fn each_row(
    ledger: &Transaction<'_>,
    query: &UsageQuery,
    mut each: impl FnMut(UsageRow),
) -> anyhow::Result<()> {
    let UsageQuery { group_by, .. } = query;
    let columns = columns(group_by);
    let (grouped, separator) = match columns.as_str() {
        "" => (String::new(), ""),
        columns => (format!(" GROUP BY {columns} ORDER BY {columns}"), ", "),
    };
    let (entries, tokens) = (entries(query), TokenTotals::columns());
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT count_sum(calls), count_sum(billable), count_sum(generations),
         count_sum(unpriced), count_sum(unknown_usage), decimal_sum(price),
         decimal_sum(cost), count_sum(request_bytes),
         count_sum(response_bytes), count_sum(unpriced_units),
         count_sum(inconsistent){separator}{columns}, {tokens}, units_sum(units) AS units FROM {}{grouped}",
        entries.sql()
    ))?;
    let mut rows = statement.query(&entries.values)?;
    while let Some(row) = &rows.next_row()? {
        let (revenue, provider_cost) = (row.get(5)?, row.get(6)?);
        let dimensions = group_by.iter().zip(11..);
        each(UsageRow {
            dimensions: dimensions
                .map(|(dimension, column)| Ok((*dimension, row.get(column)?)))
                .collect::<sql::Result<_>>()?,
            calls: count(row, 0)?,
            billable_calls: count(row, 1)?,
            revenue,
            provider_cost,
            margin: money::difference(revenue, provider_cost),
            generations: count(row, 2)?,
            unpriced_generations: count(row, 3)?,
            unknown_usage_generations: count(row, 4)?,
            unpriced_units_generations: count(row, 9)?,
            inconsistent_generations: count(row, 10)?,
            tokens: TokenTotals::of_row(row)?,
            units: column(row, "units")?,
            request_bytes: count(row, 7)?,
            response_bytes: count(row, 8)?,
        });
    }
    Ok(())
}

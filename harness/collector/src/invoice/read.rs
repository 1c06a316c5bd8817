//! Reads what customers used from the ledger: calls and generations by hour and, at the ends of a
//! period, one by one; and sessions.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::event::tokens::TokenTotals;
use crate::invoice::{
    Consumed, Generations, Line, ModelCost, ProductUse, Sums, TokenLine, ToolCost,
};
use crate::ledger::hours::parts::{Union, parts};
use crate::ledger::hours::{CALL_HOURS, GENERATION_HOURS, HourTable};
use crate::ledger::units::column;
use crate::money;
use crate::query::{Conditions, Period, count};
use crate::sql::{self, Row, Transaction};

/// Customer, product, product type, currency.
pub(super) type Key = (String, String, String, String);

/// The products that were used, by these customers, or by all for `None`. Their token lines are those
/// of all models, also where tokens are not charged.
pub(crate) fn products(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
) -> anyhow::Result<BTreeMap<Key, ProductUse>> {
    let mut products = BTreeMap::new();
    read_calls(ledger, customers, period, &mut products)?;
    read_generations(ledger, customers, period, &mut products)?;
    read_sessions(ledger, customers, period, &mut products)?;
    Ok(products)
}

/// The entries of customers in a period, with the columns of hours or those of single rows.
fn entries(
    table: &'static HourTable,
    customers: Option<&[String]>,
    period: Period,
    of_hours: &str,
    of_rows: &str,
) -> Union {
    let mut union = Union::default();
    for mut part in parts(table, period, true) {
        part.conditions.and_one_of("customer", customers);
        let columns = if part.is_hours { of_hours } else { of_rows };
        union.add(part, columns, "used");
    }
    union
}

fn read_calls(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    const KEY: &str =
        "customer, product, product_type, currency, tool, tier, billable, status, kind";
    let entries = entries(
        &CALL_HOURS,
        customers,
        period,
        &format!("{KEY}, unit_price, 1 AS quantity, calls, price"),
        &format!("{KEY}, price AS unit_price, quantity, quantity AS calls, price"),
    );
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT {KEY}, unit_price, quantity, count_sum(calls), decimal_sum(price) FROM {}
         GROUP BY {KEY}, unit_price, quantity",
        entries.sql()
    ))?;
    let mut rows = statement.query(&entries.values)?;
    while let Some(row) = &rows.next_row()? {
        let product = product_of(products, row)?;
        let billable: bool = row.get(6)?;
        let calls = count(row, 11)?;
        let amount = row.get(12)?;
        let line = Line {
            kind: row.get(8)?,
            tool: row.get(4)?,
            tier: row.get(5)?,
            unit_price: if billable { Some(unit_price(row)?) } else { None },
            calls,
            billable_calls: if billable { calls } else { 0 },
            amount,
        };
        product.sums.revenue = money::sum(product.sums.revenue, amount);
        if !billable {
            let not_billed = product.not_billed.calls.entry(row.get(7)?).or_default();
            *not_billed = not_billed.saturating_add(calls);
        }
        let same =
            |other: &&mut Line| other.is_of_one_tier(&line) && other.unit_price == line.unit_price;
        match product.lines.iter_mut().find(same) {
            Some(other) => {
                other.calls = other.calls.saturating_add(line.calls);
                other.billable_calls = other.billable_calls.saturating_add(line.billable_calls);
                other.amount = money::sum(other.amount, line.amount);
            }
            None => product.lines.push(line),
        }
    }
    Ok(())
}

/// The price of one of the calls that a row stands for.
fn unit_price(row: &Row<'_>) -> sql::Result<Decimal> {
    Ok(money::unit_price(row.get(9)?, count(row, 10)?.into()))
}

fn read_generations(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    const KEY: &str = "customer, product, product_type, currency, tool, provider, model";
    let tokens = TokenTotals::KINDS.join(", ");
    let entries = entries(
        &GENERATION_HOURS,
        customers,
        period,
        &format!(
            "{KEY}, events, unpriced, unknown_usage, price, provider_cost, unpriced_units,
             inconsistent, units, {tokens}"
        ),
        &format!(
            "{KEY}, 1 AS events, CASE WHEN provider_cost IS NULL THEN 1 ELSE 0 END AS unpriced,
             is_unknown AS unknown_usage, price, provider_cost,
             has_unpriced_units AS unpriced_units, is_inconsistent AS inconsistent, units, {tokens}"
        ),
    );
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT {KEY}, count_sum(events), count_sum(unpriced), count_sum(unknown_usage),
         decimal_sum(price), decimal_sum(provider_cost), count_sum(unpriced_units),
         count_sum(inconsistent), units_sum(units) AS units, {}
         FROM {} GROUP BY {KEY} ORDER BY tool NULLS LAST, provider, model",
        TokenTotals::columns(),
        entries.sql()
    ))?;
    let mut rows = statement.query(&entries.values)?;
    while let Some(row) = &rows.next_row()? {
        let product = product_of(products, row)?;
        let (tool, provider, model) = (row.get(4)?, row.get(5)?, row.get(6)?);
        let generations = Generations {
            generations: count(row, 7)?,
            unpriced_generations: count(row, 8)?,
            unknown_usage_generations: count(row, 9)?,
            unpriced_units_generations: count(row, 12)?,
            inconsistent_generations: count(row, 13)?,
        };
        let (price, cost) = (row.get(10)?, row.get(11)?);
        let consumed = Consumed { tokens: TokenTotals::of_row(row)?, units: column(row, "units")? };
        product.add_generations(tool, (provider, model), generations, consumed, price, cost);
    }
    Ok(())
}

impl ProductUse {
    fn add_generations(
        &mut self,
        tool: Option<String>,
        (provider, model): (String, String),
        generations: Generations,
        consumed: Consumed,
        price: Decimal,
        cost: Decimal,
    ) {
        self.generations.add(generations);
        self.sums.revenue = money::sum(self.sums.revenue, price);
        self.sums.provider_cost = money::sum(self.sums.provider_cost, cost);

        let at = self.cost_by_tool.iter().position(|other| other.tool == tool);
        let at = at.unwrap_or_else(|| {
            let (generations, provider_cost) = (Generations::default(), Decimal::ZERO);
            self.cost_by_tool.push(ToolCost { tool, generations, provider_cost });
            self.cost_by_tool.len() - 1
        });
        let by_tool = &mut self.cost_by_tool[at];
        by_tool.generations.add(generations);
        by_tool.provider_cost = money::sum(by_tool.provider_cost, cost);

        let key = |other: &ModelCost| (&other.provider, &other.model) < (&provider, &model);
        let at = self.cost_by_model.partition_point(key);
        let known = self.cost_by_model.get(at);
        if known.is_none_or(|other| (&other.provider, &other.model) != (&provider, &model)) {
            let (name, run_by) = (model.clone(), provider.clone());
            self.cost_by_model.insert(
                at,
                ModelCost {
                    provider: run_by.clone(),
                    model: name.clone(),
                    generations: Generations::default(),
                    consumed: Consumed::default(),
                    provider_cost: Decimal::ZERO,
                },
            );
            self.token_lines.insert(
                at,
                TokenLine {
                    provider: run_by,
                    model: name,
                    generations: 0,
                    uncharged_generations: 0,
                    consumed: Consumed::default(),
                    amount: Decimal::ZERO,
                },
            );
        }
        let (by_model, line) = (&mut self.cost_by_model[at], &mut self.token_lines[at]);
        by_model.generations.add(generations);
        by_model.consumed.add(consumed.clone());
        by_model.provider_cost = money::sum(by_model.provider_cost, cost);
        line.generations += generations.generations;
        line.consumed.add(consumed);
        line.amount = money::sum(line.amount, price);
    }
}

fn read_sessions(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut conditions = Conditions::default();
    conditions.and("state = ?", "CLOSED".to_owned());
    conditions.and_one_of("customer", customers);
    conditions.and_within("ended_ms", period);
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, count(*) FROM sessions{}
         AND currency IS NOT NULL GROUP BY customer, product, product_type, currency",
        conditions.sql()
    ))?;
    let mut rows = statement.query(&conditions.values)?;
    while let Some(row) = &rows.next_row()? {
        let sessions_closed = count(row, 4)?;
        product_of(products, row)?.sessions_closed = sessions_closed;
    }
    Ok(())
}

/// The entry of a row that opens with customer, product, product type and currency.
pub(super) fn product_of<'a>(
    products: &'a mut BTreeMap<Key, ProductUse>,
    row: &Row<'_>,
) -> sql::Result<&'a mut ProductUse> {
    let key: Key = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (customer, product, product_type, currency) = key.clone();
    Ok(products.entry(key).or_insert(ProductUse {
        customer,
        product,
        product_type,
        currency,
        lines: Vec::new(),
        token_lines: Vec::new(),
        not_billed: Default::default(),
        sessions_closed: 0,
        cost_by_tool: Vec::new(),
        cost_by_model: Vec::new(),
        generations: Generations::default(),
        sums: Sums::default(),
    }))
}

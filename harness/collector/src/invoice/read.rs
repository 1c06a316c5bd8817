//! Reads what customers used from the ledger's tables of calls, generations and sessions.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::event::tokens::TokenTotals;
use crate::invoice::{
    Consumed, Generations, Line, ModelCost, ProductUse, Sums, TokenLine, ToolCost,
};
use crate::ledger::units::column;
use crate::money;
use crate::query::{Conditions, count};
use crate::sql::{self, Row, Transaction};

/// Customer, product, product type, currency.
type Key = (String, String, String, String);

/// The products that were used, by customer, product and currency. `used` selects calls and
/// generations, `sessions` selects sessions.
pub(crate) fn products(
    ledger: &Transaction<'_>,
    used: &Conditions,
    sessions: &Conditions,
) -> anyhow::Result<Vec<ProductUse>> {
    let mut products = BTreeMap::new();
    read_calls(ledger, used, &mut products)?;
    read_generations(ledger, used, &mut products)?;
    read_sessions(ledger, sessions, &mut products)?;
    Ok(products.into_values().collect())
}

fn read_calls(
    ledger: &Transaction<'_>,
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, tool, tier, billable, price, status,
         count_sum(quantity), decimal_sum(price), kind, quantity FROM calls{}
         GROUP BY customer, product, product_type, currency, kind, tool, tier, billable, price,
          status, quantity",
        conditions.sql()
    ))?;
    let mut rows = statement.query(&conditions.values)?;
    while let Some(row) = &rows.next_row()? {
        let product = product_of(products, row)?;
        let billable: bool = row.get(6)?;
        let calls = count(row, 9)?;
        let amount = row.get(10)?;
        let line = Line {
            kind: row.get(11)?,
            tool: row.get(4)?,
            tier: row.get(5)?,
            unit_price: if billable { Some(unit_price(row)?) } else { None },
            calls,
            billable_calls: if billable { calls } else { 0 },
            amount,
        };
        product.sums.revenue = money::sum(product.sums.revenue, amount);
        if !billable {
            let not_billed = product.not_billed.entry(row.get(8)?).or_default();
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

/// The price of one of the calls that an event stands for.
fn unit_price(row: &Row<'_>) -> anyhow::Result<Decimal> {
    let price: Decimal = row.get(7)?;
    let quantity = Decimal::from(count(row, 12)?);
    Ok(price.checked_div(quantity).unwrap_or(price).normalize())
}

fn read_generations(
    ledger: &Transaction<'_>,
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, tool, provider, model, count(*),
         count(*) FILTER (WHERE provider_cost IS NULL), count_sum(is_unknown), decimal_sum(price),
         decimal_sum(provider_cost), count_sum(has_unpriced_units), count_sum(is_inconsistent), units_sum(units) AS units,
         {}
         FROM generations{}
         GROUP BY customer, product, product_type, currency, tool, provider, model
         ORDER BY tool NULLS LAST, provider, model",
        TokenTotals::columns(),
        conditions.sql()
    ))?;
    let mut rows = statement.query(&conditions.values)?;
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
    for product in products.values_mut() {
        product.token_lines.retain(|line| !line.amount.is_zero());
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
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
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
fn product_of<'a>(
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
        not_billed: BTreeMap::new(),
        sessions_closed: 0,
        cost_by_tool: Vec::new(),
        cost_by_model: Vec::new(),
        generations: Generations::default(),
        sums: Sums::default(),
    }))
}

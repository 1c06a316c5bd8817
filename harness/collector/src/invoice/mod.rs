//! The invoice: what a customer owes, line by line, exactly as the ledger has it, and what the
//! customer's generations cost the operator. It rates nothing: every price and every cost was fixed
//! when the call or the generation was metered. The one rounded number is the margin's percentage,
//! to one decimal, halves away from zero.

mod text;

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::event::totals::TokenTotals;
use crate::ledger::Ledger;
use crate::money::{self, Overflow};
use crate::query::{Conditions, Period, count, rfc3339};

/// What one customer, or all of them, owe for a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// `None`: all customers on one invoice.
    pub customer: Option<String>,
    /// Calls and generations count by their own time, sessions by their end.
    #[serde(flatten, serialize_with = "period_as_text")]
    pub period: Period,
    /// Sorted by customer, product and currency.
    pub products: Vec<ProductUse>,
    /// One for each currency, by its code; empty when there is nothing to bill.
    pub totals: Vec<Total>,
}

/// What one customer used of one product, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProductUse {
    /// Who pays.
    pub customer: String,
    /// The product.
    pub product: String,
    /// The product's type, such as `MCP_SERVER`.
    pub product_type: String,
    /// ISO 4217.
    pub currency: String,
    /// Sorted by kind, tool, tier and price.
    pub lines: Vec<Line>,
    /// Sorted by provider and model; only models whose tokens are charged.
    pub token_lines: Vec<TokenLine>,
    /// Calls without a charge, for each `execution_status` that occurred.
    pub not_billed: BTreeMap<String, u64>,
    /// Sessions that ended in the period.
    pub sessions_closed: u64,
    /// Sorted by tool, what was made for no tool call last; empty without generations.
    pub cost_by_tool: Vec<ToolCost>,
    /// Sorted by provider and model; empty without generations.
    pub cost_by_model: Vec<ModelCost>,
    /// Generations by whether their cost is known.
    #[serde(flatten)]
    pub generations: Generations,
    /// The money of the product.
    #[serde(flatten)]
    pub sums: Sums,
}

/// One line: a tool, a route of an API or an operation of an agent, at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The event that tells of its calls: `tool_invocation`, `api_call` or `agent_step`.
    pub kind: String,
    /// The tool as the client named it, an API's method and route, or an agent's operation.
    pub tool: String,
    /// Cost tier of the price list.
    pub tier: String,
    /// Charged for each billable call; `None` on a line of calls that are not billed. Such calls
    /// have a line of their own only when their tool and tier was billed at no price or several.
    #[serde(with = "money::optional")]
    pub unit_price: Option<Decimal>,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls that are charged.
    pub billable_calls: u64,
    /// The sum of the prices of the calls.
    #[serde(serialize_with = "money::as_text")]
    pub amount: Decimal,
}

impl Line {
    /// Whether both are of the same tool and tier.
    fn is_of_one_tier(&self, other: &Line) -> bool {
        (&self.kind, &self.tool, &self.tier) == (&other.kind, &other.tool, &other.tier)
    }
}

/// One line: the tokens of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenLine {
    /// Who runs the model.
    pub provider: String,
    /// The model, as answered.
    pub model: String,
    /// Responses of the model.
    pub generations: u64,
    /// Their tokens.
    #[serde(flatten)]
    pub tokens: TokenTotals,
    /// The sum of the prices of the generations.
    #[serde(serialize_with = "money::as_text")]
    pub amount: Decimal,
}

/// What the generations for one tool cost the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCost {
    /// As the client named it; `None` for generations that belong to no tool call.
    pub tool: Option<String>,
    /// Generations by whether their cost is known.
    #[serde(flatten)]
    pub generations: Generations,
    /// The sum of the costs that are known.
    #[serde(serialize_with = "money::as_text")]
    pub provider_cost: Decimal,
}

/// What the generations of one model cost the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCost {
    /// Who runs the model.
    pub provider: String,
    /// The model, as answered.
    pub model: String,
    /// Generations by whether their cost is known.
    #[serde(flatten)]
    pub generations: Generations,
    /// Their tokens.
    #[serde(flatten)]
    pub tokens: TokenTotals,
    /// The sum of the costs that are known.
    #[serde(serialize_with = "money::as_text")]
    pub provider_cost: Decimal,
}

/// Generations by whether their cost is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Generations {
    /// All of them.
    pub generations: u64,
    /// Those whose cost is not known.
    pub unpriced_generations: u64,
    /// Those of which neither the input nor the output is known; they have no cost either.
    pub unknown_usage_generations: u64,
}

impl Generations {
    fn add(&mut self, other: Generations) {
        self.generations += other.generations;
        self.unpriced_generations += other.unpriced_generations;
        self.unknown_usage_generations += other.unknown_usage_generations;
    }
}

/// Money earned and spent, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// What the generations cost the operator, as far as it is known.
    #[serde(serialize_with = "money::as_text")]
    pub provider_cost: Decimal,
    /// The sum of the lines.
    #[serde(serialize_with = "money::as_text")]
    pub revenue: Decimal,
    /// Revenue less known provider cost; below zero for a loss.
    #[serde(serialize_with = "money::as_text")]
    pub margin: Decimal,
    /// Margin as a percentage of the revenue with one decimal, or `n/a` without revenue.
    pub margin_percent: String,
}

/// What is owed in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    /// ISO 4217.
    pub currency: String,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls that are charged.
    pub billable_calls: u64,
    /// Generations by whether their cost is known.
    #[serde(flatten)]
    pub generations: Generations,
    /// `revenue` is the amount owed.
    #[serde(flatten)]
    pub sums: Sums,
}

/// An invoice for each customer with calls, generations or closed sessions in the ledger, by name, since ever.
pub fn invoices(ledger: &Ledger) -> anyhow::Result<Vec<Invoice>> {
    let customers: Vec<String> = ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT customer FROM calls UNION SELECT customer FROM generations
             UNION SELECT customer FROM sessions WHERE state = 'CLOSED' ORDER BY 1",
        )?;
        let customers = statement.query_map([], |row| row.get(0))?;
        Ok(customers.collect::<Result<_, _>>()?)
    })?;
    let invoice =
        |customer: &String| Invoice::for_customer(ledger, Some(customer), Period::default());
    customers.iter().map(invoice).collect()
}

/// Customer, product, product type, currency.
type Key = (String, String, String, String);

impl Invoice {
    /// Reads the invoice of one customer, or of all for `None`, from one snapshot of the ledger.
    pub fn for_customer(
        ledger: &Ledger,
        customer: Option<&str>,
        period: Period,
    ) -> anyhow::Result<Invoice> {
        let mut used = Conditions::default();
        used.and_equal("customer", customer);
        used.and_within("time_ms", period);
        let mut sessions = Conditions::default();
        sessions.and("state = ?", "CLOSED".to_owned());
        sessions.and_equal("customer", customer);
        sessions.and_within("ended_ms", period);
        let products = ledger.read(|ledger| {
            let mut products = BTreeMap::new();
            read_calls(ledger, &used, &mut products)?;
            read_generations(ledger, &used, &mut products)?;
            read_sessions(ledger, &sessions, &mut products)?;
            Ok(products)
        })?;
        let mut products: Vec<ProductUse> = products.into_values().collect();
        for product in &mut products {
            let lines = std::mem::take(&mut product.lines);
            product.lines = merge_unbilled(lines);
            product.sums.finish()?;
        }
        let totals = totals(&products)?;
        Ok(Invoice { customer: customer.map(str::to_owned), period, products, totals })
    }

    /// The same as the text, with amounts as decimal strings.
    pub fn to_json(&self) -> Value {
        // Maps with string keys, strings and integers: there is nothing that can fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn read_calls(
    ledger: &rusqlite::Transaction<'_>,
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, tool, tier, billable, price, status,
         count(*), decimal_sum(price), kind FROM calls{}
         GROUP BY customer, product, product_type, currency, kind, tool, tier, billable, price,
          status",
        conditions.sql()
    ))?;
    let mut rows = statement.query(params_from_iter(&conditions.values))?;
    while let Some(row) = rows.next()? {
        let product = product_of(products, row)?;
        let billable: bool = row.get(6)?;
        let calls = count(row, 9)?;
        let amount = money::column(row, 10)?;
        let line = Line {
            kind: row.get(11)?,
            tool: row.get(4)?,
            tier: row.get(5)?,
            unit_price: if billable { Some(money::column(row, 7)?) } else { None },
            calls,
            billable_calls: if billable { calls } else { 0 },
            amount,
        };
        product.sums.revenue = money::add(product.sums.revenue, amount)?;
        if !billable {
            *product.not_billed.entry(row.get(8)?).or_default() += calls;
        }
        let same =
            |other: &&mut Line| other.is_of_one_tier(&line) && other.unit_price == line.unit_price;
        match product.lines.iter_mut().find(same) {
            Some(other) => {
                other.calls += line.calls;
                other.billable_calls += line.billable_calls;
                other.amount = money::add(other.amount, line.amount)?;
            }
            None => product.lines.push(line),
        }
    }
    Ok(())
}

fn read_generations(
    ledger: &rusqlite::Transaction<'_>,
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, tool, provider, model, count(*),
         sum(provider_cost IS NULL), sum(input IS NULL AND output IS NULL), decimal_sum(price),
         decimal_sum(coalesce(provider_cost, '0')), {} FROM generations{}
         GROUP BY customer, product, product_type, currency, tool, provider, model
         ORDER BY tool NULLS LAST, provider, model",
        TokenTotals::columns(),
        conditions.sql()
    ))?;
    let mut rows = statement.query(params_from_iter(&conditions.values))?;
    while let Some(row) = rows.next()? {
        let product = product_of(products, row)?;
        let (tool, provider, model) = (row.get(4)?, row.get(5)?, row.get(6)?);
        let generations = Generations {
            generations: count(row, 7)?,
            unpriced_generations: count(row, 8)?,
            unknown_usage_generations: count(row, 9)?,
        };
        let (price, cost) = (money::column(row, 10)?, money::column(row, 11)?);
        let tokens = TokenTotals::of_row(row)?;
        product.add_generations(tool, (provider, model), generations, tokens, price, cost)?;
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
        tokens: TokenTotals,
        price: Decimal,
        cost: Decimal,
    ) -> Result<(), Overflow> {
        self.generations.add(generations);
        self.sums.revenue = money::add(self.sums.revenue, price)?;
        self.sums.provider_cost = money::add(self.sums.provider_cost, cost)?;

        let at = self.cost_by_tool.iter().position(|other| other.tool == tool);
        let at = at.unwrap_or_else(|| {
            let (generations, provider_cost) = (Generations::default(), Decimal::ZERO);
            self.cost_by_tool.push(ToolCost { tool, generations, provider_cost });
            self.cost_by_tool.len() - 1
        });
        let by_tool = &mut self.cost_by_tool[at];
        by_tool.generations.add(generations);
        by_tool.provider_cost = money::add(by_tool.provider_cost, cost)?;

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
                    tokens: TokenTotals::default(),
                    provider_cost: Decimal::ZERO,
                },
            );
            self.token_lines.insert(
                at,
                TokenLine {
                    provider: run_by,
                    model: name,
                    generations: 0,
                    tokens: TokenTotals::default(),
                    amount: Decimal::ZERO,
                },
            );
        }
        let (by_model, line) = (&mut self.cost_by_model[at], &mut self.token_lines[at]);
        by_model.generations.add(generations);
        by_model.tokens.add(tokens);
        by_model.provider_cost = money::add(by_model.provider_cost, cost)?;
        line.generations += generations.generations;
        line.tokens.add(tokens);
        line.amount = money::add(line.amount, price)?;
        Ok(())
    }
}

fn read_sessions(
    ledger: &rusqlite::Transaction<'_>,
    conditions: &Conditions,
    products: &mut BTreeMap<Key, ProductUse>,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT customer, product, product_type, currency, count(*) FROM sessions{}
         GROUP BY customer, product, product_type, currency",
        conditions.sql()
    ))?;
    let mut rows = statement.query(params_from_iter(&conditions.values))?;
    while let Some(row) = rows.next()? {
        let sessions_closed = count(row, 4)?;
        product_of(products, row)?.sessions_closed = sessions_closed;
    }
    Ok(())
}

/// The entry of a row that opens with customer, product, product type and currency.
fn product_of<'a>(
    products: &'a mut BTreeMap<Key, ProductUse>,
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<&'a mut ProductUse> {
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

/// Adds calls that are not billed to the line of their tool and tier, where that has one price.
fn merge_unbilled(lines: Vec<Line>) -> Vec<Line> {
    let (unbilled, mut lines): (Vec<Line>, Vec<Line>) =
        lines.into_iter().partition(|line| line.unit_price.is_none());
    let mut apart = Vec::new();
    for line in unbilled {
        let mut priced = lines.iter_mut().filter(|other| other.is_of_one_tier(&line));
        match (priced.next(), priced.next()) {
            (Some(only), None) => only.calls += line.calls,
            _ => apart.push(line),
        }
    }
    lines.append(&mut apart);
    // As numbers: as TEXT, a price of 10 would come before one of 9.
    let key =
        |line: &Line| (line.kind.clone(), line.tool.clone(), line.tier.clone(), line.unit_price);
    lines.sort_by_cached_key(key);
    lines
}

fn totals(products: &[ProductUse]) -> Result<Vec<Total>, Overflow> {
    let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
    for product in products {
        let total = totals.entry(&product.currency).or_insert_with(|| Total {
            currency: product.currency.clone(),
            calls: 0,
            billable_calls: 0,
            generations: Generations::default(),
            sums: Sums::default(),
        });
        total.generations.add(product.generations);
        total.calls += product.lines.iter().map(|line| line.calls).sum::<u64>();
        total.billable_calls += product.lines.iter().map(|line| line.billable_calls).sum::<u64>();
        total.sums.revenue = money::add(total.sums.revenue, product.sums.revenue)?;
        let cost = money::add(total.sums.provider_cost, product.sums.provider_cost)?;
        total.sums.provider_cost = cost;
    }
    let mut totals: Vec<Total> = totals.into_values().collect();
    totals.iter_mut().try_for_each(|total| total.sums.finish())?;
    Ok(totals)
}

impl Sums {
    /// Sets the margin from revenue and provider cost.
    fn finish(&mut self) -> Result<(), Overflow> {
        self.margin = money::subtract(self.revenue, self.provider_cost)?;
        let hundred = Decimal::from(100);
        let percent = self.margin.checked_div(self.revenue).and_then(|r| r.checked_mul(hundred));
        self.margin_percent = match percent {
            Some(percent) => {
                let rounding = RoundingStrategy::MidpointAwayFromZero;
                let mut percent = percent.round_dp_with_strategy(1, rounding);
                percent.rescale(1);
                percent.to_string()
            }
            None => "n/a".to_owned(),
        };
        Ok(())
    }
}

fn period_as_text<S: Serializer>(period: &Period, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("from", &period.from_ms.map(rfc3339))?;
    map.serialize_entry("to", &period.to_ms.map(rfc3339))?;
    map.end()
}

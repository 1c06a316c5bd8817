//! The invoice: what a customer owes, line by line, exactly as the ledger has it.
//! It rates nothing: every price was fixed when the call was metered. The one rounded number is
//! the margin's percentage, to one decimal, halves away from zero.

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::params_from_iter;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::collector::query::{Conditions, rfc3339};
use crate::collector::{Ledger, Overflow, Period, money};

/// What one customer, or all of them, owe for a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// `None`: all customers on one invoice.
    pub customer: Option<String>,
    /// Calls count by their own time, sessions by their end.
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
    /// Sorted by tool, tier and price.
    pub lines: Vec<Line>,
    /// Calls without a charge, for each `execution_status` that occurred.
    pub not_billed: BTreeMap<String, u64>,
    /// Sessions that ended in the period.
    pub sessions_closed: u64,
    /// The money of the product.
    #[serde(flatten)]
    pub sums: Sums,
}

/// One line: a tool at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// As the client named it.
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

/// Money earned and spent, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// What the calls cost the operator.
    #[serde(serialize_with = "money::as_text")]
    pub provider_cost: Decimal,
    /// The sum of the lines.
    #[serde(serialize_with = "money::as_text")]
    pub revenue: Decimal,
    /// Revenue less provider cost; below zero for a loss.
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
    /// `revenue` is the amount owed.
    #[serde(flatten)]
    pub sums: Sums,
}

/// An invoice for each customer with calls or closed sessions in the ledger, by name, since ever.
pub fn invoices(ledger: &Ledger) -> anyhow::Result<Vec<Invoice>> {
    let customers: Vec<String> = ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT customer FROM calls
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
        let mut calls = Conditions::default();
        calls.and_equal("customer", customer);
        calls.and_within("time_ms", period);
        let mut sessions = Conditions::default();
        sessions.and("state = ?", "CLOSED".to_owned());
        sessions.and_equal("customer", customer);
        sessions.and_within("ended_ms", period);
        let products = ledger.read(|ledger| {
            let mut products = BTreeMap::new();
            read_calls(ledger, &calls, &mut products)?;
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
         count(*), decimal_sum(price), decimal_sum(provider_cost) FROM calls{}
         GROUP BY customer, product, product_type, currency, tool, tier, billable, price, status",
        conditions.sql()
    ))?;
    let mut rows = statement.query(params_from_iter(&conditions.values))?;
    while let Some(row) = rows.next()? {
        let product = product_of(products, row)?;
        let billable: bool = row.get(6)?;
        let calls = row.get::<_, i64>(9)?.unsigned_abs();
        let amount = money::column(row, 10)?;
        let line = Line {
            tool: row.get(4)?,
            tier: row.get(5)?,
            unit_price: if billable { Some(money::column(row, 7)?) } else { None },
            calls,
            billable_calls: if billable { calls } else { 0 },
            amount,
        };
        product.sums.revenue = money::add(product.sums.revenue, amount)?;
        let cost = money::column(row, 11)?;
        product.sums.provider_cost = money::add(product.sums.provider_cost, cost)?;
        if !billable {
            *product.not_billed.entry(row.get(8)?).or_default() += calls;
        }
        let same = |other: &&mut Line| {
            (&other.tool, &other.tier, other.unit_price)
                == (&line.tool, &line.tier, line.unit_price)
        };
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
        let sessions_closed = row.get::<_, i64>(4)?.unsigned_abs();
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
        not_billed: BTreeMap::new(),
        sessions_closed: 0,
        sums: Sums::default(),
    }))
}

/// Adds calls that are not billed to the line of their tool and tier, where that has one price.
fn merge_unbilled(lines: Vec<Line>) -> Vec<Line> {
    let (unbilled, mut lines): (Vec<Line>, Vec<Line>) =
        lines.into_iter().partition(|line| line.unit_price.is_none());
    let mut apart = Vec::new();
    for line in unbilled {
        let same = |other: &&mut Line| (&other.tool, &other.tier) == (&line.tool, &line.tier);
        let mut priced = lines.iter_mut().filter(same);
        match (priced.next(), priced.next()) {
            (Some(only), None) => only.calls += line.calls,
            _ => apart.push(line),
        }
    }
    lines.append(&mut apart);
    // As numbers: as TEXT, a price of 10 would come before one of 9.
    let key = |line: &Line| (line.tool.clone(), line.tier.clone(), line.unit_price);
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
            sums: Sums::default(),
        });
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

    fn margin_text(&self, currency: &str) -> String {
        let unit = if self.margin_percent == "n/a" { "" } else { " %" };
        format!("{} {currency} ({}{unit})", self.margin, self.margin_percent)
    }
}

fn period_as_text<S: Serializer>(period: &Period, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("from", &period.from_ms.map(rfc3339))?;
    map.serialize_entry("to", &period.to_ms.map(rfc3339))?;
    map.end()
}

impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let customer = self.customer.as_deref().map_or("all".to_owned(), printable);
        let from = self.period.from_ms.map_or("the beginning".to_owned(), rfc3339);
        let to = self.period.to_ms.map_or("now".to_owned(), rfc3339);
        writeln!(f, "INVOICE\nCustomer  {customer}\nPeriod    {from} to {to}\n")?;
        for product in &self.products {
            self.write_product(f, product)?;
        }
        if self.totals.is_empty() {
            return writeln!(f, "Total  0");
        }
        for total in &self.totals {
            writeln!(f, "Total  {} {}", total.sums.revenue, total.currency)?;
        }
        Ok(())
    }
}

impl Invoice {
    fn write_product(&self, f: &mut fmt::Formatter<'_>, product: &ProductUse) -> fmt::Result {
        let (name, kind) = (printable(&product.product), printable(&product.product_type));
        write!(f, "Product {name} ({kind}), {}", product.currency)?;
        if self.customer.is_none() {
            write!(f, ", customer {}", printable(&product.customer))?;
        }
        f.write_str("\n")?;
        let prices = product.lines.iter().filter_map(|line| line.unit_price);
        let price_scale = prices.map(|price| price.scale()).max().unwrap_or(0);
        let amounts = product.lines.iter().map(|line| line.amount);
        let amount_scale = amounts.map(|amount| amount.scale()).max().unwrap_or(0);
        let mut table =
            vec![["Tool", "Tier", "Unit price", "Calls", "Billable", "Amount"].map(str::to_owned)];
        table.extend(product.lines.iter().map(|line| {
            [
                printable(&line.tool),
                printable(&line.tier),
                line.unit_price.map_or("-".to_owned(), |price| aligned(price, price_scale)),
                line.calls.to_string(),
                line.billable_calls.to_string(),
                aligned(line.amount, amount_scale),
            ]
        }));
        write_table(f, &table)?;
        let not_billed: Vec<String> =
            product.not_billed.iter().map(|(status, calls)| format!("{status} {calls}")).collect();
        let not_billed =
            if not_billed.is_empty() { "none".to_owned() } else { not_billed.join(", ") };
        let (sums, currency) = (&product.sums, &product.currency);
        writeln!(f, "  Not billed       {not_billed}")?;
        writeln!(f, "  Sessions closed  {}", product.sessions_closed)?;
        writeln!(f, "  Provider cost    {} {currency}", sums.provider_cost)?;
        writeln!(f, "  Revenue          {} {currency}", sums.revenue)?;
        writeln!(f, "  Margin           {}\n", sums.margin_text(currency))
    }
}

/// Two columns of names to the left, the numbers to the right.
fn write_table(f: &mut fmt::Formatter<'_>, table: &[[String; 6]]) -> fmt::Result {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths = std::array::from_fn::<usize, 6, _>(|column| width(column).unwrap_or(0));
    for row in table {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            if column < 2 {
                write!(f, "  {cell:<width$}")?;
            } else {
                write!(f, "  {cell:>width$}")?;
            }
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// The same amount with zeros added, so that the points of a column are below one another.
fn aligned(amount: Decimal, scale: u32) -> String {
    let mut text = amount.to_string();
    if scale > amount.scale() {
        if amount.scale() == 0 {
            text.push('.');
        }
        text.extend((amount.scale()..scale).map(|_| '0'));
    }
    text
}

/// A name that came from outside, without what could move a terminal's cursor.
fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

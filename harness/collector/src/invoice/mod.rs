//! The operator's invoice: what a customer owes, line by line, exactly as the ledger has it, and what
//! the customer's generations cost the operator. The customer's own document is in the room `books`:
//! it has no cost and no margin. Both are printed by `document`.
//!
//! It rates nothing: every price and every cost was fixed
//! when the call or the generation was metered. The one rounded number is the margin's percentage,
//! to one decimal, halves away from zero.

mod cost;
pub(crate) mod csv;
pub(crate) mod document;
mod html;
mod not_billed;
mod operator;
mod read;
pub(crate) mod sheet;
pub(crate) mod text;

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use self::cost::{Consumed, Generations, ModelCost, Sums, ToolCost};
pub use self::csv::Record;
pub use self::document::{Document, Format, render};
pub use self::not_billed::{NotBilled, NotBilledLine};
pub use self::sheet::Sheet;
use crate::ledger::Ledger;
use crate::ledger::merges::Merges;
use crate::money;
use crate::query::{Period, rfc3339};
use crate::sql::{Transaction, values};

/// What one customer, or all of them, owe for a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// `None`: all customers on one invoice.
    pub customer: Option<String>,
    /// Who pays in place of the customer, where the two were merged; such an invoice is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<String>,
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
    /// What is not billed, and why.
    #[serde(flatten)]
    pub not_billed: NotBilled,
    /// Sessions that ended in the period.
    pub sessions_closed: u64,
    /// Sorted by tool, the cost of no tool last; empty without generations.
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

impl ProductUse {
    /// What is not billed of it, for whoever is billed.
    pub(crate) fn not_billed_lines(&self) -> Vec<NotBilledLine> {
        let uncharged = self.token_lines.iter().map(|line| line.uncharged_generations).sum();
        self.not_billed.lines(&self.customer, &self.product, uncharged)
    }
}

/// One line: a tool, a route of an API or an operation of an agent, at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The type of its events: `tool_invocation`, `api_call` or `agent_step`.
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
    /// True if both are of the same tool and tier.
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
    /// Those of them without a price, because their cost is not known: they are not billed.
    pub uncharged_generations: u64,
    /// What they used.
    #[serde(flatten)]
    pub consumed: Consumed,
    /// The sum of the prices of the generations.
    #[serde(serialize_with = "money::as_text")]
    pub amount: Decimal,
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

/// Makes an invoice, over all time, for each customer who pays for calls, generations or closed
/// sessions of the ledger, sorted by the customer's name.
///
/// # Errors
///
/// If the ledger fails.
pub fn invoices(ledger: &Ledger) -> anyhow::Result<Vec<Invoice>> {
    invoices_of(ledger, Period::default())
}

/// The same for a period: of those who paid for something in it.
///
/// # Errors
///
/// If the ledger fails.
pub fn invoices_of(ledger: &Ledger, period: Period) -> anyhow::Result<Vec<Invoice>> {
    ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT customer FROM call_hours UNION SELECT customer FROM generation_hours
             UNION SELECT customer FROM sessions WHERE state = 'CLOSED'",
        )?;
        let users: Vec<String> = statement.query_map(&[], |row| row.get(0))?;
        let merges = Merges::read(ledger)?;
        let payers = users.iter().map(|user| (merges.payer(user).to_owned(), Vec::new()));
        let mut by_payer: BTreeMap<String, Vec<ProductUse>> = payers.collect();
        // What all used is read at once: read one by one, each customer reads the same rows.
        for product in products_and_reasons(ledger, None, period)? {
            by_payer.entry(merges.payer(&product.customer).to_owned()).or_default().push(product);
        }
        let is_all = period == Period::default();
        let shown = by_payer.into_iter().filter(|(_, products)| is_all || !products.is_empty());
        let invoice = |(payer, products)| Invoice::new(Some(payer), None, period, products);
        Ok(shown.map(invoice).collect())
    })
}

/// Whether the ledger has ever had something of this customer, or somebody pays for it.
///
/// # Errors
///
/// If the ledger fails.
pub fn knows_customer(ledger: &Ledger, customer: &str) -> anyhow::Result<bool> {
    ledger.read(|ledger| {
        let used = "SELECT 1 FROM call_hours WHERE customer = ?1
             UNION ALL SELECT 1 FROM generation_hours WHERE customer = ?1
             UNION ALL SELECT 1 FROM sessions WHERE customer = ?1 LIMIT 1";
        if ledger.prepare_cached(used)?.exists(values![customer])? {
            return Ok(true);
        }
        let merges = Merges::read(ledger)?;
        Ok(merges.payer(customer) != customer || merges.paid_by(customer).len() > 1)
    })
}

impl Invoice {
    /// Makes the invoice of one customer, or of all for `None`, from one snapshot of the ledger.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn for_customer(
        ledger: &Ledger,
        customer: Option<&str>,
        period: Period,
    ) -> anyhow::Result<Invoice> {
        ledger.read(|ledger| {
            let Some(customer) = customer else {
                let products = products_and_reasons(ledger, None, period)?;
                return Ok(Invoice::new(None, None, period, products));
            };
            let merges = Merges::read(ledger)?;
            let payer = merges.payer(customer);
            let paid_by = (payer != customer).then(|| payer.to_owned());
            let customers = merges.paid_by(customer);
            let products = products_and_reasons(ledger, Some(&customers), period)?;
            Ok(Invoice::new(Some(customer.to_owned()), paid_by, period, products))
        })
    }

    /// What all customers used, from the transaction's own view of the ledger, without why something
    /// is not billed: it reads hours alone.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub(crate) fn products_of_all(
        ledger: &Transaction<'_>,
        period: Period,
    ) -> anyhow::Result<Vec<ProductUse>> {
        Ok(finished(read::products(ledger, None, period)?.into_values()))
    }

    /// The same, with why something is not billed.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub(crate) fn products_and_reasons_of_all(
        ledger: &Transaction<'_>,
        period: Period,
    ) -> anyhow::Result<Vec<ProductUse>> {
        products_and_reasons(ledger, None, period)
    }

    /// What all customers owe, from the transaction's own view of the ledger.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub(crate) fn totals_of_all(
        ledger: &Transaction<'_>,
        period: Period,
    ) -> anyhow::Result<Vec<Total>> {
        Ok(totals(&Invoice::products_of_all(ledger, period)?))
    }

    fn new(
        customer: Option<String>,
        paid_by: Option<String>,
        period: Period,
        products: Vec<ProductUse>,
    ) -> Invoice {
        let totals = totals(&products);
        Invoice { customer, paid_by, period, products, totals }
    }

    /// With amounts as decimal strings.
    pub fn to_json(&self) -> Value {
        // Maps with string keys, strings and integers: there is nothing that can fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What customers used, or all of them for `None`, and why something is not billed.
fn products_and_reasons(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    period: Period,
) -> anyhow::Result<Vec<ProductUse>> {
    let mut products = read::products(ledger, customers, period)?;
    not_billed::read_unpriced(ledger, customers, period, &mut products)?;
    not_billed::read_voided(ledger, customers, period, &mut products)?;
    Ok(finished(products.into_values()))
}

/// Products as an invoice has them.
fn finished(products: impl Iterator<Item = ProductUse>) -> Vec<ProductUse> {
    let finish = |mut product: ProductUse| {
        product.token_lines.retain(|line| !line.amount.is_zero());
        product.lines = merge_unbilled(product.lines);
        product.not_billed.free_calls = free_calls(&product.lines);
        product.sums.finish(product.generations);
        product
    };
    products.map(finish).collect()
}

/// Adds calls that are not billed to the line of their tool and tier, where that has one price.
fn merge_unbilled(lines: Vec<Line>) -> Vec<Line> {
    let (unbilled, mut lines): (Vec<Line>, Vec<Line>) =
        lines.into_iter().partition(|line| line.unit_price.is_none());
    let mut apart = Vec::new();
    for line in unbilled {
        let mut priced = lines.iter_mut().filter(|other| other.is_of_one_tier(&line));
        match (priced.next(), priced.next()) {
            (Some(only), None) => only.calls = only.calls.saturating_add(line.calls),
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

/// Billable calls that cost nothing.
fn free_calls(lines: &[Line]) -> u64 {
    let free = lines.iter().filter(|line| line.unit_price.is_some_and(|price| price.is_zero()));
    free.fold(0, |calls, line| calls.saturating_add(line.billable_calls))
}

fn totals(products: &[ProductUse]) -> Vec<Total> {
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
        for line in &product.lines {
            total.calls = total.calls.saturating_add(line.calls);
            total.billable_calls = total.billable_calls.saturating_add(line.billable_calls);
        }
        total.sums.revenue = money::sum(total.sums.revenue, product.sums.revenue);
        let cost = money::sum(total.sums.provider_cost, product.sums.provider_cost);
        total.sums.provider_cost = cost;
    }
    let mut totals: Vec<Total> = totals.into_values().collect();
    totals.iter_mut().for_each(|total| total.sums.finish(total.generations));
    totals
}

fn period_as_text<S: Serializer>(period: &Period, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("from", &period.from_ms.map(rfc3339))?;
    map.serialize_entry("to", &period.to_ms.map(rfc3339))?;
    map.end()
}

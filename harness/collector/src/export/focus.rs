//! Exports what customers owe as FOCUS 1.2, the FinOps Open Cost and Usage Specification: CSV with a
//! row for each day, customer, product, and tool at a price or model.
//!
//! The rows are those of invoices, one invoice a day, so their sums are the invoice's to the last
//! digit; the export checks that. Prices exclude no discount, so all four costs are the billed one.
//! There is no unit price: a model's tokens have several. `InvoiceId` is the month, the customer and
//! the currency, of which there is one invoice. `CommitmentDiscountStatus` is empty: rules of other
//! columns ask for it. What FOCUS has no column for begins with `x_`; `x_ProviderCost` is what the
//! generations cost the operator.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, ensure};
use chrono::{Days, Months, NaiveDate, NaiveTime};
use rust_decimal::Decimal;

use crate::csv_file;
use crate::invoice::{Invoice, Line, ModelCost, ProductUse};
use crate::ledger::Ledger;
use crate::money;
use crate::query::{Period, rfc3339};

/// The columns, in the order of the specification's glossary, ours behind them.
const COLUMNS: [&str; 40] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountStatus",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "x_EventType",
    "x_ToolName",
    "x_CostTier",
    "x_BillableCalls",
    "x_ModelProvider",
    "x_Model",
    "x_InputTokens",
    "x_OutputTokens",
    "x_CacheReadTokens",
    "x_CacheWriteTokens",
    "x_ReasoningTokens",
    "x_ProviderCost",
];

/// A month in UTC, such as `2026-07`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Month(NaiveDate);

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Month, String> {
        let is_month = text.len() == 7 && text.is_ascii();
        let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok();
        let first = first.filter(|_| is_month);
        first.map(Month).ok_or_else(|| format!("expected a month such as 2026-07, found {text:?}"))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m"))
    }
}

impl Month {
    /// From its first moment to that of the next.
    ///
    /// # Errors
    ///
    /// If it is beyond the calendar.
    pub fn period(&self) -> anyhow::Result<Period> {
        let next = self.0.checked_add_months(Months::new(1)).context("no next month")?;
        Ok(between(self.0, next))
    }

    fn days(&self) -> anyhow::Result<Vec<Period>> {
        let next = self.0.checked_add_months(Months::new(1)).context("no next month")?;
        let mut days = Vec::new();
        let mut day = self.0;
        while day < next {
            let end = day.checked_add_days(Days::new(1)).context("no next day")?;
            days.push(between(day, end));
            day = end;
        }
        Ok(days)
    }
}

fn between(from: NaiveDate, to: NaiveDate) -> Period {
    let ms = |date: NaiveDate| Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis());
    Period { from_ms: ms(from), to_ms: ms(to) }
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows, without the one of names.
    pub rows: u64,
    /// The sum of `BilledCost`, by currency.
    pub billed: BTreeMap<String, Decimal>,
}

/// What the rows of a day have in common.
struct Day<'a> {
    month: Period,
    day: Period,
    issuer: &'a str,
}

/// What is special to a row.
struct Row<'a> {
    amount: Decimal,
    description: String,
    consumed: u64,
    priced: u64,
    unit: &'a str,
    own: [String; 12],
}

/// Writes the charges of a month. `issuer` is the name of who sends the invoices.
///
/// # Errors
///
/// If the ledger or the writing fails, or if the rows do not add up to the month's invoice, as when
/// events of that month come in meanwhile.
pub fn export_focus(
    ledger: &Ledger,
    month: Month,
    issuer: &str,
    out: &mut impl Write,
) -> anyhow::Result<Exported> {
    ensure!(!issuer.is_empty(), "the issuer must have a name");
    let period = month.period()?;
    let mut out = csv_file::writer(out);
    out.write_record(COLUMNS).map_err(io::Error::from)?;
    let mut exported = Exported::default();
    for day in month.days()? {
        let products = ledger.read(|ledger| Invoice::products_of_all(ledger, day))?;
        let day = Day { month: period, day, issuer };
        for product in &products {
            for row in rows(product) {
                let sum = exported.billed.entry(product.currency.clone()).or_default();
                *sum = money::add(*sum, row.amount).context("the sum of the month")?;
                exported.rows += 1;
                write(&mut out, &day, product, &row)?;
            }
        }
    }
    out.flush()?;
    for total in ledger.read(|ledger| Invoice::totals_of_all(ledger, period))? {
        let billed = exported.billed.get(&total.currency).copied().unwrap_or_default();
        ensure!(
            billed == total.sums.revenue,
            "the rows add up to {billed} {}, the invoice to {}: events of {month} came in \
             meanwhile; export it again",
            total.currency,
            total.sums.revenue
        );
    }
    Ok(exported)
}

fn rows(product: &ProductUse) -> Vec<Row<'_>> {
    let calls = product.lines.iter().map(of_calls);
    calls.chain(product.cost_by_model.iter().map(|model| of_model(product, model))).collect()
}

fn of_calls(line: &Line) -> Row<'_> {
    let mut own: [String; 12] = Default::default();
    own[..4].clone_from_slice(&[
        line.kind.clone(),
        line.tool.clone(),
        line.tier.clone(),
        line.billable_calls.to_string(),
    ]);
    Row {
        amount: line.amount,
        description: format!("Calls of {}", line.tool),
        consumed: line.calls,
        priced: line.billable_calls,
        unit: "Calls",
        own,
    }
}

fn of_model<'a>(product: &ProductUse, model: &'a ModelCost) -> Row<'a> {
    let is_it = |line: &&crate::invoice::TokenLine| {
        (&line.provider, &line.model) == (&model.provider, &model.model)
    };
    let charged = product.token_lines.iter().find(is_it);
    let tokens = &model.consumed.tokens;
    let all = tokens.input.saturating_add(tokens.output);
    let counts =
        [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.reasoning];
    let mut own: [String; 12] = Default::default();
    own[0] = "token_consumption".to_owned();
    own[4].clone_from(&model.provider);
    own[5].clone_from(&model.model);
    for (text, count) in own[6..11].iter_mut().zip(counts) {
        *text = count.to_string();
    }
    own[11] = model.provider_cost.normalize().to_string();
    Row {
        amount: charged.map_or(Decimal::ZERO, |line| line.amount),
        description: format!("Tokens of {} {}", model.provider, model.model),
        consumed: all,
        priced: if charged.is_some() { all } else { 0 },
        unit: "Tokens",
        own,
    }
}

/// The category and the subcategory of FOCUS.
fn service(product_type: &str) -> (&'static str, &'static str) {
    match product_type {
        "STANDARD_API" => ("Integration", "API Management"),
        _ => ("AI and Machine Learning", "Generative AI"),
    }
}

fn write(
    out: &mut csv::Writer<impl Write>,
    day: &Day<'_>,
    product: &ProductUse,
    row: &Row<'_>,
) -> anyhow::Result<()> {
    let time = |ms: Option<i64>| ms.map(rfc3339).unwrap_or_default();
    let (from, to) = (time(day.day.from_ms), time(day.day.to_ms));
    let (month_from, month_to) = (time(day.month.from_ms), time(day.month.to_ms));
    let amount = row.amount.normalize().to_string();
    // With a point, or whoever infers types takes the column for one of integers.
    let (consumed, priced) = (format!("{}.0", row.consumed), format!("{}.0", row.priced));
    let (category, subcategory) = service(&product.product_type);
    let customer = product.customer.as_str();
    let month = month_from.get(..7).unwrap_or_default();
    let invoice = format!("{month}/{customer}/{}", product.currency);
    let values = [
        amount.as_str(),
        customer,
        customer,
        &product.currency,
        &month_to,
        &month_from,
        "Usage",
        "",
        &row.description,
        "Usage-Based",
        &to,
        &from,
        "",
        &consumed,
        row.unit,
        &amount,
        &amount,
        &invoice,
        day.issuer,
        &amount,
        "Standard",
        &priced,
        row.unit,
        day.issuer,
        day.issuer,
        category,
        &product.product,
        subcategory,
    ];
    out.write_record(values.into_iter().chain(row.own.iter().map(String::as_str)))
        .map_err(io::Error::from)?;
    Ok(())
}

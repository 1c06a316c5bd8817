//! The document of a closed period: what a customer is billed for it, and what earlier periods come
//! to more or less than they were billed.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, anyhow};
use iso_currency::Currency;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::books::lines::{BilledLine, Lines};
use crate::invoice::Invoice;
use crate::invoice::text::{printable, write_table};
use crate::ledger::invoices::{Closed, of_customers};
use crate::ledger::merges::Merges;
use crate::money;
use crate::query::{Period, rfc3339};
use crate::sql::Transaction;

/// What a customer is billed for a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billing {
    /// Such as `INV-000001`; `None` as long as the period is not closed.
    pub number: Option<String>,
    /// Who pays.
    pub customer: String,
    /// RFC 3339, UTC.
    pub period_from: String,
    /// RFC 3339, UTC; what happened then is not in.
    pub period_to: String,
    /// The time zone of the period.
    pub time_zone: String,
    /// What was used in the period.
    pub lines: Vec<BilledLine>,
    /// Of each earlier period that is closed, what it comes to more or less than was billed for it.
    pub corrections: Vec<PeriodCorrection>,
    /// One for each currency.
    pub totals: Vec<BillingTotal>,
}

/// What an earlier period comes to more or less than was billed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodCorrection {
    /// RFC 3339, UTC.
    pub period_from: String,
    /// RFC 3339, UTC.
    pub period_to: String,
    /// The differences; an amount below zero was billed too much.
    pub lines: Vec<BilledLine>,
}

/// What is owed in one currency. All amounts but `payable` are exact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingTotal {
    /// ISO 4217.
    pub currency: String,
    /// The sum of the lines of the period.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub usage: Decimal,
    /// The sum of the corrections of earlier periods.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub corrections: Decimal,
    /// What earlier invoices came to below zero, and so did not bill; never above zero.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub brought_forward: Decimal,
    /// The sum of the three.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub total: Decimal,
    /// The total as it is paid: with as many digits behind the point as the currency has, halves
    /// away from zero, and never below zero.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub payable: Decimal,
    /// What the next invoice begins with: the total, if it is below zero.
    #[serde(serialize_with = "money::as_text", deserialize_with = "money::signed")]
    pub carried_forward: Decimal,
}

impl BillingTotal {
    /// Sets what follows from the other amounts.
    fn finish(&mut self) {
        let own = money::sum(self.usage, self.corrections);
        self.total = money::sum(own, self.brought_forward);
        self.carried_forward = self.total.min(Decimal::ZERO);
        self.payable = payable(self.total.max(Decimal::ZERO), &self.currency);
    }

    /// What this invoice came to beyond what it billed, before rounding.
    fn not_billed(&self) -> Decimal {
        let own = money::sum(self.usage, self.corrections);
        money::difference(own, self.total.max(Decimal::ZERO))
    }
}

/// An amount as it is paid.
pub(super) fn payable(amount: Decimal, currency: &str) -> Decimal {
    // A code that is none of ISO 4217 is rounded as most of them are.
    let digits =
        Currency::from_code(currency).and_then(|currency| currency.exponent()).unwrap_or(2);
    amount.round_dp_with_strategy(digits.into(), RoundingStrategy::MidpointAwayFromZero)
}

/// What was used in a period, by customer.
#[derive(Debug, Default)]
pub(super) struct ByCustomer(BTreeMap<String, Lines>);

impl ByCustomer {
    fn read(ledger: &Transaction<'_>, (from_ms, to_ms): (i64, i64)) -> anyhow::Result<Self> {
        let mut used: BTreeMap<String, Lines> = BTreeMap::new();
        let period = Period { from_ms: Some(from_ms), to_ms: Some(to_ms) };
        for product in Invoice::products_of_all(ledger, period)? {
            used.entry(product.customer.clone()).or_default().add_product(&product);
        }
        Ok(ByCustomer(used))
    }

    /// What these customers used.
    fn by(&self, customers: &[String]) -> Lines {
        let mut lines = Lines::default();
        for used in customers.iter().filter_map(|customer| self.0.get(customer)) {
            used.clone().into_lines().into_iter().for_each(|line| lines.add(line));
        }
        lines
    }
}

/// What was used in a period that is to be billed, and what closed periods come to now.
#[derive(Debug)]
pub(super) struct Used {
    /// Milliseconds since 1970, UTC.
    period_ms: (i64, i64),
    now: ByCustomer,
    closed: BTreeMap<(i64, i64), ByCustomer>,
}

impl Used {
    pub(super) fn read(
        ledger: &Transaction<'_>,
        period_ms: (i64, i64),
        closed: impl Iterator<Item = (i64, i64)>,
    ) -> anyhow::Result<Self> {
        let now = ByCustomer::read(ledger, period_ms)?;
        let closed = closed.map(|period_ms| Ok((period_ms, ByCustomer::read(ledger, period_ms)?)));
        Ok(Used { period_ms, now, closed: closed.collect::<anyhow::Result<_>>()? })
    }

    /// Who used anything.
    pub(super) fn customers(&self) -> impl Iterator<Item = &String> {
        self.closed.values().chain([&self.now]).flat_map(|used| used.0.keys())
    }
}

impl Billing {
    /// That of a stored event.
    pub(super) fn of_text(raw: &str) -> anyhow::Result<Billing> {
        let mut event: Value = serde_json::from_str(raw)?;
        let document = event.get_mut("data").and_then(|data| data.get_mut("document"));
        let document = document.context("an invoice without its document")?.take();
        serde_json::from_value(document).map_err(|error| anyhow!("a stored invoice: {error}"))
    }

    /// What this customer is billed for a period; `None` if there is nothing to bill or correct.
    /// `used` is what all customers used in it and in each closed period.
    pub(super) fn make(
        ledger: &Transaction<'_>,
        merges: &Merges,
        customer: &str,
        used: &Used,
        time_zone: &str,
    ) -> anyhow::Result<Option<Billing>> {
        let customers = merges.paid_by(customer);
        let mut totals: BTreeMap<String, BillingTotal> = BTreeMap::new();
        let mut billed: BTreeMap<(i64, i64), Vec<BilledLine>> = BTreeMap::new();
        for closed in of_customers(ledger, Some(&customers))? {
            take_closed(&closed, &mut billed, &mut totals)?;
        }
        let mut corrections = Vec::new();
        for (period_ms, used) in &used.closed {
            let billed = billed.remove(period_ms).unwrap_or_default();
            let lines = used.by(&customers).less(&billed);
            if !lines.is_empty() {
                let (period_from, period_to) = (rfc3339(period_ms.0), rfc3339(period_ms.1));
                corrections.push(PeriodCorrection { period_from, period_to, lines });
            }
        }
        let lines = used.now.by(&customers).into_lines();
        for line in &lines {
            let total = total_in(&mut totals, line.currency());
            total.usage = money::sum(total.usage, line.amount);
        }
        for line in corrections.iter().flat_map(|correction| &correction.lines) {
            let total = total_in(&mut totals, line.currency());
            total.corrections = money::sum(total.corrections, line.amount);
        }
        let mut totals: Vec<BillingTotal> = totals.into_values().collect();
        totals.iter_mut().for_each(BillingTotal::finish);
        let is_used = |currency: &str| {
            let corrected = corrections.iter().flat_map(|correction| &correction.lines);
            lines.iter().chain(corrected).any(|line| line.currency() == currency)
        };
        totals.retain(|total| !total.total.is_zero() || is_used(&total.currency));
        if lines.is_empty() && corrections.is_empty() {
            return Ok(None);
        }
        Ok(Some(Billing {
            number: None,
            customer: customer.to_owned(),
            period_from: rfc3339(used.period_ms.0),
            period_to: rfc3339(used.period_ms.1),
            time_zone: time_zone.to_owned(),
            lines,
            corrections,
            totals,
        }))
    }
}

fn total_in<'a>(
    totals: &'a mut BTreeMap<String, BillingTotal>,
    currency: &str,
) -> &'a mut BillingTotal {
    totals.entry(currency.to_owned()).or_insert_with(|| BillingTotal {
        currency: currency.to_owned(),
        ..BillingTotal::default()
    })
}

/// Adds what a closed invoice billed for its own period and for earlier ones, and what of its total
/// it did not bill.
fn take_closed(
    closed: &Closed,
    billed: &mut BTreeMap<(i64, i64), Vec<BilledLine>>,
    totals: &mut BTreeMap<String, BillingTotal>,
) -> anyhow::Result<()> {
    let document = Billing::of_text(&closed.raw)?;
    let own = (closed.billed.from_ms, closed.billed.to_ms);
    billed.entry(own).or_default().extend(document.lines);
    for correction in document.corrections {
        let period = Period::parse(Some(&correction.period_from), Some(&correction.period_to))?;
        let period = period.from_ms.zip(period.to_ms).context("a correction without a period")?;
        billed.entry(period).or_default().extend(correction.lines);
    }
    for total in &document.totals {
        let not_billed = total.not_billed();
        let forward = &mut total_in(totals, &total.currency).brought_forward;
        *forward = money::sum(*forward, not_billed);
    }
    Ok(())
}

impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number.as_deref().unwrap_or("(not closed)");
        writeln!(f, "Invoice   {}\nCustomer  {}", printable(number), printable(&self.customer))?;
        let Billing { period_from, period_to, time_zone, .. } = self;
        writeln!(f, "Period    {period_from} to {period_to} ({})\n", printable(time_zone))?;
        self.write_lines(f, &self.lines)?;
        for correction in &self.corrections {
            let PeriodCorrection { period_from, period_to, lines } = correction;
            writeln!(f, "  Corrections of {period_from} to {period_to}")?;
            self.write_lines(f, lines)?;
        }
        for total in &self.totals {
            let currency = &total.currency;
            writeln!(f, "  Usage            {} {currency}", total.usage)?;
            if !total.corrections.is_zero() {
                writeln!(f, "  Corrections      {} {currency}", total.corrections)?;
            }
            if !total.brought_forward.is_zero() {
                writeln!(f, "  Brought forward  {} {currency}", total.brought_forward)?;
            }
            if !total.carried_forward.is_zero() {
                writeln!(f, "  Carried forward  {} {currency}", total.carried_forward)?;
            }
            writeln!(f, "Payable  {} {currency}", total.payable)?;
        }
        Ok(())
    }
}

impl Billing {
    fn write_lines(&self, f: &mut fmt::Formatter<'_>, lines: &[BilledLine]) -> fmt::Result {
        let mut table = vec![HEAD.map(str::to_owned)];
        table.extend(lines.iter().map(|line| {
            let (customer, product, name) = line.names();
            let user = if customer == self.customer { "" } else { customer };
            [
                printable(product),
                printable(name),
                printable(user),
                line.count.to_string(),
                format!("{} {}", line.amount, line.currency()),
            ]
        }));
        write_table(f, "  ", &table, 3)?;
        f.write_str("\n")
    }
}

/// The columns of lines.
const HEAD: [&str; 5] = ["Product", "Tool or model", "Used by", "Count", "Amount"];

//! The document of a closed period: what a customer is billed for it, and what earlier periods come
//! to more or less than they were billed.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, ensure};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::books::lines::{BilledLine, Lines};
use crate::event::identity::ANONYMOUS;
use crate::invoice::{Invoice, NotBilledLine, ProductUse};
use crate::ledger::invoices::{Closed, of_customers};
use crate::ledger::merges::Merges;
use crate::money;
use crate::money::payable::payable;
use crate::query::{Period, rfc3339};
use crate::sql::Transaction;

/// What a customer is billed for a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billing {
    /// Such as `INV-000001`; `None` as long as the period is not closed.
    pub number: Option<String>,
    /// Who pays.
    pub customer: String,
    /// Who pays in place of the customer, where the two were merged; such a document is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<String>,
    /// RFC 3339, UTC; `None`: from the first event. A closed invoice has a beginning and an end.
    pub period_from: Option<String>,
    /// RFC 3339, UTC; what happened then is not in. `None`: to the last event.
    pub period_to: Option<String>,
    /// The time zone of the period.
    pub time_zone: String,
    /// What was used in the period.
    pub lines: Vec<BilledLine>,
    /// Of each earlier period that is closed, what it comes to more or less than was billed for it.
    pub corrections: Vec<PeriodCorrection>,
    /// What was used in the period and is not billed, by reason. Invoices that were closed before
    /// there was such a member have none.
    #[serde(default)]
    pub not_billed: Vec<NotBilledLine>,
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

/// What was used in a period, by customer.
#[derive(Debug, Default)]
pub(super) struct ByCustomer(BTreeMap<String, UsedBy>);

/// What one customer used.
#[derive(Debug, Default)]
struct UsedBy {
    lines: Lines,
    not_billed: Vec<NotBilledLine>,
}

impl ByCustomer {
    fn new(products: Vec<ProductUse>) -> ByCustomer {
        let mut used: BTreeMap<String, UsedBy> = BTreeMap::new();
        for product in products {
            let by = used.entry(product.customer.clone()).or_default();
            by.lines.add_product(&product);
            by.not_billed.extend(product.not_billed_lines());
        }
        ByCustomer(used)
    }

    /// What these customers used.
    fn by(&self, customers: &[String]) -> Lines {
        let mut lines = Lines::default();
        for used in customers.iter().filter_map(|customer| self.0.get(customer)) {
            used.lines.clone().into_lines().into_iter().for_each(|line| lines.add(line));
        }
        lines
    }

    /// What these customers used and are not billed for.
    fn not_billed(&self, customers: &[String]) -> Vec<NotBilledLine> {
        let used = customers.iter().filter_map(|customer| self.0.get(customer));
        used.flat_map(|used| used.not_billed.iter().cloned()).collect()
    }
}

/// What was used in a period that is to be billed, and what closed periods come to now.
#[derive(Debug)]
pub(super) struct Used {
    period: Period,
    now: ByCustomer,
    closed: BTreeMap<(i64, i64), ByCustomer>,
}

impl Used {
    pub(super) fn read(
        ledger: &Transaction<'_>,
        period: Period,
        closed: impl Iterator<Item = (i64, i64)>,
    ) -> anyhow::Result<Self> {
        let now = ByCustomer::new(Invoice::products_and_reasons_of_all(ledger, period)?);
        let closed = closed.map(|(from_ms, to_ms)| {
            let period = Period { from_ms: Some(from_ms), to_ms: Some(to_ms) };
            let products = Invoice::products_of_all(ledger, period)?;
            Ok(((from_ms, to_ms), ByCustomer::new(products)))
        });
        Ok(Used { period, now, closed: closed.collect::<anyhow::Result<_>>()? })
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
        let mut totals = finished(totals);
        let is_used = |currency: &str| {
            let corrected = corrections.iter().flat_map(|correction| &correction.lines);
            lines.iter().chain(corrected).any(|line| line.currency() == currency)
        };
        totals.retain(|total| !total.total.is_zero() || is_used(&total.currency));
        if lines.is_empty() && corrections.is_empty() {
            return Ok(None);
        }
        let not_billed = used.now.not_billed(&customers);
        let new = Billing::new(customer, used.period, time_zone);
        Ok(Some(Billing { lines, corrections, not_billed, totals, ..new }))
    }

    /// What the customer of an invoice of the operator's used in its period, whether that is closed
    /// or not: without what earlier periods come to, which only a close bills.
    ///
    /// # Errors
    ///
    /// If the invoice is of all customers, or of those who named none.
    pub fn of_usage(invoice: &Invoice, time_zone: &str) -> anyhow::Result<Billing> {
        let customer = invoice.customer.as_deref().context("a document is of one customer")?;
        ensure!(
            customer != ANONYMOUS,
            "\"{ANONYMOUS}\" is whoever named no customer: nobody can be sent a document; the operator's has what they used"
        );
        let mut lines = Lines::default();
        invoice.products.iter().for_each(|product| lines.add_product(product));
        let lines = lines.into_lines();
        let mut totals = BTreeMap::new();
        for line in &lines {
            let total = total_in(&mut totals, line.currency());
            total.usage = money::sum(total.usage, line.amount);
        }
        Ok(Billing {
            paid_by: invoice.paid_by.clone(),
            lines,
            not_billed: invoice.products.iter().flat_map(ProductUse::not_billed_lines).collect(),
            totals: finished(totals),
            ..Billing::new(customer, invoice.period, time_zone)
        })
    }

    fn new(customer: &str, period: Period, time_zone: &str) -> Billing {
        Billing {
            number: None,
            customer: customer.to_owned(),
            paid_by: None,
            period_from: period.from_ms.map(rfc3339),
            period_to: period.to_ms.map(rfc3339),
            time_zone: time_zone.to_owned(),
            lines: Vec::new(),
            corrections: Vec::new(),
            not_billed: Vec::new(),
            totals: Vec::new(),
        }
    }
}

fn finished(totals: BTreeMap<String, BillingTotal>) -> Vec<BillingTotal> {
    let mut totals: Vec<BillingTotal> = totals.into_values().collect();
    totals.iter_mut().for_each(BillingTotal::finish);
    totals
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

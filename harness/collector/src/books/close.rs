//! Closes a period: numbers an invoice for each customer, and keeps it as it is.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::books::document::{Billing, BillingTotal, Used};
use crate::event::correction::Change;
use crate::event::identity::ANONYMOUS;
use crate::ledger::Ledger;
use crate::ledger::in_force::{PENDING, in_force, is_pending};
use crate::ledger::intake::{Own, take_own};
use crate::ledger::invoices::{self, Closed};
use crate::ledger::merges::Merges;
use crate::money;
use crate::money::payable::payable;
use crate::query::{Period, rfc3339};
use crate::sql::{self, Transaction};

/// A period that is to be closed.
#[derive(Debug, Clone)]
pub struct Closing {
    /// It has a beginning and an end.
    pub period: Period,
    /// The time zone that it is a month or a day of.
    pub time_zone: String,
    /// Who closes it.
    pub closed_by: String,
    /// What the numbers of its invoices begin with, such as `INV-`.
    pub prefix: String,
}

/// A closed invoice, and what is still owed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvoiceState {
    /// Its number.
    pub number: String,
    /// Who pays.
    pub customer: String,
    /// RFC 3339, UTC.
    pub period_from: Option<String>,
    /// RFC 3339, UTC.
    pub period_to: Option<String>,
    /// One for each currency.
    pub totals: Vec<Due>,
}

/// What is owed for an invoice in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Due {
    /// ISO 4217.
    pub currency: String,
    /// What the invoice says.
    #[serde(serialize_with = "money::as_text")]
    pub payable: Decimal,
    /// Of that, what credit notes take away: at most all of it.
    #[serde(serialize_with = "money::as_text")]
    pub credited: Decimal,
    /// The rest.
    #[serde(serialize_with = "money::as_text")]
    pub due: Decimal,
}

impl Ledger {
    /// What closing a period would bill, without closing it.
    ///
    /// # Errors
    ///
    /// As [`Ledger::close`].
    pub fn preview_close(&self, closing: &Closing) -> anyhow::Result<Vec<Billing>> {
        self.read(|ledger| match closed_already(ledger, closing)? {
            Some(closed) => Ok(closed),
            None => make(ledger, closing),
        })
    }

    /// Closes a period: makes an invoice with a number for each customer with something to bill or
    /// to correct, but for requests that name no customer. A period that is closed stays as it is, and its invoices are returned again.
    ///
    /// # Errors
    ///
    /// If the period is not over, if a part of it is closed as another period, if corrections are
    /// not in force for all events yet, if another period is closed at the same time, or if the
    /// ledger fails.
    pub fn close(&self, closing: &Closing) -> anyhow::Result<Vec<Billing>> {
        let (_, to_ms) = bounds(closing)?;
        let now_ms = self.now_ms();
        ensure!(to_ms <= now_ms, "the period ends at {}, which is not over", rfc3339(to_ms));
        // What takes time is read from a snapshot, so that nobody who writes waits for it. What comes
        // after the snapshot is late, and goes to the next invoice.
        let (seen, mut billings) = self.read(|ledger| {
            let billings = match closed_already(ledger, closing)? {
                Some(closed) => closed,
                None => make(ledger, closing)?,
            };
            Ok((invoices::count(ledger)?, billings))
        })?;
        self.write(|ledger| {
            if let Some(closed) = closed_already(ledger, closing)? {
                return Ok(closed);
            }
            let known = invoices::count(ledger)?;
            ensure!(known == seen, "another period was closed meanwhile; try again");
            let mut own = Vec::with_capacity(billings.len());
            for (billing, number) in billings.iter_mut().zip(known + 1..) {
                billing.number = Some(format!("{}{number:06}", closing.prefix));
                own.push(Own {
                    event_type: "invoice",
                    time_ms: now_ms,
                    subject: billing.customer.clone(),
                    data: data(billing, closing)?,
                });
            }
            take_own(ledger, now_ms, own)?;
            Ok(billings)
        })
    }

    /// The closed invoices of a customer, or of all, the oldest first, with what is still owed.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn closed_invoices(&self, customer: Option<&str>) -> anyhow::Result<Vec<InvoiceState>> {
        self.read(|ledger| {
            let customers = customer.map(|customer| vec![customer.to_owned()]);
            let closed = invoices::of_customers(ledger, customers.as_deref())?;
            let credits = credits(ledger)?;
            closed.iter().map(|closed| state(closed, &credits)).collect()
        })
    }

    /// The document of a closed invoice, as it was closed; `None` if none has this number.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn closed_invoice(&self, number: &str) -> anyhow::Result<Option<Billing>> {
        self.read(|ledger| {
            let closed = invoices::by_number(ledger, number)?;
            closed.map(|closed| Billing::of_text(&closed.raw)).transpose()
        })
    }
}

fn bounds(closing: &Closing) -> anyhow::Result<(i64, i64)> {
    let Period { from_ms, to_ms } = closing.period;
    from_ms.zip(to_ms).context("a period that is closed has a beginning and an end")
}

/// The invoices of the period, if it is closed.
fn closed_already(
    ledger: &Transaction<'_>,
    closing: &Closing,
) -> anyhow::Result<Option<Vec<Billing>>> {
    let (from_ms, to_ms) = bounds(closing)?;
    let closed = invoices::within(ledger, from_ms, to_ms)?;
    for Closed { billed, .. } in &closed {
        if (billed.from_ms, billed.to_ms) != (from_ms, to_ms) {
            let (number, from) = (&billed.number, rfc3339(billed.from_ms));
            let to = rfc3339(billed.to_ms);
            bail!("the invoice {number} is of {from} to {to}: no moment can be billed twice");
        }
    }
    if closed.is_empty() {
        return Ok(None);
    }
    closed
        .iter()
        .map(|closed| Billing::of_text(&closed.raw))
        .collect::<anyhow::Result<_>>()
        .map(Some)
}

fn make(ledger: &Transaction<'_>, closing: &Closing) -> anyhow::Result<Vec<Billing>> {
    ensure!(!is_pending(ledger)?, PENDING);
    let merges = Merges::read(ledger)?;
    let closed = invoices::of_customers(ledger, None)?;
    let periods: BTreeSet<(i64, i64)> =
        closed.iter().map(|closed| (closed.billed.from_ms, closed.billed.to_ms)).collect();
    let used = Used::read(ledger, closing.period, periods.into_iter())?;
    let billed = closed.iter().map(|closed| &closed.billed.customer);
    let payers: BTreeSet<&str> =
        used.customers().chain(billed).map(|customer| merges.payer(customer)).collect();
    // Who named no customer can be sent nothing. Once another one pays for it, all of it is billed:
    // what a closed period comes to and was not billed stands on the next invoice.
    let payers = payers.into_iter().filter(|payer| *payer != ANONYMOUS);
    let mut billings = Vec::new();
    for payer in payers {
        billings.extend(Billing::make(ledger, &merges, payer, &used, &closing.time_zone)?);
    }
    Ok(billings)
}

fn data(billing: &Billing, closing: &Closing) -> anyhow::Result<Map<String, Value>> {
    let data = json!({
        "customer_id": billing.customer,
        "number": billing.number,
        "period_from": billing.period_from,
        "period_to": billing.period_to,
        "closed_by": closing.closed_by,
        "document": serde_json::to_value(billing)?,
    });
    match data {
        Value::Object(data) => Ok(data),
        _ => bail!("an invoice that is no object"),
    }
}

/// What credit notes in force come to, by the number of the invoice and the currency.
fn credits(ledger: &Transaction<'_>) -> sql::Result<BTreeMap<(String, String), Decimal>> {
    let mut credits = BTreeMap::new();
    for applied in in_force(ledger, "kind = 'credit'", &[])? {
        if let Change::Credit { invoice, amount, currency } = applied.change {
            let sum: &mut Decimal = credits.entry((invoice, currency)).or_default();
            *sum = money::sum(*sum, amount);
        }
    }
    Ok(credits)
}

fn state(
    closed: &Closed,
    credits: &BTreeMap<(String, String), Decimal>,
) -> anyhow::Result<InvoiceState> {
    let document = Billing::of_text(&closed.raw)?;
    let number = closed.billed.number.clone();
    let due = |total: BillingTotal| {
        let key = (number.clone(), total.currency.clone());
        let credited = credits.get(&key).copied().unwrap_or_default();
        // Never below zero: what credit notes say beyond that has no effect.
        let credited = payable(credited, &total.currency).min(total.payable);
        let due = money::difference(total.payable, credited);
        Due { currency: total.currency, payable: total.payable, credited, due }
    };
    Ok(InvoiceState {
        totals: document.totals.into_iter().map(due).collect(),
        number: closed.billed.number.clone(),
        customer: document.customer,
        period_from: document.period_from,
        period_to: document.period_to,
    })
}

//! The operator's document of a closed invoice: what the customer is billed, and what it cost.

use serde::Serialize;

use crate::books::document::Billing;
use crate::invoice::{Document, Invoice, Record, Sheet};
use crate::ledger::Ledger;
use crate::query::Period;

/// What a customer is billed, with what the ledger has of the period now: provider cost and margin are
/// in no closed invoice, which the customer may have proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorBilling {
    /// The customer's document.
    #[serde(flatten)]
    pub billing: Billing,
    /// What the period comes to now.
    pub operator: Invoice,
}

impl OperatorBilling {
    /// Reads what the ledger has of the period and the customer of a document.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn of(ledger: &Ledger, billing: Billing) -> anyhow::Result<OperatorBilling> {
        let period = Period::parse(billing.period_from.as_deref(), billing.period_to.as_deref())?;
        let operator = Invoice::for_customer(ledger, Some(&billing.customer), period)?;
        Ok(OperatorBilling { billing, operator })
    }
}

impl Document for OperatorBilling {
    const COLUMNS: &'static [&'static [&'static str]] = Invoice::COLUMNS;

    fn sheet(&self) -> Sheet {
        let mut sheet = self.billing.sheet();
        let operator = self.operator.sheet();
        sheet.title = operator.title;
        for mut part in operator.parts {
            part.title = format!("As the ledger has it now: {}", part.title);
            sheet.parts.push(part);
        }
        sheet
    }

    /// Those of the customer's document; then those of what it cost, without the lines of usage.
    fn records(&self) -> Vec<Record> {
        let mut records = self.billing.records();
        let of_cost = self.operator.records().into_iter();
        let of_cost = of_cost.filter(|record| record.is_of_cost());
        records.extend(of_cost.map(|record| {
            let record = record.known("number", self.billing.number.as_ref());
            record.number("time_zone", &self.billing.time_zone)
        }));
        records
    }
}

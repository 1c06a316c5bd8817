//! `agent-meter invoice`, `close` and `invoices`: for whom a document is, and how it is printed.

use agent_meter_collector::books::{Billing, Closing, OperatorBilling, named_period};
use agent_meter_collector::invoice::{
    Document, Format, Invoice, invoices_of, knows_customer, render,
};
use agent_meter_collector::{ANONYMOUS, Ledger, Period};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::execute::print;

/// For whom a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reader {
    /// What is billed: no provider cost, no margin
    Customer,
    /// What is billed and what it cost, with what is not known of it
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// For a terminal
    Text,
    /// One header, a record for each line and each sum
    Csv,
    /// An array
    Json,
    /// One page, made for print
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
struct DocumentArgs {
    /// Whose document it is: the operator's has the provider cost and the margin
    #[arg(long = "for", value_name = "READER", value_enum, default_value_t = Reader::Customer)]
    reader: Reader,
    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = FormatName::Text)]
    format: FormatName,
}

impl Default for DocumentArgs {
    fn default() -> DocumentArgs {
        DocumentArgs { reader: Reader::Customer, format: FormatName::Text }
    }
}

impl DocumentArgs {
    /// Prints documents to stdout; says on stderr if there is none.
    fn print<D: Document>(&self, documents: &[D]) -> anyhow::Result<()> {
        let format = match self.format {
            FormatName::Text => Format::Text,
            FormatName::Csv => Format::Csv,
            FormatName::Json => Format::Json,
            FormatName::Html => Format::Html,
        };
        if documents.is_empty() {
            eprintln!("nothing to bill");
        }
        print(render(documents, format)?.trim_end())
    }

    /// Prints closed invoices, or those of a preview.
    fn print_billings(&self, ledger: &Ledger, billings: Vec<Billing>) -> anyhow::Result<()> {
        match self.reader {
            Reader::Customer => self.print(&billings),
            Reader::Operator => {
                let of = |billing| OperatorBilling::of(ledger, billing);
                let documents = billings.into_iter().map(of);
                self.print(&documents.collect::<anyhow::Result<Vec<_>>>()?)
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct InvoiceArgs {
    /// The ledger
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// Only this customer, who must be in the ledger [default: all]
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// A month such as 2026-07, or a day such as 2026-07-01 [default: all time]
    #[arg(long, value_name = "PERIOD")]
    period: Option<String>,
    /// Whose month or day it is, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", requires = "period", default_value = "UTC")]
    time_zone: String,
    #[command(flatten)]
    document: DocumentArgs,
}

impl InvoiceArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let period = self.period.as_deref().map(|name| named_period(name, &self.time_zone));
        let period = period.transpose()?.unwrap_or_default();
        let ledger = Ledger::open_existing(&self.ledger)?;
        let mut found = match self.customer.as_deref() {
            Some(customer) => {
                let is_known = knows_customer(&ledger, customer)?;
                ensure!(is_known, "the ledger has no customer {customer:?}");
                vec![Invoice::for_customer(&ledger, Some(customer), period)?]
            }
            None => invoices_of(&ledger, period)?,
        };
        if self.document.reader == Reader::Operator {
            return self.document.print(&found);
        }
        if self.customer.is_none() {
            found.retain(|invoice| invoice.customer.as_deref() != Some(ANONYMOUS));
            tell_of_anonymous(&ledger, period)?;
        }
        let documents = found.iter().map(|invoice| Billing::of_usage(invoice, &self.time_zone));
        self.document.print(&documents.collect::<anyhow::Result<Vec<_>>>()?)
    }
}

/// Says on stderr what those used who named no customer, whom no document is for.
fn tell_of_anonymous(ledger: &Ledger, period: Period) -> anyhow::Result<()> {
    let invoice = Invoice::for_customer(ledger, Some(ANONYMOUS), period)?;
    for total in invoice.totals.iter().filter(|total| !total.sums.revenue.is_zero()) {
        eprintln!(
            "{ANONYMOUS}: {} {} of whoever named no customer are billed to nobody; see --for operator",
            total.sums.revenue.normalize(),
            total.currency
        );
    }
    Ok(())
}

/// Numbers an invoice for each customer with something to bill or to correct, and keeps it as it is.
/// What is corrected of a closed period later goes to the next invoice.
#[derive(Debug, Args)]
pub(super) struct CloseArgs {
    /// A month such as 2026-07, or a day such as 2026-07-01
    #[arg(long, value_name = "PERIOD")]
    period: String,
    /// Whose month or day it is, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What the numbers of the invoices begin with
    #[arg(long, value_name = "TEXT", default_value = "INV-")]
    prefix: String,
    /// Who closes it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    /// Only show what would be billed
    #[arg(long)]
    preview: bool,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    #[command(flatten)]
    document: DocumentArgs,
}

impl CloseArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let closing = Closing {
            period: named_period(&self.period, &self.time_zone)?,
            time_zone: self.time_zone,
            closed_by: self.by,
            prefix: self.prefix,
        };
        let ledger = Ledger::open_existing(&self.ledger)?;
        while ledger.follow_corrections()? {}
        let billings =
            if self.preview { ledger.preview_close(&closing)? } else { ledger.close(&closing)? };
        tell_of_anonymous(&ledger, closing.period)?;
        self.document.print_billings(&ledger, billings)
    }
}

/// Shows closed invoices: a line of JSON each, with what is still owed, or the document of one.
#[derive(Debug, Args)]
pub(super) struct InvoicesArgs {
    /// Only the document of the invoice with this number
    #[arg(long, value_name = "NUMBER", conflicts_with = "customer")]
    number: Option<String>,
    /// Only invoices of this customer [default: all]
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    #[command(flatten)]
    document: DocumentArgs,
}

impl InvoicesArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        if let Some(number) = &self.number {
            let found = ledger.closed_invoice(number)?;
            let billing = found.with_context(|| format!("no invoice {number:?} is closed"))?;
            return self.document.print_billings(&ledger, vec![billing]);
        }
        ensure!(
            self.document == DocumentArgs::default(),
            "--for and --format print the document of one invoice: add --number"
        );
        for invoice in ledger.closed_invoices(self.customer.as_deref())? {
            print(&serde_json::to_string(&invoice)?)?;
        }
        Ok(())
    }
}

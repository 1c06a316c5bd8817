//! `agent-meter export`: writes what customers owe in a format that others read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use agent_meter_collector::{Ledger, Month, export_focus};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(super) enum ExportCommand {
    /// FOCUS 1.2, the FinOps Open Cost and Usage Specification: a row for each day, customer,
    /// product, and tool at a price or model
    Focus(FocusArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct FocusArgs {
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// The month, in UTC
    #[arg(long, value_name = "YYYY-MM")]
    period: Month,
    /// The format of the file
    #[arg(long, default_value = "csv")]
    format: Format,
    /// The name of who sends the invoices: `ProviderName`, `PublisherName` and `InvoiceIssuerName`
    #[arg(long, value_name = "NAME", default_value = "agent-meter")]
    issuer: String,
    /// Where to write it [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ExportCommand {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let ExportCommand::Focus(args) = self;
        let FocusArgs { ledger, period, format: Format::Csv, issuer, out } = args;
        let ledger = Ledger::open_existing(&ledger)?;
        let to: Box<dyn Write> = match &out {
            Some(out) => Box::new(
                File::create(out).with_context(|| format!("cannot write {}", out.display()))?,
            ),
            None => Box::new(std::io::stdout().lock()),
        };
        let exported = export_focus(&ledger, period, &issuer, &mut BufWriter::new(to))?;
        let billed = exported.billed.iter().map(|(currency, sum)| format!("{sum} {currency}"));
        let billed = billed.collect::<Vec<_>>().join(", ");
        eprintln!("{} rows of {period}, {billed}", exported.rows);
        Ok(())
    }
}

//! Prints documents, the customer's or the operator's, in the format of choice.

use anyhow::Context;
use serde::Serialize;

use crate::invoice::csv::{Record, to_csv};
use crate::invoice::html::to_html;
use crate::invoice::sheet::Sheet;

/// How documents are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// One header and a record for each line and each sum; RFC 4180, UTF-8.
    Csv,
    /// An array.
    Json,
    /// One page of HTML, made for print: each document begins on a sheet of its own.
    Html,
}

/// The columns of what is billed. Both documents have them, and those of a number too, so that closed
/// invoices and others have one header.
pub(crate) const BILLED_COLUMNS: &[&str] = &[
    "number",
    "customer",
    "used_by",
    "period_from",
    "period_to",
    "time_zone",
    "row",
    "product",
    "product_type",
    "kind",
    "name",
    "tier",
    "currency",
    "unit_price",
    "count",
    "billable_count",
    "amount",
    "reason",
];

/// What can be printed.
pub trait Document: Serialize {
    /// The columns of its records, in groups.
    const COLUMNS: &'static [&'static [&'static str]];

    /// As it is printed in text and HTML.
    fn sheet(&self) -> Sheet;

    /// Its lines and sums. They have no other columns than these.
    fn records(&self) -> Vec<Record>;
}

/// Prints documents.
///
/// # Errors
///
/// If one cannot be written as JSON or CSV.
pub fn render<D: Document>(documents: &[D], format: Format) -> anyhow::Result<String> {
    let sheets = || documents.iter().map(Document::sheet).collect::<Vec<_>>();
    match format {
        Format::Text => {
            let texts: Vec<String> = sheets().iter().map(Sheet::to_string).collect();
            Ok(texts.join("\n"))
        }
        Format::Html => Ok(to_html(&sheets())),
        Format::Json => serde_json::to_string(documents).context("JSON"),
        Format::Csv => to_csv(&D::COLUMNS.concat(), documents.iter().flat_map(Document::records)),
    }
}

//! Documents as CSV after RFC 4180: one header, a record for each line and each sum, exact decimals.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

/// One record: values by the names of their columns; the others are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<&'static str, String>);

impl Record {
    /// Sets a name from outside. Programs for tables run a cell that begins with one of `=+-@` as a
    /// formula, whoever named it so, and clients name tools: such a name gets a quote before it.
    pub(crate) fn text(mut self, column: &'static str, text: &str) -> Record {
        let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        let quote = if is_formula { "'" } else { "" };
        self.0.insert(column, format!("{quote}{text}"));
        self
    }

    /// Sets a number, a time, or a word of our own.
    #[expect(clippy::needless_pass_by_value, reason = "numbers are made where they are passed")]
    pub(crate) fn number(mut self, column: &'static str, number: impl ToString) -> Record {
        self.0.insert(column, number.to_string());
        self
    }

    /// Whether it tells what generations cost, and not what is billed.
    pub(crate) fn is_of_cost(&self) -> bool {
        self.0.contains_key("cost_known")
    }

    /// Sets a number if there is one.
    pub(crate) fn known(self, column: &'static str, number: Option<impl ToString>) -> Record {
        match number {
            Some(number) => self.number(column, number),
            None => self,
        }
    }
}

/// Writes records under one header.
pub(super) fn to_csv(
    columns: &[&'static str],
    records: impl Iterator<Item = Record>,
) -> anyhow::Result<String> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(columns)?;
    for Record(mut values) in records {
        writer.write_record(columns.iter().map(|name| values.remove(name).unwrap_or_default()))?;
        ensure!(values.is_empty(), "CSV: no column for {values:?}");
    }
    let written = writer.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(written).context("CSV")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_run_no_formula_and_numbers_stay() {
        let row = Record::default().text("name", "=HYPERLINK(\"x\"),\n").number("amount", "-0.02");
        let written = to_csv(&["name", "amount"], [row].into_iter()).expect("CSV");
        assert_eq!(written, "name,amount\r\n\"'=HYPERLINK(\"\"x\"\"),\n\",-0.02\r\n");
        let stray = Record::default().number("other", 1);
        assert!(to_csv(&["name"], [stray].into_iter()).is_err());
    }
}

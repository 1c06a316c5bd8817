//! Documents as CSV after RFC 4180: one header, a record for each line and each sum, exact decimals.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::csv_file;

/// One record: values by the names of their columns; the others are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<&'static str, String>);

impl Record {
    /// Sets a name from outside, which is no formula.
    pub(crate) fn text(mut self, column: &'static str, text: &str) -> Record {
        self.0.insert(column, csv_file::name(text));
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
    let mut writer = csv_file::writer(Vec::new());
    writer.write_record(columns)?;
    for Record(mut values) in records {
        writer.write_record(columns.iter().map(|name| values.remove(name).unwrap_or_default()))?;
        ensure!(values.is_empty(), "CSV: no column for {values:?}");
    }
    csv_file::text(writer)
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

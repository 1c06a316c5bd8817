//! A row of an export in CSV, whose values have the names of their columns.

use std::collections::BTreeMap;

use anyhow::{anyhow, ensure};

use crate::bill::amount::{Amount, Written};
use crate::bill::csv::Record;

/// The numbers of the columns by their names.
#[derive(Debug)]
pub(super) struct Columns(BTreeMap<String, usize>);

impl Columns {
    /// Takes a header, with other names for its columns where a format has two.
    pub(super) fn new(header: &[String], name: impl Fn(&str) -> String) -> anyhow::Result<Columns> {
        let mut columns = BTreeMap::new();
        for (at, column) in header.iter().enumerate() {
            let before = columns.insert(name(column), at);
            ensure!(before.is_none(), "line 1: two columns are named {column:?}");
        }
        Ok(Columns(columns))
    }

    /// True if there are all of these.
    pub(super) fn have(&self, names: &[&str]) -> bool {
        self.missing(names).is_none()
    }

    /// The first of these that is not there.
    pub(super) fn missing<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| !self.0.contains_key(*name))
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) columns: &'a Columns,
    pub(super) record: &'a Record,
}

impl<'a> Row<'a> {
    /// The value of a column; empty if there is none.
    pub(super) fn get(&self, column: &str) -> &'a str {
        self.columns.0.get(column).map_or("", |at| self.record.get(*at))
    }

    /// True if the column has a value here.
    pub(super) fn has(&self, column: &str) -> bool {
        !self.get(column).is_empty()
    }

    /// A decimal; `None` if there is no value.
    pub(super) fn decimal(&self, column: &str, shift: i64) -> anyhow::Result<Option<Written>> {
        let text = self.get(column);
        if text.is_empty() {
            return Ok(None);
        }
        let read = Amount::parse(text, shift);
        read.map(Some).map_err(|error| anyhow!("{column}: {error}, found {text:.60?}"))
    }

    /// A count of tokens; zero if there is no value.
    pub(super) fn count(&self, column: &str) -> anyhow::Result<Amount> {
        let read = self.decimal(column, 0)?.unwrap_or_default();
        ensure!(
            !read.amount.is_negative(),
            "{column}: must not be below zero, found {}",
            read.amount
        );
        Ok(read.amount)
    }

    /// What tells this row from all others: its values, but for those of some columns.
    pub(super) fn identity(&self, amounts: &[&str]) -> String {
        let mut identity = String::new();
        for (column, at) in &self.columns.0 {
            let value = self.record.get(*at);
            if !value.is_empty() && !amounts.contains(&column.as_str()) {
                identity.push_str(&format!("{column}={value}\n"));
            }
        }
        identity
    }
}

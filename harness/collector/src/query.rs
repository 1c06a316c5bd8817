//! Reads the parameters of the reports: periods, pages, and the SQL conditions made of them.
//! Every error names the parameter. Nothing here runs a query.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat};

use crate::sql::{Result as SqlResult, Row, Value};

/// A query parameter that is unknown, given twice or malformed; the text names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadQuery(String);

impl BadQuery {
    pub(crate) fn new(message: impl Into<String>) -> BadQuery {
        BadQuery(message.into())
    }
}

impl fmt::Display for BadQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadQuery {}

/// Decoded `name=value` pairs, each name known and at most once.
#[derive(Debug)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(crate) fn new<N, V>(
        pairs: impl IntoIterator<Item = (N, V)>,
        known: &[&str],
    ) -> Result<Parameters, BadQuery>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            let name = name.into();
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                let message = format!("{name}: unknown parameter, expected one of {known}");
                return Err(BadQuery(message));
            }
            if parameters.insert(name.clone(), value.into()).is_some() {
                return Err(BadQuery(format!("{name}: given twice")));
            }
        }
        Ok(Parameters(parameters))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(crate) fn take_period(&mut self) -> Result<Period, BadQuery> {
        Period::parse(self.take("from").as_deref(), self.take("to").as_deref())
    }

    pub(crate) fn take_page(&mut self) -> Result<Page, BadQuery> {
        let mut page = Page::default();
        if let Some(text) = self.take("after") {
            let cursor = text.parse().ok().filter(|cursor| *cursor >= 0);
            page.after = Some(cursor.ok_or_else(|| {
                BadQuery(format!("after: must be a cursor from \"next\", found {text:?}"))
            })?);
        }
        if let Some(text) = self.take("limit") {
            let limit = text.parse().ok().filter(|limit| (1..=Page::LIMIT_MAX).contains(limit));
            page.limit = limit.ok_or_else(|| {
                BadQuery(format!("limit: must be 1 to {}, found {text:?}", Page::LIMIT_MAX))
            })?;
        }
        Ok(page)
    }
}

/// A span of time, half-open: what happened at `from` is in, what happened at `to` is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Milliseconds since 1970, UTC; `None`: from the first event.
    pub from_ms: Option<i64>,
    /// Milliseconds since 1970, UTC; `None`: to the last event.
    pub to_ms: Option<i64>,
}

impl Period {
    /// Reads two RFC 3339 times; each may be left out.
    pub fn parse(from: Option<&str>, to: Option<&str>) -> Result<Period, BadQuery> {
        let read = |name: &str, text: Option<&str>| match text {
            None => Ok(None),
            Some(text) => millis(text).map(Some).ok_or_else(|| {
                BadQuery(format!(
                    "{name}: must be an RFC 3339 time such as 2026-07-01T00:00:00Z, found {text:?}"
                ))
            }),
        };
        let period = Period { from_ms: read("from", from)?, to_ms: read("to", to)? };
        match (period.from_ms, period.to_ms) {
            (Some(from_ms), Some(to_ms)) if to_ms < from_ms => {
                Err(BadQuery("to: must not be before from".to_owned()))
            }
            _ => Ok(period),
        }
    }
}

/// Milliseconds since 1970 of an RFC 3339 time, rounded down; `None` if it is not one.
pub(crate) fn millis(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
}

/// RFC 3339, UTC, of milliseconds since 1970; without the fraction when it is zero.
pub(crate) fn rfc3339(ms: i64) -> String {
    match DateTime::from_timestamp_millis(ms) {
        Some(time) if ms % 1000 == 0 => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => format!("{ms} ms"),
    }
}

/// Reads a column of counts.
pub(crate) fn count(row: &Row<'_>, index: usize) -> SqlResult<u64> {
    Ok(row.get::<_, i64>(index)?.unsigned_abs())
}

/// One page of a list: where it starts and how long it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the page before; `None`: from the start.
    pub after: Option<i64>,
    /// 1 to [`Page::LIMIT_MAX`] rows.
    pub limit: i64,
}

impl Page {
    /// The longest page, in rows.
    pub const LIMIT_MAX: i64 = 10_000;

    /// Cuts `rows`, read with one row more than `limit`, and returns the cursor of the next page;
    /// `None` if this is the last.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<(i64, T)>) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if rows.len() <= limit {
            return None;
        }
        rows.truncate(limit);
        rows.last().map(|(position, _)| position.to_string())
    }
}

impl Default for Page {
    fn default() -> Page {
        Page { after: None, limit: 1000 }
    }
}

/// The `WHERE` of a query with its values. Only values come from outside; the SQL is our own.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    sql: String,
    pub(crate) values: Vec<Value<'static>>,
}

impl Conditions {
    /// Adds a condition with one `?`, such as `customer = ?`.
    pub(crate) fn and(&mut self, condition: &str, value: impl Into<Value<'static>>) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
        self.values.push(value.into());
    }

    /// Adds `column = value` where there is a value.
    pub(crate) fn and_equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.and(&format!("{column} = ?"), value.to_owned());
        }
    }

    /// Adds that a column has one of these values, if there are any to choose from.
    pub(crate) fn and_one_of(&mut self, column: &str, values: Option<&[String]>) {
        match values {
            None => {}
            Some([value]) => self.and_equal(column, Some(value)),
            Some(values) => {
                self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
                let marks = vec!["?"; values.len()].join(", ");
                // Without a value, nothing is one of them.
                let marks = if marks.is_empty() { "NULL" } else { &marks };
                self.sql.push_str(&format!("{column} IN ({marks})"));
                self.values.extend(values.iter().cloned().map(Value::from));
            }
        }
    }

    /// Adds the period for a column in milliseconds since 1970.
    pub(crate) fn and_within(&mut self, column: &str, period: Period) {
        if let Some(from_ms) = period.from_ms {
            self.and(&format!("{column} >= ?"), from_ms);
        }
        if let Some(to_ms) = period.to_ms {
            self.and(&format!("{column} < ?"), to_ms);
        }
    }

    /// The clause with a space before it, empty without conditions.
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }
}

//! Where a report reads a period: the hours that are whole in it from the tables by hour, and the
//! rows themselves of what is left at its ends, so that every period has exactly its own.

use crate::ledger::hours::HourTable;
use crate::ledger::hours::hour::{HOUR_MS, hour_of};
use crate::query::{Conditions, Period};
use crate::sql::Value;

/// A part of a period, in one table.
#[derive(Debug)]
pub(crate) struct Part {
    /// Whether the rows are sums of an hour.
    pub(crate) is_hours: bool,
    pub(crate) table: &'static str,
    /// The period, and whatever else its rows must be.
    pub(crate) conditions: Conditions,
}

/// The parts of a period: the hours and what is beside them, or the rows alone, where a report tells
/// more apart than the hours do.
pub(crate) fn parts(hours: &'static HourTable, period: Period, reads_hours: bool) -> Vec<Part> {
    let part = |is_hours: bool, column: &str, period| {
        let mut conditions = Conditions::default();
        conditions.and_within(column, period);
        let table = if is_hours { hours.name } else { hours.rows };
        Part { is_hours, table, conditions }
    };
    match whole_hours(period).filter(|_| reads_hours) {
        None => vec![part(false, "time_ms", period)],
        Some(whole) => {
            let before = Period { from_ms: period.from_ms, to_ms: whole.from_ms };
            let after = Period { from_ms: whole.to_ms, to_ms: period.to_ms };
            let ends = [before, after].into_iter().filter(|end| end.from_ms < end.to_ms);
            let ends = ends.map(|end| part(false, "time_ms", end));
            std::iter::once(part(true, "hour_ms", whole)).chain(ends).collect()
        }
    }
}

/// The hours that are whole in a period; `None` if there are none.
fn whole_hours(period: Period) -> Option<Period> {
    let from_ms = match period.from_ms {
        Some(from_ms) if hour_of(from_ms) < from_ms => Some(hour_of(from_ms).checked_add(HOUR_MS)?),
        from_ms => from_ms,
    };
    let to_ms = period.to_ms.map(hour_of);
    match (from_ms, to_ms) {
        (Some(from_ms), Some(to_ms)) if from_ms >= to_ms => None,
        _ => Some(Period { from_ms, to_ms }),
    }
}

/// A query of several parts, each with columns of its own, one after another.
#[derive(Debug, Default)]
pub(crate) struct Union {
    sql: String,
    pub(crate) values: Vec<Value<'static>>,
}

impl Union {
    /// Adds a part, in which the table is called `alias`.
    pub(crate) fn add(&mut self, part: Part, columns: &str, alias: &str) {
        let separator = if self.sql.is_empty() { "" } else { " UNION ALL " };
        let (table, conditions) = (part.table, part.conditions.sql());
        self.sql
            .push_str(&format!("{separator}SELECT {columns} FROM {table} AS {alias}{conditions}"));
        self.values.extend(part.conditions.values);
    }

    /// The query as a table.
    pub(crate) fn sql(&self) -> String {
        format!("({}) AS entry", self.sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::hours::CALL_HOURS;

    #[test]
    fn a_period_is_its_whole_hours_and_the_rows_beside_them() {
        let hour = Some(HOUR_MS);
        let (early, late) = (Some(HOUR_MS - 1), Some(3 * HOUR_MS + 1));
        let hours = |sql: &str| format!("call_hours WHERE {sql}");
        let rows = |sql: &str| format!("calls WHERE {sql}");
        let (from_hour, to_hour) = ("hour_ms >= ?", "hour_ms < ?");
        let both_hours = format!("{from_hour} AND {to_hour}");
        let both_rows = "time_ms >= ? AND time_ms < ?";
        let end = || (rows(both_rows), 2);
        for (from_ms, to_ms, reads_hours, expected) in [
            (None, None, true, vec![("call_hours".to_owned(), 0)]),
            (None, None, false, vec![("calls".to_owned(), 0)]),
            (hour, None, true, vec![(hours(from_hour), 1)]),
            (None, hour, true, vec![(hours(to_hour), 1)]),
            (early, None, true, vec![(hours(from_hour), 1), end()]),
            (None, late, true, vec![(hours(to_hour), 1), end()]),
            (hour, Some(2 * HOUR_MS), true, vec![(hours(&both_hours), 2)]),
            (early, late, true, vec![(hours(&both_hours), 2), end(), end()]),
            (early, late, false, vec![end()]),
            (early, hour, true, vec![end()]),
            (hour, hour, true, vec![end()]),
            (Some(1), Some(HOUR_MS - 1), true, vec![end()]),
            (early, Some(HOUR_MS + 1), true, vec![end()]),
            (Some(i64::MAX), None, true, vec![(rows("time_ms >= ?"), 1)]),
        ] {
            let found = parts(&CALL_HOURS, Period { from_ms, to_ms }, reads_hours);
            let found: Vec<(String, usize)> = found
                .iter()
                .map(|part| {
                    let Part { is_hours, table, conditions } = part;
                    assert_eq!(*is_hours, *table == "call_hours");
                    (format!("{table}{}", conditions.sql()), conditions.values.len())
                })
                .collect();
            assert_eq!(found, expected, "{from_ms:?} to {to_ms:?}");
        }
    }
}

//! Counts changes of hours that are past, of customers that paid in advance, so that what their
//! balances had come to then can be remembered.
//!
//! To the next maintainer. The newest hour of all usage only grows. An hour is past that is more than
//! one before it, so whoever remembers hours as old as that is told of each change by the count. With
//! no top-up in the ledger nothing is counted.

use std::collections::BTreeMap;

use crate::ledger::hours::hour::HOUR_MS;
use crate::sql::{self, Transaction, Value, values};

/// Customers that one query asks for.
const CUSTOMERS_MAX: usize = 128;

/// The oldest and the newest hour that changed, by customer.
pub(super) type Changed = BTreeMap<String, (i64, i64)>;

/// The beginning of the newest hour of usage; `None` if there is no top-up.
pub(crate) fn head_ms(ledger: &Transaction<'_>) -> sql::Result<Option<i64>> {
    let sql = "SELECT hour_ms FROM usage_head WHERE position = 1";
    ledger.prepare_cached(sql)?.query_optional(&[], |row| row.get(0))
}

/// How often past usage of these customers changed, of those that have a top-up.
pub(crate) fn late_of(
    ledger: &Transaction<'_>,
    customers: &[&str],
) -> sql::Result<BTreeMap<String, i64>> {
    let mut found = BTreeMap::new();
    for customers in customers.chunks(CUSTOMERS_MAX) {
        let size = if customers.len() > 1 { CUSTOMERS_MAX } else { 1 };
        let marks = vec!["?"; size].join(", ");
        // A list that is not full repeats its last.
        let last = customers.last().copied().unwrap_or_default();
        let padded = customers.iter().copied().chain(std::iter::repeat(last)).take(size);
        let values: Vec<Value<'_>> = padded.map(Value::from).collect();
        let sql =
            format!("SELECT customer, late FROM prepaid_customers WHERE customer IN ({marks})");
        let rows = ledger
            .prepare_cached(&sql)?
            .query_map(&values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        found.extend(rows);
    }
    Ok(found)
}

/// Notes that hours changed: of each customer, the oldest and the newest of them.
pub(super) fn note_changes(ledger: &Transaction<'_>, hours: &Changed) -> sql::Result<()> {
    let Some(newest_ms) = hours.values().map(|(_, newest_ms)| *newest_ms).max() else {
        return Ok(());
    };
    let Some(head_ms) = head_ms(ledger)? else { return Ok(()) };
    if newest_ms > head_ms {
        let sql = "UPDATE usage_head SET hour_ms = ? WHERE position = 1";
        ledger.execute(sql, values![newest_ms])?;
    }
    let past_ms = head_ms.saturating_sub(HOUR_MS);
    let late = hours.iter().filter(|(_, (oldest_ms, _))| *oldest_ms < past_ms);
    let late: Vec<&str> = late.map(|(customer, _)| customer.as_str()).collect();
    for customer in late_of(ledger, &late)?.keys() {
        let sql = "UPDATE prepaid_customers SET late = late + 1 WHERE customer = ?";
        ledger.execute(sql, values![customer])?;
    }
    Ok(())
}

//! Reads what was used: whole hours from the tables by hour, and row by row the hours in which a lot
//! begins or expires.

use std::collections::BTreeSet;

use crate::event::top_up::Account;
use crate::ledger::balance::fold::Lot;
use crate::ledger::hours::{CALL_HOURS, GENERATION_HOURS, HOUR_MS, hour_of};
use crate::money::Exact;
use crate::query::{Conditions, Period};
use crate::sql::{self, Transaction};

/// An amount, and when it was used: within a whole hour that no lot divides, its beginning.
pub(super) type Used = Vec<(i64, Exact)>;

/// What was used of an account from the first lot on that has begun at `now_ms`, and from `from_ms`
/// on, the beginning of an hour, or the beginning of time; both in milliseconds since 1970.
/// `customers` are those for whom its customer pays.
pub(super) fn used(
    ledger: &Transaction<'_>,
    account: &Account,
    customers: &[String],
    lots: &[Lot],
    from_ms: i64,
    now_ms: i64,
) -> sql::Result<Used> {
    let begun = || lots.iter().filter(|lot| lot.from_ms <= now_ms);
    let Some(first_ms) = begun().map(|lot| lot.from_ms).min() else { return Ok(Used::new()) };
    let start_ms = first_ms.max(from_ms);
    let ends = begun().filter_map(|lot| lot.expires_ms);
    let divided: BTreeSet<i64> = begun()
        .map(|lot| lot.from_ms)
        .chain(ends)
        .filter(|at_ms| (start_ms..=now_ms).contains(at_ms) && hour_of(*at_ms) < *at_ms)
        .map(hour_of)
        .collect();
    let mut found = Used::new();
    for table in [&*CALL_HOURS, &*GENERATION_HOURS] {
        let conditions = |column: &str, period| {
            let mut conditions = Conditions::default();
            conditions.and_one_of("customer", Some(customers));
            conditions.and_within(column, period);
            conditions.and("currency = ?", account.currency.clone());
            if account.scope != "customer" {
                // The scopes of accounts have the names of columns.
                conditions.and(&format!("{} = ?", account.scope), account.name.clone());
            }
            conditions
        };
        let since = Period { from_ms: Some(hour_of(start_ms)), to_ms: None };
        let whole = read(ledger, table.name, "hour_ms", &conditions("hour_ms", since))?;
        found.extend(whole.into_iter().filter(|(hour_ms, _)| !divided.contains(hour_ms)));
        for hour_ms in &divided {
            let to_ms = Some(hour_ms.saturating_add(HOUR_MS));
            let within = Period { from_ms: Some(start_ms.max(*hour_ms)), to_ms };
            found.extend(read(ledger, table.rows, "time_ms", &conditions("time_ms", within))?);
        }
    }
    Ok(found)
}

fn read(
    ledger: &Transaction<'_>,
    table: &str,
    time: &str,
    conditions: &Conditions,
) -> sql::Result<Used> {
    // As text, a sum has each digit.
    let sql = format!("SELECT {time}, CAST(price AS TEXT) FROM {table}{}", conditions.sql());
    ledger.prepare_cached(&sql)?.query_map(&conditions.values, |row| {
        let text: String = row.get(1)?;
        let amount = Exact::parse(&text);
        let amount = amount.ok_or_else(|| sql::Error::Column(format!("not money: {text:.60}")))?;
        Ok((row.get(0)?, amount))
    })
}

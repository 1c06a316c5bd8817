//! Keeps what was paid in advance: an event `top_up` for each, which the ledger writes itself, with a
//! row by which it is found. A correction `void` takes one back, as if it had never been.

use rust_decimal::Decimal;

use crate::event::top_up::{Account, SCOPES, TopUp};
use crate::event::{self, Body, Event};
use crate::query::Page;
use crate::sql::{self, Row, Transaction, Value, values};

/// `prepaid_customers` and `usage_head` tell whether usage changed that is past; see
/// `balance/settled.rs`.
pub(super) const SCHEMA: &str = "
CREATE TABLE top_ups (
    position   INTEGER PRIMARY KEY REFERENCES events (position),
    top_up_id  TEXT NOT NULL UNIQUE,
    customer   TEXT NOT NULL,
    scope      TEXT NOT NULL,
    name       TEXT NOT NULL,
    currency   TEXT NOT NULL,
    amount     DECIMAL NOT NULL,
    from_ms    INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT;
CREATE INDEX top_ups_account ON top_ups (customer, scope, name, currency);
CREATE TABLE prepaid_customers (
    customer TEXT PRIMARY KEY,
    late     INTEGER NOT NULL
) STRICT;
CREATE TABLE usage_head (
    position INTEGER PRIMARY KEY CHECK (position = 1),
    hour_ms  INTEGER NOT NULL
) STRICT;
";

/// A top-up as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The id of its event.
    pub(crate) event_id: String,
    pub(crate) top_up_id: String,
    pub(crate) amount: Decimal,
    /// Milliseconds since 1970, UTC.
    pub(crate) from_ms: i64,
    /// The same; `None` for never.
    pub(crate) expires_ms: Option<i64>,
    /// Whether a correction takes it back.
    pub(crate) is_void: bool,
}

pub(super) fn store(
    ledger: &Transaction<'_>,
    top_ups: &[(&Event<'_>, &TopUp, i64)],
) -> sql::Result<()> {
    for (_, top_up, position) in top_ups {
        let TopUp { top_up_id, account, amount, from_ms, expires_ms, .. } = top_up;
        let Account { customer, scope, name, currency } = account;
        ledger.execute(
            "INSERT INTO top_ups (position, top_up_id, customer, scope, name, currency, amount,
              from_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values![
                *position,
                top_up_id,
                customer,
                *scope,
                name,
                currency,
                *amount,
                *from_ms,
                *expires_ms
            ],
        )?;
        ledger.execute(
            "INSERT INTO prepaid_customers (customer, late) VALUES (?, 0) ON CONFLICT DO NOTHING",
            values![customer],
        )?;
        ledger.execute(
            "INSERT INTO usage_head (position, hour_ms) VALUES (1, 0) ON CONFLICT DO NOTHING",
            &[],
        )?;
    }
    Ok(())
}

/// True of a row of `top_ups` whose event a correction in force voids; its parameter is the source of
/// the books.
const IS_VOID: &str = "CASE WHEN EXISTS (SELECT 1 FROM corrections AS void
      WHERE void.kind = 'void' AND void.target_source = ?1 AND void.target_id = events.id
       AND NOT EXISTS (SELECT 1 FROM corrections AS revert
        WHERE revert.kind = 'revert' AND revert.refers = void.correction_id))
     THEN 1 ELSE 0 END AS is_void";

/// The top-ups of an account in the order in which they were written down. `customers` are those
/// for whom its customer pays.
pub(crate) fn of_account(
    ledger: &Transaction<'_>,
    account: &Account,
    customers: &[String],
) -> sql::Result<Vec<Stored>> {
    let sql = format!(
        "SELECT events.id, top_up_id, amount, from_ms, expires_ms, {IS_VOID}
         FROM top_ups JOIN events USING (position)
         WHERE customer = ?2 AND scope = ?3 AND name = ?4 AND currency = ?5
         ORDER BY top_ups.position"
    );
    let mut found = Vec::new();
    for customer in customers {
        let values =
            values![event::BOOKS, customer, account.scope, &account.name, &account.currency];
        found.extend(ledger.prepare_cached(&sql)?.query_map(values, read)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> sql::Result<Stored> {
    Ok(Stored {
        event_id: row.get(0)?,
        top_up_id: row.get(1)?,
        amount: row.get(2)?,
        from_ms: row.get(3)?,
        expires_ms: row.get(4)?,
        is_void: row.get(5)?,
    })
}

/// The top-up with this id, and whose it is.
pub(crate) fn by_id(
    ledger: &Transaction<'_>,
    top_up_id: &str,
) -> sql::Result<Option<(Account, Stored)>> {
    let sql = format!(
        "SELECT events.id, top_up_id, amount, from_ms, expires_ms, {IS_VOID},
          customer, scope, name, currency
         FROM top_ups JOIN events USING (position) WHERE top_up_id = ?2"
    );
    let values = values![event::BOOKS, top_up_id];
    let found = ledger
        .prepare_cached(&sql)?
        .query_optional(values, |row| Ok((account(row, 6)?, read(row)?)))?;
    Ok(found.and_then(|(account, stored)| Some((account?, stored))))
}

/// An account from four columns of a row; `None` if this program does not know its scope.
fn account(row: &Row<'_>, first: usize) -> sql::Result<Option<Account>> {
    let scope: String = row.get(first + 1)?;
    let scope = SCOPES.into_iter().map(|(name, _)| name).find(|name| *name == scope);
    let (customer, name) = (row.get(first)?, row.get(first + 2)?);
    let currency = row.get(first + 3)?;
    Ok(scope.map(|scope| Account { customer, scope, name, currency }))
}

/// One page of the accounts of these customers, or of all for `None`, in the order of their first
/// top-ups: each with its cursor, and one more than the page may have if there are further ones.
pub(crate) fn accounts(
    ledger: &Transaction<'_>,
    customers: Option<&[String]>,
    page: Page,
) -> sql::Result<Vec<(i64, Account)>> {
    let marks = customers.map(|customers| vec!["?"; customers.len()].join(", "));
    let of_customers = marks.map(|marks| format!(" WHERE customer IN ({marks})"));
    let sql = format!(
        "SELECT customer, scope, name, currency, min(position) AS first FROM top_ups{}
         GROUP BY customer, scope, name, currency HAVING min(position) > ?
         ORDER BY first LIMIT ?",
        of_customers.unwrap_or_default()
    );
    let mut values: Vec<Value<'_>> = customers.into_iter().flatten().map(Value::from).collect();
    values.extend([Value::Integer(page.after.unwrap_or(0)), Value::Integer(page.limit + 1)]);
    let found = ledger
        .prepare_cached(&sql)?
        .query_map(&values, |row| Ok((row.get(4)?, account(row, 0)?)))?;
    Ok(found.into_iter().filter_map(|(first, account)| Some((first, account?))).collect())
}

/// Names the top-ups that have no row, or another one than their events say.
pub(crate) fn differences(ledger: &Transaction<'_>) -> sql::Result<Vec<String>> {
    let sql = "SELECT events.position, raw, top_up_id, customer, scope, name, currency, amount,
          from_ms, expires_ms
         FROM events LEFT JOIN top_ups USING (position)
         WHERE type = 'agent-meter.top_up' ORDER BY events.position";
    let mut different = Vec::new();
    let mut statement = ledger.prepare_cached(sql)?;
    let mut rows = statement.query(&[])?;
    while let Some(row) = &rows.next_row()? {
        let (position, raw): (i64, String) = (row.get(0)?, row.get(1)?);
        let text = serde_json::value::RawValue::from_string(raw).ok();
        let event = text.as_deref().and_then(|text| event::read_stored(text).ok());
        let told = event.and_then(|event| match event.body {
            Body::TopUp(top_up) => Some(*top_up),
            _ => None,
        });
        let row_id: Option<String> = row.get(2)?;
        let is_same = match (told, row_id) {
            (Some(told), Some(top_up_id)) => {
                let account = account(row, 3)?;
                let amount: Decimal = row.get(7)?;
                let times: (i64, Option<i64>) = (row.get(8)?, row.get(9)?);
                let kept = |text: &str| sql::postgres::kept_text(text).into_owned();
                let same_text = |told: &str, stored: &str| told == stored || kept(told) == stored;
                same_text(&told.top_up_id, &top_up_id)
                    && account.is_some_and(|account| {
                        same_text(&told.account.customer, &account.customer)
                            && same_text(&told.account.name, &account.name)
                            && told.account.scope == account.scope
                            && told.account.currency == account.currency
                    })
                    && (told.amount, told.from_ms, told.expires_ms) == (amount, times.0, times.1)
            }
            _ => false,
        };
        if !is_same {
            different.push(format!("top-up at {position}: it is not what its event says"));
        }
    }
    Ok(different)
}

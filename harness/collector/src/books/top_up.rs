//! Writes down what was paid in advance.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::books::correct::Outcome;
use crate::event::members::{Members, shown};
use crate::event::top_up::{Account, TopUp, top_up};
use crate::ledger::Ledger;
use crate::ledger::intake::{Own, take_own};
use crate::ledger::top_ups::{self, Stored};
use crate::query::rfc3339;
use crate::report::balances::{BalanceState, state};
use crate::sql::{self, Transaction};

/// The most top-ups of one account: a balance is made of all of them.
const TOP_UPS_MAX: usize = 10_000;

/// What became of a top-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToppedUp {
    /// Its id.
    pub top_up_id: String,
    /// `accepted`, or `duplicate` if it was there before.
    pub outcome: Outcome,
    /// What its account has come to.
    pub balance: BalanceState,
}

/// Why a top-up is not written down. Nothing has changed then.
#[derive(Debug)]
pub enum TopUpError {
    /// It is malformed; the text begins with the member.
    Wrong(String),
    /// The ledger has another one with this id, or has taken it back.
    Conflict(String),
    /// The ledger failed.
    Ledger(anyhow::Error),
}

impl fmt::Display for TopUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopUpError::Wrong(reason) | TopUpError::Conflict(reason) => f.write_str(reason),
            TopUpError::Ledger(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for TopUpError {}

impl From<sql::Error> for TopUpError {
    fn from(error: sql::Error) -> Self {
        TopUpError::Ledger(error.into())
    }
}

impl From<anyhow::Error> for TopUpError {
    fn from(error: anyhow::Error) -> Self {
        TopUpError::Ledger(error)
    }
}

impl Ledger {
    /// Writes a top-up down: an object with the members of the event's `data` (`filter/EVENTS.md`).
    /// Without `scope` it is the customer's, and without `from` it pays from now on. One that comes
    /// again changes nothing. `made_by` is who writes it.
    ///
    /// # Errors
    ///
    /// If it is malformed, if it has the id of another one or of one that is void, if its account has
    /// too many, or if the ledger fails.
    pub fn top_up(&self, told: &Value, made_by: &str) -> Result<ToppedUp, TopUpError> {
        let now_ms = self.now_ms();
        self.write(|ledger| {
            let known = match told.get("top_up_id").and_then(Value::as_str) {
                Some(top_up_id) => top_ups::by_id(ledger, top_up_id)?,
                None => None,
            };
            let from_ms = known.as_ref().map_or(now_ms, |(_, stored)| stored.from_ms);
            let (read, data) = read(told, made_by, from_ms).map_err(TopUpError::Wrong)?;
            let top_up_id = read.top_up_id.clone();
            let outcome = if let Some((of, stored)) = known {
                check_known(&read, &of, &stored)?;
                Outcome::Duplicate
            } else {
                check_new(ledger, &read, now_ms)?;
                let subject = read.account.customer.clone();
                let event_type = "top_up";
                take_own(ledger, now_ms, vec![Own { event_type, time_ms: now_ms, subject, data }])?;
                Outcome::Accepted
            };
            let balance = state(ledger, &read.account, now_ms)?;
            Ok(ToppedUp { top_up_id, outcome, balance })
        })
    }
}

/// The top-up, and the data of its event. It pays from `from_ms` on if it does not say.
fn read(told: &Value, made_by: &str, from_ms: i64) -> Result<(TopUp, Map<String, Value>), String> {
    let Value::Object(told) = told else {
        return Err(format!("must be an object, found {}", shown(told)));
    };
    let mut data = told.clone();
    for own in ["made_by", "event_type"] {
        if data.contains_key(own) {
            return Err(format!("{own}: unknown, the ledger itself writes it"));
        }
    }
    data.insert("made_by".to_owned(), made_by.into());
    let mut set_default = |member: &str, value: Value| {
        data.entry(member).or_insert(value);
    };
    set_default("scope", "customer".into());
    set_default("from", rfc3339(from_ms).into());
    let read = top_up(&Members { path: Cow::Borrowed(""), object: &data })?;
    Ok((read, data))
}

/// Refuses a top-up with the id of another one, or of one that is void.
fn check_known(told: &TopUp, of: &Account, stored: &Stored) -> Result<(), TopUpError> {
    let TopUp { top_up_id, account, amount, from_ms, expires_ms, .. } = told;
    let Stored { event_id, is_void, .. } = stored;
    let is_same = of == account
        && (stored.amount, stored.from_ms, stored.expires_ms) == (*amount, *from_ms, *expires_ms);
    let reason = match (is_same, is_void) {
        (true, false) => return Ok(()),
        (true, true) => format!("is void, by a correction of the event {event_id}; use another id"),
        (false, _) => "the ledger has another one with this id".to_owned(),
    };
    Err(TopUpError::Conflict(format!("top_up_id: {top_up_id:?}: {reason}")))
}

fn check_new(ledger: &Transaction<'_>, told: &TopUp, now_ms: i64) -> Result<(), TopUpError> {
    if told.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
        let reason = format!("expires_at: must be later than now, {}", rfc3339(now_ms));
        return Err(TopUpError::Wrong(reason));
    }
    let customer = std::slice::from_ref(&told.account.customer);
    if top_ups::of_account(ledger, &told.account, customer)?.len() >= TOP_UPS_MAX {
        let reason = format!("customer_id: has {TOP_UPS_MAX} top-ups of this scope and currency");
        return Err(TopUpError::Wrong(reason));
    }
    Ok(())
}

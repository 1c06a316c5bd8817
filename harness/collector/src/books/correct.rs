//! Writes corrections: all of those that come together, or none.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::books::document::Billing;
use crate::event::correction::{Change, Correction, Target, correction};
use crate::event::members::{Members, shown};
use crate::event::{self, Body};
use crate::ledger::corrected::changed;
use crate::ledger::intake::{Own, take_own};
use crate::ledger::merges::Merges;
use crate::ledger::{Ledger, invoices};
use crate::query::millis;
use crate::sql::{Transaction, values};

/// The most corrections that are written together.
const TOGETHER_MAX: usize = 10_000;

/// What became of a correction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Corrected {
    /// Its id.
    pub correction_id: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the books.
    Accepted,
    /// It is in the books, and what it is about is not in the ledger: it has an effect as soon as
    /// that comes.
    Waiting,
    /// It was there before.
    Duplicate,
}

/// A correction as it came.
struct Told {
    /// Milliseconds since 1970, if it says when it was made.
    made_ms: Option<i64>,
    correction: Correction,
    data: Map<String, Value>,
}

impl Ledger {
    /// Writes corrections: objects with the members of the event's `data` (`filter/EVENTS.md`), and
    /// `made_at`, an RFC 3339 time, which is now if it is missing. Rows of single events follow at
    /// once; [`Ledger::follow_corrections`] brings up those of the others.
    ///
    /// # Errors
    ///
    /// Names the correction and its member that is wrong: one that is malformed, that has the id of
    /// another one, or that would make an event of the ledger invalid; then none is written. Or if
    /// the ledger fails.
    pub fn correct(&self, corrections: &[Value]) -> anyhow::Result<Vec<Corrected>> {
        ensure!(
            corrections.len() <= TOGETHER_MAX,
            "at most {TOGETHER_MAX} corrections can be written together, found {}",
            corrections.len()
        );
        let told = corrections.iter().zip(1..).map(|(told, number): (_, usize)| {
            read(told).map_err(|reason| anyhow!("correction {number}: {reason}"))
        });
        let told = told.collect::<anyhow::Result<Vec<Told>>>()?;
        self.write(|ledger| write(ledger, self.now_ms(), told))
    }
}

fn read(told: &Value) -> Result<Told, String> {
    let Value::Object(object) = told else {
        return Err(format!("must be an object, found {}", shown(told)));
    };
    let mut data = object.clone();
    let made_at = data.remove("made_at");
    let made_ms = match &made_at {
        None => None,
        Some(text) => match text.as_str().and_then(millis) {
            Some(ms) => Some(ms),
            None => {
                return Err(format!("made_at: must be an RFC 3339 time, found {}", shown(text)));
            }
        },
    };
    data.remove("event_type");
    let correction = correction(&Members { path: Cow::Borrowed(""), object: &data })?;
    Ok(Told { made_ms, correction, data })
}

/// Writes those that are new.
pub(super) fn write_one(
    ledger: &Transaction<'_>,
    now_ms: i64,
    told: &Value,
) -> anyhow::Result<Corrected> {
    let told = read(told).map_err(|reason| anyhow!("{reason}"))?;
    let mut written = write(ledger, now_ms, vec![told])?;
    written.pop().context("a correction")
}

fn write(ledger: &Transaction<'_>, now_ms: i64, told: Vec<Told>) -> anyhow::Result<Vec<Corrected>> {
    let mut corrected = Vec::with_capacity(told.len());
    let mut own = Vec::with_capacity(told.len());
    let mut new: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for Told { made_ms, correction, data } in told {
        let correction_id = correction.correction_id.clone();
        let name = || format!("correction {correction_id:?}");
        let known = match new.get(&correction_id) {
            Some(data) => Some((None, data.clone())),
            None => stored(ledger, &correction_id)?,
        };
        if let Some((known_ms, known)) = known {
            let is_same =
                known == data && (made_ms.is_none() || known_ms.is_none() || made_ms == known_ms);
            ensure!(is_same, "{}: the ledger has another one with this id", name());
            corrected.push(Corrected { correction_id, outcome: Outcome::Duplicate });
            continue;
        }
        let is_known = check(ledger, &correction).with_context(name)?;
        let outcome = if is_known { Outcome::Accepted } else { Outcome::Waiting };
        corrected.push(Corrected { correction_id: correction_id.clone(), outcome });
        new.insert(correction_id, data.clone());
        own.push(Own {
            event_type: "correction",
            time_ms: made_ms.unwrap_or(now_ms),
            subject: correction.made_by,
            data,
        });
    }
    if !own.is_empty() {
        take_own(ledger, now_ms, own)?;
    }
    Ok(corrected)
}

/// When a correction was made, if that is known, and what it says.
type Known = (Option<i64>, Map<String, Value>);

/// The correction of the ledger with this id.
fn stored(ledger: &Transaction<'_>, id: &str) -> anyhow::Result<Option<Known>> {
    let sql = "SELECT made_ms, raw FROM corrections JOIN events USING (position)
         WHERE correction_id = ?";
    let found: Option<(i64, String)> = ledger
        .prepare_cached(sql)?
        .query_optional(values![id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((made_ms, raw)) = found else { return Ok(None) };
    let mut event: Value = serde_json::from_str(&raw)?;
    let Some(Value::Object(mut data)) = event.get_mut("data").map(Value::take) else {
        bail!("its event has no data");
    };
    data.remove("event_type");
    Ok(Some((Some(made_ms), data)))
}

/// Whether the ledger has what a correction is about. Refuses one that can have no effect.
fn check(ledger: &Transaction<'_>, correction: &Correction) -> anyhow::Result<bool> {
    match &correction.change {
        Change::Void(target) | Change::Amend(target, _) => {
            check_event(ledger, target, &correction.change)
        }
        Change::Rerate(_) | Change::Backfill { .. } => Ok(true),
        Change::Credit { invoice, currency, .. } => {
            let closed = invoices::by_number(ledger, invoice)?;
            let closed = closed.with_context(|| format!("invoice: no {invoice:?} is closed"))?;
            let billing = Billing::of_text(&closed.raw)?;
            let is_owed = billing.totals.iter().any(|total| total.currency == *currency);
            ensure!(is_owed, "currency: the invoice {invoice} has no total in {currency}");
            Ok(true)
        }
        Change::Merge { from, to } => {
            let merges = Merges::read(ledger)?;
            let payer = merges.payer(to);
            ensure!(
                payer != from,
                "to_customer_id: {from:?} pays for {to:?} already, so neither would pay"
            );
            Ok(true)
        }
        Change::Revert(id) => {
            let sql = "SELECT kind FROM corrections WHERE correction_id = ?";
            let kind: Option<String> =
                ledger.prepare_cached(sql)?.query_optional(values![id], |row| row.get(0))?;
            ensure!(
                kind.as_deref() != Some("revert"),
                "correction: a revert cannot be reverted; write the correction again with a new id"
            );
            Ok(kind.is_some())
        }
    }
}

/// Why a correction is not about another one.
const OF_BOOKS: &str = "target_source: take back a correction with `revert`";

fn check_event(ledger: &Transaction<'_>, target: &Target, change: &Change) -> anyhow::Result<bool> {
    let Target { source, id } = target;
    let sql = "SELECT raw FROM events WHERE source = ? AND id = ?";
    let raw: Option<String> =
        ledger.prepare_cached(sql)?.query_optional(values![source, id], |row| row.get(0))?;
    let Some(raw) = raw else {
        ensure!(source != event::BOOKS, OF_BOOKS);
        return Ok(false);
    };
    ensure!(!raw.is_empty(), "target_id: the event {id} is kept apart, or counts in nothing");
    let text = RawValue::from_string(raw)?;
    if source == event::BOOKS {
        let is_top_up =
            event::read_stored(&text).is_ok_and(|read| matches!(read.body, Body::TopUp(_)));
        ensure!(is_top_up, OF_BOOKS);
        let is_void = matches!(change, Change::Void(_));
        ensure!(is_void, "kind: a top-up is not amended: void it, and write another one");
        return Ok(true);
    }
    let read = event::read(&text).map_err(|(_, reason)| anyhow!("target_id: {reason}"))?;
    ensure!(
        matches!(read.body, Body::Call(_) | Body::Generation(_)),
        "target_id: the event {id} is no call and no generation, and counts in nothing"
    );
    changed(text.get(), change)
        .map_err(|reason| anyhow!("set: the event would not be valid: {reason}"))?;
    Ok(true)
}

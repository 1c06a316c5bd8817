//! What corrections make of an event: the rows of an event are those of the event as it came, with
//! all corrections of it in the order in which they were made. So they are the same in whatever order
//! events and corrections arrive, and however often.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rust_decimal::Decimal;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::event::correction::{Change, Rerate};
use crate::event::{self, Body, Event};
use crate::ledger::in_force::{Applied, in_force};
use crate::ledger::lists::{of_ids, of_positions};
use crate::sql::{self, Transaction};

/// What an event counts as.
#[derive(Debug)]
pub(crate) enum Corrected {
    AsItCame,
    /// It counts as this event says.
    Amended(Box<RawValue>),
    /// It counts as nothing. What it superseded stays superseded.
    Voided,
    /// It is as if it had never come.
    Withdrawn,
}

/// The corrections that are in force, of some events or of all.
#[derive(Debug, Default)]
pub(crate) struct Corrections {
    /// Voids and amendments, by the source and the id of the event.
    by_event: HashMap<(String, String), Vec<Applied>>,
    /// Other prices.
    rerates: Vec<Applied>,
    /// Positions of events whose backfill was reverted.
    withdrawn: HashSet<i64>,
}

/// The positions of backfills that are reverted.
const WITHDRAWN: &str = "SELECT backfilled.position FROM backfilled
     JOIN corrections ON corrections.refers = backfilled.correction_id
     WHERE corrections.kind = 'revert'";

impl Corrections {
    /// Those of some events, each with its position.
    pub(super) fn of(ledger: &Transaction<'_>, events: &[(&Event<'_>, i64)]) -> sql::Result<Self> {
        let mut found = Corrections::default();
        let sql = "SELECT EXISTS (SELECT 1 FROM corrections WHERE target_id IS NOT NULL),
             EXISTS (SELECT 1 FROM corrections WHERE kind = 'rerate'),
             EXISTS (SELECT 1 FROM backfilled)";
        let (are_of_events, are_rerates, are_backfills): (bool, bool, bool) = ledger
            .prepare_cached(sql)?
            .query_row(&[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if are_of_events {
            let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for (event, _) in events {
                ids.entry(&event.source).or_default().insert(&event.id);
            }
            for (source, ids) in ids {
                let ids: Vec<&str> = ids.into_iter().collect();
                for (condition, values) in of_ids(source, &ids, |list| {
                    format!("target_source = ?1 AND target_id IN {list}")
                }) {
                    found.add(in_force(ledger, &condition, &values)?);
                }
            }
        }
        if are_rerates {
            found.add(in_force(ledger, "kind = 'rerate'", &[])?);
        }
        if are_backfills {
            let positions: Vec<i64> = events.iter().map(|(_, position)| *position).collect();
            for (sql, values) in of_positions(&positions, |list| {
                format!("{WITHDRAWN} AND backfilled.position IN {list}")
            }) {
                let rows: Vec<i64> =
                    ledger.prepare_cached(&sql)?.query_map(&values, |row| row.get(0))?;
                found.withdrawn.extend(rows);
            }
        }
        Ok(found)
    }

    /// All of them.
    pub(crate) fn all(ledger: &Transaction<'_>) -> sql::Result<Self> {
        let mut found = Corrections::default();
        found.add(in_force(ledger, "(target_id IS NOT NULL OR kind = 'rerate')", &[])?);
        found.withdrawn = {
            let positions: Vec<i64> =
                ledger.prepare_cached(WITHDRAWN)?.query_map(&[], |row| row.get(0))?;
            positions.into_iter().collect()
        };
        Ok(found)
    }

    fn add(&mut self, all: Vec<Applied>) {
        for applied in all {
            match applied.change.target() {
                Some(target) => {
                    let key = (target.source.clone(), target.id.clone());
                    self.by_event.entry(key).or_default().push(applied);
                }
                None => self.rerates.push(applied),
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_event.is_empty() && self.rerates.is_empty() && self.withdrawn.is_empty()
    }

    /// What they make of an event. A correction that would make an event of it that is not valid has
    /// no effect.
    pub(crate) fn on(&self, event: &Event<'_>, position: i64) -> Corrected {
        if self.withdrawn.contains(&position) {
            return Corrected::Withdrawn;
        }
        let of_event = self.by_event.get(&(event.source.clone(), event.id.clone()));
        let mut applied: Vec<&Applied> = of_event.into_iter().flatten().collect();
        if applied.iter().any(|applied| matches!(applied.change, Change::Void(_))) {
            return Corrected::Voided;
        }
        let rerates = self.rerates.iter().filter(|applied| {
            let period_ms = applied.change.period_ms();
            period_ms.is_some_and(|(from_ms, to_ms)| (from_ms..to_ms).contains(&event.time_ms))
        });
        applied.extend(rerates);
        applied.sort_unstable_by(|left, right| left.order.cmp(&right.order));
        let mut amended: Option<Box<RawValue>> = None;
        for Applied { change, .. } in applied {
            let text = amended.as_deref().map_or(event.raw, RawValue::get);
            // One that would make an event that is not valid has no effect.
            if let Ok(Some(changed)) = changed(text, change) {
                amended = Some(changed);
            }
        }
        amended.map_or(Corrected::AsItCame, Corrected::Amended)
    }
}

/// The text of an event with one more correction; `None` if that changes nothing. The error says why
/// the event would not be valid.
pub(crate) fn changed(text: &str, change: &Change) -> Result<Option<Box<RawValue>>, String> {
    let mut event: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match change {
        Change::Amend(_, set) => {
            if let Some(customer) = set.get("customer_id") {
                event["subject"] = customer.clone();
            }
            let data = event.get_mut("data").and_then(Json::as_object_mut);
            let data = data.ok_or("data: missing")?;
            for (member, value) in set {
                // As in a merge patch (RFC 7386), null removes a member.
                match value {
                    Json::Null => drop(data.remove(member)),
                    value => drop(data.insert(member.clone(), value.clone())),
                }
            }
        }
        Change::Rerate(rerate) => match new_price(text, rerate) {
            Some(price) => event["data"]["price"] = Json::String(price.to_string()),
            None => return Ok(None),
        },
        _ => return Ok(None),
    }
    let changed = serde_json::value::to_raw_value(&event).map_err(|error| error.to_string())?;
    let read = event::read(&changed).map_err(|(_, reason)| reason)?;
    match read.beyond {
        Some(beyond) => Err(beyond.detail),
        None => Ok(Some(changed)),
    }
}

/// The price of an event by another price of one call; `None` if it is not about this event.
fn new_price(text: &str, rerate: &Rerate) -> Option<Decimal> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let Body::Call(call) = event::read(raw).ok()?.body else { return None };
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
    let is_meant = is(&rerate.customer, &call.identity.customer)
        && is(&rerate.product, &call.identity.product)
        && is(&rerate.tool, &call.tool)
        && is(&rerate.tier, &call.tier);
    if !is_meant || !call.billable {
        return None;
    }
    Some(rerate.unit_price.checked_mul(call.quantity.into())?.normalize())
}

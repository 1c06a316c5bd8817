//! Keeps corrections, which are events that the ledger writes itself, and brings the rows of the
//! events that they are about up to date (`follow.rs`).
//!
//! To the next maintainer. A void or an amendment is about one event, whose rows follow at once.
//! Another price, or a backfill that is reverted, may be about millions: `followed` is the position
//! up to which the rows follow, and NULL when all do. Events that come meanwhile follow at once.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::event::correction::{Change, Correction};
use crate::ledger::derive::derive_again;
use crate::ledger::lists::of_ids;
use crate::sql::{self, Transaction, values};

/// `target_source` and `target_id` name the event that a correction is about, `refers` the other
/// correction, the invoice or the customer. `from_ms` and `to_ms` are the time that it is about.
pub(super) const SCHEMA: &str = "
CREATE TABLE corrections (
    position      INTEGER PRIMARY KEY REFERENCES events (position),
    correction_id TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL,
    made_ms       INTEGER NOT NULL,
    target_source TEXT,
    target_id     TEXT,
    refers        TEXT,
    from_ms       INTEGER,
    to_ms         INTEGER,
    followed      INTEGER
) STRICT;
CREATE INDEX corrections_target ON corrections (target_source, target_id)
    WHERE target_id IS NOT NULL;
CREATE INDEX corrections_kind ON corrections (kind, refers);
CREATE INDEX corrections_pending ON corrections (position) WHERE followed IS NOT NULL;
CREATE TABLE backfilled (
    position      INTEGER PRIMARY KEY REFERENCES events (position),
    correction_id TEXT NOT NULL
) STRICT;
CREATE INDEX backfilled_of ON backfilled (correction_id, position);
";

/// Stores corrections of which the events are stored, each with its position, and brings the rows
/// of the events up to date that single ones are about.
pub(super) fn store(
    ledger: &Transaction<'_>,
    corrections: &[(&Event<'_>, &Correction, i64)],
) -> sql::Result<()> {
    let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (event, correction, position) in corrections {
        let change = &correction.change;
        let (mut period_ms, mut followed) = (change.period_ms(), change.period_ms().map(|_| 0));
        if let Some(target) = change.target() {
            targets.entry(target.source.clone()).or_default().push(target.id.clone());
        }
        if let Change::Revert(id) = change
            && let Some(reverted) = Reverted::read(ledger, id)?
        {
            period_ms = reverted.period_ms;
            followed = (period_ms.is_some() || reverted.kind == "backfill").then_some(0);
            if let Some((source, id)) = reverted.target {
                targets.entry(source).or_default().push(id);
            }
        }
        let target = change.target();
        ledger.execute(
            "INSERT INTO corrections (position, correction_id, kind, made_ms, target_source,
              target_id, refers, from_ms, to_ms, followed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values![
                *position,
                &correction.correction_id,
                change.kind(),
                event.time_ms,
                target.map(|target| target.source.as_str()),
                target.map(|target| target.id.as_str()),
                change.refers_to(),
                period_ms.map(|(from_ms, _)| from_ms),
                period_ms.map(|(_, to_ms)| to_ms),
                followed
            ],
        )?;
    }
    let mut positions: Vec<i64> = Vec::new();
    for (source, ids) in &targets {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for (sql, values) in of_ids(source, &ids, |list| {
            format!("SELECT position FROM events WHERE source = ?1 AND id IN {list}")
        }) {
            let found: Vec<i64> =
                ledger.prepare_cached(&sql)?.query_map(&values, |row| row.get(0))?;
            positions.extend(found);
        }
    }
    derive_again(ledger, &positions)
}

/// A correction that another one takes back.
struct Reverted {
    kind: String,
    target: Option<(String, String)>,
    period_ms: Option<(i64, i64)>,
}

impl Reverted {
    fn read(ledger: &Transaction<'_>, id: &str) -> sql::Result<Option<Reverted>> {
        let sql = "SELECT kind, target_source, target_id, from_ms, to_ms FROM corrections
             WHERE correction_id = ?";
        ledger.prepare_cached(sql)?.query_optional(values![id], |row| {
            let target: (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
            let period_ms: (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            Ok(Reverted {
                kind: row.get(0)?,
                target: target.0.zip(target.1),
                period_ms: period_ms.0.zip(period_ms.1),
            })
        })
    }
}

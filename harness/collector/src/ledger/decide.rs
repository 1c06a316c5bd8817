//! Lists the events that are kept apart, and releases or discards them as the operator decides.

use anyhow::Context;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::bounds::Reason;
use crate::event::{self, Body};
use crate::ledger::Ledger;
use crate::ledger::derive::derive_one;
use crate::query::{Page, rfc3339};
use crate::sql::{self, Row, Transaction, values};

/// One event that is kept apart.
#[derive(Debug, Serialize)]
pub struct Quarantined {
    /// Its number in the ledger, for `agent-meter quarantine`.
    pub position: i64,
    /// `held`, `released` or `discarded`.
    pub state: String,
    /// `tokens`, `money`, `units`, `count` or `time`.
    pub reason: String,
    /// The member that is not plausible, and what it may be.
    pub detail: String,
    /// The name of the secret that it came with; `None` if there was none.
    pub writer: Option<String>,
    /// RFC 3339, UTC: when it came.
    pub received_at: String,
    /// RFC 3339, UTC: when it was released or discarded.
    pub decided_at: Option<String>,
    /// The event as it came.
    pub event: Box<RawValue>,
}

/// One page of events that are kept apart, the oldest first.
#[derive(Debug, Serialize)]
pub struct QuarantinePage {
    /// At most as many as the page may have.
    pub events: Vec<Quarantined>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// What to do with an event that is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Count it.
    Release,
    /// Never count it.
    Discard,
}

impl Decision {
    fn state(self) -> &'static str {
        match self {
            Decision::Release => "released",
            Decision::Discard => "discarded",
        }
    }
}

impl Ledger {
    /// Events that are kept apart, in this state.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn quarantine(&self, state: &str, page: Page) -> anyhow::Result<QuarantinePage> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(
                "SELECT position, state, reason, detail, writer, received_ms, decided_ms, raw
                 FROM quarantine WHERE state = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
            )?;
            let after = page.after.unwrap_or(0);
            let mut rows = statement.query_map(values![state, after, page.limit + 1], read)?;

            let next = page.cut(&mut rows);
            let events = rows.into_iter().map(|(_, (mut event, raw))| {
                event.event = RawValue::from_string(raw)?;
                Ok(event)
            });
            Ok(QuarantinePage { events: events.collect::<anyhow::Result<_>>()?, next })
        })
    }

    /// How many events are kept apart now, for each reason.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn count_quarantined(&self) -> anyhow::Result<Vec<(Reason, u64)>> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(
                "SELECT count(*) FROM quarantine WHERE state = 'held' AND reason = ?",
            )?;
            let count = |reason: Reason| {
                let count =
                    statement.query_row(values![reason.name()], |row| row.get::<_, i64>(0))?;
                Ok((reason, count.unsigned_abs()))
            };
            Reason::ALL.into_iter().map(count).collect()
        })
    }

    /// Releases or discards one event that is kept apart.
    ///
    /// # Errors
    ///
    /// If no event is held at this position, if it is to be released and is not valid otherwise, or
    /// if the ledger fails. Nothing has changed then.
    pub fn decide(&self, position: i64, decision: Decision) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        self.write(|ledger| {
            let raw: Option<String> = ledger
                .prepare_cached("SELECT raw FROM quarantine WHERE position = ? AND state = 'held'")?
                .query_optional(values![position], |row| row.get(0))?;
            let raw = raw.with_context(|| format!("no event is held at {position}"))?;
            if decision == Decision::Release {
                release(ledger, position, &raw)?;
            }
            ledger
                .prepare_cached(
                    "UPDATE quarantine SET state = ?, decided_ms = ? WHERE position = ?",
                )?
                .execute(values![decision.state(), now_ms, position])?;
            Ok(())
        })
    }
}

fn release(ledger: &Transaction<'_>, position: i64, raw: &str) -> anyhow::Result<()> {
    let text = RawValue::from_string(raw.to_owned())?;
    let mut event = event::read(&text)
        .map_err(|(id, reason)| anyhow::anyhow!("the event {id} is not valid: {reason}"))?;
    let beyond = event.beyond.take();
    if let (Some(beyond), Body::Unknown) = (beyond, &event.body) {
        anyhow::bail!("the event {} cannot be counted: {}", event.id, beyond.detail);
    }
    if !matches!(event.body, Body::GuardTotals(_) | Body::Heartbeat(_)) {
        ledger
            .prepare_cached("UPDATE events SET raw = ?, session_id = ? WHERE position = ?")?
            .execute(values![raw, event.session_id.as_deref(), position])?;
    }
    derive_one(ledger, &event, position)?;
    Ok(())
}

fn read(row: &Row<'_>) -> sql::Result<(i64, (Quarantined, String))> {
    let position = row.get(0)?;
    let decided_ms: Option<i64> = row.get(6)?;
    let event = Quarantined {
        position,
        state: row.get(1)?,
        reason: row.get(2)?,
        detail: row.get(3)?,
        writer: row.get(4)?,
        received_at: rfc3339(row.get(5)?),
        decided_at: decided_ms.map(rfc3339),
        event: Box::default(),
    };
    Ok((position, (event, row.get(7)?)))
}

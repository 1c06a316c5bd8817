//! Stores the events of a POST, and decides of each whether it is new, a duplicate or a conflict.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Transaction, TransactionBehavior};
use serde_json::Value;

use crate::event::error::IngestError;
use crate::event::{self, Body, Event};
use crate::ledger::column::Row;
use crate::ledger::derive::derive;
use crate::ledger::fleet::Question;
use crate::ledger::receipt::{Receipt, Rejected};
use crate::ledger::tables::EVENTS;
use crate::ledger::tally::Tally;
use crate::ledger::{Ledger, lock, outgoing};
use crate::query;

impl Ledger {
    /// Stores the valid events of one POST body in one transaction, each (source, id) once.
    /// When this returns, what it accepted is in the ledger.
    /// Nobody is told of scopes that crossed a level.
    pub fn insert_batch(&self, body: &[u8], content_type: &str) -> Result<Receipt, IngestError> {
        self.insert_batch_and_tell(body, content_type, &[]).map(|(receipt, _)| receipt)
    }

    /// The same, and in the same transaction queues what `webhooks` are to be told; also tells how
    /// many rows that were.
    pub(crate) fn insert_batch_and_tell(
        &self,
        body: &[u8],
        content_type: &str,
        webhooks: &[String],
    ) -> Result<(Receipt, usize), IngestError> {
        let events: Vec<_> =
            event::split(body, content_type)?.into_iter().map(event::read).collect();
        let received_ms = chrono::Utc::now().timestamp_millis();
        let received_at = query::rfc3339(received_ms);
        let mut questions = BTreeMap::new();
        let mut queued = 0;
        let mut receipt = Receipt::default();
        let mut tally = Tally::default();
        let mut connection = lock(&self.0.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (index, event) in events.into_iter().enumerate() {
            let mut reject = |id, reason| receipt.rejected.push(Rejected { index, id, reason });
            let (outcome, event_type) = match event {
                Err((id, reason)) => {
                    reject(id, reason);
                    ("rejected", "invalid")
                }
                Ok(event) => {
                    let outcome = match insert(&transaction, &event, &received_at)? {
                        Inserted::New(position) => {
                            receipt.accepted += 1;
                            tally.accept(&event.body);
                            if let Body::LevelChange(change) = &event.body {
                                let told = webhooks.iter().filter(|name| change.is_for(name));
                                queued +=
                                    outgoing::queue(&transaction, position, told, received_ms)?;
                            }
                            ask(&mut questions, &event);
                            "accepted"
                        }
                        Inserted::Duplicate => {
                            receipt.duplicates += 1;
                            ask(&mut questions, &event);
                            "duplicate"
                        }
                        Inserted::Conflict => {
                            let reason = "id: this source and id are in the ledger with different \
                                          content, which was kept";
                            reject(event.id.clone(), reason.to_owned());
                            "rejected"
                        }
                    };
                    (outcome, event::short_type(&event.event_type))
                }
            };
            tally.count(outcome, event_type);
        }
        for question in questions.into_values() {
            receipt.verdicts.extend(question.answer(&transaction)?);
        }
        transaction.commit()?;
        drop(connection);
        lock(&self.0.tally).merge(tally);
        Ok((receipt, queued))
    }
}

enum Inserted {
    /// At this position.
    New(i64),
    Duplicate,
    Conflict,
}

/// Notes what a batch asks, once for each scope.
fn ask(questions: &mut BTreeMap<(String, String, String, i64), Question>, event: &Event<'_>) {
    if let Some(question) = Question::of(event) {
        match questions.entry(question.key()) {
            Entry::Vacant(entry) => drop(entry.insert(question)),
            Entry::Occupied(mut entry) => entry.get_mut().learn(question),
        }
    }
}

fn insert(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    received_at: &String,
) -> rusqlite::Result<Inserted> {
    let rows = EVENTS.insert(ledger, &Row { position: None, event, body: received_at })?;
    if rows == 0 {
        let (event_type, stored): (String, String) = ledger
            .prepare_cached("SELECT type, raw FROM events WHERE source = ? AND id = ?")?
            .query_row([&event.source, &event.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let same = match stored.as_str() {
            "" => event_type == event.event_type,
            stored => stored == event.raw || same_content(stored, event.raw),
        };
        return Ok(if same { Inserted::Duplicate } else { Inserted::Conflict });
    }
    let position = ledger.last_insert_rowid();
    derive(ledger, event, position)?;
    Ok(Inserted::New(position))
}

/// Whether two texts differ in nothing but space and the order of members, as after a proxy or a
/// log has written the event again.
fn same_content(stored: &str, raw: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    read(stored).is_some_and(|stored| read(raw) == Some(stored))
}

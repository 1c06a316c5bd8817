//! Stores the events of a POST, and decides whether each is new, a duplicate or a conflict.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Transaction, TransactionBehavior};
use serde_json::Value;

use crate::event::error::IngestError;
use crate::event::{self, Body, Event};
use crate::ledger::column::Row;
use crate::ledger::derive::derive;
use crate::ledger::fleet::TotalsQuery;
use crate::ledger::receipt::{Receipt, Rejected};
use crate::ledger::tables::EVENTS;
use crate::ledger::tally::{Counted, Tally};
use crate::ledger::{Ledger, lock, outgoing};
use crate::query;

impl Ledger {
    /// Stores the valid events of one POST body in one transaction, each (source, id) once.
    /// When this returns, the accepted events are in the ledger. It posts to no webhook.
    ///
    /// # Errors
    ///
    /// If the whole POST is refused; single events are refused in the [`Receipt`].
    pub fn insert_batch(&self, body: &[u8], content_type: &str) -> Result<Receipt, IngestError> {
        self.insert_batch_for(body, content_type, &[]).map(|(receipt, _)| receipt)
    }

    /// The same, and in the same transaction queues changes of level for `webhooks`; also returns
    /// how many rows it queued.
    pub(crate) fn insert_batch_for(
        &self,
        body: &[u8],
        content_type: &str,
        webhooks: &[String],
    ) -> Result<(Receipt, usize), IngestError> {
        let events: Vec<_> =
            event::split(body, content_type)?.into_iter().map(event::read).collect();
        let mut connection = lock(&self.0.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(&transaction, webhooks);
        for (index, event) in events.into_iter().enumerate() {
            match event {
                Ok(event) => batch.take(index, &event)?,
                Err((id, reason)) => batch.reject(index, id, reason, "invalid"),
            }
        }
        let (receipt, tally, queued) = batch.finish()?;
        transaction.commit()?;
        drop(connection);
        lock(&self.0.tally).merge(tally);
        Ok((receipt, queued))
    }
}

/// A batch on its way into the ledger.
struct Batch<'a> {
    ledger: &'a Transaction<'a>,
    webhooks: &'a [String],
    /// Milliseconds since 1970, UTC.
    received_ms: i64,
    /// The same, RFC 3339.
    received_at: String,
    receipt: Receipt,
    tally: Tally,
    /// One for each scope that the batch is about.
    queries: BTreeMap<(String, String, String, i64), TotalsQuery>,
    /// Rows for webhooks.
    queued: usize,
}

impl<'a> Batch<'a> {
    fn new(ledger: &'a Transaction<'a>, webhooks: &'a [String]) -> Self {
        let received_ms = chrono::Utc::now().timestamp_millis();
        Batch {
            ledger,
            webhooks,
            received_ms,
            received_at: query::rfc3339(received_ms),
            receipt: Receipt::default(),
            tally: Tally::default(),
            queries: BTreeMap::new(),
            queued: 0,
        }
    }

    fn take(&mut self, index: usize, event: &Event<'_>) -> rusqlite::Result<()> {
        let event_type = event::short_type(&event.event_type);
        match insert(self.ledger, event, &self.received_at)? {
            Inserted::New(position, superseded) => {
                self.receipt.accepted += 1;
                self.tally.count("accepted", event_type);
                self.tally.accept(&event.body, &superseded);
                self.queue(event, position)?;
                self.note_scope(event);
            }
            Inserted::Duplicate => {
                self.receipt.duplicates += 1;
                self.tally.count("duplicate", event_type);
                self.note_scope(event);
            }
            Inserted::Conflict => {
                let reason = "id: this source and id are in the ledger with different content, \
                              which was kept";
                self.reject(index, event.id.clone(), reason.to_owned(), event_type);
            }
        }
        Ok(())
    }

    fn reject(&mut self, index: usize, id: String, reason: String, event_type: &'static str) {
        self.receipt.rejected.push(Rejected { index, id, reason });
        self.tally.count("rejected", event_type);
    }

    fn queue(&mut self, event: &Event<'_>, position: i64) -> rusqlite::Result<()> {
        if let Body::LevelChange(change) = &event.body {
            let receivers = self.webhooks.iter().filter(|name| change.is_for(name));
            self.queued += outgoing::queue(self.ledger, position, receivers, self.received_ms)?;
        }
        Ok(())
    }

    fn note_scope(&mut self, event: &Event<'_>) {
        if let Some(query) = TotalsQuery::of(event) {
            match self.queries.entry(query.key()) {
                Entry::Vacant(entry) => drop(entry.insert(query)),
                Entry::Occupied(mut entry) => entry.get_mut().learn(query),
            }
        }
    }

    fn finish(mut self) -> rusqlite::Result<(Receipt, Tally, usize)> {
        for query in self.queries.into_values() {
            self.receipt.verdicts.extend(query.run(self.ledger)?);
        }
        Ok((self.receipt, self.tally, self.queued))
    }
}

enum Inserted {
    /// At this position; and the generations that count no more by it.
    New(i64, Vec<Counted>),
    Duplicate,
    Conflict,
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
    let superseded = derive(ledger, event, position)?;
    Ok(Inserted::New(position, superseded))
}

/// True if two texts differ only in space and the order of members, as after a proxy or a log has
/// written the event again.
fn same_content(stored: &str, raw: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    read(stored).is_some_and(|stored| read(raw) == Some(stored))
}

//! Stores the events of a POST, and decides whether each is new, a duplicate or a conflict.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::access::Writer;
use crate::event::bounds::{Beyond, of_time};
use crate::event::error::IngestError;
use crate::event::{self, Body, Event};
use crate::ledger::balance::remember;
use crate::ledger::balance::settled::Settled;
use crate::ledger::column::Row;
use crate::ledger::derive::derive;
use crate::ledger::digest::of_event;
use crate::ledger::fleet::TotalsQuery;
use crate::ledger::lists::of_ids;
use crate::ledger::receipt::{Receipt, Rejected};
use crate::ledger::sources::Sources;
use crate::ledger::tables::{Arrival, EVENTS};
use crate::ledger::tally::{Outcome, Tally};
use crate::ledger::writer::lock;
use crate::ledger::{Ledger, corrections, invoices, outgoing, quarantine, top_ups};
use crate::query;
use crate::sql::{self, Transaction, values};

/// How events come in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intake<'a> {
    /// Who sends them.
    pub(crate) writer: &'a Writer,
    /// Who is told of changes of level.
    pub(crate) webhooks: &'a [String],
    /// Whether only the totals of sources count for guards that wrote with a secret.
    pub(crate) proven_only: bool,
    /// Whether the events come from a log, so that they do not mean that their source lives.
    pub(crate) recovers: bool,
    /// Whether events may be older than what is plausible.
    pub(crate) allows_older: bool,
    /// Whose events they are.
    pub(crate) origin: Origin<'a>,
}

/// Whose events come in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// A filter's.
    Filter,
    /// The ledger's own: corrections, invoices and top-ups.
    Books,
    /// A filter's or another program's, brought in later under the id of a correction.
    Backfill(&'a str),
}

impl Intake<'_> {
    /// By whoever has the ledger's file.
    pub(crate) const OPERATOR: Intake<'static> = Intake {
        writer: &Writer::Operator,
        webhooks: &[],
        proven_only: false,
        recovers: false,
        allows_older: false,
        origin: Origin::Filter,
    };

    /// By the ledger itself.
    pub(crate) const BOOKS: Intake<'static> =
        Intake { allows_older: true, origin: Origin::Books, ..Intake::OPERATOR };

    /// Why an event cannot come from there.
    fn refuses(&self, event: &Event<'_>) -> Option<&'static str> {
        let is_of_books = event.body.is_of_books() || event.source == event::BOOKS;
        match (self.origin, &event.body) {
            (Origin::Books, _) => None,
            (_, _) if is_of_books => {
                Some("type: only the ledger itself writes corrections, invoices and top-ups")
            }
            (Origin::Backfill(_), Body::Call(_) | Body::Generation(_)) | (Origin::Filter, _) => {
                None
            }
            (Origin::Backfill(_), _) => {
                Some("type: only calls and generations can be brought in later")
            }
        }
    }
}

impl Ledger {
    /// Stores the valid events of one POST body, all or none, each (source, id) once.
    /// When this returns, the accepted events are in the ledger. It posts to no webhook.
    ///
    /// # Errors
    ///
    /// If the whole POST is refused; single events are refused in the [`Receipt`].
    pub fn insert_batch(&self, body: &[u8], content_type: &str) -> Result<Receipt, IngestError> {
        self.take_batch(body, content_type, Intake::OPERATOR).map(|(receipt, _)| receipt)
    }

    /// The same, as `intake` says; in the same transaction it queues changes of level for webhooks.
    /// Also returns how many rows it queued.
    pub(crate) fn take_batch(
        &self,
        body: &[u8],
        content_type: &str,
        intake: Intake<'_>,
    ) -> Result<(Receipt, usize), IngestError> {
        // What needs no ledger is done before the writer is taken, and after.
        let mut events: Vec<_> =
            event::split(body, content_type)?.into_iter().map(event::read).collect();
        let total = events.len();
        let stored = self.write_batch(total, |ledger| -> sql::Result<_> {
            let mut batch = Batch::new(ledger, intake, self.now_ms());
            batch.settled = Some(&self.0.settled);
            let admitted = batch.admit(&mut events)?;
            // The events wait until the operator has mended the secrets; one by one they would be
            // refused for good.
            if total > 0 && batch.foreign == total {
                return Ok(None);
            }
            batch.take(&events, &admitted)?;
            batch.finish(total).map(Some)
        })?;
        let (receipt, outcomes, queued) = stored.ok_or(IngestError::Foreign)?;
        let mut tally = Tally::default();
        for (event, outcome) in events.iter().zip(&outcomes) {
            tally.take(event.as_ref().ok(), outcome);
        }
        lock(&self.0.tally).merge(tally);
        self.remember_balances(&receipt);
        Ok((receipt, queued))
    }
}

impl Ledger {
    /// Remembers what balances had come to that were read anew, so that the next time is short.
    fn remember_balances(&self, receipt: &Receipt) {
        let now_ms = self.now_ms();
        for account in receipt.verdicts.iter().filter_map(|totals| totals.unsettled.as_ref()) {
            let settled = &self.0.settled;
            let done =
                self.read_committed(|ledger| Ok(remember(ledger, settled, account, now_ms)?));
            if let Err(error) = done {
                tracing::warn!("a balance is not remembered: {error:#}");
            }
        }
    }
}

/// An event that the ledger writes itself.
#[derive(Debug)]
pub(crate) struct Own {
    /// Such as `correction`.
    pub(crate) event_type: &'static str,
    /// Milliseconds since 1970, UTC.
    pub(crate) time_ms: i64,
    pub(crate) subject: String,
    pub(crate) data: Map<String, Value>,
}

/// Stores events of the ledger's own. They have a source like that of a filter, so that what shows
/// that no event was changed or is missing holds for them too.
pub(crate) fn take_own(ledger: &Transaction<'_>, now_ms: i64, own: Vec<Own>) -> sql::Result<()> {
    let sql = "SELECT last FROM sources WHERE source = ?";
    let last: Option<i64> =
        ledger.prepare_cached(sql)?.query_optional(values![event::BOOKS], |row| row.get(0))?;
    let texts = own.into_iter().zip(last.unwrap_or(0) + 1..).map(|(own, sequence)| {
        let Own { event_type, time_ms, subject, mut data } = own;
        data.insert("event_type".to_owned(), event_type.into());
        let event = json!({
            "specversion": "1.0",
            "id": format!("{sequence:020}"),
            "sequence": format!("{sequence:020}"),
            "source": event::BOOKS,
            "type": format!("agent-meter.{event_type}"),
            "time": query::rfc3339(time_ms),
            "subject": subject,
            "datacontenttype": "application/json",
            "data": data,
        });
        let text = serde_json::value::to_raw_value(&event);
        text.map_err(|error| sql::Error::Column(error.to_string()))
    });
    let texts = texts.collect::<sql::Result<Vec<_>>>()?;
    let events: Vec<_> = texts.iter().map(|text| event::read_stored(text)).collect();
    if let Some(Err((_, reason))) = events.iter().find(|event| event.is_err()) {
        return Err(sql::Error::Column(reason.clone()));
    }
    take_more(ledger, now_ms, Intake::BOOKS, events).map(drop)
}

/// Takes events within a transaction that does more.
pub(crate) fn take_more(
    ledger: &Transaction<'_>,
    now_ms: i64,
    intake: Intake<'_>,
    mut events: Vec<Result<Event<'_>, (String, String)>>,
) -> sql::Result<Receipt> {
    let mut batch = Batch::new(ledger, intake, now_ms);
    let admitted = batch.admit(&mut events)?;
    batch.take(&events, &admitted)?;
    let (receipt, ..) = batch.finish(events.len())?;
    Ok(receipt)
}

/// A batch on its way into the ledger.
struct Batch<'a> {
    ledger: &'a Transaction<'a>,
    intake: Intake<'a>,
    /// Milliseconds since 1970, UTC.
    received_ms: i64,
    /// The same, RFC 3339.
    received_at: String,
    receipt: Receipt,
    /// What became of each event, by its place.
    outcomes: BTreeMap<usize, Outcome>,
    sources: Sources,
    /// Events of sources that are another writer's.
    foreign: usize,
    /// One for each scope that the batch is about.
    queries: BTreeMap<(String, String, String, i64), TotalsQuery>,
    /// Rows for webhooks.
    queued: usize,
    /// What is remembered of balances.
    settled: Option<&'a Settled>,
}

/// The events of a batch, or of each why it is none.
type Events<'a> = [Result<Event<'a>, (String, String)>];

impl<'a> Batch<'a> {
    fn new(ledger: &'a Transaction<'a>, intake: Intake<'a>, received_ms: i64) -> Self {
        Batch {
            ledger,
            intake,
            received_ms,
            received_at: query::rfc3339(received_ms),
            receipt: Receipt::default(),
            outcomes: BTreeMap::new(),
            sources: Sources::default(),
            foreign: 0,
            queries: BTreeMap::new(),
            queued: 0,
            settled: None,
        }
    }

    /// Rejects what is no event, or another writer's, and returns the places of the others.
    fn admit(&mut self, events: &mut Events<'_>) -> sql::Result<Vec<usize>> {
        let mut admitted = Vec::with_capacity(events.len());
        for (index, event) in events.iter_mut().enumerate() {
            match event {
                Err((id, reason)) => self.reject(index, id, reason),
                Ok(event) if let Some(reason) = self.intake.refuses(event) => {
                    self.reject(index, &event.id, reason);
                }
                Ok(event) if self.sources.allow(self.ledger, self.intake.writer, event)? => {
                    if event.beyond.is_none() {
                        event.beyond = self.implausible_time(event);
                    }
                    admitted.push(index);
                }
                Ok(event) => {
                    self.foreign += 1;
                    self.reject(index, &event.id, &IngestError::Foreign.to_string());
                }
            }
        }
        Ok(admitted)
    }

    /// Stores what is new of the admitted events, and what is derived from it.
    fn take(&mut self, events: &Events<'_>, admitted: &[usize]) -> sql::Result<()> {
        let admitted: Vec<(usize, &Event<'_>)> = admitted
            .iter()
            .filter_map(|index| Some((*index, events.get(*index)?.as_ref().ok()?)))
            .collect();
        let arrivals = admitted.iter().map(|(_, event)| Arrival {
            received_at: self.received_at.clone(),
            digest: of_event(event, &self.received_at),
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let rows = admitted.iter().zip(&arrivals);
        let rows = rows.map(|((_, event), body)| Row { position: None, event, body });
        let rows: Vec<Row<'_, Arrival>> = rows.collect();
        let positions = EVENTS.insert_new(self.ledger, &rows)?;
        let known = admitted.iter().zip(&positions).filter(|(_, position)| position.is_none());
        let known = Known::read(self.ledger, known.map(|((_, event), _)| *event))?;
        let mut plausible = Vec::with_capacity(admitted.len());
        for (((index, event), position), arrival) in
            admitted.into_iter().zip(positions).zip(&arrivals)
        {
            match position {
                Some(position) => {
                    self.receipt.accepted += 1;
                    self.sources.note(event, &arrival.digest);
                    if let Some(beyond) = &event.beyond {
                        let (writer, at) = (self.intake.writer.name(), self.received_ms);
                        quarantine::hold(self.ledger, event, position, beyond, writer, at)?;
                        self.outcomes.insert(index, Outcome::Quarantined);
                        continue;
                    }
                    self.queue(event, position)?;
                    self.note_scope(event);
                    plausible.push((index, event, position));
                }
                None if known.is_same(self.ledger, event)? => {
                    self.receipt.duplicates += 1;
                    self.outcomes.insert(index, Outcome::Duplicate);
                    if event.beyond.is_none() {
                        self.note_scope(event);
                    }
                }
                None => {
                    let reason = "id: this source and id are in the ledger with different \
                                  content, which was kept";
                    self.reject(index, &event.id, reason);
                }
            }
        }
        let stored: Vec<_> =
            plausible.iter().map(|(_, event, position)| (*event, *position)).collect();
        if let Origin::Backfill(correction_id) = self.intake.origin {
            for (_, position) in &stored {
                self.ledger.execute(
                    "INSERT INTO backfilled (position, correction_id) VALUES (?, ?)",
                    values![*position, correction_id],
                )?;
            }
        }
        let superseded = derive(self.ledger, &stored)?;
        let corrections: Vec<_> = stored
            .iter()
            .filter_map(|(event, position)| match &event.body {
                Body::Correction(correction) => Some((*event, &**correction, *position)),
                _ => None,
            })
            .collect();
        if !corrections.is_empty() {
            corrections::store(self.ledger, &corrections)?;
        }
        let invoices: Vec<_> = stored
            .iter()
            .filter_map(|(event, position)| match &event.body {
                Body::Billed(billed) => Some((*event, &**billed, *position)),
                _ => None,
            })
            .collect();
        invoices::store(self.ledger, &invoices)?;
        let top_ups: Vec<_> = stored
            .iter()
            .filter_map(|(event, position)| match &event.body {
                Body::TopUp(top_up) => Some((*event, &**top_up, *position)),
                _ => None,
            })
            .collect();
        top_ups::store(self.ledger, &top_ups)?;
        for ((index, ..), superseded) in plausible.iter().zip(superseded) {
            self.outcomes.insert(*index, Outcome::Accepted { superseded });
        }
        Ok(())
    }

    /// Why the event cannot have happened when it says.
    fn implausible_time(&self, event: &Event<'_>) -> Option<Beyond> {
        let ended = match &event.body {
            Body::Session(change) => change.closing.as_ref(),
            _ => None,
        };
        let times = [
            Some(("time", event.time_ms, event.time.as_str())),
            ended.map(|ended| ("data.session_ended_at", ended.ended_ms, ended.ended_at.as_str())),
        ];
        let now_ms = self.received_ms;
        times.into_iter().flatten().find_map(|(member, time_ms, text)| {
            // Of an event that may be older, only the future is not plausible.
            let at_ms = if self.intake.allows_older { time_ms.max(now_ms) } else { time_ms };
            of_time(member, at_ms, text, now_ms)
        })
    }

    fn reject(&mut self, index: usize, id: &str, reason: &str) {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        self.receipt.rejected.push(Rejected { index, id, reason });
        self.outcomes.insert(index, Outcome::Rejected);
    }

    fn queue(&mut self, event: &Event<'_>, position: i64) -> sql::Result<()> {
        if let Body::LevelChange(change) = &event.body {
            let receivers = self.intake.webhooks.iter().filter(|name| change.is_for(name));
            // By the clock that the tasks go by that post it.
            let now_ms = chrono::Utc::now().timestamp_millis();
            self.queued += outgoing::queue(self.ledger, position, receivers, now_ms)?;
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

    /// Of each of `total` events says what became of it.
    fn finish(mut self, total: usize) -> sql::Result<(Receipt, Vec<Outcome>, usize)> {
        let Intake { writer, recovers, .. } = self.intake;
        self.sources.store(self.ledger, writer, self.received_ms, recovers)?;
        for query in self.queries.into_values() {
            let (proven_only, now_ms) = (self.intake.proven_only, self.received_ms);
            let totals = query.run(self.ledger, proven_only, self.settled, now_ms)?;
            self.receipt.verdicts.push(totals);
        }
        self.receipt.rejected.sort_by_key(|rejected| rejected.index);
        let mut outcome = |index| self.outcomes.remove(&index).unwrap_or(Outcome::Rejected);
        let outcomes = (0..total).map(&mut outcome).collect();
        Ok((self.receipt, outcomes, self.queued))
    }
}

/// Events that the ledger has: the type and the text of each.
struct Known(HashMap<(String, String), (String, String)>);

impl Known {
    fn read<'e>(
        ledger: &Transaction<'_>,
        events: impl Iterator<Item = &'e Event<'e>>,
    ) -> sql::Result<Known> {
        let mut ids: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in events {
            ids.entry(&event.source).or_default().push(&event.id);
        }
        let mut known = HashMap::new();
        for (source, ids) in ids {
            for (sql, values) in of_ids(source, &ids, |list| {
                format!("SELECT id, type, raw FROM events WHERE source = ?1 AND id IN {list}")
            }) {
                ledger.prepare_cached(&sql)?.query_map(&values, |row| {
                    let key = (source.to_owned(), row.get(0)?);
                    known.insert(key, (row.get(1)?, row.get(2)?));
                    Ok(())
                })?;
            }
        }
        Ok(Known(known))
    }

    /// True if the ledger has the event with this content.
    fn is_same(&self, ledger: &Transaction<'_>, event: &Event<'_>) -> sql::Result<bool> {
        let key = (event.source.clone(), event.id.clone());
        let Some((event_type, stored)) = self.0.get(&key) else { return Ok(false) };
        Ok(match stored.as_str() {
            "" => match quarantine::text_of(ledger, &event.source, &event.id)? {
                Some(held) => same_content(&held, event.raw),
                None => *event_type == event.event_type,
            },
            stored => stored == event.raw || same_content(stored, event.raw),
        })
    }
}

/// True if two texts differ only in space and the order of members, as after a proxy or a log has
/// written the event again.
fn same_content(stored: &str, raw: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).ok();
    read(stored).is_some_and(|stored| read(raw) == Some(stored))
}

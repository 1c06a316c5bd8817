//! Keeps what is known of each source: whose it is, how many of its events came, and whether it
//! lives. One row for each source, written once for each batch.
//!
//! To the next maintainer. Events come in any order and more than once, so of the heartbeats the one
//! with the highest sequence counts. `received` and `last` make the number of missing events
//! without a look at the events themselves.

use std::collections::BTreeMap;

use crate::access::Writer;
use crate::event::heartbeat::Heartbeat;
use crate::event::{Body, Event};
use crate::ledger::digest::chained;
use crate::sql::{self, Transaction, values};

/// `writer` is the name of the secret that its first events came with, NULL if there was none;
/// `heard_ms` is when the last new event came, by the collector's clock. What follows is from the
/// heartbeat with the highest sequence, which is `heartbeat`, 0 if there was none. `chain` is that of
/// all its events that have a digest (`digest.rs`).
pub(super) const SCHEMA: &str = "
CREATE TABLE sources (
    source        TEXT PRIMARY KEY,
    writer        TEXT,
    received      INTEGER NOT NULL,
    first         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    heard_ms      INTEGER NOT NULL,
    heartbeat     INTEGER NOT NULL DEFAULT 0,
    sequence_max  INTEGER NOT NULL DEFAULT 0,
    interval_ms   INTEGER NOT NULL DEFAULT 0,
    is_last       INTEGER NOT NULL DEFAULT 0,
    open_sessions INTEGER,
    events        INTEGER,
    calls         INTEGER,
    provider_cost TEXT,
    revenue       TEXT,
    chain         TEXT
) STRICT, WITHOUT ROWID;
";

/// The rows of a ledger that had no such table.
pub(super) const FILL: &str = "
INSERT INTO sources (source, received, first, last, heard_ms)
 SELECT source, count(*), min(sequence), max(sequence),
  coalesce(CAST(round((julianday(max(received_at)) - 2440587.5) * 86400000) AS INTEGER), 0)
 FROM events GROUP BY source;
";

/// The sources of a batch, and what it tells of each.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<String, News>);

#[derive(Debug)]
struct News {
    /// The writer of its first events.
    owner: Option<String>,
    is_new: bool,
    received: i64,
    first: i64,
    last: i64,
    heartbeat: Option<(i64, Heartbeat)>,
    chain: String,
}

impl Sources {
    /// Whether the writer may write for the source of an event.
    pub(super) fn allow(
        &mut self,
        ledger: &Transaction<'_>,
        writer: &Writer,
        event: &Event<'_>,
    ) -> sql::Result<bool> {
        if !self.0.contains_key(&event.source) {
            let known: Option<(Option<String>, Option<String>)> = ledger
                .prepare_cached("SELECT writer, chain FROM sources WHERE source = ?")?
                .query_optional(values![&event.source], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let is_new = known.is_none();
            let (owner, chain) = known.unwrap_or_default();
            let news = News {
                is_new,
                owner,
                chain: chain.unwrap_or_default(),
                received: 0,
                first: i64::MAX,
                last: 0,
                heartbeat: None,
            };
            self.0.insert(event.source.clone(), news);
        }
        let owner = self.0.get(&event.source).and_then(|news| news.owner.as_deref());
        Ok(writer.may_write_for(owner))
    }

    /// Takes note of an event that the ledger just stored with this digest.
    pub(super) fn note(&mut self, event: &Event<'_>, digest: &str) {
        let Some(news) = self.0.get_mut(&event.source) else { return };
        news.received += 1;
        news.chain = chained(&news.chain, digest);
        news.first = news.first.min(event.sequence);
        news.last = news.last.max(event.sequence);
        if let (Body::Heartbeat(told), None) = (&event.body, &event.beyond) {
            let is_newer = |known: &(i64, Heartbeat)| known.0 < event.sequence;
            if news.heartbeat.as_ref().is_none_or(is_newer) {
                news.heartbeat = Some((event.sequence, (**told).clone()));
            }
        }
    }

    /// Writes down what the batch told. A source is bound to the first writer with a name, and the
    /// sessions of one that was taken for lost are open again, unless the events come from a log and
    /// so do not mean that it lives.
    pub(super) fn store(
        self,
        ledger: &Transaction<'_>,
        writer: &Writer,
        now_ms: i64,
        recovers: bool,
    ) -> sql::Result<()> {
        for (source, news) in self.0 {
            if news.received == 0 {
                continue;
            }
            ledger
                .prepare_cached(
                    "INSERT INTO sources (source, writer, received, first, last, heard_ms, chain)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (source) DO UPDATE SET
                      writer = coalesce(sources.writer, excluded.writer),
                      received = sources.received + excluded.received,
                      first = least(sources.first, excluded.first),
                      last = greatest(sources.last, excluded.last),
                      heard_ms = greatest(sources.heard_ms, excluded.heard_ms),
                      chain = excluded.chain",
                )?
                .execute(values![
                    &source,
                    writer.name(),
                    news.received,
                    news.first,
                    news.last,
                    if recovers && !news.is_new { 0 } else { now_ms },
                    &news.chain,
                ])?;
            if let Some((sequence, told)) = news.heartbeat {
                store_heartbeat(ledger, &source, sequence, &told)?;
            }
            if !recovers && !news.is_new {
                reopen(ledger, &source)?;
            }
        }
        Ok(())
    }
}

fn store_heartbeat(
    ledger: &Transaction<'_>,
    source: &str,
    sequence: i64,
    told: &Heartbeat,
) -> sql::Result<()> {
    ledger
        .prepare_cached(
            "UPDATE sources SET heartbeat = ?2, sequence_max = ?3, interval_ms = ?4, is_last = ?5,
              open_sessions = ?6, events = ?7, calls = ?8, provider_cost = ?9, revenue = ?10
             WHERE source = ?1 AND heartbeat < ?2",
        )?
        .execute(values![
            source,
            sequence,
            told.sequence_max,
            told.interval_ms,
            told.is_last,
            told.open_sessions,
            told.events,
            told.calls,
            &told.provider_cost,
            &told.revenue,
        ])?;
    Ok(())
}

/// Opens the sessions of a source again that were closed because it was taken for lost.
fn reopen(ledger: &Transaction<'_>, source: &str) -> sql::Result<()> {
    ledger
        .prepare_cached(
            "UPDATE sessions SET state = state_before, state_before = NULL, close_reason = NULL,
              ended_at = NULL, ended_ms = NULL, currency = NULL
             WHERE source = ? AND state_before IS NOT NULL",
        )?
        .execute(values![source])?;
    Ok(())
}

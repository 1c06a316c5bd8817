//! What has been handed over to each sink: how far it has come, and which events were set aside.
//! The room `handover` sends them. All SQL of sinks is here.
//!
//! To the next maintainer. A sink takes events in the order of their position, so a position must
//! not become visible after a larger one: one collector writes at a time, in PostgreSQL too. An event that is kept apart when a sink comes by is noted as `held`,
//! and handed over once it is released, because its position lies behind the sink by then.

use crate::sql::{self, Transaction, Value, values};

/// `position` of a sink is that of the last event that it needs no more, `started` where it began.
/// Events up to `tried_to` may have reached the receiver since `tried_ms`.
///
/// The state of an event is `held`, or why it was set aside, or `again` when it is to be sent once
/// more.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sinks (
    sink     TEXT PRIMARY KEY,
    started  BIGINT NOT NULL,
    position BIGINT NOT NULL,
    tried_to BIGINT,
    tried_ms BIGINT,
    handed   BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    unnamed  BIGINT NOT NULL,
    error    TEXT
);
CREATE TABLE IF NOT EXISTS sink_events (
    sink     TEXT NOT NULL,
    position BIGINT NOT NULL,
    state    TEXT NOT NULL,
    detail   TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (sink, position)
);
CREATE INDEX IF NOT EXISTS sink_events_state ON sink_events (sink, state, position);
";

/// The most events that are read at once, and after how many bytes of text no further one is read.
const PAGE_EVENTS_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The state of an event that is kept apart in the ledger.
const HELD: &str = "held";
/// The state of an event that is to be sent once more.
const AGAIN: &str = "again";

/// Up to which position events may have reached the receiver, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) to: i64,
    /// Milliseconds since 1970.
    pub(crate) since_ms: i64,
}

/// How far a sink has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) started: i64,
    pub(crate) position: i64,
    pub(crate) mark: Option<Mark>,
}

/// One stored event.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) position: i64,
    pub(crate) raw: String,
    /// The `sequence` of the event that supersedes it, if one does.
    pub(crate) superseded_by: Option<i64>,
    /// Whether it was released after the sink had come by.
    pub(crate) is_late: bool,
}

/// Stored events in their order.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) events: Vec<Stored>,
    /// The positions of those that are kept apart.
    pub(crate) held: Vec<i64>,
    /// Where the next page begins; the events between have no text.
    pub(crate) end: i64,
}

/// An event that a sink does not take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetAside {
    pub(crate) position: i64,
    /// The reason, one of a closed list.
    pub(crate) state: &'static str,
    pub(crate) detail: String,
}

/// What a step of a sink has come to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The position that the sink has come to.
    pub(crate) position: i64,
    pub(crate) mark: Option<Mark>,
    /// Events that the receiver took.
    pub(crate) handed: usize,
    /// Events that the receiver refused without naming them.
    pub(crate) unnamed: u64,
    /// Tries that failed.
    pub(crate) failures: u32,
    /// Why the last try failed; `None` if it did not.
    pub(crate) error: Option<String>,
    pub(crate) set_aside: Vec<SetAside>,
    pub(crate) held: Vec<i64>,
    /// Events that are no longer set aside.
    pub(crate) cleared: Vec<i64>,
}

/// A sink as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SinkState {
    /// Its name.
    pub sink: String,
    /// The position of the last event that it needs no more.
    pub position: i64,
    /// Events that its receiver took, since the ledger was made.
    pub handed: u64,
    /// Tries that failed, since the ledger was made.
    pub failures: u64,
    /// Events that its receiver refused without saying which ones.
    pub unnamed: u64,
    /// Why its last try failed; `None` if it did not.
    pub error: Option<String>,
    /// Positions behind which it is.
    pub lag_events: u64,
    /// When the oldest event came that it has still to take: RFC 3339.
    pub waiting_since: Option<String>,
    /// How many events are set aside, by reason.
    pub set_aside: Vec<(String, u64)>,
}

/// An event that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SetAsideEvent {
    /// The sink.
    pub sink: String,
    /// Its position in the ledger.
    pub position: i64,
    /// Which Envoy process sent it, and its number there.
    pub source: String,
    /// Unique with the source.
    pub id: String,
    /// The reason; `again` if it is to be sent once more.
    pub state: String,
    /// What the receiver, or this program, said.
    pub detail: String,
}

/// How far a sink has come. One that the ledger does not know begins with the next event, or with
/// the first.
pub(crate) fn open(
    ledger: &Transaction<'_>,
    sink: &str,
    from_first: bool,
) -> anyhow::Result<Progress> {
    let last: Option<i64> = ledger
        .prepare_cached("SELECT max(position) FROM events")?
        .query_row(&[], |row| row.get(0))?;
    let started = if from_first { 0 } else { last.unwrap_or(0) };
    ledger
        .prepare_cached(
            "INSERT INTO sinks (sink, started, position, handed, failures, unnamed)
             VALUES (?1, ?2, ?2, 0, 0, 0) ON CONFLICT (sink) DO NOTHING",
        )?
        .execute(values![sink, started])?;
    let mut statement = ledger
        .prepare_cached("SELECT started, position, tried_to, tried_ms FROM sinks WHERE sink = ?")?;
    let progress = statement.query_row(values![sink], |row| {
        let (to, since_ms): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        let mark = to.zip(since_ms).map(|(to, since_ms)| Mark { to, since_ms });
        Ok(Progress { started: row.get(0)?, position: row.get(1)?, mark })
    })?;
    Ok(progress)
}

const COLUMNS: &str = "events.position, events.raw, quarantine.position, superseded.superseded_by
     FROM events LEFT JOIN quarantine ON quarantine.position = events.position
     LEFT JOIN superseded ON superseded.position = events.position";

/// The events behind a position.
pub(crate) fn page(ledger: &Transaction<'_>, after: i64) -> anyhow::Result<Page> {
    let sql = format!(
        "SELECT {COLUMNS} WHERE events.position > ? ORDER BY events.position
         LIMIT {PAGE_EVENTS_MAX}"
    );
    let mut page = Page { end: after, ..Page::default() };
    read(ledger, &sql, values![after], false, &mut page)?;
    Ok(page)
}

/// The events that a sink is to be sent although it has come by: set aside and wanted again, or
/// released since.
pub(crate) fn again(ledger: &Transaction<'_>, sink: &str) -> anyhow::Result<Page> {
    let mut page = Page::default();
    let from = |state: &str, more: &str| {
        format!(
            "SELECT {COLUMNS}
             JOIN sink_events ON sink_events.position = events.position
             WHERE sink_events.sink = ?1 AND sink_events.state = '{state}' {more}
             ORDER BY events.position LIMIT {PAGE_EVENTS_MAX}"
        )
    };
    read(ledger, &from(AGAIN, ""), values![sink], false, &mut page)?;
    if page.events.is_empty() {
        let released = "AND quarantine.state = 'released'";
        read(ledger, &from(HELD, released), values![sink], true, &mut page)?;
    }
    Ok(page)
}

fn read(
    ledger: &Transaction<'_>,
    sql: &str,
    values: &[Value<'_>],
    is_late: bool,
    page: &mut Page,
) -> anyhow::Result<()> {
    let mut statement = ledger.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut bytes = 0;
    while bytes < PAGE_BYTES_MAX
        && let Some(row) = &rows.next_row()?
    {
        let (position, raw): (i64, String) = (row.get(0)?, row.get(1)?);
        let kept_apart: Option<i64> = row.get(2)?;
        page.end = position;
        if !raw.is_empty() {
            bytes += raw.len();
            let superseded_by = row.get(3)?;
            page.events.push(Stored { position, raw, superseded_by, is_late });
        } else if kept_apart.is_some() {
            page.held.push(position);
        }
    }
    Ok(())
}

/// The position of an event.
pub(crate) fn position_of(
    ledger: &Transaction<'_>,
    source: &str,
    sequence: i64,
) -> anyhow::Result<Option<i64>> {
    let mut statement = ledger.prepare_cached(
        "SELECT position FROM events WHERE source = ? AND sequence = ? AND id = ?",
    )?;
    let id = format!("{sequence:020}");
    Ok(statement.query_optional(values![source, sequence, id], |row| row.get(0))?)
}

/// The events that one event of a session supersedes, with a position between two.
pub(crate) fn superseded_by(
    ledger: &Transaction<'_>,
    session_id: &str,
    source: &str,
    sequence: i64,
    (after, before): (i64, i64),
) -> anyhow::Result<Vec<Stored>> {
    let mut statement = ledger.prepare_cached(
        "SELECT events.position, events.raw FROM superseded
         JOIN events ON events.position = superseded.position
         WHERE superseded.session_id = ?1 AND superseded.source = ?2
          AND superseded.superseded_by = ?3
          AND superseded.position > ?4 AND superseded.position < ?5
         ORDER BY superseded.position",
    )?;
    let values = values![session_id, source, sequence, after, before];
    let rows = statement.query_map(values, |row| {
        let (position, raw) = (row.get(0)?, row.get(1)?);
        Ok(Stored { position, raw, superseded_by: Some(sequence), is_late: false })
    })?;
    Ok(rows)
}

/// Writes down what a step has come to.
pub(crate) fn settle(
    ledger: &Transaction<'_>,
    sink: &str,
    settled: &Settled,
    now_ms: i64,
) -> anyhow::Result<()> {
    let (handed, unnamed) = (count(settled.handed), settled.unnamed.cast_signed());
    let (to, since_ms) = (settled.mark.map(|m| m.to), settled.mark.map(|m| m.since_ms));
    ledger
        .prepare_cached(
            "UPDATE sinks SET position = ?2, tried_to = ?3, tried_ms = ?4,
              handed = handed + ?5, failures = failures + ?6, unnamed = unnamed + ?7,
              error = ?8 WHERE sink = ?1",
        )?
        .execute(values![
            sink,
            settled.position,
            to,
            since_ms,
            handed,
            i64::from(settled.failures),
            unnamed,
            settled.error.as_deref(),
        ])?;
    for position in &settled.cleared {
        ledger
            .prepare_cached("DELETE FROM sink_events WHERE sink = ? AND position = ?")?
            .execute(values![sink, *position])?;
    }
    for position in &settled.held {
        note(ledger, sink, *position, (HELD, ""), now_ms)?;
    }
    for event in &settled.set_aside {
        note(ledger, sink, event.position, (event.state, &event.detail), now_ms)?;
    }
    Ok(())
}

fn note(
    ledger: &Transaction<'_>,
    sink: &str,
    position: i64,
    (state, detail): (&str, &str),
    now_ms: i64,
) -> sql::Result<usize> {
    ledger
        .prepare_cached(
            "INSERT INTO sink_events (sink, position, state, detail, since_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (sink, position) DO UPDATE
             SET state = excluded.state, detail = excluded.detail, since_ms = excluded.since_ms",
        )?
        .execute(values![sink, position, state, detail, now_ms])
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The sinks that the ledger knows, also those that are no longer configured.
pub(crate) fn sinks(ledger: &Transaction<'_>) -> anyhow::Result<Vec<SinkState>> {
    let mut statement = ledger.prepare_cached(
        "SELECT sink, position, handed, failures, unnamed, error,
              (SELECT max(position) FROM events),
              (SELECT received_at FROM events WHERE events.position > sinks.position
               ORDER BY events.position LIMIT 1)
             FROM sinks ORDER BY sink",
    )?;
    let rows = statement.query_map(&[], |row| {
        let (position, last): (i64, Option<i64>) = (row.get(1)?, row.get(6)?);
        Ok(SinkState {
            sink: row.get(0)?,
            position,
            handed: row.get::<_, i64>(2)?.unsigned_abs(),
            failures: row.get::<_, i64>(3)?.unsigned_abs(),
            unnamed: row.get::<_, i64>(4)?.unsigned_abs(),
            error: row.get(5)?,
            lag_events: last.map_or(0, |last| (last - position).max(0).unsigned_abs()),
            waiting_since: row.get(7)?,
            set_aside: Vec::new(),
        })
    })?;
    let mut sinks = rows;
    let mut statement = ledger.prepare_cached(
        "SELECT state, count(*) FROM sink_events WHERE sink = ? AND state <> 'held'
             GROUP BY state ORDER BY state",
    )?;
    for sink in &mut sinks {
        let rows = statement.query_map(values![&sink.sink], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        sink.set_aside = rows;
    }
    Ok(sinks)
}

/// The events that sinks set aside, with a position behind `after`, at most `limit`.
pub(crate) fn set_aside(
    ledger: &Transaction<'_>,
    sink: &str,
    after: i64,
    limit: u32,
) -> anyhow::Result<Vec<SetAsideEvent>> {
    let mut statement = ledger.prepare_cached(
        "SELECT sink_events.position, source, id, state, detail
             FROM sink_events JOIN events ON events.position = sink_events.position
             WHERE sink = ?1 AND state <> 'held' AND sink_events.position > ?2
             ORDER BY sink_events.position LIMIT ?3",
    )?;
    let rows = statement.query_map(values![sink, after, i64::from(limit)], |row| {
        Ok(SetAsideEvent {
            sink: sink.to_owned(),
            position: row.get(0)?,
            source: row.get(1)?,
            id: row.get(2)?,
            state: row.get(3)?,
            detail: row.get(4)?,
        })
    })?;
    Ok(rows)
}

/// Has a sink send an event again that it set aside; `None` stands for all of them. Returns how
/// many there are.
pub(crate) fn send_again(
    ledger: &Transaction<'_>,
    sink: &str,
    position: Option<i64>,
) -> anyhow::Result<usize> {
    let mut statement = ledger.prepare_cached(
        "UPDATE sink_events SET state = 'again'
             WHERE sink = ?1 AND state <> 'held' AND (CAST(?2 AS BIGINT) IS NULL OR position = ?2)",
    )?;
    Ok(statement.execute(values![sink, position])?)
}

//! The stored events, byte for byte as they came.

use anyhow::anyhow;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{self, Event};
use crate::ledger::Ledger;
use crate::query::{BadQuery, Conditions, Page, Parameters};
use crate::sql::{Value, values};

impl Ledger {
    /// How many events are stored, of known and unknown types.
    pub fn count_events(&self) -> anyhow::Result<u64> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached("SELECT count(*) FROM events")?;
            let count: i64 = statement.query_row(&[], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// Stored events, byte for byte as they came, in the order they were stored; without
    /// `guard_totals`, whose text the ledger does not keep.
    pub fn events(&self, query: &EventsQuery) -> anyhow::Result<EventsPage> {
        let mut conditions = Conditions::default();
        conditions.and("raw <> ?", String::new());
        conditions.and_equal("source", query.source.as_deref());
        conditions.and_equal("type", query.event_type.as_deref());
        conditions.and_equal("session_id", query.session_id.as_deref());
        if let Some(after) = query.page.after {
            conditions.and("position > ?", after);
        }
        let sql = format!(
            "SELECT position, raw FROM events{} ORDER BY position LIMIT {}",
            conditions.sql(),
            query.page.limit + 1
        );
        let (events, next) = self.page_of_events(&sql, &conditions.values, query.page)?;
        Ok(EventsPage { events, next })
    }

    /// The position of the newest event; 0 without any. It changes whenever an event is stored.
    pub(crate) fn newest_position(&self) -> anyhow::Result<i64> {
        self.read(|ledger| {
            let sql = "SELECT coalesce(max(position), 0) FROM events";
            Ok(ledger.prepare_cached(sql)?.query_row(&[], |row| row.get(0))?)
        })
    }

    /// One event by its source and id.
    pub(crate) fn stored_event(
        &self,
        source: &str,
        id: &str,
    ) -> anyhow::Result<Option<StoredEvent>> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(
                "SELECT type, time, received_at, session_id, events.raw, quarantine.raw, state,
                  detail
                 FROM events LEFT JOIN quarantine USING (position) WHERE source = ? AND id = ?",
            )?;
            Ok(statement.query_optional(values![source, id], |row| {
                let (raw, apart): (String, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok(StoredEvent {
                    event_type: row.get(0)?,
                    time: row.get(1)?,
                    received_at: row.get(2)?,
                    session_id: row.get(3)?,
                    raw: if raw.is_empty() { apart.unwrap_or_default() } else { raw },
                    kept_apart: row.get::<_, Option<String>>(6)?.zip(row.get(7)?),
                })
            })?)
        })
    }

    /// Runs a query for `position` and `raw` that reads one row more than fits the page.
    pub(crate) fn page_of_events(
        &self,
        sql: &str,
        values: &[Value<'_>],
        page: Page,
    ) -> anyhow::Result<(Vec<Box<RawValue>>, Option<String>)> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(sql)?;
            let mut rows: Vec<(i64, String)> =
                statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
            let next = page.cut(&mut rows);
            let events = rows.into_iter().map(|(_, raw)| RawValue::from_string(raw));
            Ok((events.collect::<Result<_, _>>()?, next))
        })
    }

    /// Reads the stored events of all pages from the query's on, and passes each to `each`. It has
    /// no lock while `each` runs, so `each` may query the ledger too, and later pages include new
    /// events.
    ///
    /// # Errors
    ///
    /// If the ledger fails, if `each` does, or if a stored event of a known type is not valid,
    /// which is possible in a ledger of an older version.
    pub fn each_event(
        &self,
        mut query: EventsQuery,
        mut each: impl FnMut(&Event<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let page = self.events(&query)?;
            for raw in &page.events {
                let event = event::read_stored(raw);
                each(&event.map_err(|(id, reason)| anyhow!("stored event {id}: {reason}"))?)?;
            }
            let Some(next) = page.next else { return Ok(()) };
            query.page.after = Some(next.parse()?);
        }
    }
}

/// One event as it came.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) event_type: String,
    /// RFC 3339, as its source gave it.
    pub(crate) time: String,
    /// RFC 3339, UTC.
    pub(crate) received_at: String,
    pub(crate) session_id: Option<String>,
    /// Its text, byte for byte; empty for `guard_totals`, whose text the ledger does not keep.
    pub(crate) raw: String,
    /// Whether it is `held`, `released` or `discarded`, and why it was kept apart.
    pub(crate) kept_apart: Option<(String, String)>,
}

/// Which stored events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only of this source.
    pub source: Option<String>,
    /// Only of this CloudEvents type, such as `agent-meter.tool_invocation`.
    pub event_type: Option<String>,
    /// Only of this session.
    pub session_id: Option<String>,
    /// Which page.
    pub page: Page,
}

impl EventsQuery {
    /// Reads the parameters `source`, `type`, `session_id`, `after` and `limit`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<EventsQuery, BadQuery> {
        let known = ["source", "type", "session_id", "after", "limit"];
        let mut parameters = Parameters::new(pairs, &known)?;
        Ok(EventsQuery {
            source: parameters.take("source"),
            event_type: parameters.take("type"),
            session_id: parameters.take("session_id"),
            page: parameters.take_page()?,
        })
    }
}

/// One page of stored events.
#[derive(Debug, Serialize)]
pub struct EventsPage {
    /// Each event's own JSON text.
    pub events: Vec<Box<RawValue>>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

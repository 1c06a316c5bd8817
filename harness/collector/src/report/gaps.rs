//! Names every event that the ledger should have and has not, and every source that is silent.
//! It sees what is missing below the highest number of a source that came or that the source told;
//! of what the source gave later, nobody knows but by its silence.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::query::rfc3339;
use crate::sql::{self, Row, Transaction, values};

/// The most ranges listed for one source; `missing` counts them all. One wrong sequence must not
/// make the answer unbounded.
const RANGES_MAX: usize = 1000;
/// The most sources listed, those first of which something is missing or that are silent.
const SOURCES_MAX: usize = 1000;
/// The heartbeats that may fail to come before a source counts as silent.
const INTERVALS_MAX: i64 = 3;

/// What is missing from the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// The sources that sent an event, by name.
    pub sources: Vec<SourceGaps>,
    /// Events missing, of all sources.
    pub missing: u64,
    /// How many sources there are in each state, whether listed or not.
    pub states: States,
    /// True if there are more sources than are listed.
    pub more: bool,
}

/// The number of sources in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct States(BTreeMap<SourceState, u64>);

impl States {
    /// How many sources are in this state.
    pub fn count(&self, state: SourceState) -> u64 {
        self.0.get(&state).copied().unwrap_or(0)
    }
}

/// Whether a source lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceState {
    /// It told so lately.
    Alive,
    /// It told that it lives, and then nothing for longer than three intervals.
    Silent,
    /// It told that it ends.
    Ended,
    /// It never told.
    Unknown,
}

impl SourceState {
    /// All of them.
    pub const ALL: [SourceState; 4] =
        [SourceState::Alive, SourceState::Silent, SourceState::Ended, SourceState::Unknown];

    /// The name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            SourceState::Alive => "alive",
            SourceState::Silent => "silent",
            SourceState::Ended => "ended",
            SourceState::Unknown => "unknown",
        }
    }
}

impl Serialize for SourceState {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// What is missing from one source, whose sequence starts at 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceGaps {
    /// The source.
    pub source: String,
    /// Whether it lives.
    pub state: SourceState,
    /// RFC 3339, UTC: when its last new event came, by the collector's clock.
    pub last_event_at: String,
    /// The name of the secret that it writes with; `None` if it never showed one.
    pub writer: Option<String>,
    /// The lowest sequence stored.
    pub first: i64,
    /// The highest sequence stored.
    pub last: i64,
    /// Events stored.
    pub received: i64,
    /// Its sessions that are not closed, by the ledger.
    pub open_sessions: u64,
    /// What it told of itself last; `None` if it never did.
    pub told: Option<Told>,
    /// Events missing.
    pub missing_events: u64,
    /// The first 1000 ranges that are not stored, ascending.
    pub missing: Vec<Range>,
}

impl SourceGaps {
    /// Whether nothing is known to be missing, and it is not silent.
    pub(crate) fn is_well(&self) -> bool {
        self.missing_events == 0 && self.state != SourceState::Silent
    }
}

/// How the events of all sources come in.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// Events missing, of all sources.
    pub(crate) missing: u64,
    pub(crate) states: States,
    /// How many sources there are.
    pub(crate) all: usize,
    /// How many of them are silent, or have something missing.
    pub(crate) unwell: usize,
    /// As many as were asked for, without their ranges.
    pub(crate) sources: Vec<SourceGaps>,
}

/// The last heartbeat of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The highest sequence that it had given.
    pub sequence_max: i64,
    /// Its sessions that were not closed.
    pub open_sessions: u64,
    /// Events that it had made.
    pub events: u64,
    /// Calls that had ended.
    pub calls: u64,
    /// What the generations had cost, by currency.
    pub provider_cost: Value,
    /// What had been earned, by currency.
    pub revenue: Value,
}

/// Sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first missing.
    pub from: i64,
    /// The last missing.
    pub to: i64,
}

/// What the metrics tell of all sources.
#[derive(Debug, Default)]
pub(crate) struct Liveliness {
    /// How many sources are in each state.
    pub(crate) states: States,
    /// Milliseconds since the last event of any source in this state.
    pub(crate) silence_ms: BTreeMap<SourceState, i64>,
    /// Events missing, of all sources.
    pub(crate) missing: u64,
}

impl Ledger {
    /// Every number from 1 to the highest of each source that is not stored, and the state of each
    /// source.
    pub fn gaps(&self) -> anyhow::Result<Gaps> {
        let now_ms = self.now_ms();
        self.read(|ledger| {
            let mut sources = sources(ledger, now_ms)?;
            let mut gaps = Gaps { more: sources.len() > SOURCES_MAX, ..Gaps::default() };
            for source in &sources {
                gaps.missing = gaps.missing.saturating_add(source.missing_events);
                *gaps.states.0.entry(source.state).or_default() += 1;
            }
            if gaps.more {
                sources.sort_by_key(|source| {
                    (source.is_well(), Reverse(source.last_event_at.clone()))
                });
                sources.truncate(SOURCES_MAX);
                sources.sort_by(|left, right| left.source.cmp(&right.source));
            }
            for source in &mut sources {
                if source.missing_events > 0 {
                    source.missing = ranges(ledger, source)?;
                }
            }
            gaps.sources = sources;
            Ok(gaps)
        })
    }

    /// The same without the ranges, which take as long as a source has events: the first `keep`
    /// sources, those first of which something is missing or that are silent.
    pub(crate) fn delivery(&self, keep: usize) -> anyhow::Result<Delivery> {
        let now_ms = self.now_ms();
        self.read(|ledger| {
            let mut sources = sources(ledger, now_ms)?;
            let mut delivery = Delivery { all: sources.len(), ..Delivery::default() };
            for source in &sources {
                delivery.missing = delivery.missing.saturating_add(source.missing_events);
                *delivery.states.0.entry(source.state).or_default() += 1;
                delivery.unwell += usize::from(!source.is_well());
            }
            sources.sort_by(|left, right| {
                let order =
                    |source: &SourceGaps| (source.is_well(), Reverse(source.missing_events));
                order(left).cmp(&order(right)).then_with(|| left.source.cmp(&right.source))
            });
            sources.truncate(keep);
            delivery.sources = sources;
            Ok(delivery)
        })
    }

    /// The sums over all sources.
    pub(crate) fn liveliness(&self) -> anyhow::Result<Liveliness> {
        let now_ms = self.now_ms();
        self.read(|ledger| {
            let mut sums = Liveliness::default();
            let mut statement = ledger.prepare_cached(SOURCES)?;
            let mut rows = statement.query(&[])?;
            while let Some(row) = &rows.next_row()? {
                let (state, heard_ms) = (state(row, now_ms)?, row.get::<_, i64>("heard_ms")?);
                *sums.states.0.entry(state).or_default() += 1;
                let silence_ms = now_ms.saturating_sub(heard_ms).max(0);
                let least = sums.silence_ms.entry(state).or_insert(silence_ms);
                *least = silence_ms.min(*least);
                sums.missing = sums.missing.saturating_add(missing(row)?);
            }
            Ok(sums)
        })
    }
}

const SOURCES: &str = "SELECT * FROM sources ORDER BY source";

fn sources(ledger: &Transaction<'_>, now_ms: i64) -> anyhow::Result<Vec<SourceGaps>> {
    let mut statement = ledger.prepare_cached(
        "SELECT source, count(*) FROM sessions WHERE state IN ('CREATED', 'ACTIVE', 'IDLE')
         GROUP BY source",
    )?;
    let open = statement.query_map(&[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let open: BTreeMap<String, i64> = open.into_iter().collect();
    let mut statement = ledger.prepare_cached(SOURCES)?;
    let read = |row: &Row<'_>| {
        let source: String = row.get("source")?;
        Ok(SourceGaps {
            state: state(row, now_ms)?,
            last_event_at: rfc3339(row.get("heard_ms")?),
            writer: row.get("writer")?,
            first: row.get("first")?,
            last: row.get("last")?,
            received: row.get("received")?,
            open_sessions: open.get(&source).map_or(0, |count| count.unsigned_abs()),
            told: told(row)?,
            missing_events: missing(row)?,
            missing: Vec::new(),
            source,
        })
    };
    Ok(statement.query_map(&[], read)?)
}

fn state(row: &Row<'_>, now_ms: i64) -> sql::Result<SourceState> {
    let (heartbeat, last): (i64, i64) = (row.get("heartbeat")?, row.get("last")?);
    let (is_last, interval_ms): (bool, i64) = (row.get("is_last")?, row.get("interval_ms")?);
    let silence_ms = now_ms.saturating_sub(row.get("heard_ms")?);
    Ok(if heartbeat == 0 {
        SourceState::Unknown
    } else if is_last && last <= heartbeat {
        SourceState::Ended
    } else if silence_ms > interval_ms.saturating_mul(INTERVALS_MAX) {
        SourceState::Silent
    } else {
        SourceState::Alive
    })
}

/// Each number of a source is one event, so that what is not stored is missing.
fn missing(row: &Row<'_>) -> sql::Result<u64> {
    let (last, told): (i64, i64) = (row.get("last")?, row.get("sequence_max")?);
    Ok(last.max(told).saturating_sub(row.get("received")?).max(0).unsigned_abs())
}

fn told(row: &Row<'_>) -> sql::Result<Option<Told>> {
    if row.get::<_, i64>("heartbeat")? == 0 {
        return Ok(None);
    }
    let count =
        |column| row.get::<_, Option<i64>>(column).map(|count| count.unwrap_or(0).unsigned_abs());
    let amounts = |column| {
        let text: Option<String> = row.get(column)?;
        Ok::<Value, sql::Error>(
            text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        )
    };
    Ok(Some(Told {
        sequence_max: row.get("sequence_max")?,
        open_sessions: count("open_sessions")?,
        events: count("events")?,
        calls: count("calls")?,
        provider_cost: amounts("provider_cost")?,
        revenue: amounts("revenue")?,
    }))
}

fn ranges(ledger: &Transaction<'_>, source: &SourceGaps) -> anyhow::Result<Vec<Range>> {
    // Ids are their sequence in 20 digits, so the index of (source, id) has this order.
    let mut statement = ledger
        .prepare_cached("SELECT CAST(id AS BIGINT) FROM events WHERE source = ? ORDER BY id")?;
    let mut rows = statement.query(values![&source.source])?;
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(row) = &rows.next_row()? {
        let sequence: i64 = row.get(0)?;
        if sequence > last + 1 {
            found.push(Range { from: last + 1, to: sequence - 1 });
            if found.len() == RANGES_MAX {
                return Ok(found);
            }
        }
        last = sequence;
    }
    let told = source.told.as_ref().map_or(0, |told| told.sequence_max);
    if told > last {
        found.push(Range { from: last + 1, to: told });
    }
    Ok(found)
}

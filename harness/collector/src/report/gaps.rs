//! Names every event that the ledger should have and has not.
//! It sees what is missing below the highest sequence of a source, not what is missing above.

use serde::Serialize;

use crate::ledger::Ledger;

/// The most ranges listed for one source; `missing` counts them all. One wrong sequence must not
/// make the answer unbounded.
const RANGES_MAX: usize = 1000;

/// What is missing from the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Each source that sent an event, by name.
    pub sources: Vec<SourceGaps>,
    /// Events missing, of all sources.
    pub missing: u64,
}

/// What is missing from one source, whose sequence starts at 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceGaps {
    /// The source.
    pub source: String,
    /// The lowest sequence stored.
    pub first: i64,
    /// The highest sequence stored.
    pub last: i64,
    /// Events stored.
    pub received: i64,
    /// The first 1000 ranges that are not stored, ascending.
    pub missing: Vec<Range>,
}

/// Sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first missing.
    pub from: i64,
    /// The last missing.
    pub to: i64,
}

impl Ledger {
    /// Every number from 1 to the highest sequence of each source that is not stored.
    pub fn gaps(&self) -> anyhow::Result<Gaps> {
        self.read(|ledger| {
            // Ids are their sequence in 20 digits, so the index of (source, id) has this order.
            let mut statement = ledger.prepare_cached(
                "SELECT source, CAST(id AS INTEGER) FROM events ORDER BY source, id",
            )?;
            let mut rows = statement.query([])?;
            let mut gaps = Gaps::default();
            while let Some(row) = rows.next()? {
                let name = row.get_ref(0)?.as_str()?;
                let sequence: i64 = row.get(1)?;
                if gaps.sources.last().is_none_or(|source| source.source != name) {
                    gaps.sources.push(SourceGaps {
                        source: name.to_owned(),
                        first: sequence,
                        last: 0,
                        received: 0,
                        missing: Vec::new(),
                    });
                }
                let Some(source) = gaps.sources.last_mut() else { continue };
                if sequence > source.last + 1 {
                    let range = Range { from: source.last + 1, to: sequence - 1 };
                    let missing = (sequence - source.last - 1).unsigned_abs();
                    gaps.missing = gaps.missing.saturating_add(missing);
                    if source.missing.len() < RANGES_MAX {
                        source.missing.push(range);
                    }
                }
                source.last = sequence;
                source.received += 1;
            }
            Ok(gaps)
        })
    }
}

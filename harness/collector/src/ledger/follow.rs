//! Lists corrections, and brings the rows of all events up to date that one of them is about.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ledger::Ledger;
use crate::ledger::derive::derive_again;
use crate::ledger::tables::{CALLS, CORRECTED_CALLS};
use crate::query::{Page, rfc3339};
use crate::sql::{self, Transaction, Value, values};

/// Events whose rows follow in one transaction, so that those who write meanwhile wait shortly.
const FOLLOW_MAX: i64 = 2000;

/// A stored correction.
#[derive(Debug, Clone, Serialize)]
pub struct StoredCorrection {
    /// Its number in the ledger.
    pub position: i64,
    /// Its id.
    pub correction_id: String,
    /// `void`, `amend`, `rerate`, `credit`, `merge`, `backfill` or `revert`.
    pub kind: String,
    /// RFC 3339, UTC: when it was made.
    pub made_at: String,
    /// RFC 3339, UTC: when the ledger took it.
    pub received_at: String,
    /// The id of the correction that takes it back.
    pub reverted_by: Option<String>,
    /// False as long as there are events whose rows do not follow it yet.
    pub is_in_force: bool,
    /// The event that has it.
    pub event: Box<RawValue>,
}

/// One page of corrections, the oldest first.
#[derive(Debug, Serialize)]
pub struct CorrectionsPage {
    /// At most as many as the page may have.
    pub corrections: Vec<StoredCorrection>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// What a correction is about of which not all rows follow.
struct Pending {
    position: i64,
    followed: i64,
    refers: Option<String>,
    period_ms: Option<(i64, i64)>,
}

impl Pending {
    fn read(ledger: &Transaction<'_>) -> sql::Result<Option<Pending>> {
        let sql = "SELECT position, followed, refers, from_ms, to_ms FROM corrections
             WHERE followed IS NOT NULL ORDER BY position LIMIT 1";
        ledger.prepare_cached(sql)?.query_optional(&[], |row| {
            let period_ms: (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            Ok(Pending {
                position: row.get(0)?,
                followed: row.get(1)?,
                refers: row.get(2)?,
                period_ms: period_ms.0.zip(period_ms.1),
            })
        })
    }

    /// The next events whose rows are to follow.
    fn next(&self, ledger: &Transaction<'_>) -> sql::Result<Vec<i64>> {
        let (sql, values): (String, Vec<Value<'_>>) = match self.period_ms {
            Some((from_ms, to_ms)) => {
                let of = |table: &str| {
                    format!(
                        "SELECT position FROM {table}
                         WHERE position > ?1 AND time_ms >= ?2 AND time_ms < ?3"
                    )
                };
                // Only calls are rated again.
                let all = [CALLS.name, CORRECTED_CALLS.name].map(of).join(" UNION ");
                let values = values![self.followed, from_ms, to_ms, FOLLOW_MAX];
                (format!("{all} ORDER BY position LIMIT ?4"), values.to_vec())
            }
            None => {
                let sql = "SELECT position FROM backfilled WHERE position > ?1
                     AND correction_id = ?2 ORDER BY position LIMIT ?3";
                let values = values![self.followed, self.refers.as_deref(), FOLLOW_MAX];
                (sql.to_owned(), values.to_vec())
            }
        };
        ledger.prepare_cached(&sql)?.query_map(&values, |row| row.get(0))
    }
}

impl Ledger {
    /// Brings the rows of some more events up to date with the corrections. Returns whether there
    /// are more.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn follow_corrections(&self) -> anyhow::Result<bool> {
        // Reading is enough to see that there is nothing to do.
        if self.read(|ledger| Ok(Pending::read(ledger)?))?.is_none() {
            return Ok(false);
        }
        self.write(|ledger| {
            let Some(pending) = Pending::read(ledger)? else { return Ok(false) };
            let positions = pending.next(ledger)?;
            derive_again(ledger, &positions)?;
            let is_full = i64::try_from(positions.len()).is_ok_and(|len| len == FOLLOW_MAX);
            let followed = positions.last().copied().filter(|_| is_full);
            ledger.execute(
                "UPDATE corrections SET followed = ? WHERE position = ?",
                values![followed, pending.position],
            )?;
            Ok(true)
        })
    }

    /// The corrections, the oldest first.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn corrections(&self, page: Page) -> anyhow::Result<CorrectionsPage> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(
                "SELECT corrections.position, correction_id, kind, made_ms, received_at,
                  (SELECT min(correction_id) FROM corrections AS revert
                   WHERE revert.kind = 'revert' AND revert.refers = corrections.correction_id),
                  followed IS NULL, raw
                 FROM corrections JOIN events USING (position)
                 WHERE corrections.position > ?1 ORDER BY corrections.position LIMIT ?2",
            )?;
            let mut rows =
                statement.query_map(values![page.after.unwrap_or(0), page.limit + 1], |row| {
                    let raw: String = row.get(7)?;
                    let correction = StoredCorrection {
                        position: row.get(0)?,
                        correction_id: row.get(1)?,
                        kind: row.get(2)?,
                        made_at: rfc3339(row.get(3)?),
                        received_at: row.get(4)?,
                        reverted_by: row.get(5)?,
                        is_in_force: row.get(6)?,
                        event: Box::default(),
                    };
                    Ok((correction.position, (correction, raw)))
                })?;
            let next = page.cut(&mut rows);
            let corrections = rows.into_iter().map(|(_, (mut correction, raw))| {
                correction.event = RawValue::from_string(raw)?;
                Ok(correction)
            });
            Ok(CorrectionsPage { corrections: corrections.collect::<anyhow::Result<_>>()?, next })
        })
    }
}

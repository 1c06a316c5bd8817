//! The calls and generations of one session, in the order of their ends.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::ledger::Ledger;
use crate::sql::{self, Row, values};

/// A call or a generation of a session.
#[derive(Debug)]
pub(crate) struct Step {
    /// The id of its event.
    pub(crate) id: String,
    /// When it ended, in milliseconds since 1970, UTC.
    pub(crate) time_ms: i64,
    /// The type of its event, such as `tool_invocation`.
    pub(crate) kind: String,
    /// What was called, or the provider and the model.
    pub(crate) name: String,
    /// The outcome of a call, or how complete the answer of a model is.
    pub(crate) status: String,
    /// Milliseconds; `None` if its event does not say.
    pub(crate) duration_ms: Option<u64>,
    /// Tokens of input and of output; `None` where they are not known, and of a call.
    pub(crate) tokens: [Option<i64>; 2],
    pub(crate) price: Decimal,
    /// `None` of a call, and where it is not known.
    pub(crate) cost: Option<Decimal>,
    /// Why it is not known.
    pub(crate) unpriced_reason: Option<String>,
    /// True if the cost leaves something out.
    pub(crate) has_unpriced_units: bool,
    pub(crate) currency: String,
    /// The call itself, or the call that a generation was made for.
    pub(crate) call_id: Option<String>,
    /// The tool of that call.
    pub(crate) tool: Option<String>,
    position: i64,
}

/// Where a page of steps ends: the time and the position of its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct After(pub(crate) i64, pub(crate) i64);

/// What only the event's text has.
#[derive(Default, Deserialize)]
struct Text {
    #[serde(default)]
    data: Members,
}

#[derive(Default, Deserialize)]
struct Members {
    duration_ms: Option<u64>,
}

const STEPS: &str = "SELECT position, time_ms, kind, tool AS name, status, duration_ms,
      CAST(NULL AS BIGINT) AS input, CAST(NULL AS BIGINT) AS output, price,
      CAST(NULL AS NUMERIC) AS cost, CAST(NULL AS TEXT) AS reason, 0 AS in_part, currency, call_id,
      tool
     FROM calls WHERE session_id = ?1 AND source = ?2
     UNION ALL SELECT position, time_ms, 'token_consumption', provider || ' ' || model,
      completeness, CAST(NULL AS BIGINT), input, output, price, provider_cost, unpriced_reason,
      has_unpriced_units, currency, call_id, tool
     FROM generations WHERE session_id = ?1 AND source = ?2";

impl Ledger {
    /// At most `limit` calls and generations of a session that count, after those up to `after`, and
    /// where the next ones begin; `None` if there are no more.
    pub(crate) fn timeline(
        &self,
        source: &str,
        session_id: &str,
        after: Option<After>,
        limit: usize,
    ) -> anyhow::Result<(Vec<Step>, Option<After>)> {
        let After(time_ms, position) = after.unwrap_or(After(i64::MIN, i64::MIN));
        let sql = format!(
            "SELECT step.*, events.id, events.raw FROM (SELECT * FROM ({STEPS}) AS steps
              WHERE time_ms > ?3 OR (time_ms = ?3 AND position > ?4)
              ORDER BY time_ms, position LIMIT ?5) AS step JOIN events USING (position)
             ORDER BY step.time_ms, position"
        );
        let values = values![session_id, source, time_ms, position, i64::try_from(limit)? + 1];
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(&sql)?;
            let mut steps = statement.query_map(values, step)?;
            let more = steps.len() > limit;
            steps.truncate(limit);
            let last = steps.last().filter(|_| more);
            let next = last.map(|step| After(step.time_ms, step.position));
            Ok((steps, next))
        })
    }
}

fn step(row: &Row<'_>) -> sql::Result<Step> {
    let duration_ms = match row.get::<_, Option<i64>>(5)? {
        Some(duration_ms) => u64::try_from(duration_ms).ok(),
        None => {
            let raw: String = row.get(16)?;
            serde_json::from_str::<Text>(&raw).unwrap_or_default().data.duration_ms
        }
    };
    Ok(Step {
        position: row.get(0)?,
        time_ms: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        status: row.get(4)?,
        duration_ms,
        tokens: [row.get(6)?, row.get(7)?],
        price: row.get(8)?,
        cost: row.get(9)?,
        unpriced_reason: row.get(10)?,
        has_unpriced_units: row.get(11)?,
        currency: row.get(12)?,
        call_id: row.get(13)?,
        tool: row.get(14)?,
        id: row.get(15)?,
    })
}

//! The corrections that no other one takes back.

use serde_json::value::RawValue;

use crate::event::correction::Change;
use crate::event::{self, Body};
use crate::sql::{self, Transaction, Value};

/// A correction in force.
#[derive(Debug)]
pub(crate) struct Applied {
    /// When it was made, in milliseconds since 1970, and its id: corrections apply in this order.
    pub(crate) order: (i64, String),
    pub(crate) change: Change,
}

/// Those of a condition on the table `corrections`. One whose event cannot be read has no effect:
/// `verify` names it.
pub(crate) fn in_force(
    ledger: &Transaction<'_>,
    condition: &str,
    values: &[Value<'_>],
) -> sql::Result<Vec<Applied>> {
    let sql = format!(
        "SELECT made_ms, correction_id, raw FROM corrections JOIN events USING (position)
         WHERE {condition} AND NOT EXISTS (SELECT 1 FROM corrections AS revert
          WHERE revert.kind = 'revert' AND revert.refers = corrections.correction_id)"
    );
    let mut found = Vec::new();
    let mut statement = ledger.prepare_cached(&sql)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = &rows.next_row()? {
        let Ok(raw) = RawValue::from_string(row.get(2)?) else { continue };
        let Ok(event) = event::read_stored(&raw) else { continue };
        if let Body::Correction(correction) = event.body {
            let order = (row.get(0)?, row.get(1)?);
            found.push(Applied { order, change: correction.change });
        }
    }
    Ok(found)
}

/// Whether there are events whose rows do not follow all corrections yet.
pub(crate) fn is_pending(ledger: &Transaction<'_>) -> sql::Result<bool> {
    let sql = "SELECT 1 FROM corrections WHERE followed IS NOT NULL LIMIT 1";
    ledger.prepare_cached(sql)?.exists(&[])
}

/// Why nothing is closed or compared then.
pub(crate) const PENDING: &str = "corrections are not in force for all events yet; try again";

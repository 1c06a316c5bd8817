//! Brings events in later, under the id of a correction, so that all of them can be taken back.

use anyhow::{anyhow, ensure};
use serde::Serialize;
use serde_json::json;

use crate::books::correct::{Outcome, write_one};
use crate::event::{self, Event};
use crate::invoice::{Invoice, Total};
use crate::ledger::Ledger;
use crate::ledger::intake::{Intake, Origin, take_more};
use crate::ledger::receipt::Receipt;
use crate::query::Period;
use crate::sql::Transaction;

/// Events that are brought in later.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// The id of the correction, by which they can be taken back.
    pub correction_id: String,
    /// Who brings them.
    pub made_by: String,
    /// Why.
    pub reason: String,
}

/// What became of them.
#[derive(Debug, Clone, Serialize)]
pub struct Backfilled {
    /// What became of each event.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// What all customers owed before, over all time.
    pub before: Vec<Total>,
    /// What they owe with these events.
    pub after: Vec<Total>,
    /// True if nothing was stored.
    pub is_preview: bool,
}

/// Why a transaction is taken back.
enum Stop {
    Preview(Box<Backfilled>),
    Failed(anyhow::Error),
}

impl From<crate::sql::Error> for Stop {
    fn from(error: crate::sql::Error) -> Self {
        Stop::Failed(error.into())
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Stop::Failed(error)
    }
}

impl Ledger {
    /// Brings calls and generations in, as a JSON array or one for each line, whatever their age. A
    /// preview stores nothing and says what would become of them.
    ///
    /// # Errors
    ///
    /// If the text is neither, if another correction has the id, or if the ledger fails. Nothing has
    /// changed then; single events are refused in the receipt.
    pub fn backfill(
        &self,
        backfill: &Backfill,
        text: &str,
        is_preview: bool,
    ) -> anyhow::Result<Backfilled> {
        let raws = event::split_lines(text).map_err(|error| anyhow!("{error}"))?;
        let events: Vec<_> = raws.iter().map(|raw| event::read(raw)).collect();
        let now_ms = self.now_ms();
        let done = self.write(|ledger| -> Result<Backfilled, Stop> {
            let before = totals(ledger)?;
            let receipt = take(ledger, now_ms, backfill, events)?;
            let after = totals(ledger)?;
            let backfilled = Backfilled { receipt, before, after, is_preview };
            if is_preview { Err(Stop::Preview(Box::new(backfilled))) } else { Ok(backfilled) }
        });
        match done {
            Ok(backfilled) => Ok(backfilled),
            Err(Stop::Preview(backfilled)) => Ok(*backfilled),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

fn take(
    ledger: &Transaction<'_>,
    now_ms: i64,
    backfill: &Backfill,
    events: Vec<Result<Event<'_>, (String, String)>>,
) -> anyhow::Result<Receipt> {
    let Backfill { correction_id, made_by, reason } = backfill;
    let correction = json!({
        "kind": "backfill", "correction_id": correction_id, "made_by": made_by, "reason": reason,
        "events": events.len(),
    });
    let corrected = write_one(ledger, now_ms, &correction)?;
    let origin = Origin::Backfill(correction_id);
    let intake = Intake { recovers: true, allows_older: true, origin, ..Intake::OPERATOR };
    let receipt = take_more(ledger, now_ms, intake, events)?;
    // The same id with more events would say less than it does.
    ensure!(
        corrected.outcome != Outcome::Duplicate || receipt.accepted == 0,
        "the correction {correction_id:?} is there already, without {} of these events",
        receipt.accepted
    );
    Ok(receipt)
}

fn totals(ledger: &Transaction<'_>) -> anyhow::Result<Vec<Total>> {
    Invoice::totals_of_all(ledger, Period::default())
}

//! Reads and settles the queue of webhooks: rows of the ledger, so that a restart forgets none.

use std::fmt::Write;

use crate::ledger::Ledger;
use crate::query::count;
use crate::sql::{self, values};

/// An event on its way to one webhook.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) position: i64,
    pub(super) source: String,
    pub(super) id: String,
    /// The event as it came.
    pub(super) body: String,
    /// How many tries failed.
    pub(super) failures: u32,
    /// Milliseconds since 1970: when the event came in.
    pub(super) queued_ms: i64,
}

/// The outcome of one try.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The receiver took it.
    Delivered,
    /// The receiver did not take it; the next try is due then, in milliseconds since 1970.
    Failed { due_ms: i64, error: String },
    /// The receiver did not take it, and there is no further try.
    GivenUp { error: String },
}

/// The events that are due at a webhook, the longest due first, at most `limit`.
pub(super) fn due(
    ledger: &Ledger,
    webhook: &str,
    now_ms: i64,
    limit: u32,
) -> anyhow::Result<Vec<Waiting>> {
    ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT position, source, id, raw, failures, queued_ms
             FROM webhook_deliveries JOIN events USING (position)
             WHERE webhook = ? AND state = 'waiting' AND due_ms <= ?
             ORDER BY due_ms, position LIMIT ?",
        )?;
        Ok(statement.query_map(values![webhook, now_ms, i64::from(limit)], |row| {
            Ok(Waiting {
                position: row.get(0)?,
                source: row.get(1)?,
                id: row.get(2)?,
                body: row.get(3)?,
                failures: row.get(4)?,
                queued_ms: row.get(5)?,
            })
        })?)
    })
}

/// When the next event is due at a webhook, in milliseconds since 1970; `None` if none waits.
pub(super) fn next_due(ledger: &Ledger, webhook: &str) -> anyhow::Result<Option<i64>> {
    ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT min(due_ms) FROM webhook_deliveries WHERE webhook = ? AND state = 'waiting'",
        )?;
        Ok(statement.query_row(values![webhook], |row| row.get(0))?)
    })
}

/// Writes down the outcome of a try.
pub(super) fn settle(
    ledger: &Ledger,
    webhook: &str,
    position: i64,
    outcome: &Outcome,
) -> sql::Result<()> {
    let (state, failed, due_ms, error) = match outcome {
        Outcome::Delivered => ("delivered", 0_i64, None, None),
        Outcome::Failed { due_ms, error } => ("waiting", 1, Some(*due_ms), Some(error)),
        Outcome::GivenUp { error } => ("given_up", 1, None, Some(error)),
    };
    ledger.write(|ledger| {
        ledger
            .prepare_cached(
                "UPDATE webhook_deliveries SET
                  state = ?3, failures = failures + ?4, due_ms = coalesce(?5, due_ms), error = ?6
                 WHERE position = ?1 AND webhook = ?2",
            )?
            .execute(values![position, webhook, state, failed, due_ms, error])?;
        Ok(())
    })
}

/// Gives up the events that came in before `queued_ms`, for all webhooks: no task handles the
/// events of webhooks that are no longer configured.
pub(super) fn give_up(ledger: &Ledger, queued_ms: i64) -> sql::Result<usize> {
    ledger.write(|ledger| {
        ledger
            .prepare_cached(
                "UPDATE webhook_deliveries SET state = 'given_up',
                  error = coalesce(error, 'never tried')
                 WHERE state = 'waiting' AND queued_ms < ?",
            )?
            .execute(values![queued_ms])
    })
}

/// The metrics of all webhooks, as the ledger knows them, in Prometheus' text format.
pub(crate) fn metrics(ledger: &Ledger) -> anyhow::Result<String> {
    let rows = ledger.read(|ledger| {
        let mut statement = ledger.prepare_cached(
            "SELECT webhook, count(*) FILTER (WHERE state = 'delivered'), count_sum(failures),
              count(*) FILTER (WHERE state = 'given_up'), count(*) FILTER (WHERE state = 'waiting')
             FROM webhook_deliveries GROUP BY webhook",
        )?;
        Ok(statement.query_map(&[], |row| {
            let counts = [count(row, 1)?, count(row, 2)?, count(row, 3)?, count(row, 4)?];
            Ok((row.get::<_, String>(0)?, counts))
        })?)
    })?;
    let mut text = String::new();
    for (index, name, kind, help) in [
        (0, "delivered_total", "counter", "Events that a webhook took, since the ledger was made."),
        (1, "failed_total", "counter", "Tries that failed, since the ledger was made."),
        (2, "given_up_total", "counter", "Events that a webhook never took, and is sent no more."),
        (3, "waiting", "gauge", "Events that a webhook is still to be told."),
    ] {
        let name = format!("agent_meter_collector_webhook_{name}");
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (webhook, counts) in &rows {
            writeln!(text, "{name}{{webhook=\"{webhook}\"}} {}", counts[index])?;
        }
    }
    Ok(text)
}

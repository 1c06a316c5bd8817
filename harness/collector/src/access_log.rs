//! Compares an access log of Envoy with a ledger: each call and generation that the one tells of is
//! in the other.
//!
//! The log is in JSON lines, whose members have the names of the filter's properties, such as
//! `agent_meter.call_id`: see `envoy/README.md`. Lines of other forms are passed over and counted.

use std::collections::HashMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::recover::Log;
use crate::sql::Transaction;

/// The most differences of a kind that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// What the log and the ledger have in common, and where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AccessLogComparison {
    /// Lines that tell of a call or a generation.
    pub lines: u64,
    /// Lines that do not.
    pub other_lines: u64,
    /// Calls and generations that both tell of, alike.
    pub matched: u64,
    /// Those that only the log tells of.
    pub not_in_ledger: Difference,
    /// Those that only the ledger tells of: of the sources that the log tells of, between the first
    /// and the last that both have. A further run of a response is told by the response's id.
    pub not_in_log: Difference,
    /// Calls of which the two tell another outcome.
    pub other_status: Difference,
    /// Calls that one event of the ledger stands for beside the one that it names. So many of
    /// `not_in_ledger` are explained.
    pub folded_calls: u64,
}

/// Ids that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Difference {
    fn add(&mut self, id: String) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(id);
        }
    }
}

impl AccessLogComparison {
    /// Whether the two tell the same.
    pub fn is_equal(&self) -> bool {
        let is_explained = self.not_in_ledger.count <= self.folded_calls;
        is_explained && self.not_in_log.count == 0 && self.other_status.count == 0
    }
}

/// What a line of the log tells; several ids have commas between them.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "agent_meter.call_id")]
    call_id: Option<String>,
    #[serde(rename = "agent_meter.status")]
    status: Option<String>,
    #[serde(rename = "agent_meter.generation_id")]
    generation_id: Option<String>,
    request_id: Option<String>,
}

/// An id of the log, which several Envoys may have given.
struct Logged {
    request_id: Option<String>,
    status: Option<String>,
    is_found: bool,
}

type Ids = HashMap<String, Vec<Logged>>;

/// Of a source, the times of the first and the last event that the log has too, in milliseconds
/// since 1970.
type Spans = HashMap<String, (i64, i64)>;

/// An event of the ledger.
struct Stored {
    source: String,
    id: String,
    /// The id of the response that it is a further run of.
    run_of: Option<String>,
    status: Option<String>,
    quantity: u64,
    time_ms: i64,
    request_id: Option<String>,
}

impl Ledger {
    /// Compares access logs with the ledger. The ids are those of an Envoy: in a fleet also let events
    /// tell `request_id`, and the log as well.
    ///
    /// # Errors
    ///
    /// If a log cannot be read, or the ledger fails.
    pub fn compare_access_logs(&self, logs: Vec<Log>) -> anyhow::Result<AccessLogComparison> {
        let mut comparison = AccessLogComparison::default();
        let mut ids = Ids::new();
        for mut log in logs {
            let name = log.name();
            while let Some(line) = log.next_line().with_context(|| format!("cannot read {name}"))? {
                read(&line, &mut ids, &mut comparison);
            }
        }
        self.read(|ledger| {
            let mut spans = Spans::new();
            each(ledger, |stored| matches(&stored, &mut ids, &mut spans, &mut comparison))?;
            each(ledger, |stored| {
                let span = spans.get(&stored.source);
                let is_within =
                    span.is_some_and(|(from, to)| (from..=to).contains(&&stored.time_ms));
                if is_within && find(&mut ids, &stored).is_none() {
                    comparison.not_in_log.add(stored.id);
                }
            })
        })?;
        let mut unknown: Vec<String> = ids
            .into_iter()
            .flat_map(|(id, all)| {
                let lost = all.into_iter().filter(|logged| !logged.is_found).count();
                std::iter::repeat_n(id, lost)
            })
            .collect();
        unknown.sort_unstable();
        unknown.into_iter().for_each(|id| comparison.not_in_ledger.add(id));
        Ok(comparison)
    }
}

/// Takes the ids of a line. Envoy writes `-` or null for what there is not.
fn read(line: &[u8], ids: &mut Ids, comparison: &mut AccessLogComparison) {
    let told = |text: Option<String>| text.filter(|text| !text.is_empty() && text != "-");
    let Ok(Line { call_id, status, generation_id, request_id }) = serde_json::from_slice(line)
    else {
        comparison.other_lines += 1;
        return;
    };
    let (calls, statuses) = (told(call_id), told(status).unwrap_or_default());
    let generations = told(generation_id);
    if calls.is_none() && generations.is_none() {
        comparison.other_lines += 1;
        return;
    }
    comparison.lines += 1;
    let request_id = told(request_id);
    let calls = calls.unwrap_or_default();
    let of_calls =
        calls.split(',').zip(statuses.split(',').map(Some).chain(std::iter::repeat(None)));
    let generations = generations.unwrap_or_default();
    let of_generations = generations.split(',').map(|id| (id, None));
    for (id, status) in of_calls.chain(of_generations).filter(|(id, _)| !id.is_empty()) {
        let status = status.map(str::to_owned);
        let logged = Logged { request_id: request_id.clone(), status, is_found: false };
        ids.entry(id.to_owned()).or_default().push(logged);
    }
}

/// Reads the calls and the generations of the ledger.
fn each(ledger: &Transaction<'_>, mut work: impl FnMut(Stored)) -> anyhow::Result<()> {
    for (table, id, status, quantity) in [
        ("calls", "call_id", "counted.status", "counted.quantity"),
        ("generations", "generation_id", "NULL", "1"),
    ] {
        let sql = format!(
            "SELECT counted.source, counted.{id}, {status}, {quantity}, counted.time_ms, events.raw
             FROM {table} AS counted JOIN events USING (position)"
        );
        let mut statement = ledger.prepare_cached(&sql)?;
        let mut rows = statement.query(&[])?;
        while let Some(row) = &rows.next_row()? {
            let (id, quantity): (String, i64) = (row.get(1)?, row.get(3)?);
            let told = data_of(&row.get::<_, String>(5)?);
            // Further runs of a response have a purpose, and its id with a number behind it.
            let response = told.purpose.and_then(|_| id.rsplit_once('.'));
            let run_of = response.map(|(response, _)| response.to_owned());
            work(Stored {
                source: row.get(0)?,
                run_of,
                id,
                status: row.get(2)?,
                quantity: quantity.unsigned_abs(),
                time_ms: row.get(4)?,
                request_id: told.request_id,
            });
        }
    }
    Ok(())
}

/// What is compared of an event, beside its columns.
#[derive(Default, Deserialize)]
struct Data {
    request_id: Option<String>,
    purpose: Option<String>,
}

fn data_of(raw: &str) -> Data {
    #[derive(Deserialize)]
    struct Told {
        data: Data,
    }
    serde_json::from_str::<Told>(raw).map(|told| told.data).unwrap_or_default()
}

/// The log's entry for an event, by its id and, where both tell it, the request's. The log names a
/// response once, without its further runs.
fn find<'a>(ids: &'a mut Ids, stored: &Stored) -> Option<&'a mut Logged> {
    let is_same = |logged: &&mut Logged| match (&logged.request_id, &stored.request_id) {
        (Some(logged), Some(stored)) => logged == stored,
        _ => true,
    };
    let response = stored.run_of.as_ref().filter(|_| !ids.contains_key(&stored.id));
    ids.get_mut(response.unwrap_or(&stored.id))?.iter_mut().find(is_same)
}

fn matches(
    stored: &Stored,
    ids: &mut Ids,
    spans: &mut Spans,
    comparison: &mut AccessLogComparison,
) {
    comparison.folded_calls += stored.quantity.saturating_sub(1);
    let Some(logged) = find(ids, stored) else { return };
    logged.is_found = true;
    let (from, to) = spans.entry(stored.source.clone()).or_insert((stored.time_ms, stored.time_ms));
    *from = stored.time_ms.min(*from);
    *to = stored.time_ms.max(*to);
    // A task, or a call that was answered elsewhere, ended after its stream.
    let is_open = |status: &str| matches!(status, "PENDING" | "UNKNOWN" | "CANCELLED" | "TIMEOUT");
    match (&logged.status, &stored.status) {
        (Some(told), Some(status)) if told != status && !is_open(told) => {
            comparison.other_status.add(format!("{}: {told} in the log, {status}", stored.id));
        }
        _ => comparison.matched += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_ids_with_commas_between_them() {
        let (mut ids, mut comparison) = (Ids::new(), AccessLogComparison::default());
        for line in [
            r#"{"agent_meter.call_id":"0.1.0.0,0.1.0.1","agent_meter.status":"SUCCESS","request_id":"-"}"#,
            r#"{"agent_meter.generation_id":"0.1.1","agent_meter.call_id":null,"status":200}"#,
            r#"{"agent_meter.call_id":"-"}"#,
            "GET / 200",
        ] {
            read(line.as_bytes(), &mut ids, &mut comparison);
        }
        let mut found: Vec<(&str, Option<&str>)> =
            ids.iter().map(|(id, all)| (id.as_str(), all[0].status.as_deref())).collect();
        found.sort_unstable();
        assert_eq!(found, [("0.1.0.0", Some("SUCCESS")), ("0.1.0.1", None), ("0.1.1", None)]);
        assert_eq!((comparison.lines, comparison.other_lines), (2, 2));
    }
}

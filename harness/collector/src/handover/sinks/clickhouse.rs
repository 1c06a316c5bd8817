//! ClickHouse over HTTP: a row for each event, as JSONEachRow.
//!
//! Source: clickhouse.com/docs/interfaces/http and `ReplacingMergeTree` (read 2026-11). The statement
//! is in the URL, the rows in the body; 400 and 500 have a code in `X-ClickHouse-Exception-Code` and
//! in the text. The table replaces a row by one of the same `source` and `id` with a higher
//! `version`, which is the position of the event that wrote it: a retry changes nothing, whenever it
//! comes, and an event that takes the place of another writes the row of that one again, with
//! `superseded` set. Read it with `FINAL` and `WHERE superseded = 0`.

use serde_json::value::RawValue;

use crate::event::{self, Event};
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_status,
};
use crate::handover::usage::{Property, Usage};

/// Makes the table that this sink writes to.
pub(crate) const SCHEMA: &str = "\
CREATE TABLE IF NOT EXISTS agent_meter_events
(
    source             String,
    id                 String,
    version            UInt64,
    superseded         UInt8,
    type               LowCardinality(String),
    time               DateTime64(3, 'UTC'),
    customer_id        String,
    product_id         LowCardinality(String),
    team_id            String,
    agent_id           String,
    session_id         String,
    tool_name          LowCardinality(String),
    execution_status   LowCardinality(String),
    cost_tier          LowCardinality(String),
    billable           Bool,
    provider           LowCardinality(String),
    model              LowCardinality(String),
    service_tier       LowCardinality(String),
    completeness       LowCardinality(String),
    supersedes         String,
    quantity           Int64,
    input_tokens       Nullable(Int64),
    output_tokens      Nullable(Int64),
    cache_read_tokens  Nullable(Int64),
    cache_write_tokens Nullable(Int64),
    reasoning_tokens   Nullable(Int64),
    price              Decimal(76, 28),
    provider_cost      Nullable(Decimal(76, 28)),
    currency           LowCardinality(String),
    raw                String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (source, id);
";

#[derive(Debug)]
pub(crate) struct ClickHouse {
    pub(crate) table: String,
    pub(crate) user: Option<String>,
}

impl Sink for ClickHouse {
    fn limits(&self) -> Limits {
        let bytes = 8 * BODY_BYTES;
        Limits { records: 1000, records_max: 1000, bytes, dedup: None, oldest: None }
    }

    fn takes_all(&self) -> bool {
        true
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        for raw in usage.replaced {
            let event = event::read(raw).map_err(|(id, reason)| format!("{id}: {reason}"))?;
            records.push(row(&event, usage.position, true, &usage.id)?);
        }
        records.push(row(usage.event, usage.position, usage.is_superseded, &usage.id)?);
        Ok(records)
    }

    fn frame(&self) -> Frame {
        Frame::LINES
    }

    fn path(&self) -> String {
        format!(
            "/?query=INSERT%20INTO%20{}%20FORMAT%20JSONEachRow&date_time_input_format=best_effort",
            self.table
        )
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let media_type = ("content-type", "application/x-ndjson".to_owned());
        let user = self.user.as_ref().map(|user| ("x-clickhouse-user", user.clone()));
        let key = key.map(|key| ("x-clickhouse-key", key.to_owned()));
        [media_type].into_iter().chain(user).chain(key).collect()
    }

    /// What cannot be read as a row is refused, whichever status ClickHouse has for it.
    fn read(&self, reply: &Reply, _: &[Record]) -> Verdict {
        // CANNOT_PARSE_*, ARGUMENT_OUT_OF_BOUND, INCORRECT_DATA, UNKNOWN_FIELD and the like.
        let unreadable = [6, 25, 26, 27, 38, 41, 53, 69, 72, 117, 407];
        let text = String::from_utf8_lossy(&reply.body);
        let code =
            text.split("Code: ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
        match code {
            Some(code) if !reply.status.is_success() => {
                if unreadable.contains(&code) {
                    return Verdict::Refused(reply.shown());
                }
                Verdict::Later { reason: reply.shown(), is_unsent: false }
            }
            _ => by_status(reply),
        }
    }
}

/// The row of an event, with what it says itself.
fn row(event: &Event<'_>, version: i64, is_superseded: bool, id: &str) -> Result<Record, String> {
    let nothing: &[Box<RawValue>] = &[];
    let own = Usage::new(event, version, false, nothing)?;
    let row = Object::new()
        .text("source", &event.source)
        .text("id", &event.id)
        .raw("version", &version.to_string())
        .raw("superseded", if is_superseded { "1" } else { "0" })
        .text("type", &event.event_type)
        .text("time", &event.time)
        .text("customer_id", &event.subject);
    let properties = own.properties().into_iter().filter(|(name, _)| *name != "event_type");
    let row = properties.fold(row, |row, (name, value)| match value {
        Property::Count(_) | Property::Flag(_) => row.raw(name, &value.text()),
        value => row.text(name, &value.text()),
    });
    let body = row.text("raw", event.raw).end();
    Ok(Record { position: version, id: id.to_owned(), body })
}

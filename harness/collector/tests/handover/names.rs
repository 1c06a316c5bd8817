//! The names of OpenTelemetry: the filter and the ledger tell the same event alike, and the table in
//! `filter/EVENTS.md` names what there is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::{Rig, store, vendors};

const EVENTS_MD: &str = include_str!("../../../../filter/EVENTS.md");
const OF_FILTER: [(&str, &str); 2] = [
    ("otlp_logs", include_str!("../../../../filter/core/tests/core/golden/otlp_logs.json")),
    ("aforo", include_str!("../../../../filter/core/tests/core/golden/aforo.json")),
];
const METRICS: &str = include_str!("golden/otlp_metrics.txt");
const FOCUS: &str = include_str!("../../src/export/focus.rs");
/// The names of attributes and metrics in the code; the golden requests have no call of an API.
const CODE: [&str; 2] = [
    include_str!("../../../../filter/core/src/sink/otel.rs"),
    include_str!("../../src/handover/sinks/otlp_metrics.rs"),
];

/// A time at which the collector takes events.
const TIME: &str = "2026-07-01T10:00:01.000Z";
/// What differs between a golden record and that of the ledger: the time, and the body, which the
/// ledger keeps byte for byte as it came and this test sends in another order.
const DIFFERENT: [&str; 4] = ["body", "timeUnixNano", "observedTimeUnixNano", "occurredAt"];

/// The records of a request.
fn records(name: &str, body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let records = match name {
        "aforo" => &body["events"],
        _ => &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"],
    };
    records.as_array().expect("records").clone()
}

/// The events that the filter's golden request of logs has in the bodies of its records.
fn events() -> Vec<Value> {
    let requests = OF_FILTER[0].1.lines();
    let records = requests.flat_map(|request| records("otlp_logs", request));
    let text = |record: Value| record["body"]["stringValue"].as_str().expect("a body").to_owned();
    let event = |record| {
        let mut event: Value = serde_json::from_str(&text(record)).expect("an event");
        // The collector of these tests lives later.
        event["time"] = json!(TIME);
        if let Some(ended) = event["data"].get_mut("session_ended_at") {
            *ended = json!(TIME);
        }
        event
    };
    records.map(event).collect()
}

#[tokio::test]
async fn the_filter_and_the_ledger_tell_the_same_event_alike() {
    for (name, golden) in OF_FILTER {
        let receiver = Receiver::start(vendors::vendor(name)).await;
        let more = if name == "otlp_logs" { ", cost_attributes: false" } else { "" };
        let sinks = receiver.sinks(more);
        let sinks = sinks.replace(", cost_attributes: true", "");
        let sinks = sinks.replace("events: [tool_invocation, token_consumption], ", "");
        let sinks = sinks.replace(", events: [tool_invocation, token_consumption]", "");
        let rig = Rig::new();
        let collector = rig.start(&sinks).await;
        store(&collector.ledger(), &events());
        rig.until_done(&collector, name).await;
        collector.stop().await;
        let came = receiver.with(|inbox| inbox.came.clone());
        let found = came.iter().flat_map(|came| records(name, &came.body));
        let expected = golden.lines().flat_map(|request| records(name, request));
        let alike = |mut record: Value| {
            record
                .as_object_mut()
                .expect("a record")
                .retain(|name, _| !DIFFERENT.contains(&&**name));
            record
        };
        let found: Vec<Value> = found.map(alike).collect();
        let expected: Vec<Value> = expected.map(alike).collect();
        assert_eq!(json!(found), json!(expected), "{name}");
    }
}

/// The names in backticks of a cell.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The names of the members of a value, at any depth.
fn members(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                members(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| members(one, found)),
        _ => {}
    }
}

#[test]
fn the_table_of_names_names_what_there_is() {
    let table = EVENTS_MD.split("| ours | OpenTelemetry | FOCUS 1.2 |").nth(1).expect("the table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    let mut ours = BTreeSet::new();
    events().iter().for_each(|event| members(event, &mut ours));
    // Members that the documented events lack are in the tables of events of the same file.
    let (tables, _) = EVENTS_MD.split_once("## OpenTelemetry and FOCUS").expect("the section");
    let is_written = |name: &str| {
        let quoted = format!("\"{name}\"");
        CODE.iter().any(|code| code.contains(&quoted)) || METRICS.contains(&quoted)
    };
    for row in &rows {
        let [own, otel, focus] = row[..] else { panic!("{row:?}") };
        for name in names(own) {
            let last = name.rsplit('.').next().expect("a name");
            assert!(ours.contains(last) || tables.contains(&format!("`{last}`")), "ours: {name}");
        }
        for name in names(otel) {
            assert_eq!(is_written(name), !otel.contains("not sent"), "OpenTelemetry: {name}");
        }
        for name in names(focus) {
            assert!(FOCUS.contains(&format!("    \"{name}\",")), "FOCUS: {name}");
        }
    }
    // And the other way round: each name of the conventions that is sent has its row.
    let shown: BTreeSet<&str> = rows.iter().flat_map(|row| names(row[1])).collect();
    let mut keys = BTreeSet::new();
    for text in OF_FILTER[0].1.lines().chain(METRICS.lines().filter(|line| line.starts_with('{'))) {
        collect_names(&serde_json::from_str(text).expect("JSON"), &mut keys);
    }
    let of_conventions = |key: &&String| !key.starts_with("agent_meter.") && *key != "service.name";
    for key in keys.iter().filter(of_conventions).filter(|key| *key != "agent-meter") {
        assert!(shown.contains(key.as_str()), "{key} has no row");
    }
}

/// The names of attributes and of metrics.
fn collect_names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for member in ["key", "name"] {
                found.extend(object.get(member).and_then(Value::as_str).map(str::to_owned));
            }
            object.values().for_each(|value| collect_names(value, found));
        }
        Value::Array(all) => all.iter().for_each(|one| collect_names(one, found)),
        _ => {}
    }
}

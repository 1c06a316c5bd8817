//! Delivery without a collector of ours: to a receiver of OpenTelemetry's logs, and to an ingestor of
//! Aforo. The receivers here answer as the protocols say; they know nothing of the filter's code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent_meter::stack::{Events, Options};
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::books::text;
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::upstream::{Step, Upstream, json_response, obliging, response};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const CALLS: u64 = 20;
/// The value of a header of the configuration, which must be nowhere but in requests.
const KEY: &str = "sk_live_4711";
/// The tool whose call the receivers do not take.
const POISON: &str = "poison";

/// What a receiver has stored: each record by its id, as often as it was stored.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<(String, Value)>>>);

impl Store {
    fn add(&self, id: String, record: Value) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, record));
    }

    fn has(&self, id: &str) -> bool {
        self.all().iter().any(|(known, _)| known == id)
    }

    fn all(&self) -> Vec<(String, Value)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The records, each of which must be there once.
    fn each_once(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.all();
        let ids: BTreeSet<&String> = all.iter().map(|(id, _)| id).collect();
        ensure!(ids.len() == all.len(), "a record is there twice: {all:?}");
        Ok(all.into_iter().map(|(_, record)| record).collect())
    }
}

/// A stack that delivers to this receiver with these options of the collector.
async fn rig(receiver: &Upstream, collector: Value) -> anyhow::Result<Rig> {
    let mut plugin = plain_plugin();
    plugin["collector"] = collector;
    let options = Options::new(plugin, Some(release_module()?));
    let options = Options { events: Events::At(receiver.addr().into()), ..options };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// Makes one call of each of these tools, in one session.
async fn call(rig: &Rig, tools: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut client = Client::connect(rig.listen()?).await?;
    for (id, tool) in (0..).zip(tools) {
        let answer = client.exchange(&Agent::new("acme").call(id, &tool)).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    Ok(())
}

fn tools() -> impl Iterator<Item = String> {
    (0..CALLS).map(|number| format!("tool_{number}"))
}

/// Waits until the outbox is empty and the counters of events say where each event is; at least so
/// many must be acknowledged.
async fn settled(rig: &Rig, acked_min: u64) -> anyhow::Result<()> {
    wait::until(LIMIT, "each event is somewhere", async || {
        let (made, acked) = (rig.metric("events_made").await?, rig.metric("events_acked").await?);
        let (waiting, in_log) =
            (rig.metric("outbox_events").await?, rig.metric("events_spilled").await?);
        let left_out = rig.metric("events_left_out").await?;
        let told = format!(
            "{made} made, {acked} acknowledged, {waiting} waiting, {in_log} in the log, {left_out} left out"
        );
        ensure!(acked >= acked_min && waiting == 0, "{told}");
        ensure!(made == acked + in_log + left_out, "{told}");
        Ok(())
    })
    .await
}

/// Checks what each request must have, and that no header's value is in Envoy's log.
fn check_requests(rig: &Rig, requests: &[Message], path: &str) -> anyhow::Result<()> {
    for request in requests {
        let head = String::from_utf8_lossy(&request.head);
        ensure!((request.method(), request.word(1)) == ("POST".into(), path.into()), "{head}");
        for (name, expected) in
            [("content-type", "application/json"), ("x-api-key", KEY), ("x-tenant-id", "tenant 1")]
        {
            ensure!(request.header(name).as_deref() == Some(expected), "{name}: {head}");
        }
        ensure!(request.header("agent-meter-signature").is_none(), "{head}");
    }
    ensure!(!rig.log()?.contains(KEY), "Envoy's log shows the value of a header");
    Ok(())
}

/// The events that the log has because the receiver refused them.
fn refused(rig: &Rig) -> anyhow::Result<Vec<Value>> {
    let parse = |line: &String| {
        let (_, event) = line.split_once("event=").context("a line without an event")?;
        let mut values = serde_json::Deserializer::from_str(event).into_iter();
        Ok(values.next().context("an empty line")??)
    };
    rig.log_lines("agent-meter spill reason=refused")?.iter().map(parse).collect()
}

/// The records of a request of OTLP.
fn log_records(body: &[u8]) -> Option<Vec<Value>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let resources = body.get("resourceLogs")?.as_array()?;
    let scopes = resources.iter().filter_map(|resource| resource.get("scopeLogs")?.as_array());
    let records = scopes.flatten().filter_map(|scope| scope.get("logRecords")?.as_array());
    Some(records.flatten().cloned().collect())
}

/// An attribute that is text.
fn attribute(record: &Value, key: &str) -> String {
    let all = record["attributes"].as_array().into_iter().flatten();
    let found = all.filter(|attribute| attribute["key"] == key);
    found.map(|attribute| text(attribute, "/value/stringValue")).collect()
}

/// A receiver of OTLP that is busy at first and rejects all of a request that has a poison. It says
/// how many it rejected as JSON of protobuf does, 64 bits in text.
async fn otlp_receiver(store: &Store) -> anyhow::Result<Upstream> {
    let (store, requests) = (store.clone(), AtomicU64::new(0));
    Upstream::start(move |request| {
        if requests.fetch_add(1, Ordering::SeqCst) == 0 {
            let busy = response("503 Service Unavailable", &[("retry-after", "1")], b"");
            return vec![Step::Send(busy)];
        }
        let Some(records) = log_records(&request.body) else {
            return vec![Step::Send(response("400 Bad Request", &[], b""))];
        };
        if records.iter().any(|record| attribute(record, "gen_ai.tool.name") == POISON) {
            let count = records.len().to_string();
            let rejected = json!({ "rejectedLogRecords": count, "errorMessage": "no" });
            return vec![Step::Send(json_response(&json!({ "partialSuccess": rejected })))];
        }
        for record in records {
            store.add(attribute(&record, "agent_meter.event.id"), record);
        }
        vec![Step::Send(json_response(&json!({ "partialSuccess": {} })))]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_of_otlp_has_each_event_once_or_the_log_has_it() -> anyhow::Result<()> {
    let store = Store::default();
    let receiver = otlp_receiver(&store).await?;
    let collector = json!({
        "format": "otlp_logs", "path": "/v1/logs",
        "headers": { "x-api-key": KEY, "x-tenant-id": "tenant 1" },
    });
    let rig = rig(&receiver, collector).await?;
    call(&rig, tools()).await?;
    settled(&rig, CALLS + 1).await?;
    call(&rig, [POISON.to_owned()].into_iter()).await?;
    wait::until(LIMIT, "the poison is refused", async || {
        ensure!(rig.metric("events_refused").await? > 0, "not yet");
        Ok(())
    })
    .await?;
    settled(&rig, CALLS + 1).await?;

    check_requests(&rig, &receiver.take_requests(), "/v1/logs")?;
    let records = store.each_once()?;
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        // The body is the CloudEvent.
        let event: Value = serde_json::from_str(&text(record, "/body/stringValue"))?;
        ensure!(text(record, "/eventName") == text(&event, "/type"), "{record}");
        if event["data"]["event_type"] == "tool_invocation" {
            ensure!(attribute(record, "mcp.method.name") == "tools/call", "{record}");
            ensure!(attribute(record, "gen_ai.operation.name") == "execute_tool", "{record}");
            ensure!(attribute(record, "agent_meter.price").is_empty(), "{record}");
            *calls.entry(attribute(record, "gen_ai.tool.name")).or_default() += 1;
        }
    }
    assert_eq!(calls, tools().map(|tool| (tool, 1)).collect());
    let in_log = refused(&rig)?;
    let poisons = in_log.iter().filter(|event| event["data"]["tool_name"] == POISON).count();
    ensure!(poisons == 1, "{in_log:?}");
    ensure!(rig.metric("events_left_out").await? == 0, "OTLP logs have every event");
    rig.check_vms()?;
    rig.discard().await
}

/// Aforo's ingestor: it takes each key once, refuses a poison by its place, and wants a session
/// ended. Its first answer is lost.
async fn aforo_ingestor(store: &Store) -> anyhow::Result<Upstream> {
    let (store, requests) = (store.clone(), AtomicU64::new(0));
    Upstream::start(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some(events) = body["events"].as_array() else {
            return vec![Step::Send(response("400 Bad Request", &[], b""))];
        };
        // A quantity of 0 makes the whole request invalid.
        if events.is_empty() || events.iter().any(|event| event["quantity"].as_u64() < Some(1)) {
            return vec![Step::Send(response("400 Bad Request", &[], b""))];
        }
        let (mut accepted, mut duplicates, mut errors) = (0, 0, Vec::new());
        for (index, event) in events.iter().enumerate() {
            let key = text(event, "/idempotencyKey");
            if event["toolName"] == POISON {
                errors.push(json!({ "index": index, "error": "INVALID_TOOL" }));
            } else if store.has(&key) {
                duplicates += 1;
            } else {
                accepted += 1;
                store.add(key, event.clone());
            }
        }
        if requests.fetch_add(1, Ordering::SeqCst) == 0 {
            return vec![Step::Close];
        }
        let data = json!({
            "accepted": accepted, "duplicates": duplicates, "failed": errors.len(),
            "errors": errors, "killedSessionIds": ["session-9"],
        });
        vec![Step::Send(json_response(&json!({ "success": true, "data": data })))]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_of_aforo_has_each_billed_call_once_or_the_log_has_it() -> anyhow::Result<()> {
    let store = Store::default();
    let receiver = aforo_ingestor(&store).await?;
    let collector = json!({
        "format": "aforo", "path": "/v1/ingest/batch",
        "headers": { "x-api-key": KEY, "x-tenant-id": "tenant 1" },
        "metric_names": { "tool_invocations": "mcp_server.tool_invocations" },
    });
    let rig = rig(&receiver, collector).await?;
    let half = tools().take(usize::try_from(CALLS / 2)?);
    let rest = tools().skip(usize::try_from(CALLS / 2)?);
    call(&rig, half.chain([POISON.to_owned()]).chain(rest)).await?;
    let ended =
        Client::connect(rig.listen()?).await?.exchange(&Agent::new("acme").delete()).await?;
    ensure!(ended.status() == 200, "{ended:?}");
    settled(&rig, CALLS).await?;

    let requests = receiver.take_requests();
    ensure!(requests.len() >= 2, "the lost answer is not asked for again");
    check_requests(&rig, &requests, "/v1/ingest/batch")?;
    let events = store.each_once()?;
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        for (member, expected) in [
            ("/customerId", "acme"),
            ("/metricName", "mcp_server.tool_invocations"),
            ("/productType", "MCP_SERVER"),
            ("/executionStatus", "SUCCESS"),
            ("/metadata/price", "0.001"),
        ] {
            ensure!(text(event, member) == expected, "{member}: {event}");
        }
        *calls.entry(text(event, "/toolName")).or_default() += 1;
    }
    assert_eq!(calls, tools().map(|tool| (tool, 1)).collect());
    let in_log = refused(&rig)?;
    ensure!(in_log.len() == 1 && in_log[0]["data"]["tool_name"] == POISON, "{in_log:?}");
    // The session's beginning and its end.
    ensure!(rig.metric("events_left_out").await? >= 2, "sessions are left out");
    ensure!(rig.metric("events_withheld").await? == 0, "nothing is charged too little");
    ensure!(rig.metric("sessions_to_end").await? > 0, "the ingestor wants a session ended");
    rig.check_vms()?;
    rig.discard().await
}

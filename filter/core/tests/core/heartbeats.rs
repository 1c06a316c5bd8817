//! That a source lives, and what it has told: what a collector needs to know what is missing at its
//! end.

use agent_meter_core::sink::reply::Reply;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::support::test;

const CONFIG: &str = r#"{"products": [{
    "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"},
    "identity": {"customer": {"trusted_header": "x-customer-id"}}
}]}"#;

/// The configuration with this interval.
fn every(interval: &str) -> String {
    let delivery = format!(r#"{{"delivery": {{"heartbeat_interval": "{interval}"}},"#);
    CONFIG.replacen('{', &delivery, 1)
}

/// The heartbeats among events, each with what is true of every one.
fn heartbeats(events: &[Value]) -> Vec<Value> {
    let found: Vec<&Value> =
        events.iter().filter(|event| event["data"]["event_type"] == "heartbeat").collect();
    for event in &found {
        let data = &event["data"];
        assert_eq!(event["type"], "agent-meter.heartbeat");
        assert_eq!(data["sequence_max"], event["sequence"]);
        let number: u64 = data["sequence_max"].as_str().unwrap().parse().unwrap();
        assert_eq!(data["events"], number);
        assert!(event.get("subject").is_none());
    }
    found.into_iter().map(|event| event["data"].clone()).collect()
}

#[test]
fn a_source_tells_every_ten_seconds_that_it_lives_from_its_first_event_on() {
    let mut envoy = Envoy::new(CONFIG);
    assert_eq!(envoy.deliver(60_000), Vec::<Value>::new());
    envoy.call("a", "t", "{}");
    envoy.call("b", "t", "{}");
    let told = heartbeats(&envoy.deliver(32_000));
    assert_eq!(told.len(), 3);
    let first = json!({
        "event_type": "heartbeat", "sequence_max": format!("{:020}", 5), "interval_ms": 10_000,
        "open_sessions": 2, "events": 5, "calls": 2, "is_last": false,
    });
    assert_eq!(told[0], first);
    envoy.delete("a");
    let told = heartbeats(&envoy.deliver(10_000));
    assert_eq!((&told[0]["open_sessions"], &told[0]["calls"]), (&json!(1), &json!(2)));
}

#[test]
fn the_interval_is_configured() {
    for (interval, expected) in [("0s", 0), ("2s", 30), ("1m", 1)] {
        let mut envoy = Envoy::new(&every(interval));
        envoy.call("a", "t", "{}");
        assert_eq!(heartbeats(&envoy.deliver(61_500)).len(), expected, "{interval}");
        let now = envoy.now;
        envoy.main.stop(&mut envoy.host, now);
        let left: Vec<Value> = envoy.host.spilled.iter().map(|(_, event)| event.clone()).collect();
        assert_eq!(heartbeats(&left).len(), usize::from(interval != "0s"), "{interval}");
    }
}

#[test]
fn while_the_collector_is_down_no_heartbeat_is_made() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("a", "t", "{}");
    let mut tried = 0;
    for _ in 0..400 {
        for dispatch in envoy.tick(250) {
            tried += 1;
            envoy.reply(&dispatch, Reply::Failed { retry_after: None });
        }
    }
    assert!(tried > 10);
    let told = envoy.deliver(12_000);
    assert_eq!(kinds(&told, "tool_invocation").len(), 1);
    assert_eq!(heartbeats(&told).len(), 1);
}

#[test]
fn the_last_event_of_a_source_says_that_it_ends() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("a", "t", "{}");
    envoy.deliver(2_000);
    let open = envoy.start("b", "t");
    let now = envoy.now;
    envoy.main.stop(&mut envoy.host, now);
    envoy.worker.stop(&mut envoy.host, now);
    let left: Vec<Value> = envoy.host.spilled.iter().map(|(_, event)| event.clone()).collect();
    let told = heartbeats(&left);
    // The worker's stream ended after the main thread had stopped: two ends, the later is right.
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|told| told["is_last"] == true && told["open_sessions"] == 0));
    assert_eq!(left.last().unwrap()["data"], told[1]);
    assert_eq!(told[1]["calls"], 2);
    let _ = open;

    // Whoever stops later and has nothing to add tells no other end.
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("a", "t", "{}");
    envoy.deliver(2_000);
    let now = envoy.now;
    envoy.main.stop(&mut envoy.host, now);
    envoy.worker.stop(&mut envoy.host, now);
    let left: Vec<Value> = envoy.host.spilled.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(heartbeats(&left).len(), 1);
}

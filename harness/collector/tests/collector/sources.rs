//! Tests the tail: what a source told that never came, sources that are silent or gone, and their
//! sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::guards::EDGE_2;
use super::*;

/// A clock that the test moves.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new() -> Hand {
        Hand(Arc::new(AtomicI64::new(NOW_MS)))
    }

    fn clock(&self) -> Clock {
        let hand = self.0.clone();
        Clock::new(move || hand.load(Ordering::SeqCst))
    }

    fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

fn heartbeat(sequence: u64, data: Value) -> Value {
    let mut event = event(sequence, "heartbeat", json!({}));
    event["data"] = json!({
        "event_type": "heartbeat",
        "sequence_max": format!("{sequence:020}"),
        "open_sessions": 1,
        "events": sequence,
        "calls": 1,
        "provider_cost": {"USD": "0.25"},
        "revenue": {"USD": "0.001"},
        "is_last": false,
    });
    merge(&mut event["data"], data);
    event.as_object_mut().expect("an event").remove("subject");
    event
}

fn told(sequence: u64) -> Value {
    json!({"sequence_max": format!("{sequence:020}")})
}

#[test]
fn what_a_source_told_and_never_came_is_missing() {
    for (events, missing, ranges) in [
        (vec![call(1, json!({})), heartbeat(2, json!({}))], 0, json!([])),
        (vec![call(1, json!({})), heartbeat(2, told(5))], 3, json!([{"from": 3, "to": 5}])),
        (
            vec![heartbeat(2, told(5)), call(4, json!({}))],
            3,
            json!([{"from": 1, "to": 1}, {"from": 3, "to": 3}, {"from": 5, "to": 5}]),
        ),
        // An older heartbeat that comes late changes nothing.
        (vec![heartbeat(2, told(3)), call(3, json!({})), heartbeat(1, told(1))], 0, json!([])),
        (
            vec![heartbeat(1, told(i64::MAX as u64))],
            i64::MAX - 1,
            json!([{"from": 2, "to": i64::MAX}]),
        ),
    ] {
        let found = gaps(&ledger_of(&events));
        assert_eq!(found["missing"], missing, "{events:?}");
        assert_eq!(found["sources"][0]["missing_events"], missing, "{events:?}");
        assert_eq!(found["sources"][0]["missing"], ranges, "{events:?}");
    }
}

#[test]
fn a_heartbeat_tells_of_its_source_and_is_in_no_report() {
    let ledger = ledger_of(&[call(1, json!({})), heartbeat(2, json!({}))]);
    let plain = ledger_of(&[call(1, json!({}))]);
    assert_eq!(usage(&ledger, "group_by=customer"), usage(&plain, "group_by=customer"));
    assert_eq!(sessions(&ledger, ""), sessions(&plain, ""));
    assert_eq!(ledger.events(&EventsQuery::default()).expect("events").events.len(), 1);
    let told = json!({"sequence_max": 2, "open_sessions": 1, "events": 2, "calls": 1,
        "provider_cost": {"USD": "0.25"}, "revenue": {"USD": "0.001"}});
    assert_eq!(gaps(&ledger)["sources"][0]["told"], told);
    for (data, reason) in [
        (json!({"sequence_max": 5}), "data.sequence_max: must be a string, found 5"),
        (json!({"is_last": null}), "data.is_last: missing"),
        (
            json!({"open_sessions": -1}),
            "data.open_sessions: must be an integer of at least 0, found -1",
        ),
        (
            json!({"revenue": {"usd": "1"}}),
            r#"data.revenue: must be an object by ISO 4217 code, found {"usd":"1"}"#,
        ),
        (
            json!({"revenue": {"USD": 1}}),
            "data.revenue.USD: must be a decimal string of at least 0, found 1",
        ),
        (
            json!({"interval_ms": 0}),
            "data.interval_ms: must be an integer of 1 to 86400000, found 0",
        ),
    ] {
        let receipt = insert(&memory(), &[heartbeat(1, data)]);
        assert_eq!(receipt.rejected[0].reason, reason);
    }
}

#[test]
fn a_source_is_alive_silent_or_ended() {
    let hand = Hand::new();
    let ledger = Ledger::open_at(&new_ledger(), hand.clock()).expect("ledger");
    let state = |ledger: &Ledger| gaps(ledger)["sources"][0]["state"].clone();
    insert(&ledger, &[call(1, json!({}))]);
    hand.forward(3600);
    assert_eq!(state(&ledger), "unknown", "it never told that it lives");
    insert(&ledger, &[heartbeat(2, json!({}))]);
    for (seconds, expected) in [(0, "alive"), (30, "alive"), (1, "silent"), (86400, "silent")] {
        hand.forward(seconds);
        assert_eq!(state(&ledger), expected, "{seconds}");
    }
    insert(&ledger, &[call(3, json!({}))]);
    assert_eq!(state(&ledger), "alive", "any event will do");
    insert(&ledger, &[heartbeat(4, json!({"interval_ms": 60_000}))]);
    hand.forward(180);
    assert_eq!(state(&ledger), "alive", "it said that it takes its time");
    insert(&ledger, &[heartbeat(6, json!({"is_last": true}))]);
    hand.forward(86400);
    assert_eq!(state(&ledger), "ended");
    assert_eq!(gaps(&ledger)["states"], json!({"ended": 1}));
    assert_eq!(gaps(&ledger)["missing"], 1, "it ended, and one event of it never came");
    insert(&ledger, &[call(5, json!({}))]);
    assert_eq!(state(&ledger), "ended", "what comes late is from before its end");
    insert(&ledger, &[call(7, json!({}))]);
    assert_eq!(state(&ledger), "alive", "it speaks after its end");
}

#[test]
fn sessions_of_a_lost_source_are_closed_with_what_is_known_and_open_again_if_it_speaks() {
    let hand = Hand::new();
    let ledger = Ledger::open_at(&new_ledger(), hand.clock()).expect("ledger");
    let mut elsewhere = state(1, "CREATED");
    elsewhere["source"] = EDGE_2.into();
    let events =
        [state(1, "CREATED"), call(2, json!({})), state(3, "ACTIVE"), heartbeat(4, json!({}))];
    insert(&ledger, &events);
    insert(&ledger, &[elsewhere]);
    let found = |query: &str| sessions(&ledger, query)["sessions"].clone();
    let before = found("");
    hand.forward(900);
    assert_eq!(ledger.close_lost(900_000).expect("closed"), 0, "not longer than that");
    hand.forward(1);
    assert_eq!(ledger.close_lost(900_000).expect("closed"), 1);
    assert_eq!(ledger.close_lost(900_000).expect("closed"), 0);
    let lost = &found("state=CLOSED")[0];
    let expected = json!({"state": "CLOSED", "close_reason": "source_lost",
        "ended_at": "2026-07-01T10:00:02Z", "total_tool_calls": 1, "total_revenue": "0.001",
        "wall_duration_ms": null, "currency": "USD"});
    for (member, value) in expected.as_object().expect("members") {
        assert_eq!(&lost[member], value, "{member}");
    }
    assert_eq!(found("state=CREATED")[0]["source"], EDGE_2, "who never told that it lives is left");
    assert_eq!(reconcile(&ledger), json!({"sessions": 0, "mismatches": []}));
    let invoice = Invoice::for_customer(&ledger, Some("acme"), Period::default());
    let invoice = invoice.expect("invoice");
    assert_eq!(invoice.products[0].sessions_closed, 1);
    assert_eq!(gaps(&ledger)["sources"][0]["open_sessions"], 0);

    insert(&ledger, &[heartbeat(5, json!({}))]);
    assert_eq!(found(""), before, "as if nothing had been");
    // It is lost for good, and its own last word is what counts, whenever it comes.
    hand.forward(901);
    assert_eq!(ledger.close_lost(900_000).expect("closed"), 1);
    let end = closed(6, json!({"total_tool_calls": 1, "billable_tool_calls": 1}));
    insert(&ledger, &[end]);
    assert_eq!(found("state=CLOSED")[0]["close_reason"], "session_timeout");
    assert_eq!(ledger.close_lost(0).expect("closed"), 0);
}

#[test]
fn a_session_of_a_lost_source_without_calls_is_closed_too() {
    let hand = Hand::new();
    let ledger = Ledger::open_at(&new_ledger(), hand.clock()).expect("ledger");
    insert(&ledger, &[state(1, "CREATED"), heartbeat(2, json!({"is_last": true}))]);
    hand.forward(1000);
    assert_eq!(ledger.close_lost(900_000).expect("closed"), 1);
    let found = sessions(&ledger, "")["sessions"][0].clone();
    assert_eq!(found["ended_at"], "2026-07-02T12:00:00Z");
    assert_eq!(found["close_reason"], "source_lost");
    assert_eq!(invoices(&ledger).expect("invoices").len(), 1);
}

#[tokio::test]
async fn a_collector_that_runs_closes_the_sessions_of_lost_sources_by_itself() {
    let after = Duration::from_millis(1500);
    let extras = Extras { source_lost_after: Some(after), ..Extras::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::start_with(listen, &new_ledger(), extras).await.expect("starts");
    let http = Http::new(&collector);
    let now = || chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let send = async |mut event: Value| {
        event["time"] = now().into();
        let body = serde_json::to_vec(&[event]).expect("json");
        assert_eq!(http.post(BATCH, body).await.1["accepted"], 1);
    };
    send(state(1, "CREATED")).await;
    send(heartbeat(2, json!({}))).await;
    let ledger = collector.ledger();
    let closed = || sessions(&ledger, "")["sessions"][0]["close_reason"].clone();
    assert_eq!(closed(), Value::Null);
    let deadline = Instant::now() + Duration::from_secs(30);
    while closed() != "source_lost" {
        assert!(Instant::now() < deadline, "nobody closed it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    send(heartbeat(3, json!({}))).await;
    assert_eq!(closed(), Value::Null);
    collector.stop().await;
}

#[test]
fn gaps_list_the_sources_first_of_which_something_is_wrong() {
    let ledger = memory();
    let source = |number: u64| format!("urn:agent-meter:envoy-{number:05}:0001");
    let of = |number: u64, sequence: u64| {
        let mut event = call(sequence, json!({}));
        event["source"] = source(number).into();
        event
    };
    insert(&ledger, &(1..=1100).map(|number| of(number, 1)).collect::<Vec<_>>());
    insert(&ledger, &[of(1099, 3)]);
    let found = gaps(&ledger);
    let listed = found["sources"].as_array().expect("sources");
    assert_eq!((listed.len(), &found["more"]), (1000, &json!(true)));
    assert_eq!(found["states"], json!({"unknown": 1100}));
    let wrong = listed.iter().find(|listed| listed["source"] == source(1099)).expect("listed");
    assert_eq!(wrong["missing"], json!([{"from": 2, "to": 2}]));
}

#[tokio::test]
async fn metrics_tell_of_the_tail() {
    let hand = Hand::new();
    let extras = Extras { clock: hand.clock(), ..Extras::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::start_with(listen, &new_ledger(), extras).await.expect("starts");
    let http = Http::new(&collector);
    let mut other = heartbeat(1, json!({"is_last": true}));
    other["source"] = EDGE_2.into();
    let wrong = closed(4, json!({"total_tool_calls": 9}));
    let late = {
        let mut event = call(6, json!({}));
        event["time"] = "2020-01-01T00:00:00Z".into();
        event
    };
    let mut open = state(7, "CREATED");
    open["data"]["session_id"] = "f".repeat(32).into();
    let events = [call(1, json!({})), heartbeat(3, told(9)), wrong, late, open, other];
    assert_eq!(http.post(BATCH, serde_json::to_vec(&events).expect("json")).await.0, 200);
    hand.forward(45);
    let (_, text) = http.get("/metrics").await;
    for line in [
        "missing_events 4",
        "sources{state=\"alive\"} 0",
        "sources{state=\"silent\"} 1",
        "sources{state=\"ended\"} 1",
        "sources{state=\"unknown\"} 0",
        "last_event_age_seconds{state=\"silent\"} 45.000",
        "open_sessions 1",
        "reconcile_mismatches 1",
        "quarantined_events{reason=\"time\"} 1",
        "quarantined_events{reason=\"tokens\"} 0",
        "refused_writes_total{reason=\"unauthorized\"} 0",
        "events_total{outcome=\"quarantined\",type=\"tool_invocation\"} 1",
    ] {
        let line = format!("agent_meter_collector_{line}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let bytes =
        text.lines().find_map(|line| line.strip_prefix("agent_meter_collector_ledger_bytes "));
    assert!(bytes.and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes > 10_000));
    collector.stop().await;
}

//! Tests numbers that cannot be: events that are kept apart, what the operator decides about them,
//! and reports over ledgers that hold such numbers already.

use agent_meter_collector::invoice::invoices;
use agent_meter_collector::{Decision, Page};
use rusqlite::Connection;

use super::generations::{generation, usage as generations};
use super::guards::{EDGE_2, SCOPE};
use super::schema::{BEFORE_9, BEFORE_11, BEFORE_12, BEFORE_13};
use super::*;

/// The largest amount that the ledger's decimals can hold.
const MOST: &str = "79228162514264337593543950335";

fn quarantine(ledger: &Ledger, state: &str) -> Value {
    let page = ledger.quarantine(state, Page::default()).expect("quarantine");
    serde_json::to_value(page).expect("json")
}

fn at(mut event: Value, time: &str) -> Value {
    event["time"] = time.into();
    event
}

fn with_tokens(sequence: u64, tokens: &Value) -> Value {
    let quantity = |kind: &str| tokens[kind].as_u64().unwrap_or(0);
    let sum = quantity("input").checked_add(quantity("output"));
    generation(sequence, json!({"tokens": tokens, "quantity": sum}))
}

fn guard_totals(sequence: u64, data: Value) -> Value {
    let mut event = event(sequence, "guard_totals", json!({}));
    event["data"] = json!({
        "event_type": "guard_totals", "guard_id": "floor", "guard_kind": "margin",
        "mode": "enforce", "scope": "customer", "customer_id": "acme", "scope_key": SCOPE,
        "period": "hour", "period_started_at": "2026-07-01T10:00:00.000Z",
        "total_provider_cost": "0.5", "total_revenue": "2", "currency": "USD", "level": "NONE",
        "calls": 1, "tokens": 1,
    });
    merge(&mut event["data"], data);
    event
}

/// Each with what is not plausible of it: K5 and K6 of what hostile senders tried.
fn implausible() -> Vec<(Value, &'static str)> {
    let tokens = |tokens: Value| with_tokens(2, &tokens);
    let price = |price: &str| call(2, json!({"price": price}));
    let time = |time: &str| at(call(2, json!({})), time);
    vec![
        (tokens(json!({"input": 1_u64 << 61, "output": 1})), "tokens"),
        (tokens(json!({"input": 1_u64 << 63, "output": 1})), "tokens"),
        (tokens(json!({"input": u64::MAX})), "tokens"),
        (tokens(json!({"input": 1e30})), "tokens"),
        (tokens(json!({"input": 5, "output": 5, "reasoning": 10_000_000_001_u64})), "tokens"),
        (price(MOST), "money"),
        (price("79228162514264337593543950336"), "money"),
        (price(&"9".repeat(200)), "money"),
        (price("1000000000000.01"), "money"),
        (generation(2, json!({"reported_cost": "1000000000001"})), "money"),
        (generation(2, json!({"units": {"pages": "1000000000000.5"}})), "units"),
        (closed(2, json!({"total_revenue": MOST})), "money"),
        (closed(2, json!({"total_tool_calls": 1_u64 << 62})), "count"),
        (closed(2, json!({"session_ended_at": "2026-07-02T12:05:01Z"})), "time"),
        (guard_totals(2, json!({"total_provider_cost": MOST})), "money"),
        (guard_totals(2, json!({"tokens": 1_u64 << 62})), "count"),
        (time("2026-07-02T12:05:00.001Z"), "time"),
        (time("2026-05-28T11:59:59.999Z"), "time"),
        (time("9999-12-31T23:59:59Z"), "time"),
        (time("0001-01-01T00:00:00Z"), "time"),
    ]
}

#[test]
fn what_is_not_plausible_is_taken_kept_apart_and_in_no_sum() {
    let honest = ledger_of(&[call(1, json!({}))]);
    for (event, reason) in implausible() {
        let ledger = memory();
        let receipt = insert(&ledger, &[call(1, json!({})), event.clone()]);
        assert_eq!((receipt.accepted, &receipt.rejected), (2, &vec![]), "{event}");
        let held = quarantine(&ledger, "held");
        assert_eq!(held["events"][0]["reason"], reason, "{event}");
        assert_eq!(held["events"][0]["event"], event);
        assert_eq!(usage(&ledger, "group_by=tool,day"), usage(&honest, "group_by=tool,day"));
        assert_eq!(sessions(&ledger, ""), sessions(&honest, ""), "{event}");
        assert_eq!(
            invoices(&ledger).expect("invoices"),
            invoices(&honest).expect("invoices"),
            "{event}"
        );
        assert_eq!(reconcile(&ledger), reconcile(&honest));
        // Its number is taken: it is not missing, and the filter need not send it again.
        assert_eq!(gaps(&ledger)["missing"], 0, "{event}");
        let again = insert(&ledger, std::slice::from_ref(&event));
        assert_eq!((again.accepted, again.duplicates), (0, 1), "{event}");
        let other = insert(&ledger, &[call(2, json!({"price": "7"}))]);
        assert_eq!(other.rejected.len(), 1, "the id is taken by {event}");
        assert_eq!(quarantine(&ledger, "held")["events"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn what_is_plausible_at_the_bounds_counts() {
    for event in [
        with_tokens(1, &json!({"input": 10_000_000_000_u64, "output": 10_000_000_000_u64})),
        call(1, json!({"price": "1000000000000"})),
        generation(1, json!({"units": {"pages": "1000000000000"}})),
        at(call(1, json!({})), "2026-07-02T12:05:00Z"),
        at(call(1, json!({})), "2026-05-28T12:00:00Z"),
    ] {
        let ledger = ledger_of(std::slice::from_ref(&event));
        assert_eq!(quarantine(&ledger, "held")["events"], json!([]), "{event}");
        assert_eq!(ledger.events(&EventsQuery::default()).expect("events").events.len(), 1);
    }
}

#[test]
fn an_event_that_is_released_counts_and_one_that_is_discarded_never_does() {
    let late = [call(1, json!({})), at(call(2, json!({"price": "0.5"})), "2026-01-01T00:00:00Z")];
    let ledger = ledger_of(&late);
    let position = quarantine(&ledger, "held")["events"][0]["position"].as_i64().expect("position");
    for wrong in [0, 1, position + 1] {
        let error = ledger.decide(wrong, Decision::Release).expect_err("nothing is held there");
        assert_eq!(error.to_string(), format!("no event is held at {wrong}"));
    }
    ledger.decide(position, Decision::Release).expect("released");
    assert_eq!(usage(&ledger, "")[0]["revenue"], "0.501");
    assert_eq!(quarantine(&ledger, "held")["events"], json!([]));
    let released = &quarantine(&ledger, "released")["events"][0];
    assert_eq!(released["decided_at"], "2026-07-02T12:00:00Z");
    ledger.decide(position, Decision::Discard).expect_err("decided");
    assert_eq!(insert(&ledger, &late).duplicates, 2);
    let found = ledger.events(&EventsQuery::default()).expect("events").events;
    assert_eq!(found.len(), 2, "a released event is listed as any other");

    let ledger = ledger_of(&late);
    ledger.decide(position, Decision::Discard).expect("discarded");
    assert_eq!(usage(&ledger, "")[0]["revenue"], "0.001");
    assert_eq!(insert(&ledger, &late).duplicates, 2);
    assert_eq!(quarantine(&ledger, "discarded")["events"][0]["event"], late[1]);

    // What does not even fit the ledger's numbers stays where it is.
    let ledger = ledger_of(&[with_tokens(1, &json!({"input": u64::MAX}))]);
    let error = ledger.decide(1, Decision::Release).expect_err("too large");
    let expected = "the event 00000000000000000001 cannot be counted: data.quantity: is not \
                    plausible, at most 20000000000, found 18446744073709551615";
    assert_eq!(error.to_string(), expected);
    assert_eq!(quarantine(&ledger, "held")["events"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_supersedes_a_held_generation_still_does_after_its_release() {
    let late = at(generation(1, json!({"generation_id": "0.1.5"})), "2026-01-01T00:00:00Z");
    let newer = generation(2, json!({"generation_id": "0.1.6", "supersedes": "0.1.5"}));
    let ledger = ledger_of(&[late, newer.clone()]);
    let before = generations(&ledger, "");
    ledger.decide(1, Decision::Release).expect("released");
    assert_eq!(generations(&ledger, ""), before);
}

/// A ledger of version 8 that holds what nobody checked then.
fn old_ledger(path: &str) {
    let big = |sequence: u64| {
        let mut event = generation(sequence, json!({}));
        event["source"] = EDGE_2.into();
        event
    };
    let events = [
        call(1, json!({"price": "0.25"})),
        call(2, json!({"price": "0.5"})),
        call(3, json!({"price": "0.75"})),
        big(1),
        big(2),
        big(3),
        big(4),
        big(5),
    ];
    drop(insert(&open(path), &events));
    let old = Connection::open(path).expect("a database");
    let spoil = |position: usize, data: Value| {
        let mut event = events[position - 1].clone();
        merge(&mut event["data"], data);
        let sql = "UPDATE events SET raw = ? WHERE position = ?";
        old.execute(sql, (event.to_string(), i64::try_from(position).expect("small")))
            .expect("an event");
    };
    for position in [2, 3] {
        spoil(position, json!({"price": MOST}));
    }
    for position in 5..=8 {
        let tokens = json!({"input": 1_u64 << 61, "output": 0});
        spoil(position, json!({"tokens": tokens, "quantity": 1_u64 << 61}));
    }
    old.execute_batch(&format!(
        "UPDATE calls SET price = '{MOST}' WHERE position IN (2, 3);
         UPDATE generations SET input = 2305843009213693952 WHERE position >= 5;"
    ))
    .expect("rows");
    old.execute_batch(&[BEFORE_13, BEFORE_12, BEFORE_11, BEFORE_9].concat()).expect("tables");
    old.pragma_update(None, "user_version", 8).expect("a version");
}

#[test]
fn an_old_ledger_keeps_apart_what_nobody_checked_then() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db");
    let path = path.to_str().expect("UTF-8");
    old_ledger(path);
    for round in 0..2 {
        let ledger = open(path);
        let held = quarantine(&ledger, "held");
        let reasons: Vec<_> = held["events"].as_array().expect("events").iter().collect();
        let reasons: Vec<_> = reasons.iter().map(|event| event["reason"].as_str()).collect();
        let expected = ["money", "money", "tokens", "tokens", "tokens", "tokens"].map(Some);
        assert_eq!(reasons, expected, "{round}");
        let row = &generations(&ledger, "")[0];
        assert_eq!((&row["input"], &row["revenue"]), (&json!(1000), &json!("0.25")), "{round}");
        assert_eq!(gaps(&ledger)["missing"], 0, "{round}");
        assert_eq!(gaps(&ledger)["sources"].as_array().map(Vec::len), Some(2), "{round}");
        assert_eq!(invoices(&ledger).expect("invoices").len(), 1);
    }
}

#[tokio::test]
async fn no_report_fails_for_rows_that_do_not_fit_together() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db");
    let path = path.to_str().expect("UTF-8");
    let extras = Extras { clock: clock(), ..Extras::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::start_with(listen, path, extras).await.expect("collector");
    let http = Http::new(&collector);
    let mut events = whole_session();
    events.extend((8..12).map(|sequence| generation(sequence, json!({"price": "1"}))));
    events.extend([guard_totals(12, json!({})), {
        let mut event = guard_totals(1, json!({}));
        event["source"] = EDGE_2.into();
        event
    }]);
    let body = serde_json::to_vec(&events).expect("json");
    assert_eq!(http.post(BATCH, body.clone()).await.0, 200);
    // As if the bounds had not been there.
    let spoilt = Connection::open(path).expect("a database");
    spoilt
        .execute_batch(&format!(
            "UPDATE calls SET price = '{MOST}', request_bytes = 9223372036854775807,
              quantity = 9223372036854775807 WHERE billable;
             UPDATE generations SET price = '{MOST}', provider_cost = '{MOST}',
              input = 9223372036854775807, units = '{{\"pages\":\"{MOST}\"}}';
             UPDATE call_hours SET price = '{MOST}0', request_bytes = '9223372036854775808',
              calls = 9223372036854775807 WHERE billable;
             UPDATE generation_hours SET price = '{MOST}', provider_cost = '{MOST}.1',
              input = '{MOST}', units = '{{\"pages\":\"{MOST}0\"}}';
             UPDATE guard_totals SET calls = 9223372036854775807, tokens = 9223372036854775807,
              provider_cost = '{MOST}';"
        ))
        .expect("rows");
    for path in [
        "/v1/usage",
        "/v1/usage?group_by=tool,model,day",
        "/v1/usage?group_by=session",
        "/v1/sessions",
        "/v1/guards",
        "/v1/gaps",
        "/v1/reconcile",
        "/v1/quarantine",
        "/metrics",
        "/healthz",
    ] {
        let (status, text) = http.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
    }
    let (_, text) = http.get("/v1/usage").await;
    let row = &serde_json::from_str::<Value>(&text).expect("json")["rows"][0];
    assert_eq!((&row["revenue"], &row["units"]["pages"]), (&json!(MOST), &json!(MOST)));
    assert_eq!((&row["input"], &row["calls"]), (&json!(i64::MAX), &json!(i64::MAX)));
    let (_, receipt) = http.post(BATCH, body).await;
    assert_eq!(receipt["verdicts"][0]["total_provider_cost"], MOST);
    let ledger = collector.ledger();
    assert_eq!(invoices(&ledger).expect("invoices").len(), 1);
    collector.stop().await;
}

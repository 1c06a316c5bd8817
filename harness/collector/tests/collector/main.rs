//! Tests the collector from outside: what it stores, refuses, answers and bills. The tests write
//! events as `filter/EVENTS.md` describes them, without any code of the filter.

mod access;
#[path = "../events/mod.rs"]
mod events;
mod generations;
mod guards;
mod hours;
mod kinds;
#[path = "../ledgers/mod.rs"]
mod ledgers;
mod plausible;
mod proof;
#[path = "../random/mod.rs"]
mod random;
mod reader;
mod schema;
mod sources;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;

use agent_meter_collector::invoice::{Invoice, invoices};
use agent_meter_collector::{
    Clock, Collector, EventsQuery, Extras, IngestError, Ledger, Period, Receipt, SessionsQuery,
    UsageQuery,
};
use serde_json::{Value, json};

use self::events::{SESSION, SOURCE, call, event, merge};
use self::ledgers::new_ledger;

const BATCH: &str = "application/cloudevents-batch+json";

fn error_call(sequence: u64) -> Value {
    call(sequence, json!({"execution_status": "ERROR", "billable": false, "price": "0"}))
}

fn state(sequence: u64, state: &str) -> Value {
    let data = json!({"session_state": state, "session_started_at": "2026-07-01T10:00:00.000Z"});
    event(sequence, &format!("session_{}", state.to_lowercase()), data)
}

/// The end of a session of two billed calls of `search` and a failed one.
fn closed(sequence: u64, data: Value) -> Value {
    let members = json!({
        "session_state": "CLOSED",
        "close_reason": "session_timeout",
        "session_started_at": "2026-07-01T10:00:00.000Z",
        "session_ended_at": "2026-07-01T10:05:00.000Z",
        "total_tool_calls": 3,
        "billable_tool_calls": 2,
        "calls_by_status": {"ERROR": 1, "SUCCESS": 2},
        "calls_by_tool": [{"tool_name": "search", "calls": 3, "billable_calls": 2,
            "revenue": "0.002", "provider_cost": "0"}],
        "total_tokens":
            {"input": 0, "output": 0, "reasoning": 0, "cache_read": 0, "cache_write": 0},
        "wall_duration_ms": 300_000,
        "active_duration_ms": 36,
        "total_provider_cost": "0",
        "total_revenue": "0.002",
        "currency": "USD",
    });
    let mut event = event(sequence, "session_closed", members);
    merge(&mut event["data"], data);
    event
}

/// Created, three calls, idle, closed: sequences 1 to 7.
fn whole_session() -> Vec<Value> {
    vec![
        state(1, "CREATED"),
        call(2, json!({})),
        state(3, "ACTIVE"),
        error_call(4),
        call(5, json!({})),
        state(6, "IDLE"),
        closed(7, json!({})),
    ]
}

/// When the events of these tests arrive: a day after most of them happened, in milliseconds since
/// 1970.
const NOW_MS: i64 = 1_782_993_600_000;

/// It shows 2026-07-02T12:00:00Z for ever.
fn clock() -> Clock {
    Clock::new(|| NOW_MS)
}

fn open(url: &str) -> Ledger {
    Ledger::open_at(url, clock()).expect(url)
}

fn memory() -> Ledger {
    open(&new_ledger())
}

fn insert(ledger: &Ledger, events: &[Value]) -> Receipt {
    let body = serde_json::to_vec(events).expect("json");
    ledger.insert_batch(&body, BATCH).expect("batch")
}

fn ledger_of(events: &[Value]) -> Ledger {
    let ledger = memory();
    let receipt = insert(&ledger, events);
    assert_eq!(receipt.rejected, [], "events of a test are valid");
    ledger
}

/// Reads `a=b&c=d`; values in tests need no decoding.
fn pairs(query: &str) -> Vec<(String, String)> {
    let split = |pair: &str| pair.split_once('=').map(|(name, value)| (name.into(), value.into()));
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(split).collect()
}

/// The rows of a query, without the members that only generations have.
fn usage(ledger: &Ledger, query: &str) -> Value {
    let query = UsageQuery::from_pairs(pairs(query)).expect(query);
    let mut rows = serde_json::to_value(ledger.usage(&query).expect("usage")).expect("json");
    for row in rows["rows"].as_array_mut().expect("rows") {
        for count in [
            "generations",
            "unpriced_generations",
            "unknown_usage_generations",
            "unpriced_units_generations",
            "inconsistent_generations",
            "input",
            "output",
            "reasoning",
            "cache_read",
            "cache_write",
            "request_bytes",
            "response_bytes",
        ] {
            assert_eq!(row[count], 0, "{count} of a ledger of tool calls");
            merge(row, json!({count: null}));
        }
        assert_eq!(row["provider_cost"], "0");
        assert_eq!(row["margin"], row["revenue"]);
        assert_eq!(row["cost_known"], "all");
        assert_eq!(row["units"], json!({}));
        row.as_object_mut().expect("a row").remove("units");
        merge(row, json!({"provider_cost": null, "margin": null, "cost_known": null}));
    }
    rows["rows"].take()
}

fn sessions(ledger: &Ledger, query: &str) -> Value {
    let query = SessionsQuery::from_pairs(pairs(query)).expect(query);
    serde_json::to_value(ledger.sessions(&query).expect("sessions")).expect("json")
}

fn gaps(ledger: &Ledger) -> Value {
    serde_json::to_value(ledger.gaps().expect("gaps")).expect("json")
}

fn reconcile(ledger: &Ledger) -> Value {
    serde_json::to_value(ledger.reconcile().expect("reconcile")).expect("json")
}

#[test]
fn a_batch_delivered_again_is_counted_once() {
    let ledger = memory();
    let events = whole_session();
    let first = insert(&ledger, &events);
    assert_eq!((first.accepted, first.duplicates, first.rejected.len()), (7, 0, 0));
    let before = (usage(&ledger, "group_by=tool,status"), sessions(&ledger, ""));
    let again = insert(&ledger, &events);
    assert_eq!((again.accepted, again.duplicates, again.rejected.len()), (0, 7, 0));
    assert_eq!((usage(&ledger, "group_by=tool,status"), sessions(&ledger, "")), before);
    assert_eq!(ledger.count_events().expect("count"), 7);

    // The same content with other white space is the same event, also within one batch.
    let pretty = serde_json::to_string_pretty(&events[1]).expect("json");
    let compact = serde_json::to_string(&events[1]).expect("json");
    let both = format!("[{pretty},{compact}]");
    let receipt = ledger.insert_batch(both.as_bytes(), BATCH).expect("batch");
    assert_eq!((receipt.accepted, receipt.duplicates, receipt.rejected.len()), (0, 2, 0));
}

#[test]
fn different_content_under_a_known_id_is_rejected_and_the_stored_one_stays() {
    let ledger = ledger_of(&[call(1, json!({}))]);
    let receipt = insert(&ledger, &[call(1, json!({"price": "9"})), call(2, json!({}))]);
    let expected = json!({"accepted": 1, "duplicates": 0, "rejected": [{
        "index": 0,
        "id": "00000000000000000001",
        "reason": "id: this source and id are in the ledger with different content, which was kept",
    }]});
    assert_eq!(serde_json::to_value(receipt).expect("json"), expected);
    assert_eq!(usage(&ledger, "")[0]["revenue"], "0.002");
}

#[test]
fn invalid_events_of_a_batch_are_rejected_and_the_valid_ones_stored() {
    let ledger = memory();
    let receipt = insert(
        &ledger,
        &[call(1, json!({})), call(2, json!({"price": "-1"})), json!(7), error_call(3)],
    );
    let expected = json!({"accepted": 2, "duplicates": 0, "rejected": [
        {"index": 1, "id": "00000000000000000002",
         "reason": "data.price: must be a decimal string of at least 0, found \"-1\""},
        {"index": 2, "id": "", "reason": "event: must be an object, found 7"},
    ]});
    assert_eq!(serde_json::to_value(receipt).expect("json"), expected);
    assert_eq!(ledger.count_events().expect("count"), 2);
}

#[test]
fn each_rule_of_an_event_has_its_own_reason() {
    let with = |mut event: Value, members: Value| {
        merge(&mut event, members);
        event
    };
    let good = || call(1, json!({}));
    let long = "x".repeat(200);
    let statuses = "SUCCESS, ERROR, VALIDATION_FAILED, BLOCKED, PAYMENT_REQUIRED, TIMEOUT, \
                    CANCELLED, HITL_REQUIRED, PENDING, UNKNOWN";
    for (event, reason) in [
        (with(good(), json!({"specversion": null})), "specversion: missing".to_owned()),
        (
            with(good(), json!({"specversion": "0.3"})),
            r#"specversion: must be "1.0", found "0.3""#.into(),
        ),
        (with(good(), json!({"id": null})), "id: missing".into()),
        (with(good(), json!({"id": 1})), "id: must be a string, found 1".into()),
        (
            with(good(), json!({"id": "1"})),
            r#"sequence: must be "1", found "00000000000000000001""#.into(),
        ),
        (
            with(good(), json!({"source": ""})),
            r#"source: must be a string, not empty, found """#.into(),
        ),
        (with(good(), json!({"type": null})), "type: missing".into()),
        (
            with(good(), json!({"time": "yesterday"})),
            r#"time: must be an RFC 3339 time, found "yesterday""#.into(),
        ),
        (
            with(good(), json!({"time": "2026-02-30T00:00:00Z"})),
            r#"time: must be an RFC 3339 time, found "2026-02-30T00:00:00Z""#.into(),
        ),
        (with(good(), json!({"subject": null})), "subject: missing".into()),
        (
            with(good(), json!({"subject": "other"})),
            r#"data.customer_id: must be "other", found "acme""#.into(),
        ),
        (
            with(good(), json!({"sequence": "1"})),
            r#"sequence: must be 20 decimal digits, from 1, found "1""#.into(),
        ),
        (
            call(0, json!({})),
            r#"sequence: must be 20 decimal digits, from 1, found "00000000000000000000""#.into(),
        ),
        (
            call(u64::MAX, json!({})),
            r#"sequence: must be 20 decimal digits, from 1, found "18446744073709551615""#.into(),
        ),
        (
            with(good(), json!({"datacontenttype": "text/xml"})),
            r#"datacontenttype: must be "application/json", found "text/xml""#.into(),
        ),
        (with(good(), json!({"data": null})), "data: missing".into()),
        (with(good(), json!({"data": [1]})), "data: must be an object, found [1]".into()),
        (
            with(good(), json!({"data": long})),
            format!("data: must be an object, found \"{}...", "x".repeat(59)),
        ),
        (
            call(1, json!({"event_type": "session_idle"})),
            r#"data.event_type: must be "tool_invocation", found "session_idle""#.into(),
        ),
        (call(1, json!({"team_id": null})), "data.team_id: missing".into()),
        (
            call(1, json!({"session_id": "abc"})),
            r#"data.session_id: must be 32 hexadecimal digits, found "abc""#.into(),
        ),
        (call(1, json!({"session_key": 5})), "data.session_key: must be a string, found 5".into()),
        (
            call(1, json!({"metric_id": "x"})),
            r#"data.metric_id: must be "tool_invocations", found "x""#.into(),
        ),
        (
            call(1, json!({"quantity": 0})),
            "data.quantity: must be an integer of at least 1, and at most 1000000000, found 0"
                .into(),
        ),
        (
            call(1, json!({"execution_status": "OK"})),
            format!("data.execution_status: must be one of {statuses}, found \"OK\""),
        ),
        (
            call(1, json!({"execution_duration_ms": -1})),
            "data.execution_duration_ms: must be an integer of at least 0, found -1".into(),
        ),
        (
            call(1, json!({"execution_duration_ms": 1.5})),
            "data.execution_duration_ms: must be an integer of at least 0, found 1.5".into(),
        ),
        (
            call(1, json!({"http_status": "200"})),
            r#"data.http_status: must be an integer of at least 0, found "200""#.into(),
        ),
        (
            call(1, json!({"billable": "yes"})),
            r#"data.billable: must be true or false, found "yes""#.into(),
        ),
        (
            call(1, json!({"billable": false})),
            r#"data.price: must be "0" when billable is false, found "0.001""#.into(),
        ),
        (
            call(1, json!({"price": 0.001})),
            "data.price: must be a decimal string of at least 0, found 0.001".into(),
        ),
        (
            call(1, json!({"price": "1e3"})),
            r#"data.price: must be a decimal string of at least 0, found "1e3""#.into(),
        ),
        (
            call(1, json!({"currency": "usd"})),
            r#"data.currency: must be an ISO 4217 code, found "usd""#.into(),
        ),
        (
            event(1, "session_idle", json!({"session_state": "ACTIVE"})),
            r#"data.session_state: must be "IDLE", found "ACTIVE""#.into(),
        ),
        (
            event(1, "session_idle", json!({"session_state": "IDLE"})),
            "data.session_started_at: missing".into(),
        ),
        (
            closed(1, json!({"total_tool_calls": -3})),
            "data.total_tool_calls: must be an integer of at least 0, found -3".into(),
        ),
        (
            closed(1, json!({"calls_by_status": {"GOOD": 1}})),
            "data.calls_by_status.GOOD: unknown status".into(),
        ),
        (
            closed(1, json!({"calls_by_tool": {}})),
            "data.calls_by_tool: must be an array, found {}".into(),
        ),
        (
            closed(1, json!({"calls_by_tool": [{"tool_name": "a"}]})),
            "data.calls_by_tool[0].calls: missing".into(),
        ),
        (closed(1, json!({"total_tokens": {}})), "data.total_tokens.input: missing".into()),
        (
            closed(1, json!({"total_revenue": "-0"})),
            r#"data.total_revenue: must be a decimal string of at least 0, found "-0""#.into(),
        ),
        (
            closed(1, json!({"session_ended_at": 1})),
            "data.session_ended_at: must be a string, found 1".into(),
        ),
    ] {
        let ledger = memory();
        let receipt = insert(&ledger, std::slice::from_ref(&event));
        let reasons: Vec<_> = receipt.rejected.iter().map(|rejected| &rejected.reason).collect();
        assert_eq!(reasons, [&reason], "{event}");
        assert_eq!(ledger.count_events().expect("count"), 0, "{event}");
    }
}

#[test]
fn a_body_that_is_no_batch_is_refused_whole() {
    let one = call(1, json!({})).to_string();
    let many = format!("[{one}]");
    let cut = format!("[{one},");
    let place = cut.len();
    let types = "content-type: must be application/cloudevents-batch+json, \
                 application/cloudevents+json or application/json, found";
    for (content_type, body, expected) in [
        (BATCH, many.as_str(), Ok(1)),
        (BATCH, "[]", Ok(0)),
        (BATCH, " \n[]", Ok(0)),
        ("Application/CloudEvents-Batch+JSON; charset=utf-8", &many, Ok(1)),
        ("application/cloudevents+json", &one, Ok(1)),
        ("application/json", &one, Ok(1)),
        ("application/json", &many, Ok(1)),
        (BATCH, &one, Err("body: must be an array of events, found an object".to_owned())),
        (
            "application/cloudevents+json",
            &many,
            Err("body: must be an object, one event, found an array".into()),
        ),
        (
            "application/json",
            "12",
            Err("body: must be an array of events or an object, one event, found a number".into()),
        ),
        (BATCH, "null", Err("body: must be an array of events, found null".into())),
        (
            BATCH,
            &cut,
            Err(format!("body: not JSON: EOF while parsing a value at line 1 column {place}")),
        ),
        (BATCH, "", Err("body: not JSON: EOF while parsing a value at line 1 column 0".into())),
        (BATCH, "{]", Err("body: not JSON: key must be a string at line 1 column 2".into())),
        (BATCH, "[] []", Err("body: not JSON: trailing characters at line 1 column 4".into())),
        ("text/plain", &many, Err(format!("{types} \"text/plain\""))),
        ("", &many, Err(format!("{types} \"\""))),
    ] {
        let ledger = memory();
        let result = ledger.insert_batch(body.as_bytes(), content_type);
        let result = result.map(|receipt| receipt.accepted).map_err(|error| error.to_string());
        assert_eq!(result, expected, "{content_type} {body}");
        assert_eq!(ledger.count_events().expect("count"), expected.unwrap_or(0), "{body}");
    }
    let not_utf8 = memory().insert_batch(b"[\"\xff\"]", BATCH);
    assert!(matches!(not_utf8, Err(IngestError::Malformed(_))), "{not_utf8:?}");
}

#[test]
fn the_cost_in_a_call_counts_in_nothing() {
    let costs = [json!("5"), json!(5), json!("much")];
    let calls =
        (1..).zip(costs).map(|(sequence, cost)| call(sequence, json!({"provider_cost": cost})));
    // `usage` asserts a provider cost of 0.
    assert_eq!(usage(&ledger_of(&calls.collect::<Vec<_>>()), "")[0]["calls"], 3);
}

#[test]
fn unknown_types_and_members_are_kept_and_count_in_nothing() {
    let mut odd = event(1, "budget_alert", json!({"customer_id": 5, "new": {"a": [1]}}));
    odd["extension"] = json!("x");
    let mut bare = event(2, "ping", json!({}));
    merge(&mut bare, json!({"data": null}));
    let known = call(3, json!({"new_member": {"b": 1.50}}));
    let ledger = ledger_of(&[odd.clone(), bare.clone(), known.clone()]);
    assert_eq!(usage(&ledger, "")[0]["calls"], 1);
    let page = ledger.events(&EventsQuery::default()).expect("events");
    let stored: Vec<Value> =
        page.events.iter().map(|raw| serde_json::from_str(raw.get()).expect("json")).collect();
    assert_eq!(stored, [odd, bare, known]);
    assert_eq!(gaps(&ledger)["missing"], 0);
}

#[test]
fn the_order_of_arrival_changes_nothing() {
    let mut events = whole_session();
    events.remove(2); // Leaves 720 orders, and a gap.
    let reports = |ledger: &Ledger| {
        let whole = json!([
            sessions(ledger, ""),
            usage(ledger, "group_by=session,tool,status,day"),
            gaps(ledger),
            reconcile(ledger),
        ]);
        (whole, Invoice::for_customer(ledger, Some("acme"), Period::default()).expect("invoice"))
    };
    let expected = reports(&ledger_of(&events));
    for order in permutations(events.len()) {
        let ledger = memory();
        for batch in order.chunks(3) {
            let batch: Vec<Value> = batch.iter().map(|index| events[*index].clone()).collect();
            insert(&ledger, &batch);
        }
        assert_eq!(reports(&ledger), expected, "{order:?}");
    }

    // Without its session events a session has its calls, whichever of them came first.
    let other = json!({"agent_id": "agent-2"});
    let calls = [call(2, json!({})), call(5, other), error_call(4)];
    let expected = reports(&ledger_of(&calls));
    assert_eq!(expected.0[0]["sessions"][0]["agent_id"], "agent-1");
    for order in permutations(calls.len()) {
        let batch: Vec<Value> = order.iter().map(|index| calls[*index].clone()).collect();
        assert_eq!(reports(&ledger_of(&batch)), expected, "{order:?}");
    }
}

/// Every order of so many events; in PostgreSQL, where each ledger takes a tenth of a second to make,
/// every 29th of many.
fn permutations(length: usize) -> Vec<Vec<usize>> {
    let all = all_permutations(length);
    let step = if std::env::var_os("LEDGER_SERVER").is_none() || all.len() < 100 { 1 } else { 29 };
    all.into_iter().step_by(step).collect()
}

fn all_permutations(length: usize) -> Vec<Vec<usize>> {
    if length == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in all_permutations(length - 1) {
        for place in 0..length {
            let mut order = shorter.clone();
            order.insert(place, length - 1);
            all.push(order);
        }
    }
    all
}

#[test]
fn sums_of_money_are_exact() {
    let thousandths = vec!["0.001"; 1000];
    for (prices, expected) in [
        (vec!["0.1", "0.2"], "0.3"),
        (thousandths, "1"),
        (vec!["0.10", "0.90"], "1"),
        (vec!["999999999999", "1"], "1000000000000"),
        (vec!["0.0000000000000000000000000001", "1"], "1.0000000000000000000000000001"),
        (vec![], "0"),
    ] {
        let calls =
            (1..).zip(&prices).map(|(sequence, price)| call(sequence, json!({"price": price})));
        let ledger = ledger_of(&calls.collect::<Vec<_>>());
        let total = &usage(&ledger, "")[0];
        assert_eq!(total["revenue"], expected, "{prices:?}");
    }
}

/// Six calls of two customers on two days, two tools and two sources.
fn varied() -> Ledger {
    let mut other = call(
        1,
        json!({"customer_id": "bolt", "tool_name": "fetch", "price": "2.5",
        "cost_tier": "premium", "team_id": "red", "agent_id": "agent-2",
        "session_id": "ffffffffffffffffffffffffffffffff"}),
    );
    merge(
        &mut other,
        json!({"subject": "bolt", "source": "urn:agent-meter:envoy-2:0001",
        "time": "2026-07-02T00:30:00+01:00"}),
    );
    let mut next_day = call(6, json!({"product_id": "more"}));
    next_day["time"] = json!("2026-07-02T00:00:00.000Z");
    let calls = [call(1, json!({})), call(2, json!({})), call(3, json!({})), error_call(4)];
    let ledger = ledger_of(&calls);
    insert(&ledger, &[other, next_day]);
    ledger
}

#[test]
fn usage_has_the_promised_shape() {
    let ledger = varied();
    for (query, expected) in [
        (
            "group_by=tool,status&product=tools&customer=acme&status=SUCCESS",
            json!([{"tool": "search", "status": "SUCCESS", "calls": 3, "billable_calls": 3,
                "revenue": "0.003"}]),
        ),
        ("", json!([{"calls": 6, "billable_calls": 5, "revenue": "2.504"}])),
        ("group_by=", json!([{"calls": 6, "billable_calls": 5, "revenue": "2.504"}])),
        ("customer=nobody", json!([{"calls": 0, "billable_calls": 0, "revenue": "0"}])),
        ("group_by=tool&customer=nobody", json!([])),
        (
            "group_by=customer,status",
            json!([
                {"customer": "acme", "status": "ERROR", "calls": 1, "billable_calls": 0,
                 "revenue": "0"},
                {"customer": "acme", "status": "SUCCESS", "calls": 4, "billable_calls": 4,
                 "revenue": "0.004"},
                {"customer": "bolt", "status": "SUCCESS", "calls": 1, "billable_calls": 1,
                 "revenue": "2.5"},
            ]),
        ),
        (
            "group_by=day",
            json!([
                {"day": "2026-07-01", "calls": 5, "billable_calls": 4, "revenue": "2.503"},
                {"day": "2026-07-02", "calls": 1, "billable_calls": 1, "revenue": "0.001"},
            ]),
        ),
        (
            "group_by=customer,team,agent,product,session,tool,status,tier,source,currency,day\
             &customer=bolt",
            json!([{"customer": "bolt", "team": "red", "agent": "agent-2", "product": "tools",
                "session": "ffffffffffffffffffffffffffffffff", "tool": "fetch",
                "status": "SUCCESS", "tier": "premium", "source": "urn:agent-meter:envoy-2:0001",
                "currency": "USD", "day": "2026-07-01", "calls": 1, "billable_calls": 1,
                "revenue": "2.5"}]),
        ),
    ] {
        assert_eq!(usage(&ledger, query), expected, "{query}");
    }
}

#[test]
fn usage_filters_by_each_dimension_and_by_time() {
    let ledger = varied();
    for (filter, calls) in [
        ("customer=acme", 5),
        ("team=red", 1),
        ("agent=agent-1", 5),
        ("product=more", 1),
        ("session=ffffffffffffffffffffffffffffffff", 1),
        ("tool=fetch", 1),
        ("status=ERROR", 1),
        ("tier=premium", 1),
        ("source=urn:agent-meter:envoy-2:0001", 1),
        ("currency=EUR", 0),
        ("day=2026-07-02", 1),
        ("customer=acme&status=ERROR", 1),
        ("customer=bolt&status=ERROR", 0),
        ("customer=acme' OR '1'='1", 0),
        // Half-open: a call at the boundary is only in the later span.
        ("to=2026-07-02T00:00:00Z", 5),
        ("from=2026-07-02T00:00:00Z", 1),
        ("from=2026-07-02T02:00:00+02:00", 1),
        ("from=2026-07-01T10:00:02Z&to=2026-07-01T10:00:04Z", 2),
        ("from=2026-07-01T10:00:02Z&to=2026-07-01T10:00:02Z", 0),
    ] {
        assert_eq!(usage(&ledger, filter)[0]["calls"], calls, "{filter}");
    }
}

#[test]
fn currencies_are_never_added_up() {
    let ledger = ledger_of(&[
        call(1, json!({})),
        call(2, json!({"currency": "EUR", "price": "0.5"})),
        call(3, json!({"tool_name": "fetch"})),
    ]);
    let row = |currency, tool: Option<&str>, calls, revenue| {
        let mut row = json!({"calls": calls, "billable_calls": calls, "revenue": revenue});
        merge(&mut row, json!({"currency": currency, "tool": tool}));
        row
    };
    for (query, expected) in [
        ("", json!([row(Some("EUR"), None, 1, "0.5"), row(Some("USD"), None, 2, "0.002")])),
        (
            "group_by=tool",
            json!([
                row(Some("USD"), Some("fetch"), 1, "0.001"),
                row(Some("EUR"), Some("search"), 1, "0.5"),
                row(Some("USD"), Some("search"), 1, "0.001"),
            ]),
        ),
        ("group_by=tool&tool=fetch", json!([row(None, Some("fetch"), 1, "0.001")])),
        ("currency=USD", json!([row(None, None, 2, "0.002")])),
        (
            "group_by=currency",
            json!([row(Some("EUR"), None, 1, "0.5"), row(Some("USD"), None, 2, "0.002")]),
        ),
    ] {
        assert_eq!(usage(&ledger, query), expected, "{query}");
    }
    let session = &sessions(&ledger, "")["sessions"][0];
    for member in ["currency", "total_revenue", "total_provider_cost"] {
        assert_eq!(session[member], Value::Null, "{member}");
    }
    assert_eq!(session["total_tool_calls"], 3);
    let invoice = Invoice::for_customer(&ledger, None, Period::default()).expect("invoice");
    let text = invoice.to_string();
    assert!(text.ends_with("Total  0.5 EUR\nTotal  0.002 USD\n"), "{text}");
}

#[test]
fn bad_parameters_are_named() {
    let dimensions = "customer, team, agent, key, product, product_type, session, kind, tool, \
                      status, tier, provider, model, source, currency, day";
    for (query, expected) in [
        (
            "group_by=foo",
            format!("group_by: unknown dimension \"foo\", expected one of {dimensions}"),
        ),
        (
            "group_by=tool,",
            format!("group_by: unknown dimension \"\", expected one of {dimensions}"),
        ),
        ("group_by=tool,tool", "group_by: tool is given twice".into()),
        (
            "foo=1",
            format!("foo: unknown parameter, expected one of group_by, from, to, {dimensions}"),
        ),
        ("tool=a&tool=b", "tool: given twice".into()),
        (
            "from=today",
            "from: must be an RFC 3339 time such as 2026-07-01T00:00:00Z, found \"today\"".into(),
        ),
        (
            "to=2026-07-01",
            "to: must be an RFC 3339 time such as 2026-07-01T00:00:00Z, found \"2026-07-01\""
                .into(),
        ),
        ("from=2026-07-02T00:00:00Z&to=2026-07-01T00:00:00Z", "to: must not be before from".into()),
    ] {
        let error = UsageQuery::from_pairs(pairs(query)).expect_err(query);
        assert_eq!(error.to_string(), expected, "{query}");
    }
    for (query, expected) in [
        ("state=OPEN", "state: must be one of CREATED, ACTIVE, IDLE, CLOSED, found \"OPEN\""),
        ("order=up", "order: must be oldest or newest, found \"up\""),
        ("limit=0", "limit: must be 1 to 10000, found \"0\""),
        ("limit=10001", "limit: must be 1 to 10000, found \"10001\""),
        ("after=-1", "after: must be a cursor from \"next\", found \"-1\""),
        ("after=x", "after: must be a cursor from \"next\", found \"x\""),
    ] {
        let error = SessionsQuery::from_pairs(pairs(query)).expect_err(query);
        assert_eq!(error.to_string(), expected, "{query}");
    }
}

#[test]
fn gaps_name_each_number_that_is_missing() {
    let sequences = |sequences: &[u64]| -> Vec<Value> {
        sequences.iter().map(|sequence| call(*sequence, json!({}))).collect()
    };
    let row = |first, last, received, missing: Value| {
        let numbers = |range: &Value| {
            range["to"].as_u64().expect("to") - range["from"].as_u64().expect("from") + 1
        };
        let count: u64 = missing.as_array().expect("ranges").iter().map(numbers).sum();
        json!([{"source": SOURCE, "state": "unknown", "last_event_at": "2026-07-02T12:00:00Z",
            "writer": null, "first": first, "last": last, "received": received,
            "open_sessions": 1, "told": null, "missing_events": count, "missing": missing}])
    };
    for (stored, sources, missing) in [
        (vec![], json!([]), 0),
        (vec![1, 2, 3], row(1, 3, 3, json!([])), 0),
        (vec![3, 1], row(1, 3, 2, json!([{"from": 2, "to": 2}])), 1),
        (vec![9, 4, 5, 10], row(4, 10, 4, json!([{"from": 1, "to": 3}, {"from": 6, "to": 8}])), 6),
    ] {
        let states = if stored.is_empty() { json!({}) } else { json!({"unknown": 1}) };
        let expected =
            json!({"sources": sources, "missing": missing, "states": states, "more": false});
        assert_eq!(gaps(&ledger_of(&sequences(&stored))), expected, "{stored:?}");
    }

    let mut elsewhere = call(2, json!({}));
    elsewhere["source"] = json!("urn:agent-meter:envoy-2:0001");
    let ledger = ledger_of(&[call(1, json!({})), elsewhere]);
    assert_eq!(gaps(&ledger)["missing"], 1);
    assert_eq!(gaps(&ledger)["sources"][1]["missing"], json!([{"from": 1, "to": 1}]));

    let even: Vec<u64> = (1..=1500).map(|number| number * 2).collect();
    let answer = gaps(&ledger_of(&sequences(&even)));
    assert_eq!(answer["missing"], 1500);
    assert_eq!(answer["sources"][0]["missing"].as_array().map(Vec::len), Some(1000));
}

#[test]
fn a_session_shows_its_calls_so_far_and_then_its_final_totals() {
    let events = whole_session();
    let mut expected = json!({
        "session_id": SESSION, "state": "CREATED",
        "session_key": "fedcba9876543210fedcba9876543210", "source": SOURCE,
        "product_id": "tools", "product_type": "MCP_SERVER", "customer_id": "acme",
        "team_id": "blue", "agent_id": "agent-1", "api_key_hash": null,
        "credential_type": null, "started_at": "2026-07-01T10:00:00.000Z",
        "ended_at": null, "close_reason": null, "total_tool_calls": 0, "billable_tool_calls": 0,
        "calls_by_status": {}, "calls_by_tool": [], "generations": 0, "unpriced_generations": 0,
        "unknown_usage_generations": 0, "usage_by_model": [],
        "total_tokens":
            {"input": 0, "output": 0, "reasoning": 0, "cache_read": 0, "cache_write": 0},
        "wall_duration_ms": null, "active_duration_ms": null, "total_provider_cost": "0",
        "unattributed_provider_cost": "0", "total_revenue": "0", "currency": null,
        "cost_known": "all", "margin": "0",
    });
    let ledger = ledger_of(&events[..1]);
    assert_eq!(sessions(&ledger, ""), json!({"sessions": [expected], "next": null}));

    insert(&ledger, &events[1..6]);
    for (member, value) in [
        ("state", json!("IDLE")),
        ("total_tool_calls", json!(3)),
        ("billable_tool_calls", json!(2)),
        ("calls_by_status", json!({"ERROR": 1, "SUCCESS": 2})),
        (
            "calls_by_tool",
            json!([{"tool_name": "search", "calls": 3, "billable_calls": 2, "revenue": "0.002",
                "provider_cost": "0"}]),
        ),
        ("total_revenue", json!("0.002")),
        ("margin", json!("0.002")),
        ("currency", json!("USD")),
    ] {
        expected[member] = value;
    }
    assert_eq!(sessions(&ledger, "state=IDLE")["sessions"], json!([expected]));

    insert(&ledger, &events[6..]);
    for (member, value) in [
        ("state", json!("CLOSED")),
        ("ended_at", json!("2026-07-01T10:05:00.000Z")),
        ("close_reason", json!("session_timeout")),
        ("wall_duration_ms", json!(300_000)),
        ("active_duration_ms", json!(36)),
    ] {
        expected[member] = value;
    }
    assert_eq!(sessions(&ledger, "state=CLOSED&customer=acme")["sessions"], json!([expected]));
    assert_eq!(sessions(&ledger, "state=IDLE")["sessions"], json!([]));
    assert_eq!(sessions(&ledger, "agent=nobody")["sessions"], json!([]));
}

#[test]
fn a_session_seen_by_two_sources_is_two_rows_with_their_own_calls() {
    let ledger = ledger_of(&whole_session());
    let elsewhere = [state(1, "CREATED"), call(2, json!({"price": "5"}))].map(|mut event| {
        event["source"] = json!("urn:agent-meter:envoy-2:0001");
        event
    });
    insert(&ledger, &elsewhere);
    let rows = sessions(&ledger, &format!("session_id={SESSION}"))["sessions"].take();
    let listed = |row: &Value| json!([row["source"], row["state"], row["total_revenue"]]);
    let expected = [
        json!([SOURCE, "CLOSED", "0.002"]),
        json!(["urn:agent-meter:envoy-2:0001", "CREATED", "5"]),
    ];
    assert_eq!(rows.as_array().expect("array").iter().map(listed).collect::<Vec<_>>(), expected);
    assert_eq!(reconcile(&ledger), json!({"sessions": 1, "mismatches": []}));
    let one = sessions(&ledger, "source=urn:agent-meter:envoy-2:0001");
    assert_eq!(one["sessions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn lists_are_paged_without_loss_or_repetition() {
    let ledger = memory();
    let events: Vec<Value> = (1..=5)
        .map(|sequence| call(sequence, json!({"session_id": format!("{sequence:032x}")})))
        .collect();
    insert(&ledger, &events);
    for (order, expected) in [("oldest", [1, 2, 3, 4, 5]), ("newest", [5, 4, 3, 2, 1])] {
        let mut seen = Vec::new();
        let mut query = format!("order={order}&limit=2");
        loop {
            let page = sessions(&ledger, &query);
            let ids = page["sessions"].as_array().expect("array").iter();
            seen.extend(ids.map(|session| session["session_id"].as_str().map(str::to_owned)));
            let Some(next) = page["next"].as_str() else { break };
            query = format!("order={order}&limit=2&after={next}");
        }
        assert_eq!(seen, expected.map(|number| Some(format!("{number:032x}"))), "{order}");
    }

    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let parsed = EventsQuery::from_pairs(pairs(&query)).expect("query");
        let page = ledger.events(&parsed).expect("events");
        seen.extend(page.events.iter().map(|raw| raw.get().to_owned()));
        let Some(next) = page.next else { break };
        query = format!("limit=2&after={next}");
    }
    assert_eq!(seen, events.iter().map(Value::to_string).collect::<Vec<_>>());
    for (query, count) in [
        ("type=agent-meter.session_closed", 0),
        ("type=agent-meter.tool_invocation&source=urn:agent-meter:envoy-1:0001", 5),
        ("session_id=00000000000000000000000000000003", 1),
    ] {
        let page = EventsQuery::from_pairs(pairs(query)).map(|query| ledger.events(&query));
        assert_eq!(page.expect(query).expect(query).events.len(), count, "{query}");
    }
}

#[test]
fn reconciliation_names_each_total_that_its_calls_do_not_bear_out() {
    let events = whole_session();
    assert_eq!(reconcile(&ledger_of(&events)), json!({"sessions": 1, "mismatches": []}));
    assert_eq!(reconcile(&ledger_of(&events[..6])), json!({"sessions": 0, "mismatches": []}));

    let wrong = closed(7, json!({"total_revenue": "0.003", "billable_tool_calls": 3}));
    let ledger = ledger_of(&[&events[..6], &[wrong]].concat());
    let mismatch = |field: &str, event: Value, calls: Value| {
        json!({"field": field, "session_id": SESSION, "source": SOURCE, "event": event,
            "calls": calls})
    };
    let expected = json!({"sessions": 1, "mismatches": [
        mismatch("billable_tool_calls", json!(3), json!(2)),
        mismatch("total_revenue", json!("0.003"), json!("0.002")),
    ]});
    assert_eq!(reconcile(&ledger), expected);

    // A lost call makes each total differ in which it would be.
    let lossy: Vec<Value> = events.iter().filter(|event| **event != events[3]).cloned().collect();
    let lost = reconcile(&ledger_of(&lossy));
    let fields: Vec<_> =
        lost["mismatches"].as_array().expect("array").iter().map(|row| &row["field"]).collect();
    assert_eq!(fields, ["total_tool_calls", "calls_by_status", "calls_by_tool"]);

    let empty = json!({"total_tool_calls": 0, "billable_tool_calls": 0, "calls_by_status": {},
        "calls_by_tool": [], "total_revenue": "0"});
    let ledger = ledger_of(&[closed(1, empty)]);
    assert_eq!(reconcile(&ledger), json!({"sessions": 1, "mismatches": []}));
}

#[test]
fn reconciliation_adds_up_the_tools_that_a_final_event_does_not_name() {
    let calls = ["search", "zip", "add"];
    let mut events: Vec<Value> = (1..)
        .zip(calls)
        .map(|(sequence, tool)| call(sequence, json!({"tool_name": tool})))
        .collect();
    let tool = |name: &str, calls: u64, revenue: &str| {
        json!({"tool_name": name, "calls": calls, "billable_calls": calls, "revenue": revenue,
            "provider_cost": "0"})
    };
    events.push(closed(
        4,
        json!({
            "total_tool_calls": 3, "billable_tool_calls": 3, "total_revenue": "0.003",
            "calls_by_status": {"SUCCESS": 3},
            "calls_by_tool": [tool("__other__", 2, "0.002"), tool("search", 1, "0.001")],
        }),
    ));
    assert_eq!(reconcile(&ledger_of(&events)), json!({"sessions": 1, "mismatches": []}));
}

#[test]
fn the_ledger_survives_a_restart() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db");
    let path = path.to_str().expect("path");
    let events = whole_session();
    for (index, url) in
        [path.to_owned(), format!("sqlite:{path}"), format!("sqlite://{path}")].iter().enumerate()
    {
        let ledger = open(url);
        let receipt = insert(&ledger, &events[..5 + index]);
        let before = if index == 0 { 0 } else { 4 + u64::try_from(index).expect("small") };
        assert_eq!(receipt.duplicates, before, "{url}");
    }
    let ledger = open(path);
    assert_eq!(ledger.count_events().expect("count"), 7);
    assert_eq!(sessions(&ledger, ""), sessions(&ledger_of(&events), ""));
    // Two handles on one file see each other's commits.
    let second = open(path);
    insert(&second, &[call(8, json!({}))]);
    assert_eq!(ledger.count_events().expect("count"), 8);
}

#[test]
fn a_ledger_that_cannot_be_used_says_why() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, sql: &str| {
        let path = directory.path().join(name).to_str().expect("path").to_owned();
        rusqlite::Connection::open(&path).expect("open").execute_batch(sql).expect("sql");
        path
    };
    let newer = file("newer.db", "PRAGMA user_version = 14; CREATE TABLE events (a);");
    let foreign = file("foreign.db", "CREATE TABLE other (a);");
    let missing = directory.path().join("none/ledger.db").to_str().expect("path").to_owned();
    for (url, expected) in [
        (
            "postgres://user:secret@127.0.0.1:1/ledger?sslmode=disable".to_owned(),
            "ledger \"postgres://user@127.0.0.1:1/ledger?…\": cannot connect to PostgreSQL: "
                .to_owned(),
        ),
        (
            "mysql://host/db".into(),
            "ledger: unknown scheme in \"mysql://host/db\", expected sqlite:PATH, \
             sqlite::memory: or postgres://HOST/DATABASE"
                .into(),
        ),
        (
            "sqlite:".into(),
            "ledger: no path in \"sqlite:\", expected sqlite:PATH, sqlite::memory: or \
             postgres://HOST/DATABASE"
                .into(),
        ),
        (
            newer.clone(),
            format!(
                "ledger {newer:?}: schema version 14 is newer than 13, the newest this program \
                 knows; use a newer agent-meter"
            ),
        ),
        (
            foreign.clone(),
            format!(
                "ledger {foreign:?}: this is a SQLite database, but not a ledger of agent-meter"
            ),
        ),
        (missing.clone(), format!("ledger {missing:?}: unable to open database file: {missing}")),
    ] {
        let error = Ledger::open(&url).expect_err(&url);
        let found = format!("{error:#}");
        assert!(found.starts_with(&expected), "{url}: {found}");
    }
}

#[test]
fn an_invoice_shows_each_price_and_ends_with_the_total() {
    let free = |sequence, status: &str| {
        call(
            sequence,
            json!({"execution_status": status, "billable": false, "price": "0",
            "tool_name": "fetch"}),
        )
    };
    let mut events = whole_session();
    events.extend([
        call(8, json!({"tool_name": "fetch", "price": "10", "cost_tier": "premium"})),
        call(9, json!({"tool_name": "fetch", "price": "9.5", "cost_tier": "premium"})),
        call(10, json!({"tool_name": "fetch", "price": "9.50", "cost_tier": "premium"})),
        free(11, "TIMEOUT"),
        call(
            13,
            json!({"tool_name": "fetch", "price": "0", "billable": false,
            "execution_status": "ERROR", "cost_tier": "premium"}),
        ),
        call(12, json!({"tool_name": "evil\u{1b}[2J", "price": "0"})),
    ]);
    let ledger = ledger_of(&events);
    let text = "\
INVOICE, the operator's: not for the customer
Customer  acme
Period    the beginning to now

Product tools (MCP_SERVER), USD
  Tool           Tier      Unit price  Calls  Billable  Amount
  evil\\u{1b}[2J  standard       0.000      1         1   0.000
  fetch          premium            -      1         0   0.000
  fetch          premium        9.500      2         2  19.000
  fetch          premium       10.000      1         1  10.000
  fetch          standard           -      1         0   0.000
  search         standard       0.001      3         2   0.002
  Not billed       ERROR 2, TIMEOUT 1, free calls 1
  Sessions closed  1
  Provider cost    0 USD
  Revenue          29.002 USD
  Margin           29.002 USD (100.0 %)

Total  29.002 USD
";
    let all = invoices(&ledger).expect("invoices");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].to_string(), text);

    let json = all[0].to_json();
    let line = |tool, tier, unit_price: Value, calls, billable_calls, amount| {
        json!({"kind": "tool_invocation", "tool": tool, "tier": tier, "unit_price": unit_price, "calls": calls,
            "billable_calls": billable_calls, "amount": amount})
    };
    let expected = json!({
        "customer": "acme", "from": null, "to": null,
        "products": [{
            "customer": "acme", "product": "tools", "product_type": "MCP_SERVER",
            "currency": "USD",
            "lines": [
                line("evil\u{1b}[2J", "standard", json!("0"), 1, 1, "0"),
                line("fetch", "premium", Value::Null, 1, 0, "0"),
                line("fetch", "premium", json!("9.5"), 2, 2, "19"),
                line("fetch", "premium", json!("10"), 1, 1, "10"),
                line("fetch", "standard", Value::Null, 1, 0, "0"),
                line("search", "standard", json!("0.001"), 3, 2, "0.002"),
            ],
            "token_lines": [], "cost_by_tool": [], "cost_by_model": [], "generations": 0,
            "unpriced_generations": 0, "unknown_usage_generations": 0, "unpriced_units_generations": 0,
            "inconsistent_generations": 0,
            "not_billed": {"ERROR": 2, "TIMEOUT": 1}, "free_calls": 1, "voided_calls": 0,
            "voided_generations": 0, "unpriced_by_reason": {}, "uncharged_generations": 0,
            "sessions_closed": 1, "provider_cost": "0", "cost_known": "all",
            "revenue": "29.002", "margin": "29.002", "margin_percent": "100.0",
        }],
        "totals": [{"currency": "USD", "calls": 9, "billable_calls": 6, "generations": 0,
            "unpriced_generations": 0, "unknown_usage_generations": 0, "unpriced_units_generations": 0,
            "inconsistent_generations": 0,
            "provider_cost": "0", "cost_known": "all", "revenue": "29.002", "margin": "29.002",
            "margin_percent": "100.0"}],
    });
    assert_eq!(json, expected);
}

#[test]
fn an_invoice_covers_its_customer_and_its_period_only() {
    let ledger = varied();
    insert(&ledger, &[closed(7, json!({}))]);
    for (customer, from, to, total, sessions_closed) in [
        (None, None, None, "2.504", 1),
        (Some("acme"), None, None, "0.004", 1),
        (Some("bolt"), None, None, "2.5", 0),
        (Some("acme"), Some("2026-07-01T10:05:00Z"), None, "0.001", 1),
        (Some("acme"), None, Some("2026-07-01T10:05:00Z"), "0.003", 0),
        (Some("nobody"), None, None, "0", 0),
    ] {
        let period = Period::parse(from, to).expect("period");
        let invoice = Invoice::for_customer(&ledger, customer, period).expect("invoice");
        let row = format!("{customer:?} {from:?} {to:?}\n{invoice}");
        let revenue = invoice.totals.first().map(|total| total.sums.revenue.to_string());
        assert_eq!(revenue.as_deref().unwrap_or("0"), total, "{row}");
        let closed: u64 = invoice.products.iter().map(|product| product.sessions_closed).sum();
        assert_eq!(closed, sessions_closed, "{row}");
        let last = if total == "0" { "Total  0\n".into() } else { format!("Total  {total} USD\n") };
        assert!(invoice.to_string().ends_with(&last), "{row}");
    }
    let names: Vec<_> =
        invoices(&ledger).expect("invoices").into_iter().map(|invoice| invoice.customer).collect();
    assert_eq!(names, [Some("acme".to_owned()), Some("bolt".to_owned())]);
}

async fn start() -> Collector {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let extras = Extras { clock: clock(), ..Extras::default() };
    Collector::start_with(listen, &new_ledger(), extras).await.expect("collector")
}

struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    fn new(collector: &Collector) -> Http {
        Http { base: format!("http://{}", collector.addr()), client: reqwest::Client::new() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.base);
        let answer = self.client.get(url).send().await.expect(path);
        (answer.status().as_u16(), answer.text().await.expect(path))
    }

    async fn post(&self, content_type: &str, body: Vec<u8>) -> (u16, Value) {
        let request = self.client.post(format!("{}/v1/events", self.base)).body(body);
        let answer = request.header("content-type", content_type).send().await.expect("post");
        (answer.status().as_u16(), answer.json().await.expect("json"))
    }
}

#[tokio::test]
async fn the_routes_answer_over_a_socket() {
    let collector = start().await;
    let http = Http::new(&collector);
    let json = |text: &str| serde_json::from_str::<Value>(text).expect(text);
    assert_eq!(http.get("/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));

    let mut events = whole_session();
    events.push(call(8, json!({"price": "x"})));
    let body = serde_json::to_vec(&events).expect("json");
    let rejected = json!([{"index": 7, "id": "00000000000000000008",
        "reason": "data.price: must be a decimal string of at least 0, found \"x\""}]);
    let expected = json!({"accepted": 7, "duplicates": 0, "rejected": rejected});
    assert_eq!(http.post(BATCH, body.clone()).await, (200, expected));
    let expected = json!({"accepted": 0, "duplicates": 7, "rejected": rejected});
    assert_eq!(http.post("Application/JSON; charset=utf-8", body).await, (200, expected));

    for (content_type, body, status, error) in [
        (
            BATCH,
            b"[1,".to_vec(),
            400,
            "body: not JSON: EOF while parsing a value at line 1 column 3",
        ),
        (BATCH, b"{}".to_vec(), 400, "body: must be an array of events, found an object"),
        (BATCH, vec![b' '; 16 * 1024 * 1024 + 1], 413, "body: must be at most 16777216 bytes"),
        (
            "text/plain",
            b"[]".to_vec(),
            415,
            "content-type: must be application/cloudevents-batch+json, \
             application/cloudevents+json or application/json, found \"text/plain\"",
        ),
    ] {
        assert_eq!(http.post(content_type, body).await, (status, json!({"error": error})));
    }

    let (status, text) = http.get("/v1/events?type=agent-meter.session_closed").await;
    assert_eq!((status, json(&text)), (200, json!({"events": [events[6]], "next": null})));
    let (status, text) = http.get("/v1/usage?group_by=tool%2Cstatus&status=SUCCESS").await;
    let expected = concat!(
        r#"{"rows":[{"tool":"search","status":"SUCCESS","calls":2,"billable_calls":2,"#,
        r#""revenue":"0.002","provider_cost":"0","margin":"0.002","cost_known":"all","generations":0,"#,
        r#""unpriced_generations":0,"unknown_usage_generations":0,"#,
        r#""unpriced_units_generations":0,"inconsistent_generations":0,"input":0,"output":0,"reasoning":0,"cache_read":0,"#,
        r#""cache_write":0,"units":{},"request_bytes":0,"response_bytes":0}]}"#
    );
    assert_eq!((status, text.as_str()), (200, expected));
    let (status, text) = http.get("/v1/sessions?state=CLOSED").await;
    assert_eq!((status, &json(&text)["sessions"][0]["total_revenue"]), (200, &json!("0.002")));
    let (status, text) = http.get("/v1/gaps").await;
    assert_eq!((status, &json(&text)["missing"]), (200, &json!(0)));
    let (status, text) = http.get("/v1/reconcile").await;
    assert_eq!((status, json(&text)), (200, json!({"sessions": 1, "mismatches": []})));

    let (status, text) = http.get("/v1/usage?group_by=foo").await;
    let error = "group_by: unknown dimension \"foo\", expected one of customer, team, agent, \
                 key, product, product_type, session, kind, tool, status, tier, provider, model, \
                 source, currency, day";
    assert_eq!((status, json(&text)), (400, json!({"error": error})));
    assert_eq!(http.get("/nothing").await, (404, r#"{"error":"no such path"}"#.to_owned()));

    let (status, text) = http.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"agent_meter_collector_events_total{outcome="accepted",type="tool_invocation"} 3"#,
        r#"agent_meter_collector_events_total{outcome="accepted",type="session_closed"} 1"#,
        r#"agent_meter_collector_events_total{outcome="duplicate",type="tool_invocation"} 3"#,
        r#"agent_meter_collector_events_total{outcome="rejected",type="invalid"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }

    let (status, page) = http.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("Overview") && page.contains("/sessions"), "{page}");
    for outside in ["http://", "https://", "innerHTML", "src=\"//", "@import"] {
        assert!(!page.contains(outside), "the page holds {outside}");
    }

    let addr = collector.addr();
    collector.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "stopped, but listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_batches_from_eight_tasks_store_each_event_once() {
    let directory = tempfile::tempdir().expect("directory");
    let url = format!("sqlite:{}", directory.path().join("ledger.db").display());
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let extras = Extras { clock: clock(), ..Extras::default() };
    let collector = Collector::start_with(listen, &url, extras).await.expect("collector");
    let http = Arc::new(Http::new(&collector));
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let http = http.clone();
        tasks.push(tokio::spawn(async move {
            let mut sums = (0, 0);
            // Each task sends 150 events; the next task sends 100 of them too.
            for batch in 0..15 {
                let first = task * 50 + batch * 10 + 1;
                let events: Vec<_> =
                    (first..first + 10).map(|sequence| call(sequence, json!({}))).collect();
                let body = serde_json::to_vec(&events).expect("json");
                let (status, receipt) = http.post(BATCH, body).await;
                assert_eq!((status, &receipt["rejected"]), (200, &json!([])));
                sums.0 += receipt["accepted"].as_u64().expect("accepted");
                sums.1 += receipt["duplicates"].as_u64().expect("duplicates");
            }
            sums
        }));
    }
    let mut sums = (0, 0);
    for task in tasks {
        let (accepted, duplicates) = task.await.expect("task");
        sums = (sums.0 + accepted, sums.1 + duplicates);
    }
    assert_eq!(sums, (500, 700));
    let ledger = collector.ledger();
    assert_eq!(ledger.count_events().expect("count"), 500);
    let expected = json!([{"calls": 500, "billable_calls": 500, "revenue": "0.5"}]);
    assert_eq!(usage(&ledger, ""), expected);
    assert_eq!(gaps(&ledger)["missing"], 0);
    collector.stop().await;
}

#[tokio::test]
async fn a_collector_that_cannot_start_says_why() {
    let collector = start().await;
    for (listen, url, expected) in [
        (collector.addr(), "sqlite::memory:", format!("listen on {}", collector.addr())),
        (
            SocketAddr::from(([127, 0, 0, 1], 0)),
            "postgres://user:secret@127.0.0.1:1/ledger",
            "ledger \"postgres://user@127.0.0.1:1/ledger\"".to_owned(),
        ),
    ] {
        let error = Collector::start(listen, url).await.expect_err(url);
        assert_eq!(error.to_string(), expected);
    }
    collector.stop().await;
}

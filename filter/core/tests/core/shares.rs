//! One customer's flood of what all share: the others lose nothing. The numbers are those of the
//! attempts that once broke it.

use agent_meter_core::config::Config;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::meter::recovered::events_of_fact;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::guarded::{Became, Guarded};
use crate::host::Envoy;
use crate::support::test;

/// A batch of calls with these tools.
fn batch(tools: impl Iterator<Item = String>) -> String {
    let call = |(id, tool): (usize, String)| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}});
    Value::Array(tools.enumerate().map(call).collect()).to_string()
}

fn results(calls: usize) -> String {
    let result = |id: usize| json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
    Value::Array((0..calls).map(result).collect()).to_string()
}

fn head<'a>(customer: &'a str, session: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", "POST"),
        (":path", "/mcp"),
        ("x-customer-id", customer),
        ("mcp-session-id", session),
    ]
}

/// Calls of these tools in batches of a thousand, each answered. Returns the statuses.
fn flood(
    guarded: &mut Guarded,
    customer: &str,
    calls: usize,
    tool: impl Fn(usize) -> String,
) -> Vec<u16> {
    let mut statuses = Vec::new();
    for first in (0..calls).step_by(1000) {
        let last = calls.min(first + 1000);
        let became = guarded.send(&head(customer, "f"), &batch((first..last).map(&tool)));
        if let Became::Passed(stream, ..) = became {
            guarded.answer(stream, &results(last - first));
        }
        statuses.push(became.status());
        guarded.settle();
    }
    statuses
}

fn used(guarded: &mut Guarded, customer: &str, tool: &str) -> u16 {
    let became = guarded.call(customer, tool);
    if let Became::Passed(stream, ..) = became {
        guarded.finish(stream);
    }
    guarded.settle();
    became.status()
}

fn budget_for_each_tool() -> Value {
    json!([{
        "id": "five", "scope": "tool", "period": "day",
        "budget": { "calls": 5 },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }])
}

#[test]
fn row_87_invented_tools_push_out_no_totals_of_others_nor_their_own() {
    let mut guarded = Guarded::new(&budget_for_each_tool());
    for _ in 0..4 {
        assert_eq!(used(&mut guarded, "c1", "a"), 200);
    }
    for _ in 0..5 {
        assert_eq!(used(&mut guarded, "c2", "a"), 200);
    }
    assert_eq!(used(&mut guarded, "c2", "a"), 429, "c2 has used its five");
    for _ in 0..5 {
        assert_eq!(used(&mut guarded, "rival", "own"), 200);
    }
    let statuses = flood(&mut guarded, "rival", 11_000, |at| format!("t{at}"));
    assert_eq!(statuses[..2], [200, 200]);
    assert_eq!(statuses[2..], [429; 9], "tools beyond the share have one budget together");
    assert!(guarded.count(Counter::GuardScopesOverLimit) >= 976);
    let rest = guarded.last("budget_level_changed");
    assert_eq!((&rest["customer_id"], &rest["tool_name"]), (&json!("rival"), &json!("__other__")));
    assert_eq!(used(&mut guarded, "rival", "own"), 429, "what it had is not forgotten");
    assert_eq!(used(&mut guarded, "rival", "t5"), 200, "a tool within the share has its own");
    assert_eq!(used(&mut guarded, "rival", "new"), 429);
    assert_eq!(used(&mut guarded, "c2", "a"), 429);
    assert_eq!(used(&mut guarded, "c1", "a"), 200, "the fifth");
    assert_eq!(used(&mut guarded, "c1", "a"), 429);
    assert_eq!(used(&mut guarded, "c1", "b"), 200);
    // The next period begins anew for all, and the rest is over.
    guarded.envoy.now.0 += 86_400_000;
    guarded.settle();
    for (customer, tool) in [("rival", "new"), ("rival", "newer"), ("rival", "own"), ("c1", "a")] {
        for _ in 0..5 {
            assert_eq!(used(&mut guarded, customer, tool), 200, "{customer} {tool}");
        }
        assert_eq!(used(&mut guarded, customer, tool), 429, "{customer} {tool}");
    }
}

#[test]
fn a_full_table_of_scopes_takes_from_who_has_the_most_and_adds_up_what_it_takes() {
    let mut guarded = Guarded::new(&budget_for_each_tool());
    for customer in 0..10 {
        let statuses = flood(&mut guarded, &format!("many{customer}"), 1000, |at| format!("t{at}"));
        assert_eq!(statuses, [200]);
    }
    assert_eq!(guarded.count(Counter::GuardScopesOverLimit), 0);
    for _ in 0..5 {
        assert_eq!(used(&mut guarded, "late", "a"), 200);
    }
    assert_eq!(used(&mut guarded, "late", "a"), 429, "who comes last is guarded too");
    // Two were taken of one customer, for the newcomer and for the rest: they have five together.
    let again = (0..10).map(|customer| {
        (0..4).map(|_| used(&mut guarded, &format!("many{customer}"), "t0")).collect::<Vec<_>>()
    });
    assert_eq!(again.flatten().filter(|status| *status == 429).count(), 1);
    assert_eq!(guarded.count(Counter::GuardScopesOverLimit), 3, "the rest's calls");
}

fn total(calls: &[Value], customer: &str) -> (u64, String) {
    let of_customer = calls.iter().filter(|call| call["customer_id"] == customer);
    let mut sums = (0, rust_decimal::Decimal::ZERO);
    for call in of_customer {
        sums.0 += call["quantity"].as_u64().unwrap();
        sums.1 += call["price"].as_str().unwrap().parse::<rust_decimal::Decimal>().unwrap();
    }
    (sums.0, sums.1.normalize().to_string())
}

#[test]
fn row_91_a_blocked_customer_who_hammers_makes_few_events_with_a_count() {
    let guards = json!([{
        "id": "five", "scope": "customer", "period": "day",
        "budget": { "calls": 5 },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }]);
    let mut guarded = Guarded::new(&guards);
    flood(&mut guarded, "rival", 5, |_| "a".to_owned());
    guarded.told.clear();
    for _ in 0..20 {
        let became = guarded.send(&head("rival", "f"), &batch((0..1000).map(|_| "a".to_owned())));
        assert_eq!(became.status(), 429);
    }
    guarded.settle();
    let calls = kinds(&guarded.told, "tool_invocation");
    assert_eq!(total(&calls, "rival"), (20_000, "0".to_owned()));
    assert!(calls.iter().all(|call| call["execution_status"] == "BLOCKED"));
    assert_eq!(calls.len(), 4, "of each of two workers the first, and the others as one");
    // As many tools as it likes make no more events than its share.
    guarded.told.clear();
    for first in 0..20 {
        let tools = (0..1000).map(|at| format!("t{}", first * 1000 + at));
        assert_eq!(guarded.send(&head("rival", "f"), &batch(tools)).status(), 429);
    }
    guarded.settle();
    guarded.settle();
    let calls = kinds(&guarded.told, "tool_invocation");
    assert_eq!(total(&calls, "rival").0, 20_000);
    assert!(calls.len() <= 2 * 2 * 65, "{}", calls.len());
    assert!(calls.iter().any(|call| call["tool_name"] == "__other__"));
}

#[test]
fn row_90_a_full_journal_costs_no_call_and_others_nothing() {
    let config = PLAIN.replace(
        r#""call_timeout""#,
        r#""pricing": {"default": {"price": "0.001"}, "tools": [{"tool": "dear_*", "price": "0.1"}]}, "call_timeout""#,
    );
    let mut envoy = Envoy::new(&config);
    let headers: Vec<_> = head("flood", "f")
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let start = |envoy: &mut Envoy, stream: u32| {
        let Envoy { worker, host, now, .. } = envoy;
        worker.request_head(host, stream, Headers(&headers), *now)
    };
    // They all run already when the journal gets full.
    for stream in 0..20 {
        assert!(matches!(start(&mut envoy, stream), HeadAction::Follow(_)));
    }
    let (mut executed, mut refused) = (0, 0);
    for round in 0..32 {
        let one = batch(["dear_a".to_owned()].into_iter());
        request(&mut envoy, 1000 + round, &head("victim", "v"), &one);
        respond(&mut envoy, 1000 + round, "application/json", &results(1), StreamEnd::Complete);
        if round >= 20 {
            let HeadAction::Answer(reply) = start(&mut envoy, round) else { panic!() };
            assert_eq!(reply.status, 429);
            assert!(reply.headers.contains(&("retry-after", "1".to_owned())));
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(body["error"]["data"]["reason"], "over_share");
            refused += 1;
            continue;
        }
        let Envoy { worker, host, now, .. } = &mut envoy;
        let name = |at: u32| format!("{}{at}", if at.is_multiple_of(2) { "dear_" } else { "t" });
        worker.request_body(host, round, batch((0..1000).map(name)).as_bytes(), true, *now);
        respond(&mut envoy, round, "application/json", &results(1000), StreamEnd::Complete);
        executed += 1000;
    }
    assert!(refused > 0);
    assert_eq!(envoy.host.counters[&Counter::RequestsOverShare], refused);
    let told = envoy.deliver(10_000);
    let calls = kinds(&told, "tool_invocation");
    assert_eq!(total(&calls, "victim"), (32, "3.2".to_owned()));
    assert_eq!(calls.iter().filter(|call| call["customer_id"] == "victim").count(), 32);
    let half = rust_decimal::Decimal::from(executed / 2);
    let price = half * "0.101".parse::<rust_decimal::Decimal>().unwrap();
    assert_eq!(total(&calls, "flood"), (executed, price.normalize().to_string()));
    assert_eq!(envoy.host.counters.get(&Counter::FactsSpilled), None);
    assert!(envoy.host.counters[&Counter::CallsFolded] > 0);
    request(&mut envoy, 5000, &head("flood", "f"), &batch(["t".to_owned()].into_iter()));
    respond(&mut envoy, 5000, "application/json", &results(1), StreamEnd::Complete);
    let calls = kinds(&envoy.deliver(1000), "tool_invocation");
    assert_eq!(total(&calls, "flood"), (1, "0.001".to_owned()), "and it may go on");
}

#[test]
fn a_spilled_fact_becomes_the_same_events_each_time() {
    let config = PLAIN.replace(
        r#""call_timeout""#,
        r#""pricing": {"default": {"price": "0.25"}}, "call_timeout""#,
    );
    let config = Config::from_bytes(config.as_bytes()).unwrap();
    let call = json!({
        "call_id": "0.1.7", "kind": "Tool", "certainty": "certain", "tool": "a", "arguments": null,
        "session": {"product_id": "mcp", "key": [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
            "identity": {"customer": "acme", "team": "t", "agent": "a", "api_key": null, "credential": null}},
        "status": "SUCCESS", "http_status": 200, "transport": "json",
        "is_request_sent": true, "started_at": 1_763_890_200_000_u64, "ended_at": 1_763_890_200_005_u64,
    });
    for (fact, quantity, price) in [
        (json!({"Call": call}), 1, "0.25"),
        (json!({"Calls": {"call": call, "quantity": 12, "priced_as": null}}), 12, "3"),
    ] {
        let events = events_of_fact(config.clone(), &fact.to_string()).unwrap();
        assert_eq!(events_of_fact(config.clone(), &fact.to_string()).unwrap(), events);
        let events: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let types: Vec<&Value> = events.iter().map(|event| &event["data"]["event_type"]).collect();
        assert_eq!(types, ["session_created", "tool_invocation", "session_closed"]);
        let data = &events[1]["data"];
        assert_eq!((&data["quantity"], &data["price"]), (&json!(quantity), &json!(price)));
        assert_eq!(events[2]["data"]["total_tool_calls"], quantity);
        let source = events[0]["source"].as_str().unwrap();
        assert!(source.starts_with("urn:agent-meter:recovered:"), "{source}");
    }
    let released = json!({"Released": {"call_id": "0.1.7"}}).to_string();
    assert_eq!(events_of_fact(config.clone(), &released).unwrap(), Vec::<String>::new());
    assert!(events_of_fact(config.clone(), "null").is_err());
}

const PLAIN: &str = r#"{"sessions_max": 50, "products": [{
    "id": "mcp", "type": "MCP_SERVER", "match": {"path_prefix": "/mcp"},
    "identity": {"customer": {"trusted_header": "x-customer-id"}},
    "session": {"session_timeout": "5m"}, "call_timeout": "110s"
}]}"#;

fn request(envoy: &mut Envoy, stream: u32, head: &[(&str, &str)], body: &str) {
    let headers: Vec<_> =
        head.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let Envoy { worker, host, now, .. } = envoy;
    let _ = worker.request_head(host, stream, Headers(&headers), *now);
    worker.request_body(host, stream, body.as_bytes(), true, *now);
}

fn respond(envoy: &mut Envoy, stream: u32, media_type: &str, body: &str, end: StreamEnd) {
    let headers = [(":status", "200"), ("content-type", media_type)]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let Envoy { worker, host, now, .. } = envoy;
    let _ = worker.response_head(stream, Headers(&headers));
    worker.response_body(host, stream, body.as_bytes(), false, *now);
    worker.stream_end(host, stream, end, *now);
}

#[test]
fn row_88_many_sessions_close_sessions_of_their_own_customer() {
    let mut envoy = Envoy::new(PLAIN);
    let call = |envoy: &mut Envoy, stream: u32, customer: &str, session: &str| {
        request(envoy, stream, &head(customer, session), &batch(["a".to_owned()].into_iter()));
        respond(envoy, stream, "application/json", &results(1), StreamEnd::Complete);
    };
    call(&mut envoy, 1, "victim", "v");
    let mut told = envoy.deliver(250);
    for session in 0..200 {
        call(&mut envoy, 10 + session, "flood", &format!("s{session}"));
    }
    told.extend(envoy.deliver(1000));
    call(&mut envoy, 2, "late", "l");
    call(&mut envoy, 3, "victim", "v");
    told.extend(envoy.deliver(1000));
    let closed = kinds(&told, "session_closed");
    assert_eq!(closed.len(), 152);
    for session in &closed {
        assert_eq!(session["close_reason"], "table_full");
        assert_eq!(session["customer_id"], "flood");
    }
    told.extend(envoy.deliver(600_000));
    let closed = kinds(&told, "session_closed");
    let of_victim = closed.iter().find(|session| session["customer_id"] == "victim").unwrap();
    assert_eq!(of_victim["total_tool_calls"], 2);
    let calls: u64 = closed.iter().map(|s| s["total_tool_calls"].as_u64().unwrap()).sum();
    assert_eq!(calls, 203);
}

#[test]
fn row_89_calls_that_wait_push_out_the_oldest_of_their_own_customer() {
    let mut envoy = Envoy::new(PLAIN);
    let post = |envoy: &mut Envoy, stream: u32, customer: &str, body: &str| {
        request(envoy, stream, &head(customer, "s"), body);
        respond(envoy, stream, "text/event-stream", "id: 1\ndata:\n\n", StreamEnd::Aborted);
    };
    post(&mut envoy, 1, "victim", &batch(["mine".to_owned()].into_iter()));
    let mut told = envoy.deliver(250);
    for stream in 0..11 {
        let ids = (0..1000).map(|id| stream * 1000 + id);
        let call = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "theirs"}});
        let body = Value::Array(ids.map(call).collect()).to_string();
        post(&mut envoy, 10 + stream, "flood", &body);
        told.extend(envoy.deliver(250));
    }
    told.extend(envoy.deliver(1000));
    let calls = kinds(&told, "tool_invocation");
    assert_eq!(calls.len(), 1001);
    assert!(calls.iter().all(|call| call["tool_name"] == "theirs"));
    assert!(calls.iter().all(|call| call["execution_status"] == "UNKNOWN"));
    assert_eq!(envoy.host.counters[&Counter::JoinsOverLimit], 1001);
    let get = [
        (":method", "GET"),
        (":path", "/mcp"),
        ("x-customer-id", "victim"),
        ("mcp-session-id", "s"),
        ("last-event-id", "1"),
    ];
    request(&mut envoy, 2, &get, "");
    let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n\n";
    respond(&mut envoy, 2, "text/event-stream", answer, StreamEnd::Complete);
    let mine = kinds(&envoy.deliver(1000), "tool_invocation");
    assert_eq!((mine.len(), &mine[0]["execution_status"]), (1, &json!("SUCCESS")));
    assert_eq!(mine[0]["tool_name"], "mine");
}

/// Notices that these many calls, which nobody made, are given up.
fn cancellations(count: usize) -> String {
    let cancel = |id: usize| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": format!("c{id}")}});
    Value::Array((0..count).map(cancel).collect()).to_string()
}

const RESUMED: [(&str, &str); 5] = [
    (":method", "GET"),
    (":path", "/mcp"),
    ("x-customer-id", "victim"),
    ("mcp-session-id", "v"),
    ("last-event-id", "1"),
];
const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n\n";

fn status_of_victim(told: &[Value]) -> Vec<Value> {
    let calls = kinds(told, "tool_invocation");
    let of_victim = calls.iter().filter(|call| call["customer_id"] == "victim");
    of_victim.map(|call| call["execution_status"].clone()).collect()
}

#[test]
fn what_is_seen_of_strangers_calls_pushes_out_no_answer_that_came_before_its_call() {
    let mut envoy = Envoy::new(PLAIN);
    let one = batch(["a".to_owned()].into_iter());
    // The call's own stream is still open.
    request(&mut envoy, 1, &head("victim", "v"), &one);
    request(&mut envoy, 2, &RESUMED, "");
    respond(&mut envoy, 2, "text/event-stream", ANSWER, StreamEnd::Complete);
    let mut told = envoy.deliver(250);
    for stream in 0..5 {
        request(&mut envoy, 10 + stream, &head("flood", "f"), &cancellations(1000));
        told.extend(envoy.deliver(250));
    }
    assert_eq!(envoy.host.counters[&Counter::EvidenceUnused], 5001 - 4096);
    respond(&mut envoy, 1, "text/event-stream", "id: 1\ndata:\n\n", StreamEnd::Aborted);
    told.extend(envoy.deliver(1000));
    assert_eq!(status_of_victim(&told), ["SUCCESS"]);
}

#[test]
fn answers_on_other_streams_do_not_give_way_to_strangers_in_a_full_journal() {
    let mut envoy = Envoy::new(PLAIN);
    request(&mut envoy, 1, &head("victim", "v"), &batch(["a".to_owned()].into_iter()));
    respond(&mut envoy, 1, "text/event-stream", "id: 1\ndata:\n\n", StreamEnd::Aborted);
    let mut told = envoy.deliver(250);
    let headers: Vec<_> = head("flood", "f")
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    // They all run already when the journal gets full.
    for stream in 10..80 {
        let Envoy { worker, host, now, .. } = &mut envoy;
        let _ = worker.request_head(host, stream, Headers(&headers), *now);
    }
    for stream in 10..80 {
        if stream == 75 {
            request(&mut envoy, 2, &RESUMED, "");
            respond(&mut envoy, 2, "text/event-stream", ANSWER, StreamEnd::Complete);
        }
        let Envoy { worker, host, now, .. } = &mut envoy;
        worker.request_body(host, stream, cancellations(1000).as_bytes(), true, *now);
    }
    assert!(envoy.host.counters[&Counter::FactsSpilled] > 10_000, "the journal is full");
    told.extend(envoy.deliver(30_000));
    assert_eq!(status_of_victim(&told), ["SUCCESS"]);
}

#[test]
fn ends_of_sessions_that_never_were_push_out_no_end_of_others() {
    let mut envoy = Envoy::new(PLAIN);
    let delete = |envoy: &mut Envoy, stream: u32, customer: &str, session: &str| {
        let mut head = head(customer, session);
        head[0].1 = "DELETE";
        request(envoy, stream, &head, "");
        respond(envoy, stream, "application/json", "", StreamEnd::Complete);
    };
    for (stream, customer) in [(1, "early"), (2, "victim")] {
        request(&mut envoy, stream, &head(customer, "v"), &batch(["a".to_owned()].into_iter()));
        respond(&mut envoy, stream, "application/json", &results(1), StreamEnd::Complete);
    }
    let mut told = envoy.deliver(250);
    delete(&mut envoy, 3, "early", "v");
    for stream in 0..6000 {
        delete(&mut envoy, 10 + stream, "flood", &format!("s{stream}"));
    }
    // More than may wait.
    let waiting = envoy.tick(250);
    told.extend(envoy.take(waiting));
    delete(&mut envoy, 4, "victim", "v");
    for stream in 6000..9000 {
        delete(&mut envoy, 10 + stream, "flood", &format!("s{stream}"));
    }
    told.extend(envoy.deliver(3000));
    let closed = kinds(&told, "session_closed");
    let customers: Vec<&Value> = closed.iter().map(|session| &session["customer_id"]).collect();
    assert_eq!(customers, ["early", "victim"]);
    assert!(closed.iter().all(|session| session["close_reason"] == "client_delete"));
    assert_eq!(envoy.host.counters[&Counter::SessionEndUnused], 9000);
}

#[test]
fn a_flood_that_never_ends_keeps_no_session_of_others_open() {
    let mut envoy = Envoy::new(&PLAIN.replace(r#""5m""#, r#""3s", "idle_timeout": "1s""#));
    for (stream, customer) in [(1, "victim"), (2, "late")] {
        request(&mut envoy, stream, &head(customer, "v"), &batch(["a".to_owned()].into_iter()));
        respond(&mut envoy, stream, "application/json", &results(1), StreamEnd::Complete);
    }
    let mut told = Vec::new();
    let mut closed_after = Vec::new();
    for round in 0..40 {
        // More than the journal holds.
        for stream in 0..10 {
            let stream = 100 + round * 10 + stream;
            request(&mut envoy, stream, &head("flood", "f"), &batch((0..1000).map(|_| "a".into())));
            respond(&mut envoy, stream, "application/json", &results(1000), StreamEnd::Complete);
        }
        if round == 5 {
            let mut delete = head("victim", "v");
            delete[0].1 = "DELETE";
            request(&mut envoy, 3, &delete, "");
            respond(&mut envoy, 3, "application/json", "", StreamEnd::Complete);
        }
        let waiting = envoy.tick(250);
        let events = envoy.take(waiting);
        let closed = kinds(&events, "session_closed");
        closed_after.extend(
            closed.iter().map(|closed| {
                (closed["customer_id"].clone(), closed["close_reason"].clone(), round)
            }),
        );
        told.extend(events);
    }
    assert!(envoy.host.counters[&Counter::RequestsOverShare] > 10, "the reader is never at an end");
    let [(victim, reason, at), (late, timeout, end)] = &closed_after[..] else {
        panic!("{closed_after:?}");
    };
    assert_eq!((victim, reason), (&json!("victim"), &json!("client_delete")));
    assert_eq!((late, timeout), (&json!("late"), &json!("session_timeout")));
    assert!(*at < 20 && *end < 20, "{closed_after:?}");
}

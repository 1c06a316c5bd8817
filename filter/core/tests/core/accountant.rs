//! Sessions, events and delivery, one VM at a time and without faults.

use std::collections::BTreeSet;

use agent_meter_core::base::time::{Millis, Timestamp};
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::sink::reply::{HttpReply, Reply};
use serde_json::{Value, json};

use crate::host::{Envoy, answered, events, taken};
use crate::support::test;

const CONFIG: &str = r#"{
    "emitter": "edge-1",
    "products": [{
        "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"},
        "identity": {"customer": {"trusted_header": "x-customer-id"}},
        "pricing": {"tools": [{"tool": "lookup", "price": "0.001", "cost_tier": "lookup"}]}
    }]
}"#;

/// With generations.
pub(crate) const DOCUMENTED: &str = r#"{
    "emitter": "edge-1",
    "products": [{
        "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"},
        "identity": {"customer": {"trusted_header": "x-customer-id"}},
        "pricing": {"tools": [{"tool": "lookup", "price": "0.001", "cost_tier": "lookup"}]}
    }, {
        "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"}, "llm": {},
        "pricing": {"tokens": {"pass_through": true, "markup": "0.2"}}
    }],
    "rate_cards": [{"version": "2025-11-01", "date": "2025-11-01", "rates": [
        {"provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"], "input": "2.5", "output": "10", "cache_read": "1.25"}
    ]}]
}"#;

/// The types of events, without the signs of life that come with time.
fn types(events: &[Value]) -> Vec<&str> {
    let types = events.iter().map(|event| event["data"]["event_type"].as_str().unwrap());
    types.filter(|kind| *kind != "heartbeat").collect()
}

pub(crate) fn kinds(events: &[Value], kind: &str) -> Vec<Value> {
    let is_kind = |event: &&Value| event["data"]["event_type"] == kind;
    events.iter().filter(is_kind).map(|event| event["data"].clone()).collect()
}

#[test]
fn a_session_goes_through_its_states_and_ends_with_its_totals() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("s", "lookup", "{}");
    assert_eq!(types(&envoy.deliver(2000)), ["session_created", "tool_invocation"]);
    envoy.call("s", "lookup", "{}");
    envoy.call("s", "lookup", r#"{"isError":true}"#);
    assert_eq!(
        types(&envoy.deliver(2000)),
        ["session_active", "tool_invocation", "tool_invocation"]
    );
    assert_eq!(types(&envoy.deliver(60_000)), ["session_idle"]);
    envoy.call("s", "write", "{}");
    assert_eq!(types(&envoy.deliver(2000)), ["session_active", "tool_invocation"]);
    assert_eq!(types(&envoy.deliver(62_000)), ["session_idle"]);
    assert_eq!(types(&envoy.deliver(3_500_000)), Vec::<&str>::new());
    let closed = envoy.deliver(60_000);
    assert_eq!(types(&closed), ["session_closed"]);
    let data = &kinds(&closed, "session_closed")[0];
    let want = json!({
        "session_state": "CLOSED", "close_reason": "session_timeout", "total_tool_calls": 4,
        "billable_tool_calls": 3, "calls_by_status": {"SUCCESS": 3, "ERROR": 1},
        "calls_by_tool": [
            {"tool_name": "lookup", "calls": 3, "billable_calls": 2, "revenue": "0.002", "provider_cost": "0"},
            {"tool_name": "write", "calls": 1, "billable_calls": 1, "revenue": "0", "provider_cost": "0"},
        ],
        "total_tokens": {"input": 0, "output": 0, "reasoning": 0, "cache_read": 0, "cache_write": 0},
        "active_duration_ms": 20, "total_provider_cost": "0", "total_revenue": "0.002", "currency": "USD",
    });
    for (name, value) in want.as_object().unwrap() {
        assert_eq!(&data[name], value, "{name}");
    }
    assert_eq!(envoy.host.gauges[&Gauge::SessionsLive], 0);
    // The same session id afterwards is another span, with another id and the same key.
    envoy.call("s", "lookup", "{}");
    let created = &kinds(&envoy.deliver(2000), "session_created")[0];
    assert_ne!(created["session_id"], data["session_id"]);
    assert_eq!(created["session_key"], data["session_key"]);
}

/// What happens in the documented example, with what is delivered meanwhile.
pub(crate) fn document<T>(
    envoy: &mut Envoy,
    deliver: impl Fn(&mut Envoy, u64) -> Vec<T>,
) -> Vec<T> {
    let call = envoy.start("s", "lookup");
    envoy.generate(
        r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-2024-08-06","service_tier":"default","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":60}}}"#,
    );
    envoy.finish(call, "{}");
    deliver(envoy, 0);
    envoy.delete("s");
    deliver(envoy, 2000)
}

#[test]
fn events_are_written_as_documented() {
    let mut made = document(&mut Envoy::new(DOCUMENTED), Envoy::deliver);
    let source = made[0]["source"].as_str().unwrap().to_owned();
    assert!(source.starts_with("urn:agent-meter:edge-1:"), "{source}");
    for (at, event) in made.iter_mut().enumerate() {
        assert_eq!(event["source"], source.as_str());
        assert_eq!(event["id"], format!("{:020}", at + 1));
        event["source"] = json!("urn:agent-meter:edge-1:0123456789abcdef");
    }
    #[cfg(not(target_arch = "wasm32"))]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::write("tests/core/golden/session.json", text).unwrap();
    }
    let golden = include_str!("golden/session.json");
    let want: Vec<Value> = serde_json::from_str(golden).unwrap();
    assert_eq!(made, want, "UPDATE_GOLDEN=1 writes it anew");
    // The reference shows these events.
    let doc = include_str!("../../../EVENTS.md");
    let shown = doc.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Value>>(shown).unwrap(), want);
}

#[test]
fn only_an_answer_that_accounts_for_every_event_is_a_receipt() {
    const JSON: Option<&[u8]> = Some(b"application/json; charset=utf-8");
    const TEXT: Option<&[u8]> = Some(b"text/plain");
    const HTML: Option<&[u8]> = Some(b"text/html");
    for (what, media_type, body, is_receipt) in [
        ("no body", None, "", true),
        ("no body, whatever its type", HTML, "", true),
        ("all accepted", JSON, r#"{"accepted":2,"duplicates":0,"rejected":[]}"#, true),
        ("some before", None, r#"{"accepted":1,"duplicates":1}"#, true),
        ("one left out", JSON, r#"{"accepted":1,"duplicates":0,"rejected":[]}"#, false),
        ("one too many", JSON, r#"{"accepted":2,"duplicates":1,"rejected":[]}"#, false),
        ("rejected by number", JSON, r#"{"accepted":1,"rejected":1}"#, true),
        ("an answer without counts", JSON, r#"{"status":"ok"}"#, true),
        ("an answer in other words", JSON, r#"{"accepted":true}"#, true),
        ("a list", JSON, "[]", true),
        ("a text", TEXT, "OK", true),
        ("counts in a text", TEXT, r#"{"accepted":1}"#, false),
        ("a page", HTML, "<html>Log in</html>", false),
        ("JSON as a page", HTML, r#"{"accepted":2}"#, false),
        ("a page as JSON", JSON, "<html>Log in</html>", false),
        ("a page without a type", None, "<html>Log in</html>", false),
        ("JSON that was cut", JSON, r#"{"accepted":2,"dupl"#, false),
    ] {
        let mut envoy = Envoy::new(CONFIG);
        envoy.call("s", "lookup", "{}");
        let batch = (0..8).flat_map(|_| envoy.tick(250)).next().expect("a batch");
        assert_eq!(events(&batch).len(), 2);
        let body = body.as_bytes();
        let reply =
            Reply::parse(&HttpReply { status: 200, media_type, body, ..HttpReply::default() });
        let _ = envoy.reply(&batch, reply);
        let again = (0..8).flat_map(|_| envoy.tick(250)).next();
        assert_eq!(again.map(|again| again.body), (!is_receipt).then_some(batch.body), "{what}");
        let counted = |counter| envoy.host.counters.get(&counter).copied().unwrap_or(0);
        let failed = u64::from(!is_receipt);
        assert_eq!(counted(Counter::BatchesWithoutReceipt), failed, "{what}");
        assert_eq!(counted(Counter::BatchesFailed), failed, "{what}");
    }
}

#[test]
fn the_collector_says_how_long_to_wait_in_seconds_or_until_when() {
    let at = Timestamp(784_111_777_000);
    for (told, expected_ms) in [
        ("7", Some(7000)),
        (" 0 ", Some(0)),
        ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120_000)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("soon", None),
    ] {
        let retry_after = Some(told.as_bytes());
        let reply =
            Reply::parse(&HttpReply { status: 503, retry_after, at, ..HttpReply::default() });
        let expected = Reply::Failed { retry_after: expected_ms.map(Millis) };
        assert_eq!(reply, expected, "{told}");
    }
}

#[test]
fn a_delete_closes_the_session_after_its_last_calls() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("s", "lookup", "{}");
    envoy.call("other", "lookup", "{}");
    envoy.delete("s");
    envoy.delete("unknown");
    let made = envoy.deliver(2000);
    let closed = kinds(&made, "session_closed");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["close_reason"], "client_delete");
    assert_eq!(closed[0]["total_tool_calls"], 1);
}

#[test]
fn a_session_ends_after_its_calls_in_whatever_order_the_journals_are_read() {
    let mut envoy = Envoy::new(CONFIG);
    // The journal of this worker is the first that is read.
    envoy.call("first", "lookup", "{}");
    envoy.deliver(250);
    let other = crate::host::meter(&mut envoy.host, CONFIG);
    let first = core::mem::replace(&mut envoy.worker, other);
    envoy.call("s", "lookup", "{}");
    envoy.worker = first;
    envoy.delete("s");
    let made = envoy.deliver(2000);
    let closed = kinds(&made, "session_closed");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["close_reason"], "client_delete");
    assert_eq!(closed[0]["total_tool_calls"], 1);
    envoy.delete("unknown");
    envoy.deliver(1000);
    assert_eq!(envoy.host.counters[&Counter::SessionEndUnused], 1);
}

#[test]
fn a_long_call_keeps_its_session_from_being_idle() {
    let mut envoy = Envoy::new(CONFIG);
    let stream = envoy.start("s", "lookup");
    let made = envoy.deliver(600_000);
    assert_eq!(types(&made), ["session_created"]);
    envoy.finish(stream, "{}");
    assert_eq!(types(&envoy.deliver(2000)), ["tool_invocation"]);
    assert_eq!(types(&envoy.deliver(60_000)), ["session_idle"]);
}

#[test]
fn a_full_table_closes_the_least_recently_active() {
    let config = CONFIG.replacen('{', r#"{"sessions_max": 3,"#, 1);
    let mut envoy = Envoy::new(&config);
    for session in ["a", "b", "c"] {
        envoy.call(session, "lookup", "{}");
    }
    envoy.deliver(250);
    envoy.call("a", "lookup", "{}");
    envoy.deliver(250);
    envoy.call("d", "lookup", "{}");
    let made = envoy.deliver(2000);
    let closed = kinds(&made, "session_closed");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["close_reason"], "table_full");
    assert_eq!(closed[0]["total_tool_calls"], 1);
    envoy.call("a", "lookup", "{}");
    envoy.call("b", "lookup", "{}");
    let made = envoy.deliver(2000);
    // b had been closed, so it is created again; c makes room for it.
    assert_eq!(kinds(&made, "session_created").len(), 1);
    assert_eq!(envoy.host.gauges[&Gauge::SessionsLive], 3);
}

#[test]
fn a_tick_costs_what_is_due_not_what_is_alive() {
    let config = CONFIG.replacen('{', r#"{"sessions_max": 100000,"#, 1);
    let mut envoy = Envoy::new(&config);
    // Of sixteen ticks one looks who else is there.
    let cost_of_quiet_ticks = |envoy: &mut Envoy| {
        let before = envoy.host.calls;
        for _ in 0..16 {
            envoy.tick(250);
        }
        envoy.host.calls - before
    };
    envoy.call("first", "lookup", "{}");
    envoy.deliver(2000);
    let with_one = cost_of_quiet_ticks(&mut envoy);
    for session in 0..5000 {
        envoy.call(&format!("s{session}"), "lookup", "{}");
    }
    envoy.deliver(5000);
    assert_eq!(envoy.host.gauges[&Gauge::SessionsLive], 5001);
    assert_eq!(cost_of_quiet_ticks(&mut envoy), with_one);
}

#[test]
fn many_tools_are_added_up_under_one_name() {
    let mut envoy = Envoy::new(CONFIG);
    for tool in 0..100 {
        envoy.call("s", &format!("tool-{tool}"), "{}");
    }
    envoy.delete("s");
    let made = envoy.deliver(3000);
    let closed = &kinds(&made, "session_closed")[0];
    let tools = closed["calls_by_tool"].as_array().unwrap();
    assert_eq!(tools.len(), 65);
    assert_eq!(tools[0]["tool_name"], "__other__");
    assert_eq!(tools[0]["calls"], 36);
    assert_eq!(closed["total_tool_calls"], 100);
    assert_eq!(envoy.host.counters[&Counter::ToolsOverLimit], 36);
    assert_eq!(kinds(&made, "tool_invocation").len(), 100);
}

#[test]
fn batches_go_when_they_are_full_or_a_second_old() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("s", "lookup", "{}");
    assert!(envoy.tick(250).is_empty());
    assert!(envoy.tick(250).is_empty());
    assert!(envoy.tick(250).is_empty());
    assert!(envoy.tick(250).is_empty());
    let sent = envoy.tick(250);
    assert_eq!(sent.len(), 1);
    assert_eq!(events(&sent[0]).len(), 2);
    for _ in 0..250 {
        envoy.call("s", "lookup", "{}");
    }
    let sent = envoy.tick(250);
    assert_eq!(sent.iter().map(|batch| events(batch).len()).collect::<Vec<_>>(), [100, 100]);
}

#[test]
fn failures_pause_everything_and_retries_send_the_same_bytes() {
    let mut envoy = Envoy::new(CONFIG);
    for _ in 0..500 {
        envoy.call("s", "lookup", "{}");
    }
    let sent = envoy.tick(250);
    assert_eq!(sent.len(), 5);
    for batch in &sent {
        assert!(envoy.reply(batch, Reply::Failed { retry_after: None }).is_empty());
    }
    assert!(envoy.tick(500).is_empty());
    // One batch probes; the pause has doubled with each failure, up to the longest.
    let mut waited_ms = 500;
    let again = loop {
        let again = envoy.tick(250);
        waited_ms += 250;
        if !again.is_empty() {
            break again;
        }
    };
    assert!((3_750..=5_250).contains(&waited_ms), "{waited_ms} ms");
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].body, sent[0].body);
    let told = HttpReply { status: 429, retry_after: Some(b"7"), ..HttpReply::default() };
    let retry_after = Reply::parse(&told);
    assert_eq!(retry_after, Reply::Failed { retry_after: Some(Millis(7000)) });
    envoy.reply(&again[0], retry_after);
    assert!(envoy.tick(6900).is_empty());
    let again = envoy.tick(200);
    assert_eq!(again.len(), 1);
    let rest = envoy.reply(&again[0], taken());
    assert_eq!(rest.len(), 4, "once one is taken, the others follow");
    assert_eq!(envoy.host.gauges[&Gauge::EventsMade], 502);
}

#[test]
fn a_reply_that_comes_after_the_lease_was_lost_and_won_again_settles_nothing_else() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("s", "first", "{}");
    let mut sent = envoy.tick(250);
    sent.extend(envoy.tick(2000));
    let [late] = sent.as_slice() else { panic!("{sent:?}") };
    let mut told: Vec<Value> = Vec::new();
    // The main thread stands still, and the worker takes over, with a collector that takes everything.
    while !envoy.worker.is_accountant() {
        envoy.now.0 += 250;
        for dispatch in envoy.worker.tick(&mut envoy.host, envoy.now) {
            told.extend(events(&dispatch));
            envoy.worker.reply(&mut envoy.host, dispatch.part, taken(), envoy.now);
        }
    }
    // What it has delivered is committed with its next tick. Then it is the other way round.
    envoy.worker.tick(&mut envoy.host, envoy.now);
    envoy.call("s", "second", "{}");
    envoy.main.tick(&mut envoy.host, envoy.now);
    assert!(!envoy.main.is_accountant());
    let mut waiting = Vec::new();
    for _ in 0..20 {
        envoy.now.0 += 250;
        waiting.extend(envoy.main.tick(&mut envoy.host, envoy.now));
    }
    assert!(envoy.main.is_accountant() && !waiting.is_empty());
    envoy.reply(late, taken());
    for dispatch in waiting {
        envoy.reply(&dispatch, Reply::Failed { retry_after: None });
    }
    told.extend(envoy.deliver(10_000));
    let calls: Vec<Value> =
        kinds(&told, "tool_invocation").iter().map(|call| call["tool_name"].clone()).collect();
    assert_eq!(calls, ["first", "second"]);
}

#[test]
fn a_poison_event_is_set_aside_and_the_rest_goes_on() {
    // By a collector that names it, and by one that refuses whole batches.
    for names_it in [true, false] {
        let mut envoy = Envoy::new(CONFIG);
        for tool in 0..20 {
            envoy.call("s", &format!("tool-{tool}"), "{}");
        }
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.extend(envoy.tick(250));
        }
        let (mut stored, mut requests) = (Vec::new(), 0);
        while let Some(batch) = waiting.pop() {
            requests += 1;
            let events = events(&batch);
            let is_poison = |event: &Value| event["data"]["tool_name"] == "tool-13";
            let poison = events.iter().find(|event| is_poison(event));
            let reply = match poison {
                Some(poison) if names_it => {
                    let accepted = events.len() - 1;
                    let body = json!({"accepted": accepted, "rejected": [{"id": poison["id"], "reason": "no"}]});
                    stored.extend(events.iter().filter(|event| !is_poison(event)).cloned());
                    answered(200, body.to_string().as_bytes())
                }
                Some(_) => answered(400, b"bad batch"),
                None => {
                    stored.extend(events);
                    taken()
                }
            };
            waiting.extend(envoy.reply(&batch, reply));
        }
        assert_eq!(stored.len(), 21, "names it: {names_it}");
        assert!(requests <= 11, "{requests}");
        assert_eq!(envoy.host.spilled.len(), 1);
        assert_eq!(envoy.host.spilled[0].0, "refused");
        assert_eq!(envoy.host.spilled[0].1["data"]["tool_name"], "tool-13");
        envoy.tick(250);
        let gauges = &envoy.host.gauges;
        assert_eq!((gauges[&Gauge::EventsAcked], gauges[&Gauge::EventsSpilled]), (21, 1));
        assert_eq!(gauges[&Gauge::OutboxEvents], 0);
    }
}

#[test]
fn what_is_too_old_or_too_much_is_written_to_the_log() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("s", "lookup", "{}");
    envoy.deliver(0);
    envoy.tick(13 * 3_600_000);
    assert_eq!(envoy.host.spilled.len(), 2);
    assert!(envoy.host.spilled.iter().all(|(reason, _)| reason == "retry_horizon"));

    let config = CONFIG.replacen('{', r#"{"delivery": {"outbox_bytes_max": 1048576},"#, 1);
    let mut envoy = Envoy::new(&config);
    for _ in 0..1_500 {
        envoy.call("s", "lookup", "{}");
    }
    let sent = envoy.tick(250);
    // 1,502 events, of which the latest MiB fits.
    assert!(envoy.host.spilled.iter().all(|(reason, _)| reason == "outbox_full"));
    assert_eq!(envoy.host.spilled[0].1["id"], format!("{:020}", 1));
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let mut told: BTreeSet<String> =
        envoy.host.spilled.iter().map(|(_, event)| id(event)).collect();
    let mut delivered = envoy.take(sent);
    delivered.extend(envoy.deliver(2_000));
    // What was on its way when it had to go is told twice.
    delivered.retain(|event| told.insert(id(event)));
    assert_eq!(told.len(), 1_502);
    let bytes: usize = delivered.iter().map(|event| event.to_string().len()).sum();
    assert!((900_000..1_200_000).contains(&bytes), "{bytes}");
}

/// Ten events a second for this long, while the collector is down. Gives how many there were.
fn outage(envoy: &mut Envoy, seconds: u64) -> usize {
    let mut events = 0;
    for second in 0..seconds {
        for _ in 0..10 {
            envoy.call(&format!("s{}", second % 7), "lookup", "{}");
        }
        events += 10;
        for dispatch in envoy.tick(950) {
            let down = answered(503, b"");
            assert_eq!(envoy.reply(&dispatch, down), []);
        }
    }
    events
}

#[test]
fn an_outage_of_an_hour_spills_nothing_and_ends_within_seconds() {
    for settings in ["", r#""batch_events_max": 1,"#, r#""flush_interval": "50ms","#] {
        let delivery = format!(r#"{{"delivery": {{{settings} "in_flight_max": 64}},"#);
        let mut envoy = Envoy::new(&CONFIG.replacen('{', &delivery, 1));
        let calls = outage(&mut envoy, 3_600);
        assert_eq!(envoy.host.spilled, [], "{settings}");
        // The next try comes within five seconds, and brings all of it.
        let mut waited_ms = 0;
        let sent = loop {
            let sent = envoy.tick(250);
            waited_ms += 250;
            if !sent.is_empty() {
                break sent;
            }
        };
        assert!(waited_ms <= 5_250, "{waited_ms} ms, {settings}");
        let told = envoy.take(sent);
        assert!(kinds(&told, "tool_invocation").len() >= calls - 300, "{settings}");
        let rest = envoy.deliver(3_000);
        let all = kinds(&told, "tool_invocation").len() + kinds(&rest, "tool_invocation").len();
        assert_eq!(all, calls, "{settings}");
        assert_eq!(envoy.host.gauges[&Gauge::OutboxEvents], 0);
    }
}

#[test]
fn what_comes_late_in_an_outage_does_not_expire_with_what_came_first() {
    let mut envoy = Envoy::new(CONFIG);
    let down = |envoy: &mut Envoy, after_ms: u64| {
        for dispatch in envoy.tick(after_ms) {
            envoy.reply(&dispatch, answered(503, b""));
        }
    };
    envoy.call("s", "first", "{}");
    for _ in 0..10 {
        down(&mut envoy, 2_000);
    }
    // Nothing but the first batch has been tried.
    envoy.call("s", "second", "{}");
    down(&mut envoy, 250);
    envoy.now.0 += 12 * 3_600_000 - 60_000;
    envoy.call("s", "late", "{}");
    down(&mut envoy, 250);
    envoy.now.0 += 60_000;
    down(&mut envoy, 250);
    let spilled: Vec<Value> = envoy.host.spilled.iter().map(|(_, event)| event.clone()).collect();
    let tools = |events: &[Value]| -> Vec<Value> {
        kinds(events, "tool_invocation").iter().map(|call| call["tool_name"].clone()).collect()
    };
    assert_eq!(tools(&spilled), ["first", "second"]);
    assert_eq!(tools(&envoy.deliver(10_000)), ["late"]);
}

#[test]
fn what_another_accountant_takes_over_in_an_outage_is_told_once() {
    let mut envoy = Envoy::new(CONFIG);
    let calls = outage(&mut envoy, 600);
    let mut told: Vec<Value> = Vec::new();
    while !envoy.worker.is_accountant() {
        envoy.now.0 += 250;
        let waiting = envoy.worker.tick(&mut envoy.host, envoy.now);
        let mut waiting = std::collections::VecDeque::from(waiting);
        while let Some(dispatch) = waiting.pop_front() {
            told.extend(events(&dispatch));
            let further = envoy.worker.reply(&mut envoy.host, dispatch.part, taken(), envoy.now);
            waiting.extend(further);
        }
    }
    assert_eq!(kinds(&told, "tool_invocation").len(), calls);
    assert_eq!(envoy.host.spilled, []);
}

#[test]
fn a_full_journal_lets_facts_wait_and_loses_none() {
    let mut envoy = Envoy::new(CONFIG);
    let mut calls = 0;
    // From 128 on, new requests of the customer are refused: `shares.rs` shows that.
    while envoy.host.counters.get(&Counter::JournalFull).is_none_or(|facts| *facts < 128) {
        envoy.call("s", &format!("{calls:0>100}"), "{}");
        calls += 1;
    }
    assert!(calls > 1000);
    assert_eq!(envoy.host.spilled, []);
    let made = envoy.deliver(60_000);
    assert_eq!(kinds(&made, "tool_invocation").len(), calls);
    envoy.call("s", "lookup", "{}");
    assert_eq!(kinds(&envoy.deliver(2000), "tool_invocation").len(), 1);
}

#[test]
fn when_envoy_stops_everything_is_in_the_log() {
    let mut envoy = Envoy::new(CONFIG);
    envoy.call("a", "lookup", "{}");
    envoy.deliver(2000);
    envoy.call("a", "lookup", "{}");
    let open = envoy.start("b", "lookup");
    let now = envoy.now;
    envoy.worker.stop(&mut envoy.host, now);
    assert_eq!(envoy.host.spilled, []);
    envoy.main.stop(&mut envoy.host, now);
    let left: Vec<Value> = envoy.host.spilled.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(
        types(&left),
        [
            "session_active",
            "tool_invocation",
            "session_created",
            "session_closed",
            "tool_invocation",
            "session_closed"
        ],
    );
    assert!(envoy.host.spilled.iter().all(|(reason, _)| reason == "shutdown"));
    assert_eq!(kinds(&left, "tool_invocation")[1]["execution_status"], "UNKNOWN");
    assert!(kinds(&left, "session_closed").iter().all(|data| data["close_reason"] == "shutdown"));
    let _ = open;
}

//! Tests calls of APIs and steps of agents, and their identity: apps, keys and credentials.

use agent_meter_collector::Period;
use agent_meter_collector::invoice::Invoice;
use serde_json::{Value, json};

use super::generations::{generation, only, usage};
use super::{
    BATCH, Http, SESSION, SOURCE, call, closed, event, insert, ledger_of, memory, merge, open,
    permutations, reconcile, sessions, start, state,
};

const KEY: &str = "00112233445566778899aabbccddeeff";
const STEP_SESSION: &str = "11111111111111111111111111111111";

/// Replaces the members of a tool's event by those of the API product.
fn of_api(mut event: Value) -> Value {
    let members = json!({"product_id": "orders", "product_type": "STANDARD_API", "agent_id": null,
        "app_id": "app-1", "api_key_hash": KEY, "credential_type": "CLIENT_CREDENTIALS"});
    merge(&mut event["data"], members);
    event
}

fn of_agent(mut event: Value) -> Value {
    let members = json!({"product_id": "helper", "product_type": "AI_AGENT",
        "session_id": STEP_SESSION, "credential_type": "BEARER_TOKEN"});
    merge(&mut event["data"], members);
    event
}

fn api_call(sequence: u64, data: Value) -> Value {
    let members = json!({"metric_id": "api_calls", "quantity": 1,
        "call_id": format!("call-{sequence}"), "method": "GET", "route": "/orders/{id}",
        "execution_status": "SUCCESS", "http_status": 200, "execution_duration_ms": 7,
        "request_bytes": 10, "response_bytes": 2000, "cost_tier": "standard", "billable": true,
        "price": "0.002", "currency": "USD"});
    let mut event = of_api(event(sequence, "api_call", members));
    merge(&mut event["data"], data);
    event
}

fn agent_step(sequence: u64, data: Value) -> Value {
    let members = json!({"metric_id": "agent_steps", "quantity": 1,
        "call_id": format!("call-{sequence}"), "operation": "message/send",
        "execution_status": "SUCCESS", "http_status": 200, "execution_duration_ms": 900,
        "transport": "sse", "cost_tier": "standard", "billable": true, "price": "0.05",
        "currency": "USD"});
    let mut event = of_agent(event(sequence, "agent_step", members));
    merge(&mut event["data"], data);
    event
}

/// A session of an API with two calls, one of an agent with a step and its generation, and a call
/// of a tool. Sequences 1 to 9.
fn mixed() -> Vec<Value> {
    let failed = json!({"method": "POST", "route": "/orders", "execution_status": "ERROR",
        "http_status": 500, "billable": false, "price": "0", "request_bytes": 300,
        "response_bytes": 0});
    let total = |name: &str, calls: u64, billable: u64, revenue: &str, cost: &str| {
        json!({"tool_name": name, "calls": calls, "billable_calls": billable, "revenue": revenue,
            "provider_cost": cost})
    };
    let api_end = json!({"close_reason": "identity_limit", "total_tool_calls": 2,
        "billable_tool_calls": 1, "calls_by_status": {"ERROR": 1, "SUCCESS": 1},
        "calls_by_tool": [total("GET /orders/{id}", 1, 1, "0.002", "0"),
            total("POST /orders", 1, 0, "0", "0")]});
    let tokens = json!({"input": 1000, "output": 800, "reasoning": 200, "cache_read": 500, "cache_write": 0});
    let mut model = tokens.clone();
    merge(
        &mut model,
        json!({"provider": "openai", "model": "gpt-4o-2024-08-06", "generations": 1,
            "unpriced_generations": 0, "provider_cost": "0.009875", "revenue": "0"}),
    );
    let agent_end = json!({"close_reason": "closed", "total_tool_calls": 1,
        "billable_tool_calls": 1, "calls_by_status": {"SUCCESS": 1},
        "calls_by_tool": [total("message/send", 1, 1, "0.05", "0.009875")], "generations": 1,
        "unpriced_generations": 0, "unknown_usage_generations": 0, "total_tokens": tokens,
        "usage_by_model": [model], "total_provider_cost": "0.009875",
        "unattributed_provider_cost": "0", "total_revenue": "0.05"});
    let of_step = json!({"call_id": "call-6", "tool_name": "message/send", "attribution": "trace"});
    vec![
        of_api(state(1, "CREATED")),
        api_call(2, json!({})),
        api_call(3, failed),
        of_api(closed(4, api_end)),
        of_agent(state(5, "CREATED")),
        agent_step(6, json!({})),
        of_agent(generation(7, of_step)),
        of_agent(closed(8, agent_end)),
        call(9, json!({"session_id": "22222222222222222222222222222222"})),
    ]
}

#[test]
fn usage_counts_calls_by_kind_and_by_who_made_them() {
    let ledger = ledger_of(&mixed());
    for (query, members, expected) in [
        (
            "group_by=kind,tool",
            &["kind", "tool", "calls", "billable_calls", "revenue"][..],
            json!([
                ["agent_step", "message/send", 1, 1, "0.05"],
                ["api_call", "GET /orders/{id}", 1, 1, "0.002"],
                ["api_call", "POST /orders", 1, 0, "0"],
                ["token_consumption", "message/send", 0, 0, "0"],
                ["tool_invocation", "search", 1, 1, "0.001"],
            ]),
        ),
        (
            "group_by=product_type",
            &["product_type", "calls", "request_bytes", "response_bytes", "generations"][..],
            json!([
                ["AI_AGENT", 1, 0, 0, 1],
                ["MCP_SERVER", 1, 0, 0, 0],
                ["STANDARD_API", 2, 310, 2000, 0],
            ]),
        ),
        (
            "group_by=key,agent",
            &["key", "agent", "calls"][..],
            json!([[KEY, "app-1", 2], ["__none__", "agent-1", 2]]),
        ),
        (
            "group_by=customer,team,agent,key,session,tool,model&kind=api_call",
            &["customer", "team", "agent", "key", "session", "tool", "model", "calls"][..],
            json!([
                ["acme", "blue", "app-1", KEY, SESSION, "GET /orders/{id}", "__none__", 1],
                ["acme", "blue", "app-1", KEY, SESSION, "POST /orders", "__none__", 1],
            ]),
        ),
        // A generation has the status of its step.
        (
            "group_by=tool,status&kind=token_consumption",
            &["tool", "status", "provider_cost"][..],
            json!([["message/send", "SUCCESS", "0.009875"]]),
        ),
        ("agent=app-1", &["calls"][..], json!([[2]])),
        ("key=__none__&product_type=AI_AGENT", &["calls"][..], json!([[1]])),
    ] {
        assert_eq!(only(&usage(&ledger, query), members), expected, "{query}");
    }
}

#[test]
fn sessions_of_apis_and_agents_reconcile_in_every_order() {
    let events = mixed();
    let expected = sessions(&ledger_of(&events), "");
    let listed = expected["sessions"].as_array().expect("sessions");
    for (session, members) in [
        (0, json!(["identity_limit", "STANDARD_API", "app-1", KEY, "CLIENT_CREDENTIALS"])),
        (1, json!(["closed", "AI_AGENT", "agent-1", null, "BEARER_TOKEN"])),
        (2, json!([null, "MCP_SERVER", "agent-1", null, null])),
    ] {
        let found = ["close_reason", "product_type", "agent_id", "api_key_hash", "credential_type"]
            .map(|member| listed[session][member].clone());
        assert_eq!(json!(found), members, "{session}");
    }
    // Half of the events in each order, then the other half.
    for (chosen, rest) in [(0..4, 4..9), (4..8, 0..4)] {
        for order in permutations(chosen.len()) {
            let ledger = memory();
            let shuffled: Vec<Value> =
                order.iter().map(|index| events[chosen.start + index].clone()).collect();
            insert(&ledger, &shuffled);
            insert(&ledger, &events[rest.clone()]);
            let found = sessions(&ledger, "session_id=11111111111111111111111111111111");
            assert_eq!(found["sessions"][0], listed[1], "{order:?}");
            let found = sessions(&ledger, &format!("session_id={SESSION}"));
            assert_eq!(found["sessions"][0], listed[0], "{order:?}");
            let agreed = json!({"sessions": 2, "mismatches": []});
            assert_eq!(reconcile(&ledger), agreed, "{order:?}");
        }
    }
    // The reconciliation finds a lost call and a lost step.
    for (lost, session) in [(1, SESSION), (5, STEP_SESSION)] {
        let mut events = events.clone();
        events.remove(lost);
        let answer = reconcile(&ledger_of(&events));
        let fields: Vec<_> = answer["mismatches"].as_array().expect("mismatches").iter().collect();
        assert_eq!(fields[0]["field"], "total_tool_calls", "{answer}");
        assert!(fields.iter().all(|field| field["session_id"] == session), "{answer}");
    }
}

#[test]
fn a_session_without_its_own_events_has_its_calls() {
    let ledger = ledger_of(&[api_call(1, json!({}))]);
    let session = &sessions(&ledger, "agent=app-1")["sessions"][0];
    assert_eq!(session["state"], "ACTIVE");
    assert_eq!(session["calls_by_tool"][0]["tool_name"], "GET /orders/{id}");
    assert_eq!((&session["api_key_hash"], &session["agent_id"]), (&json!(KEY), &json!("app-1")));
}

#[test]
fn each_rule_of_these_events_has_its_own_reason() {
    let api = |data| api_call(1, data);
    let step = |data| agent_step(1, data);
    let types = "STANDARD_API, AGENTIC_API, AI_AGENT, MCP_SERVER";
    for (event, reason) in [
        (api(json!({"app_id": null})), "app_id: missing".to_owned()),
        (
            api(json!({"agent_id": "agent-1"})),
            r#"agent_id: must be absent, with app_id in its place, found "agent-1""#.into(),
        ),
        (
            api(json!({"app_id": null, "agent_id": "agent-1"})),
            r#"agent_id: must be absent, with app_id in its place, found "agent-1""#.into(),
        ),
        (
            api(json!({"product_type": "AGENTIC_API", "agent_id": "agent-1"})),
            r#"agent_id: must be absent, with app_id in its place, found "agent-1""#.into(),
        ),
        (api(json!({"product_type": "AGENTIC_API", "app_id": null})), "app_id: missing".into()),
        (
            step(json!({"app_id": "app-1"})),
            r#"app_id: must be absent, with agent_id in its place, found "app-1""#.into(),
        ),
        (step(json!({"agent_id": null})), "agent_id: missing".into()),
        (
            call(1, json!({"product_type": "API"})),
            format!("product_type: must be one of {types}, found \"API\""),
        ),
        (
            api(json!({"api_key_hash": "secret"})),
            r#"api_key_hash: must be 32 hexadecimal digits, found "secret""#.into(),
        ),
        (
            api(json!({"credential_type": "PASSWORD"})),
            "credential_type: must be one of CLIENT_CREDENTIALS, BEARER_TOKEN, found \"PASSWORD\""
                .into(),
        ),
        (
            api(json!({"metric_id": "tool_invocations"})),
            r#"metric_id: must be "api_calls", found "tool_invocations""#.into(),
        ),
        (
            api(json!({"quantity": 0})),
            "quantity: must be an integer of at least 1, and at most 1000000000, found 0".into(),
        ),
        (api(json!({"method": ""})), r#"method: must be a string, not empty, found """#.into()),
        (api(json!({"route": null})), "route: missing".into()),
        (
            api(json!({"request_bytes": -1})),
            "request_bytes: must be an integer of at least 0, found -1".into(),
        ),
        (api(json!({"response_bytes": null})), "response_bytes: missing".into()),
        (
            api(json!({"billable": false})),
            r#"price: must be "0" when billable is false, found "0.002""#.into(),
        ),
        (
            step(json!({"metric_id": "api_calls"})),
            r#"metric_id: must be "agent_steps", found "api_calls""#.into(),
        ),
        (step(json!({"operation": null})), "operation: missing".into()),
        (step(json!({"transport": null})), "transport: missing".into()),
    ] {
        let ledger = memory();
        let receipt = insert(&ledger, std::slice::from_ref(&event));
        let reasons: Vec<_> = receipt.rejected.iter().map(|event| event.reason.clone()).collect();
        assert_eq!(reasons, [format!("data.{reason}")], "{event}");
    }
    // As filters wrote it that did not know apps.
    let old = json!({"product_type": "AGENTIC_API", "product_id": "llm"});
    let ledger = ledger_of(&[generation(1, old)]);
    let rows = usage(&ledger, "group_by=product_type,agent");
    assert_eq!(only(&rows, &["product_type", "agent"]), json!([["AGENTIC_API", "agent-1"]]));
}

#[test]
fn an_invoice_names_routes_and_operations() {
    let ledger = ledger_of(&mixed());
    let text = "\
INVOICE, the operator's: not for the customer
Customer  acme
Period    the beginning to now

Product helper (AI_AGENT), USD
  Operation     Tier      Unit price  Calls  Billable  Amount
  message/send  standard        0.05      1         1    0.05
  Not billed       none
  Sessions closed  1
  Provider cost    0.009875 USD
    By operation
      message/send  0.009875
    By model
      openai  gpt-4o-2024-08-06  0.009875
  Revenue          0.05 USD
  Margin           0.040125 USD (80.3 %)

Product orders (STANDARD_API), USD
  Route             Tier      Unit price  Calls  Billable  Amount
  GET /orders/{id}  standard       0.002      1         1   0.002
  POST /orders      standard           -      1         0   0.000
  Not billed       ERROR 1
  Sessions closed  1
  Provider cost    0 USD
  Revenue          0.002 USD
  Margin           0.002 USD (100.0 %)

Product tools (MCP_SERVER), USD
  Tool    Tier      Unit price  Calls  Billable  Amount
  search  standard       0.001      1         1   0.001
  Not billed       none
  Sessions closed  0
  Provider cost    0 USD
  Revenue          0.001 USD
  Margin           0.001 USD (100.0 %)

Total  0.053 USD
";
    let invoice = Invoice::for_customer(&ledger, Some("acme"), Period::default()).expect("invoice");
    assert_eq!(invoice.to_string(), text);
    assert_eq!(invoice.to_json()["products"][1]["lines"][0]["kind"], "api_call");

    // An agent's step and a tool with the same name and price have two lines.
    let of_tool = of_agent(call(2, json!({"tool_name": "message/send", "price": "0.05"})));
    let ledger =
        ledger_of(&[agent_step(1, json!({})), of_tool, of_agent(generation(3, json!({})))]);
    let invoice = Invoice::for_customer(&ledger, None, Period::default()).expect("invoice");
    assert_eq!(invoice.products[0].lines.len(), 2);
    let text = invoice.to_string();
    for part in ["\n  Call  ", "    By call\n", "(not attributed to a call)"] {
        assert!(text.contains(part), "{part:?}\n{text}");
    }
}

/// The tables of version 2, as far as the migration reads them.
const VERSION_2: &str = "
CREATE TABLE events (position INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL,
 sequence INTEGER NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL, subject TEXT NOT NULL,
 session_id TEXT, raw TEXT NOT NULL, received_at TEXT NOT NULL, UNIQUE (source, id)) STRICT;
CREATE INDEX events_session ON events (session_id);
CREATE TABLE calls (position INTEGER PRIMARY KEY REFERENCES events (position)) STRICT;
CREATE TABLE generations (position INTEGER PRIMARY KEY REFERENCES events (position)) STRICT;
CREATE TABLE sessions (position INTEGER PRIMARY KEY, totals TEXT) STRICT;
PRAGMA user_version = 2;
";

#[test]
fn a_ledger_of_version_2_is_brought_up_to_date() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db").to_str().expect("path").to_owned();
    let mut events = mixed();
    // As filters wrote it that did not know apps.
    let members = json!({"product_type": "AGENTIC_API", "product_id": "llm",
        "session_id": "33333333333333333333333333333333"});
    events.push(generation(10, members));
    let old = rusqlite::Connection::open(&path).expect("open");
    old.execute_batch(VERSION_2).expect("sql");
    for (position, event) in (1_i64..).zip(&events) {
        let text = |member: &str| event[member].as_str().expect(member).to_owned();
        let session = event["data"]["session_id"].as_str();
        let row = (position, SOURCE, text("id"), text("type"), text("time"), session);
        old.execute(
            "INSERT INTO events VALUES (?1, ?2, ?3, ?1, ?4, ?5, 'acme', ?6, ?7, '')",
            (row.0, row.1, row.2, row.3, row.4, row.5, event.to_string()),
        )
        .expect("a row");
    }
    drop(old);
    let new = ledger_of(&events);
    for round in 0..2 {
        let ledger = open(&path);
        let query = "group_by=product_type,kind,tool,model,agent,key";
        assert_eq!(usage(&ledger, query), usage(&new, query), "{round}");
        assert_eq!(sessions(&ledger, ""), sessions(&new, ""), "{round}");
        assert_eq!(reconcile(&ledger), json!({"sessions": 2, "mismatches": []}), "{round}");
        assert_eq!(insert(&ledger, &events).duplicates, 10, "{round}");
    }
}

#[tokio::test]
async fn metrics_name_the_new_events() {
    let collector = start().await;
    let http = Http::new(&collector);
    assert_eq!(http.post(BATCH, serde_json::to_vec(&mixed()).expect("json")).await.0, 200);
    let (_, text) = http.get("/metrics").await;
    for line in [
        r#"events_total{outcome="accepted",type="api_call"} 2"#,
        r#"events_total{outcome="accepted",type="agent_step"} 1"#,
        r#"revenue_total{currency="USD",charged_for="calls"} 0.053"#,
    ] {
        let line = format!("agent_meter_collector_{line}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let (status, text) = http.get("/v1/usage?group_by=kind&kind=api_call").await;
    let rows: Value = serde_json::from_str(&text).expect("json");
    assert_eq!((status, &rows["rows"][0]["response_bytes"]), (200, &json!(2000)));
    collector.stop().await;
}

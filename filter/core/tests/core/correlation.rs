//! The ids by which events are joined with traces and access logs, and what an access log is told.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::guarded;
use crate::host::Envoy;
use crate::products::{Pairs, ask, headers, stream};
use crate::support::test;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ALL: &str = r#"{"request_id": true, "trace_id": true, "rpc_id": true, "access_log": true}"#;

fn envoy(rules: &str) -> Envoy {
    let rules: Value = serde_json::from_str(rules).unwrap();
    Envoy::new(&guarded::config(&json!([]), &json!({ "correlation": rules })))
}

fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#)
}

fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#)
}

const POST: Pairs<'_> = &[
    (":method", "POST"),
    (":path", "/mcp"),
    ("x-customer-id", "acme"),
    ("x-request-id", "f2a1-7"),
    ("traceparent", PARENT),
];

#[test]
fn events_have_the_ids_that_the_configuration_asks_for_and_no_others() {
    let ids = ["request_id", "trace_id", "rpc_id"];
    for (rules, expected) in [
        ("{}", [None, None, None]),
        (r#"{"request_id": true}"#, [Some("f2a1-7"), None, None]),
        (r#"{"trace_id": true}"#, [None, Some(TRACE), None]),
        (r#"{"rpc_id": true}"#, [None, None, Some("7")]),
        (ALL, [Some("f2a1-7"), Some(TRACE), Some("7")]),
    ] {
        let mut envoy = envoy(rules);
        stream(&mut envoy, 1, POST, &call("7"), &result("7"));
        let calls = kinds(&envoy.deliver(2000), "tool_invocation");
        let found = ids.map(|id| calls[0].get(id).and_then(Value::as_str));
        assert_eq!(found, expected, "{rules}");
    }
}

#[test]
fn a_text_that_may_say_something_about_somebody_is_told_as_a_hash() {
    let mut envoy = envoy(ALL);
    stream(&mut envoy, 1, POST, &call(r#""ann@example.com""#), &result(r#""ann@example.com""#));
    stream(&mut envoy, 2, POST, &call(r#""ann@example.com""#), &result(r#""ann@example.com""#));
    let calls = kinds(&envoy.deliver(2000), "tool_invocation");
    let told = calls[0]["rpc_id"].as_str().unwrap();
    assert!(told.starts_with("sha256:") && told.len() == 39, "{told}");
    assert_eq!(calls[1]["rpc_id"], told);
    let long = "x".repeat(129);
    for odd in ["", "a b", "a\nb", "ä", &long] {
        let request = [&POST[..3], &[("x-request-id", odd)]].concat();
        stream(&mut envoy, 3, &request, &call("7"), &result("7"));
        let calls = kinds(&envoy.deliver(2000), "tool_invocation");
        assert_eq!((calls.len(), calls[0].get("request_id")), (1, None), "{odd}");
    }
}

#[test]
fn a_generation_and_a_call_that_is_answered_elsewhere_have_them_too() {
    let mut envoy = envoy(ALL);
    let request = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "api.openai.com"),
        ("x-customer-id", "acme"),
        ("x-request-id", "g-1"),
    ];
    let answer = r#"{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
    stream(&mut envoy, 1, &request, r#"{"model":"gpt-4o"}"#, answer);
    assert_eq!(
        envoy.worker.take_log(1),
        [
            ("agent_meter.generation_id", "0.1.0".to_owned()),
            ("agent_meter.tokens", "15".to_owned()),
            ("agent_meter.provider_cost", "0.0015".to_owned()),
        ]
    );
    let session = ("mcp-session-id", "s");
    ask(&mut envoy, 2, &[POST, &[session]].concat(), &call("7"));
    envoy.worker.response_head(2, Headers(&headers(&[(":status", "202")])));
    envoy.worker.stream_end(&mut envoy.host, 2, StreamEnd::Complete, envoy.now);
    let get = headers(&[(":method", "GET"), (":path", "/mcp"), session, ("x-customer-id", "acme")]);
    envoy.worker.request_without_body(&mut envoy.host, 3, Headers(&get), envoy.now);
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    envoy.worker.response_head(3, Headers(&headers(&events)));
    let answer = format!("data: {}\n\n", result("7"));
    envoy.worker.response_body(&mut envoy.host, 3, answer.as_bytes(), false, envoy.now);
    let made = envoy.deliver(2000);
    assert_eq!(kinds(&made, "token_consumption")[0]["request_id"], "g-1");
    let calls = kinds(&made, "tool_invocation");
    assert_eq!((&calls[0]["request_id"], &calls[0]["rpc_id"]), (&json!("f2a1-7"), &json!("7")));
}

#[test]
fn an_access_log_is_told_what_was_counted_and_nothing_that_ends_its_field() {
    let mut envoy = envoy(ALL);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\" status=SUCCESS [2026] x,é"}}"#;
    stream(&mut envoy, 1, POST, call, &result("1"));
    assert_eq!(
        envoy.worker.take_log(1),
        [
            ("agent_meter.call_id", "0.1.0.0".to_owned()),
            ("agent_meter.tool", "a__status=SUCCESS_[2026]_x__".to_owned()),
            ("agent_meter.status", "SUCCESS".to_owned()),
        ]
    );
    assert!(envoy.worker.take_log(1).is_empty(), "once");
    // Streams beyond any product, and those of a configuration that does not ask, tell nothing.
    let other = [(":method", "POST"), (":path", "/elsewhere")];
    stream(&mut envoy, 2, &other, "", "");
    assert!(envoy.worker.take_log(2).is_empty());
    let mut quiet = self::envoy("{}");
    stream(&mut quiet, 1, POST, &self::call("7"), &result("7"));
    assert!(quiet.worker.take_log(1).is_empty());
}

#[test]
fn a_refused_call_has_them_too() {
    let guards = json!([{
        "id": "one", "scope": "customer", "period": "day", "budget": {"calls": 1},
        "actions": {"level_3": {"threshold": "0%", "action": "block_request"}},
    }]);
    let rules: Value = serde_json::from_str(ALL).unwrap();
    let mut envoy = Envoy::new(&guarded::config(&guards, &json!({ "correlation": rules })));
    stream(&mut envoy, 1, POST, &call("1"), &result("1"));
    envoy.deliver(2000);
    let head = headers(POST);
    let Envoy { worker, host, now, .. } = &mut envoy;
    let is_refused = match worker.request_head(host, 2, Headers(&head), *now) {
        HeadAction::Answer(_) => true,
        _ => {
            let body = call("2");
            matches!(
                worker.request_body(host, 2, body.as_bytes(), true, *now),
                BodyAction::Answer(_)
            )
        }
    };
    assert!(is_refused);
    let told = envoy.worker.take_log(2);
    let calls = kinds(&envoy.deliver(2000), "tool_invocation");
    let blocked = calls.iter().find(|call| call["execution_status"] == "BLOCKED").unwrap();
    assert_eq!(blocked["request_id"], "f2a1-7");
    assert!(told.contains(&("agent_meter.status", "BLOCKED".to_owned())), "{told:?}");
}

//! Calls that are paused, by an operator on the control listener or by a guard: they are told to come
//! again, and nothing that runs or is open ends.

use agent_meter_core::config::control::PluginConfig;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::control::{Control, ControlAction};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::guarded::{Became, Guarded, guard};
use crate::products::headers;
use crate::support::test;

struct Paused {
    guarded: Guarded,
    control: Control,
}

impl Paused {
    fn new(guards: &Value, more: &Value) -> Self {
        let Ok(PluginConfig::Control(config)) = PluginConfig::from_bytes(br#"{"control": {}}"#)
        else {
            panic!("a control configuration")
        };
        Self { guarded: Guarded::with(guards, more), control: Control::new(config, "test") }
    }

    /// The status and the body of an order, after which everybody ticks.
    fn order(&mut self, method: &str, path: &str) -> (u16, Value) {
        let head = headers(&[(":method", method), (":path", path)]);
        let (host, now) = (&mut self.guarded.envoy.host, self.guarded.envoy.now);
        let action = self.control.request(host, 1, Headers(&head), 1, now);
        let ControlAction::Answer(reply) = action else { panic!("{method} {path} waits") };
        self.guarded.settle();
        (reply.status, serde_json::from_str(&reply.body).unwrap())
    }

    fn status(&mut self, customer: &str, more: &[(&str, &str)]) -> u16 {
        let became = self.guarded.call_with(customer, "t", more);
        if let Became::Passed(stream, ..) = became {
            self.guarded.finish(stream);
        }
        became.status()
    }
}

fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_customer_who_is_paused_is_told_to_come_again_and_resumed_without_loss() {
    let mut paused = Paused::new(&json!([]), &json!({}));
    let session = [("mcp-session-id", "s")];
    assert_eq!(paused.status("acme", &session), 200);
    let running = paused.guarded.call_with("acme", "slow", &session).stream();
    paused.guarded.settle();
    let (status, told) = paused.order("POST", "/pause?customer=acme");
    assert_eq!((status, &told["paused"][0]["customer"]), (200, &json!("acme")));
    let Became::Refused(status, headers, body) = paused.guarded.call_with("acme", "t", &session)
    else {
        panic!("passed")
    };
    assert_eq!(
        (status, &body["id"], &body["error"]["code"]),
        (503, &json!("one"), &json!(-32_015))
    );
    let data = &body["error"]["data"];
    assert_eq!((&data["reason"], &data["retry_after_seconds"]), (&json!("paused"), &json!(60)));
    assert_eq!(header(&headers, "retry-after"), Some("60"));
    assert_eq!(header(&headers, "x-margin-guard"), Some("paused"));
    // Others are not touched, nor is what makes no call.
    assert_eq!(paused.status("rival", &session), 200);
    let head = [
        (":method", "POST"),
        (":path", "/mcp"),
        ("x-customer-id", "acme"),
        ("mcp-session-id", "s"),
    ];
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(paused.guarded.send(&head, ping).status(), 200);
    // What runs ends as it would have, and the session stays open.
    paused.guarded.finish(running);
    assert_eq!(paused.guarded.generate("acme", 10), 503, "a generation is a call");
    paused.guarded.settle();
    paused.guarded.settle();
    let calls = kinds(&paused.guarded.told, "tool_invocation");
    let of_acme: Vec<(&str, &Value)> = calls
        .iter()
        .filter(|call| call["customer_id"] == "acme")
        .map(|call| (call["execution_status"].as_str().unwrap(), &call["http_status"]))
        .collect();
    let (ok, refused) = (json!(200), json!(503));
    assert!(of_acme.contains(&("BLOCKED", &refused)), "{of_acme:?}");
    assert_eq!(of_acme.iter().filter(|call| **call == ("SUCCESS", &ok)).count(), 2);
    assert!(kinds(&paused.guarded.told, "session_closed").is_empty());
    assert_eq!(paused.guarded.count(Counter::RequestsPaused), 2);

    let (status, told) = paused.order("POST", "/resume?customer=acme");
    assert_eq!((status, told), (200, json!({ "paused": [] })));
    assert_eq!(paused.status("acme", &session), 200);
    paused.guarded.settle();
    let calls = kinds(&paused.guarded.told, "tool_invocation");
    let sessions: Vec<&Value> = calls
        .iter()
        .filter(|call| call["customer_id"] == "acme")
        .map(|call| &call["session_id"])
        .collect();
    assert!(sessions.iter().all(|session| *session == sessions[0]), "{sessions:?}");
}

#[test]
fn a_pause_is_for_all_that_it_names_and_ends_by_itself() {
    let identity = json!({
        "customer": {"trusted_header": "x-customer-id"}, "team": {"trusted_header": "x-team"},
        "user": {"trusted_header": "x-user"}, "agent": {"trusted_header": "x-agent"},
    });
    let products = json!({ "products": [{
        "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"}, "identity": identity,
    }] });
    let blue_bob = [("x-team", "blue"), ("x-user", "bob@example.com")];
    let none: &[(&str, &str)] = &[];
    for (order, more, customer, expected) in [
        ("product=crm", none, "acme", 503),
        ("product=llm", none, "acme", 200),
        ("team=blue", &blue_bob, "acme", 503),
        ("team=blue", none, "acme", 200),
        ("user=bob%40example.com&customer=acme", &blue_bob, "acme", 503),
        ("customer=acme&user=bob%40example.com", &blue_bob, "rival", 200),
        ("user=ann", &blue_bob, "acme", 200),
        ("user=ann", none, "acme", 200),
        ("agent=a", &[("x-agent", "a")], "acme", 503),
        ("api_key_hash=00112233445566778899aabbccddeeff", none, "acme", 200),
    ] {
        let mut paused = Paused::new(&json!([]), &products);
        let (status, told) = paused.order("POST", &format!("/pause?{order}&for=30s"));
        assert_eq!(status, 200, "{told}");
        assert_eq!(paused.status(customer, more), expected, "{order}: {customer} {more:?}");
        assert_eq!(paused.order("GET", "/pause"), (200, told));
        paused.guarded.envoy.now.0 += 30_000;
        paused.guarded.settle();
        assert_eq!(paused.status(customer, more), 200, "{order} is over");
        assert_eq!(paused.order("GET", "/pause").1, json!({ "paused": [] }));
    }
}

#[test]
fn a_guard_that_pauses_says_so_and_resumes_with_its_level() {
    let level_3 = json!({ "threshold": "0%", "action": "pause_request" });
    let guards = json!([guard(&json!({
        "id": "quota", "period": "hour", "budget": { "calls": 2 }, "actions": { "level_3": level_3 },
    }))]);
    let mut paused = Paused::new(&guards, &json!({}));
    for _ in 0..2 {
        assert_eq!(paused.status("acme", &[]), 200);
    }
    paused.guarded.settle();
    assert_eq!(paused.guarded.last("budget_level_changed")["action"], "pause");
    let Became::Refused(503, headers, body) = paused.guarded.call("acme", "t") else {
        panic!("passed")
    };
    let data = &body["error"]["data"];
    assert_eq!((&data["reason"], &data["guard_id"]), (&json!("paused"), &json!("quota")));
    assert_eq!((&data["level"], &data["retry_after_seconds"]), (&json!("L3_BLOCK"), &json!(60)));
    assert_eq!(header(&headers, "x-margin-guard"), Some("paused"));
    assert_eq!(header(&headers, "x-margin-guard-level"), Some("L3"));
    assert_eq!(headers.iter().filter(|(name, _)| *name == "x-margin-guard").count(), 1);
    assert_eq!(paused.guarded.count(Counter::RequestsPaused), 1);
    assert_eq!(paused.guarded.count(Counter::GuardBlocked), 0);
    paused.guarded.envoy.now.0 += 3_600_000;
    paused.guarded.settle();
    assert_eq!(paused.status("acme", &[]), 200, "the next hour");
}

#[test]
fn an_api_call_that_is_paused_is_blocked_in_the_books() {
    let products = json!({ "products": [{
        "id": "api", "type": "STANDARD_API", "match": {"path_prefix": "/orders"},
        "identity": {"customer": {"trusted_header": "x-customer-id"}},
    }] });
    let mut paused = Paused::new(&json!([]), &products);
    paused.order("POST", "/pause?customer=acme");
    let head = [(":method", "GET"), (":path", "/orders"), ("x-customer-id", "acme")];
    let Became::Refused(503, _, body) = paused.guarded.send(&head, "") else { panic!("passed") };
    assert_eq!(body["error"]["code"], "SERVICE_PAUSED");
    paused.guarded.settle();
    let call = paused.guarded.last("api_call");
    assert_eq!((&call["execution_status"], &call["http_status"]), (&json!("BLOCKED"), &json!(503)));
}

#[test]
fn a_wrong_order_changes_nothing_and_says_what_is_expected() {
    let mut paused = Paused::new(&json!([]), &json!({}));
    let whose =
        "expected whose calls: one or more of product, customer, team, user, agent, api_key_hash";
    for (method, path, status, error) in [
        ("POST", "/pause", 400, whose),
        ("POST", "/pause?for=1h", 400, whose),
        ("PUT", "/pause?customer=a", 405, "expected POST"),
        ("GET", "/resume?customer=a", 405, "expected POST"),
        ("POST", "/pause?customer=", 400, "customer: expected one name of at most 256 bytes"),
        (
            "POST",
            "/pause?customer=a&customer=b",
            400,
            "customer: expected one name of at most 256 bytes",
        ),
        (
            "POST",
            "/pause?customer=a&for=soon",
            400,
            "for: expected a duration such as 1h, found \"soon\"",
        ),
        (
            "POST",
            "/pause?tenant=a",
            400,
            "tenant: unknown, expected one of product, customer, team, user, agent, api_key_hash or for",
        ),
        (
            "POST",
            "/resume?customer=a&for=1h",
            400,
            "for: unknown, expected one of product, customer, team, user, agent, api_key_hash",
        ),
        ("POST", "/resume?customer=a", 404, "nothing is paused by exactly these names"),
    ] {
        assert_eq!(paused.order(method, path), (status, json!({ "error": error })), "{path}");
    }
    for at in 0..128 {
        assert_eq!(paused.order("POST", &format!("/pause?customer=c{at}")).0, 200);
    }
    assert_eq!(paused.order("POST", "/pause?customer=one-more").0, 429);
    assert_eq!(
        paused.order("POST", "/pause?customer=c7&for=1h").0,
        200,
        "in the place of the other"
    );
    assert_eq!(paused.order("GET", "/pause").1["paused"].as_array().unwrap().len(), 128);
    for (config, error) in [
        (r#"{"control": {"pause_path": "x"}}"#, "control.pause_path: expected"),
        (r#"{"control": {"pause_path": "/drain"}}"#, "control: expected three different paths"),
        (r#"{"control": {"resume_path": 1}}"#, "control.resume_path: expected a string, found 1"),
    ] {
        let found = PluginConfig::from_bytes(config.as_bytes()).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
}

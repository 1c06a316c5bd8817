//! Which product a request belongs to, however its path and host are written. The numbers are the
//! rows of the table of attacks that these tests stand for.

use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::products::{Pairs, ask, stream};
use crate::support::test;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

fn mcp(matcher: &Value) -> Value {
    json!({
        "id": "mcp", "type": "MCP_SERVER", "match": matcher,
        "identity": {"customer": {"trusted_header": "x-customer"}, "on_missing": "reject"},
        "pricing": {"default": {"price": "0.10"}},
    })
}

fn envoy_of(products: &[Value], unmatched: &str) -> Envoy {
    Envoy::new(&json!({"unmatched": unmatched, "products": products}).to_string())
}

fn post(envoy: &mut Envoy, path: &str, more: Pairs<'_>) -> HeadAction {
    let head = [(":method", "POST"), (":path", path), ("x-customer", "acme")];
    stream(envoy, 9, &[&head, more].concat(), CALL, RESULT)
}

fn count(envoy: &Envoy, counter: Counter) -> u64 {
    // A new `Envoy` has had one request that no product matches.
    let before = u64::from(counter == Counter::RequestsUnmatched);
    envoy.host.counters.get(&counter).copied().unwrap_or(0) - before
}

/// Paths that some server takes for `/mcp` or something below it.
const SPELLINGS: &[&str] = &[
    // 42, 43
    "/MCP",
    "/mCp?x=1",
    "/%6dcp",
    "/%6D%63%70",
    "/%4dcp",
    "/%256dcp",
    "/%25256dcp",
    // 44
    "//mcp",
    "///mcp",
    "/./mcp",
    "/x/../mcp",
    "/../mcp",
    "/%2e/mcp",
    "/x/%2E%2e/mcp",
    "/x/..%2fmcp",
    "/x%2f..%2fmcp",
    // 45
    "/mcp;a=1",
    "/mcp;",
    "/mcp%3ba=1",
    "/mcp%2f",
    "/mcp%5c",
    "/%2fmcp",
    "/%5cmcp",
    "/mcp%3f",
    "/mcp%3fx",
    "/mcp%23",
    "/mcp%00",
    "/mcp%00.png",
    "/mcp\\x",
    "/x\\..\\mcp",
    "/mcp.",
    "/mcp..",
    "/mcp%20",
    "/mcp%2e",
    "/;/mcp",
    "/;a=1/mcp",
    "/.;/mcp",
    "/x/..;/mcp",
    // 46
    "/mcp/",
    "/mcp?x",
    "/mcp/../mcp",
    "/mcp/%2e%2e/mcp",
    // 47
    "/mcp#f",
    "\\mcp",
    "mcp",
    // Servers that do not remove dots, or decode after they have removed them.
    "/mcp/../other",
    "/mcp/%2e%2e/other",
    "/mcp;x/../../other",
    "/%6dcp/../other",
    "/mcp%2f..%2fother",
    "/x/../%6dcp%2f..%2fother",
    "/%3f/../%6dcp%2fa",
    "/mcp/\u{e9}",
];

#[test]
fn every_spelling_of_a_path_is_metered() {
    for path in SPELLINGS {
        let mut envoy = envoy_of(&[mcp(&json!({"path_prefix": "/mcp"}))], "pass");
        let action = post(&mut envoy, path, &[]);
        assert!(matches!(action, HeadAction::Follow(_)), "{path}: {action:?}");
        let calls = kinds(&envoy.deliver(2000), "tool_invocation");
        assert_eq!((calls.len(), &calls[0]["price"]), (1, &json!("0.1")), "{path}");
        assert_eq!(count(&envoy, Counter::RequestsUnmatched), 0, "{path}");
    }
}

// 78
#[test]
fn every_spelling_of_a_path_wants_an_identity() {
    for path in SPELLINGS {
        let mut envoy = envoy_of(&[mcp(&json!({"path_prefix": "/mcp"}))], "pass");
        let head = [(":method", "POST"), (":path", *path)];
        let action = ask(&mut envoy, 9, &head, CALL);
        assert!(matches!(action, HeadAction::Answer(reply) if reply.status == 401), "{path}");
    }
}

// 80
#[test]
fn every_spelling_of_a_path_is_guarded() {
    for path in SPELLINGS {
        let config = json!({
            "products": [mcp(&json!({"path_prefix": "/mcp"}))],
            "contracts": {"default_plan": "free", "plans": {"free": {"tools": ["u"]}}},
        });
        let mut envoy = Envoy::new(&config.to_string());
        post(&mut envoy, path, &[]);
        assert_eq!(count(&envoy, Counter::ToolsNotInPlan), 1, "{path}");
    }
}

#[test]
fn exact_paths_and_templates_are_met_by_every_spelling_too() {
    for (matcher, path, is_followed) in [
        (json!({"path": "/mcp"}), "/MCP/", true),
        (json!({"path": "/mcp"}), "/%6dcp;x", true),
        (json!({"path": "/mcp/"}), "/mcp", true),
        (json!({"path": "/mcp"}), "/mcp/x", false),
        (json!({"path_prefix": "/mcp/"}), "/mcp", true),
        (json!({"path_prefix": "/mcp"}), "/mcpx", false),
        (json!({"path_template": "/t/{id}/mcp"}), "/T/a%2fb/mcp/", true),
        (json!({"path_template": "/t/{id}/mcp"}), "/t//mcp", false),
        (json!({"path_template": "/t/{id}/mcp"}), "/t/a/x/..%2fmcp", true),
        (json!({"path": "/mcp", "case": "sensitive"}), "/MCP", false),
        (json!({"path_prefix": "/mcp", "case": "sensitive"}), "/Mcp/a", false),
        (json!({"path_prefix": "/MCP", "case": "sensitive"}), "/%4dCP/a", true),
    ] {
        let mut envoy = envoy_of(&[mcp(&matcher)], "pass");
        let action = post(&mut envoy, path, &[]);
        assert_eq!(matches!(action, HeadAction::Follow(_)), is_followed, "{matcher} {path}");
        let unmatched = count(&envoy, Counter::RequestsUnmatched);
        assert_eq!(unmatched, u64::from(!is_followed), "{matcher} {path}");
    }
}

// 50
#[test]
fn hosts_are_met_with_dot_port_and_user_and_no_other_passes_unseen() {
    for (authority, is_followed) in [
        ("tools.example.com", true),
        ("tools.example.com.", true),
        ("Tools.Example.COM.:8443", true),
        ("user@tools.example.com", true),
        ("u:p@tools.example.com:80", true),
        ("other.example.com", false),
        ("", false),
    ] {
        for unmatched in ["pass", "reject"] {
            let matcher = json!({"path_prefix": "/", "host": "tools.example.com"});
            let mut envoy = envoy_of(&[mcp(&matcher)], unmatched);
            let action = post(&mut envoy, "/mcp", &[(":authority", authority)]);
            assert_eq!(count(&envoy, Counter::RequestsUnmatched), u64::from(!is_followed));
            match action {
                HeadAction::Follow(_) => assert!(is_followed, "{authority}"),
                HeadAction::Pass => assert!(!is_followed && unmatched == "pass", "{authority}"),
                HeadAction::Answer(reply) => {
                    assert!(!is_followed && unmatched == "reject", "{authority}");
                    assert_eq!(reply.status, 403);
                    let _: Value = serde_json::from_str(&reply.body).unwrap();
                }
                HeadAction::Forget(_) => panic!("{authority}"),
            }
        }
    }
}

// 52
#[test]
fn a_header_that_replaces_the_path_leads_to_its_product() {
    for (name, value, is_followed) in [
        ("x-original-url", "/mcp", true),
        ("x-rewrite-url", "/%6dcp?x", true),
        ("x-override-url", "http://tools.example/MCP", true),
        ("x-original-url", "/elsewhere", false),
        ("x-forwarded-for", "/mcp", false),
    ] {
        let mut envoy = envoy_of(&[mcp(&json!({"path": "/mcp"}))], "pass");
        let action = post(&mut envoy, "/other", &[(name, value)]);
        assert_eq!(matches!(action, HeadAction::Follow(_)), is_followed, "{name}: {value}");
    }
}

#[test]
fn a_path_of_two_products_is_refused_and_one_that_is_excluded_is_so_in_every_reading() {
    let api = json!({"id": "api", "type": "STANDARD_API", "match": {"path_prefix": "/api"},
        "exclude": {"paths": ["/api/health*"]}});
    for (path, want) in [
        ("/api/a%2Fb", "follow"),
        ("/api/..%2fmcp", "refuse"),
        ("/api/../mcp", "refuse"),
        ("/mcp/../api/x", "follow"),
        ("/api/healthz", "pass"),
        ("/api/health/%7Ea", "pass"),
        ("/api/health/../x", "follow"),
        ("/api/health%2f..%2fx", "follow"),
        ("/api/HEALTH", "follow"),
        ("/other", "pass"),
    ] {
        let mut envoy = envoy_of(&[mcp(&json!({"path": "/mcp"})), api.clone()], "pass");
        let found = match post(&mut envoy, path, &[]) {
            HeadAction::Follow(_) => "follow",
            HeadAction::Pass => "pass",
            HeadAction::Answer(reply) if reply.status == 400 => "refuse",
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(found, want, "{path}");
        assert_eq!(count(&envoy, Counter::RequestsAmbiguous), u64::from(want == "refuse"));
        assert_eq!(count(&envoy, Counter::RequestsUnmatched), u64::from(path == "/other"));
    }
}

#[test]
fn an_odd_path_costs_what_the_dearest_of_its_routes_costs() {
    for (path, route) in [
        ("/p/orders/17", "/p/orders/{id}"),
        ("/p/orders/17/", "/p/orders/{id}"),
        ("/P/Orders/17;x", "/p/orders/{id}"),
        ("/p/orders/a%20b", "/p/orders/{id}"),
        ("/p/orders/17%2fexport", "/p/orders/{id}/export"),
        ("/p/orders/17/%65xport", "/p/orders/{id}/export"),
        ("/p/orders/../orders/17", "/p/orders/{id}"),
        ("/p/other", "/p"),
    ] {
        let product = json!({
            "id": "api", "type": "STANDARD_API", "match": {"path_prefix": "/p"},
            "routes": ["/p/orders/{id}", "/p/orders/{id}/export"],
            "pricing": {"tools": [
                {"tool": "POST /p/orders/{id}", "price": "0.01"},
                {"tool": "POST /p/orders/{id}/export", "price": "5"},
            ]},
        });
        let mut envoy = envoy_of(&[product], "pass");
        post(&mut envoy, path, &[]);
        let calls = kinds(&envoy.deliver(2000), "api_call");
        assert_eq!(calls[0]["route"], route, "{path}");
    }
}

// 106, and the spellings of K2
#[test]
fn every_spelling_of_a_path_to_a_model_is_metered() {
    let answer = r#"{"object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#;
    for (method, path, more) in [
        ("POST", "/v1/%63hat/completions", None),
        ("POST", "/v1//chat/completions", None),
        ("POST", "/v1/chat/completions/", None),
        ("POST", "/v1/./chat/completions", None),
        ("POST", "/v1/Chat/Completions", None),
        ("POST", "/V1/chat/completions", None),
        ("POST", "/v1/chat/completions;x", None),
        ("POST", "/v1/chat/completions%3fx", None),
        ("POST", "/v1/chat/completions%00", None),
        ("POST", "/v1/chat%2fcompletions", None),
        ("POST", "/v1/chat\\completions", None),
        ("POST", "/v1/engines/gpt%3f/chat/completions", None),
        ("POST", "/v1/chat/completions?x=\u{fffd}", None),
        ("PUT", "/v1/chat/completions", None),
        ("GET", "/v1/chat/completions", Some(("x-http-method-override", "POST"))),
    ] {
        let product = json!({"id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
            "llm": {}});
        let mut envoy = envoy_of(&[product], "pass");
        let head: Vec<(&str, &str)> =
            [(":method", method), (":path", path)].into_iter().chain(more).collect();
        stream(&mut envoy, 9, &head, r#"{"model":"m"}"#, answer);
        let tokens = kinds(&envoy.deliver(2000), "token_consumption");
        assert_eq!(tokens.len(), 1, "{method} {path}");
    }
}

#[test]
fn every_spelling_of_a_path_to_an_agent_is_a_step() {
    let message = json!({"message": {"messageId": "m", "role": "user", "parts": []}}).to_string();
    let task = r#"{"task":{"id":"t1","contextId":"c1","status":{"state":"TASK_STATE_COMPLETED"}}}"#;
    for path in [
        "/a/v1/message:send",
        "/a/v1/Message:Send",
        "/A/v1//message%3asend",
        "/a/v1/message:send;x",
        "/a/v1/message:send/",
        "/a/v1/message:send%00",
    ] {
        let product = json!({"id": "a", "type": "AI_AGENT", "match": {"path_prefix": "/a"}});
        let mut envoy = envoy_of(&[product], "pass");
        stream(&mut envoy, 9, &[(":method", "POST"), (":path", path)], &message, task);
        assert_eq!(kinds(&envoy.deliver(2000), "agent_step").len(), 1, "{path}");
    }
}

#[test]
fn paths_in_the_configuration_are_written_as_every_server_reads_them() {
    for (place, value) in [
        ("path", "/%6dcp"),
        ("path", "/a\\b"),
        ("path_prefix", "//mcp"),
        ("path_prefix", "/a/../mcp"),
        ("path", "/mcp?x"),
        ("path_template", "/{id};x"),
        ("path_prefix", "/mcp."),
    ] {
        let config = json!({"products": [mcp(&json!({place: value}))]}).to_string();
        let refused = agent_meter_core::config::Config::from_bytes(config.as_bytes()).unwrap_err();
        let refused = refused.to_string();
        let begin = format!("products[0].match.{place}: expected a path in its decoded form");
        assert!(refused.starts_with(&begin), "{refused}");
    }
}

//! Clients in browsers: what carries no identity by design passes and is not metered, and they can
//! read what the filter answers.

use agent_meter_core::config::Config;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::{Headers, LocalReply};
use serde_json::{Value, json};

use crate::guarded::{Became, Guarded};
use crate::host::Envoy;
use crate::products::{Pairs, headers};
use crate::support::test;

const PAGE: &str = "https://app.example";
const PREFLIGHT: Pairs<'_> = &[("origin", PAGE), ("access-control-request-method", "POST")];

/// One product at `/`, whose callers must be known; further options of it, and of the whole.
fn config(kind: &str, identity: &Value, more: &Value) -> String {
    let mut rules = json!({
        "customer": {"trusted_header": "x-customer-id"}, "on_missing": "reject",
    });
    for (name, value) in identity.as_object().unwrap() {
        rules[name] = value.clone();
    }
    let mut config = json!({"products": [{
        "id": "p", "type": kind, "match": {"path_prefix": "/"}, "identity": rules,
        "pricing": {"default": {"price": "1"}},
    }]});
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config.to_string()
}

/// What becomes of a request. `is_whole` says whether it ends with its head.
fn fate(envoy: &mut Envoy, request: &[(String, Vec<u8>)], is_whole: bool) -> HeadAction {
    let Envoy { worker, host, now, .. } = envoy;
    if is_whole {
        worker.request_without_body(host, 9, Headers(&request), *now)
    } else {
        worker.request_head(host, 9, Headers(&request), *now)
    }
}

fn request(method: &str, path: &str, more: Pairs<'_>) -> Vec<(String, Vec<u8>)> {
    headers(
        &[&[(":method", method), (":path", path), (":authority", "tools.example")], more].concat(),
    )
}

fn reply(action: HeadAction) -> LocalReply {
    match action {
        HeadAction::Answer(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn header<'a>(reply: &'a LocalReply, name: &str) -> Option<&'a str> {
    let mut named = reply.headers.iter().filter(|(header, _)| *header == name);
    let (first, second) = (named.next(), named.next());
    assert_eq!(second, None, "{name} comes twice");
    first.map(|(_, value)| value.as_str())
}

/// Checks that a request passes as exempt and leaves nothing, or is refused with 401.
fn check(config: &str, request: &[(String, Vec<u8>)], is_whole: bool, is_exempt: bool) {
    let mut envoy = Envoy::new(config);
    let action = fate(&mut envoy, request, is_whole);
    let shown = format!("{config}\n{request:?} {is_whole}");
    if is_exempt {
        assert!(matches!(action, HeadAction::Forget(_)), "{action:?}\n{shown}");
        assert_eq!(envoy.host.counters.get(&Counter::RequestsExempt), Some(&1), "{shown}");
        assert_eq!(envoy.host.counters.get(&Counter::Exchanges), None, "{shown}");
    } else {
        assert_eq!(reply(action).status, 401, "{shown}");
        assert_eq!(envoy.host.counters.get(&Counter::RequestsExempt), None, "{shown}");
    }
    assert!(envoy.deliver(2000).is_empty(), "{shown}");
}

#[test]
fn options_passes_without_identity_and_is_no_call() {
    let mismatch = json!({
        "jwt_payload": "p", "credential": "BEARER_TOKEN", "on_credential_mismatch": "reject",
    });
    for kind in ["MCP_SERVER", "AI_AGENT", "AGENTIC_API", "STANDARD_API"] {
        for identity in [&json!({}), &mismatch] {
            let config = config(kind, identity, &json!({}));
            check(&config, &request("OPTIONS", "/mcp", PREFLIGHT), true, true);
            check(&config, &request("OPTIONS", "/mcp", &[]), true, true);
            // Who sends its name all the same makes no call either.
            let named = [("x-customer-id", "acme")];
            check(&config, &request("OPTIONS", "/mcp", &named), true, true);
        }
    }
}

#[test]
fn what_a_server_may_execute_is_not_exempt() {
    for kind in ["MCP_SERVER", "AI_AGENT", "AGENTIC_API", "STANDARD_API"] {
        let config = config(kind, &json!({}), &json!({}));
        check(&config, &request("OPTIONS", "/mcp", PREFLIGHT), false, false);
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-override-url",
        ] {
            let replaced = [(name, "POST")];
            check(&config, &request("OPTIONS", "/mcp", &replaced), true, false);
            check(&config, &request("GET", "/.well-known/a", &replaced), true, false);
        }
        for method in ["POST", "options", "OPTIONSX", "PROPFIND", "TRACE", "DELETE"] {
            check(&config, &request(method, "/mcp", PREFLIGHT), true, false);
        }
    }
}

#[test]
fn metadata_is_found_without_identity() {
    let all = config("MCP_SERVER", &json!({}), &json!({}));
    for (path, is_exempt) in [
        ("/.well-known/oauth-protected-resource", true),
        ("/.well-known/oauth-protected-resource/mcp", true),
        ("/.well-known/oauth-authorization-server/tenant?x=/y", true),
        ("/.well-known/a/../b", true),
        ("/tenant/.well-known/openid-configuration", true),
        ("/mcp/.well-known/oauth-protected-resource", true),
        ("/a2a/.well-known/agent-card.json", true),
        ("/mcp", false),
        ("/.well-known", false),
        ("/.well-knownx/a", false),
        ("/.Well-Known/a", false),
        ("/orders/.well-known/17", false),
        ("/.well-known/../mcp", false),
        ("/.well-known/%2e%2e/mcp", false),
        ("/.well-known/..%2fmcp", false),
        ("/.well-known/..;/mcp", false),
        ("/.well-known/..\\mcp", false),
        ("/.well-known/%252e%252e/mcp", false),
        ("/mcp;/.well-known/openid-configuration", false),
        ("/mcp%3f/.well-known/openid-configuration", false),
        ("/mcp%00/.well-known/openid-configuration", false),
        ("/mcp?/.well-known/openid-configuration", false),
        ("/mcp#/.well-known/openid-configuration", false),
    ] {
        for method in ["GET", "HEAD"] {
            check(&all, &request(method, path, &[]), true, is_exempt);
            check(&all, &request(method, path, &[]), false, false);
        }
        check(&all, &request("POST", path, &[]), true, false);
        check(&all, &request("POST", path, &[]), false, false);
    }
}

#[test]
fn the_configuration_can_exempt_less() {
    let options = request("OPTIONS", "/mcp", PREFLIGHT);
    let metadata = request("GET", "/.well-known/oauth-protected-resource", &[]);
    for (exempt, passes_options, passes_metadata) in [
        (json!(["options", "well_known"]), true, true),
        (json!(["options"]), true, false),
        (json!(["well_known"]), false, true),
        (json!([]), false, false),
    ] {
        let config = config("STANDARD_API", &json!({"exempt": exempt}), &json!({}));
        check(&config, &options, true, passes_options);
        check(&config, &metadata, true, passes_metadata);
    }
    // A product that is sold at such a path is metered there.
    for (option, path) in [
        ("path", "/.well-known/oauth-protected-resource"),
        ("path_prefix", "/.well-known"),
        ("path_template", "/.Well-Known/{name}"),
    ] {
        let sold = json!([{
            "id": "p", "type": "STANDARD_API", "match": {option: path},
            "identity": {"customer": {"trusted_header": "x-customer-id"}},
            "pricing": {"default": {"price": "1"}},
        }]);
        check(
            &config("MCP_SERVER", &json!({}), &json!({"products": sold})),
            &metadata,
            true,
            false,
        );
    }
}

#[test]
fn metadata_is_found_beside_a_product_too() {
    let product = json!({
        "id": "p", "type": "MCP_SERVER", "match": {"path": "/mcp", "host": "tools.example"},
    });
    let config = json!({"unmatched": "reject", "products": [product]}).to_string();
    for (method, path, host, is_exempt) in [
        ("GET", "/.well-known/oauth-protected-resource/mcp", "tools.example", true),
        ("GET", "/.well-known/oauth-authorization-server", "tools.example:443", true),
        ("OPTIONS", "/.well-known/oauth-authorization-server", "tools.example", true),
        ("GET", "/.well-known/oauth-authorization-server", "other.example", false),
        ("POST", "/.well-known/oauth-authorization-server", "tools.example", false),
        ("OPTIONS", "/elsewhere", "tools.example", false),
        ("GET", "/elsewhere", "tools.example", false),
    ] {
        let mut envoy = Envoy::new(&config);
        let sent = headers(&[(":method", method), (":path", path), (":authority", host)]);
        let action = fate(&mut envoy, &sent, true);
        match is_exempt {
            true => assert!(matches!(action, HeadAction::Forget(_)), "{path}: {action:?}"),
            false => assert_eq!(reply(action).status, 403, "{path}"),
        }
    }
}

#[test]
fn headers_that_clients_must_not_send_go_out_of_exempt_requests_too() {
    let identity = json!({"strip_headers": ["x-plan"]});
    let more = json!({"already_metered": {"mark_header": "x-metered"}});
    let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, &more));
    let sent = [("x-plan", "pro"), ("x-metered", "1")];
    match fate(&mut envoy, &request("OPTIONS", "/mcp", &sent), true) {
        HeadAction::Forget(edit) => {
            assert_eq!(edit.remove, ["x-metered", "x-plan"]);
            assert_eq!((edit.set, edit.metered_as), (Vec::new(), None));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_challenge_says_where_to_get_a_token() {
    let metadata = "https://tools.example/.well-known/oauth-protected-resource/mcp";
    let whole = json!({"realm": "tools", "resource_metadata": metadata, "scope": "mcp:a mcp:b"});
    let said =
        format!(r#"Bearer realm="tools", resource_metadata="{metadata}", scope="mcp:a mcp:b""#);
    let invalid = r#"error="invalid_token""#;
    let token = [("authorization", "Bearer stolen")];
    for (challenge, request_headers, expected) in [
        (&json!({}), &[][..], format!("Bearer {invalid}")),
        (&json!({}), &token, format!("Bearer {invalid}")),
        (&whole, &[], said.clone()),
        (&whole, &token, format!("{said}, {invalid}")),
        (&json!({"scope": "a"}), &[], r#"Bearer scope="a""#.to_owned()),
    ] {
        for kind in ["MCP_SERVER", "AI_AGENT", "STANDARD_API"] {
            let mut envoy = Envoy::new(&config(kind, &json!({"challenge": challenge}), &json!({})));
            let refused = reply(fate(&mut envoy, &request("POST", "/p", request_headers), false));
            assert_eq!(refused.status, 401);
            assert_eq!(header(&refused, "www-authenticate"), Some(expected.as_str()));
        }
    }
    // What is ambiguous is no matter of tokens.
    let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({"challenge": whole}), &json!({})));
    let twice = [("x-customer-id", "a"), ("x-customer-id", "b")];
    let refused = reply(fate(&mut envoy, &request("POST", "/p", &twice), false));
    assert_eq!((refused.status, header(&refused, "www-authenticate")), (400, None));
}

#[test]
fn a_page_reads_refusals_if_its_origin_is_allowed() {
    let below = json!({"allow_origins": ["https://*.example", "http://localhost:5173"]});
    let with_credentials =
        json!({"allow_origins": ["https://app.example"], "allow_credentials": true});
    let long = format!("https://{}.example", "a".repeat(300));
    for (cors, origins, allowed, vary) in [
        (&json!({}), &[PAGE][..], None, None),
        (&json!({"allow_origins": ["*"]}), &[PAGE], Some("*"), None),
        (&json!({"allow_origins": ["*"]}), &["null"], Some("*"), None),
        (&json!({"allow_origins": ["*"]}), &[], None, None),
        (&below, &[PAGE], Some(PAGE), Some("origin")),
        (&below, &["https://a.b.example"], Some("https://a.b.example"), Some("origin")),
        (&below, &["http://localhost:5173"], Some("http://localhost:5173"), Some("origin")),
        (&below, &[], None, Some("origin")),
        (&below, &["null"], None, Some("origin")),
        (&below, &["http://app.example"], None, Some("origin")),
        (&below, &["https://example"], None, Some("origin")),
        (&below, &["https://.example"], None, Some("origin")),
        (&below, &["https://evil/.example"], None, Some("origin")),
        (&below, &["https://app.example.evil"], None, Some("origin")),
        (&below, &["https://app.example:8443"], None, Some("origin")),
        (&below, &["http://localhost:51730"], None, Some("origin")),
        (&below, &[PAGE, PAGE], None, Some("origin")),
        (&below, &[&long], None, Some("origin")),
        (&with_credentials, &[PAGE], Some(PAGE), Some("origin")),
        (&with_credentials, &["https://b.example"], None, Some("origin")),
    ] {
        let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({}), &json!({"cors": cors})));
        let sent: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        let refused = reply(fate(&mut envoy, &request("POST", "/mcp", &sent), false));
        let shown = format!("{cors} {origins:?}");
        assert_eq!(header(&refused, "access-control-allow-origin"), allowed, "{shown}");
        assert_eq!(header(&refused, "vary"), vary, "{shown}");
        let exposed = header(&refused, "access-control-expose-headers");
        assert_eq!(exposed, allowed.map(|_| "www-authenticate"), "{shown}");
        let credentials = header(&refused, "access-control-allow-credentials");
        let is_told = allowed.is_some() && cors["allow_credentials"] == true;
        assert_eq!(credentials, is_told.then_some("true"), "{shown}");
    }
}

#[test]
fn a_page_reads_every_kind_of_refusal() {
    let cors = json!({"allow_origins": [PAGE]});
    let named = [("x-customer-id", "acme"), ("origin", PAGE), ("content-type", "application/json")];
    let check = |refused: &LocalReply, status: u16, exposed: Option<&str>| {
        assert_eq!(refused.status, status);
        assert_eq!(header(refused, "access-control-allow-origin"), Some(PAGE), "{refused:?}");
        assert_eq!(header(refused, "access-control-expose-headers"), exposed, "{refused:?}");
    };
    // By the head: no product, several products, an ambiguous name.
    let products = json!([
        {"id": "a", "type": "MCP_SERVER", "match": {"path_prefix": "/a"}},
        {"id": "b", "type": "MCP_SERVER", "match": {"path_prefix": "/b"}},
    ]);
    let more = json!({"cors": cors, "products": products, "unmatched": "reject"});
    let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({}), &more));
    check(&reply(fate(&mut envoy, &request("POST", "/c", &named), false)), 403, None);
    check(&reply(fate(&mut envoy, &request("POST", "/a/../b", &named), false)), 400, None);
    let more = json!({"cors": cors});
    let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({}), &more));
    let twice = [("x-customer-id", "b"), ("x-customer-id", "a"), ("origin", PAGE)];
    check(&reply(fate(&mut envoy, &request("POST", "/mcp", &twice), false)), 400, None);
    // By a plan, and by a guard, once the message is known.
    let mut guarded = Guarded::with(
        &json!([{
            "id": "quota", "period": "day", "budget": {"calls": 1},
            "actions": {"level_3": {"threshold": "0%", "action": "block_request"}},
        }]),
        &json!({
            "cors": cors,
            "contracts": {"plans": {"free": {"tools": ["read_*"]}}, "default_plan": "free"},
        }),
    );
    let refused = |became: Became| match became {
        Became::Refused(status, headers, _) => LocalReply { status, headers, body: String::new() },
        Became::Passed(..) => panic!("{became:?}"),
    };
    check(&refused(guarded.call_with("acme", "write", &[("origin", PAGE)])), 403, None);
    let first = guarded.call("acme", "read_all").stream();
    guarded.finish(first);
    guarded.settle();
    let exposed = "x-margin-guard, x-margin-guard-level, x-aforo-margin-level, retry-after";
    check(&refused(guarded.call_with("acme", "read_all", &[("origin", PAGE)])), 429, Some(exposed));
}

#[test]
fn a_page_reads_a_refusal_that_comes_with_the_body() {
    let mut rules: Value = serde_json::from_str(&config(
        "MCP_SERVER",
        &json!({}),
        &json!({
            "cors": {"allow_origins": [PAGE]},
        }),
    ))
    .unwrap();
    rules["products"][0]["on_unreadable"] = json!("reject");
    for (origin, allowed) in [(PAGE, Some(PAGE)), ("https://evil.example", None)] {
        let mut envoy = Envoy::new(&rules.to_string());
        let named =
            [("x-customer-id", "acme"), ("origin", origin), ("content-type", "application/json")];
        let action = fate(&mut envoy, &request("POST", "/mcp", &named), false);
        assert!(matches!(action, HeadAction::Follow(_)), "{action:?}");
        let Envoy { worker, host, now, .. } = &mut envoy;
        match worker.request_body(host, 9, b"{\"id\":1,", true, *now) {
            BodyAction::Answer(refused) => {
                assert_eq!(refused.status, 400);
                assert_eq!(header(&refused, "access-control-allow-origin"), allowed);
                assert_eq!(header(&refused, "vary"), Some("origin"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_no_browser_and_no_client_understands_is_no_configuration() {
    let read = |identity: Value, more: Value| {
        let config = config("MCP_SERVER", &identity, &more);
        Config::from_bytes(config.as_bytes()).err().map(|refused| refused.path)
    };
    for origin in [
        "",
        "null",
        "app.example",
        "https://",
        "https://a/",
        "https://a/b",
        "https://A.example",
        "https://*",
        "https://a.*",
        "https://a*.example",
        "https://a b",
        "*.example",
        "**",
    ] {
        let path = read(json!({}), json!({"cors": {"allow_origins": ["*", origin]}}));
        assert_eq!(path.as_deref(), Some("cors.allow_origins[1]"), "{origin:?}");
    }
    for origin in ["*", "https://a", "https://*.a:8443", "http://[::1]:1", "app+x://id"] {
        assert_eq!(read(json!({}), json!({"cors": {"allow_origins": [origin]}})), None, "{origin}");
    }
    for cors in [
        json!({"allow_credentials": true}),
        json!({"allow_credentials": true, "allow_origins": ["https://a", "*"]}),
    ] {
        let path = read(json!({}), json!({"cors": cors}));
        assert_eq!(path.as_deref(), Some("cors.allow_credentials"), "{cors}");
    }
    for (option, value) in [
        ("realm", "a\"b"),
        ("realm", "a\\b"),
        ("realm", "a\nb"),
        ("realm", "é"),
        ("scope", " a"),
        ("scope", "a  b"),
        ("scope", "a\"b"),
        ("resource_metadata", "/.well-known/oauth-protected-resource"),
        ("resource_metadata", "ftp://a/b"),
        ("resource_metadata", "https://"),
        ("resource_metadata", "https:///a"),
        ("resource_metadata", "https://a/#b"),
        ("resource_metadata", "https://a/b c"),
        ("resource_metadata", "https://a/\"b"),
    ] {
        let path = read(json!({"challenge": {option: value}}), json!({}));
        let expected = format!("products[0].identity.challenge.{option}");
        assert_eq!(path, Some(expected), "{value:?}");
    }
}

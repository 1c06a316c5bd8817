//! Products of every type: who a request is for, which session it belongs to, and what is told of it.

use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::support::test;

const CLAIM: &str = "metadata filter_metadata envoy.filters.http.jwt_authn jwt_payload";

/// The headers of a request, and properties of its stream.
pub(crate) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// One product at `/p`, and its options.
fn config(kind: &str, more: &Value) -> String {
    let mut product = json!({"id": "p", "type": kind, "match": {"path_prefix": "/p"}});
    for (name, value) in more.as_object().unwrap() {
        product[name] = value.clone();
    }
    json!({"products": [product]}).to_string()
}

pub(crate) fn headers(pairs: Pairs<'_>) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// One stream: what becomes of its request, and, if it is followed, an answer.
pub(crate) fn stream(
    envoy: &mut Envoy,
    id: u32,
    request: Pairs<'_>,
    body: &str,
    answer: &str,
) -> HeadAction {
    let treatment = ask(envoy, id, request, body);
    if matches!(treatment, HeadAction::Follow(_)) {
        envoy.now.0 += 5;
        self::answer(envoy, id, answer);
    }
    treatment
}

/// A request: what becomes of it.
pub(crate) fn ask(envoy: &mut Envoy, id: u32, request: Pairs<'_>, body: &str) -> HeadAction {
    let request = headers(request);
    let treatment = envoy.worker.request_head(&mut envoy.host, id, Headers(&request), envoy.now);
    let HeadAction::Follow(edit) = &treatment else { return treatment };
    match edit.body_interest {
        BodyInterest::Size => {
            envoy.worker.request_size(id, body.len(), envoy.now);
            envoy.worker.request_body(&mut envoy.host, id, &[], true, envoy.now);
        }
        _ => {
            envoy.worker.request_body(&mut envoy.host, id, body.as_bytes(), true, envoy.now);
        }
    }
    treatment
}

/// The answer to a request that is followed.
pub(crate) fn answer(envoy: &mut Envoy, id: u32, answer: &str) {
    let head = headers(&[(":status", "200"), ("content-type", "application/json")]);
    match envoy.worker.response_head(id, Headers(&head)) {
        BodyInterest::None => {}
        BodyInterest::Size => envoy.worker.response_size(id, answer.len()),
        BodyInterest::Bytes => {
            let answer = answer.as_bytes();
            envoy.worker.response_body(&mut envoy.host, id, answer, true, envoy.now);
        }
    }
    envoy.worker.stream_end(&mut envoy.host, id, StreamEnd::Complete, envoy.now);
}

#[test]
fn each_level_is_read_where_the_configuration_says_and_nowhere_else() {
    let claims = [
        (format!("{CLAIM} customer_id"), "acme"),
        (format!("{CLAIM} act sub"), "robot"),
        (format!("{CLAIM} azp"), "client-1"),
        (format!("{CLAIM} empty"), " "),
        ("connection uri_san_peer_certificate".to_owned(), "spiffe://mesh/agent"),
        ("filter_state io.istio.peer_principal".to_owned(), "mesh/ns/sa"),
        ("metadata filter_metadata ext plan".to_owned(), "gold"),
    ];
    let rows = [
        (json!({"jwt_claim": "customer_id"}), "acme"),
        (json!([{"jwt_claim": "none"}, {"jwt_claim": "/act/sub"}, {"jwt_claim": "azp"}]), "robot"),
        (json!([{"jwt_claim": "empty"}, {"jwt_claim": "azp"}]), "client-1"),
        (json!({"peer": "uri"}), "spiffe://mesh/agent"),
        (json!({"peer": "dns"}), "anonymous"),
        (json!({"filter_state": "io.istio.peer_principal"}), "mesh/ns/sa"),
        (json!({"metadata": ["ext", "plan"]}), "gold"),
        (json!({"value": "fixed"}), "fixed"),
        (json!({"trusted_header": "x-customer-id"}), "mallory"),
        (json!({"jwt_claim": "x-customer-id"}), "anonymous"),
        (json!([]), "anonymous"),
        (json!(null), "anonymous"),
    ];
    for (source, want) in rows {
        let identity = json!({"customer": source, "jwt_payload": "jwt_payload"});
        let mut envoy = Envoy::new(&config("STANDARD_API", &json!({"identity": identity})));
        for (path, value) in &claims {
            envoy.host.properties.insert(path.clone(), (*value).to_owned());
        }
        let request = [
            (":method", "GET"),
            (":path", "/p"),
            ("x-customer-id", "mallory"),
            ("x-customer", "m"),
        ];
        stream(&mut envoy, 9, &request, "", "");
        let calls = kinds(&envoy.deliver(2000), "api_call");
        assert_eq!(calls[0]["customer_id"], want, "{source}");
    }
}

#[test]
fn a_request_of_nobody_is_metered_or_refused_as_the_product_says() {
    let customer = json!({"jwt_claim": "customer_id"});
    for (kind, on_missing, body) in [
        ("MCP_SERVER", "meter_as_anonymous", None),
        (
            "MCP_SERVER",
            "reject",
            Some("\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32005,"),
        ),
        ("STANDARD_API", "reject", Some("{\"error\":\"unauthorized\"")),
        ("AI_AGENT", "reject", Some("\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,")),
    ] {
        let identity =
            json!({"customer": customer, "jwt_payload": "jwt_payload", "on_missing": on_missing});
        let mut envoy = Envoy::new(&config(kind, &json!({"identity": identity})));
        let request = [(":method", "POST"), (":path", "/p"), ("authorization", "Bearer stolen")];
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
        match (stream(&mut envoy, 9, &request, call, r#"{"id":1,"result":{}}"#), body) {
            (HeadAction::Follow(_), None) => {
                let calls = kinds(&envoy.deliver(2000), "tool_invocation");
                assert_eq!(calls[0]["customer_id"], "anonymous");
            }
            (HeadAction::Answer(reply), Some(body)) => {
                assert_eq!(reply.status, 401);
                assert!(reply.body.contains(body), "{}", reply.body);
                let _: Value = serde_json::from_str(&reply.body).unwrap();
                assert!(envoy.deliver(2000).is_empty());
                assert_eq!(envoy.host.counters[&Counter::RequestsRejected], 1);
            }
            (other, _) => panic!("{kind} {on_missing}: {other:?}"),
        }
    }
}

#[test]
fn the_credential_is_told_by_verified_claims() {
    for (claims, want) in [
        (&[("sub", "c"), ("client_id", "c")][..], "CLIENT_CREDENTIALS"),
        (&[("sub", "c@clients"), ("gty", "client-credentials")], "CLIENT_CREDENTIALS"),
        (&[("sub", "o"), ("idtyp", "app")], "CLIENT_CREDENTIALS"),
        (&[("sub", "user"), ("client_id", "c")], "BEARER_TOKEN"),
        (&[("sub", "user")], "BEARER_TOKEN"),
        (&[], ""),
    ] {
        for on_mismatch in ["meter", "reject"] {
            let identity = json!({
                "jwt_payload": "jwt_payload", "credential": "CLIENT_CREDENTIALS",
                "on_credential_mismatch": on_mismatch,
            });
            let mut envoy = Envoy::new(&config("STANDARD_API", &json!({"identity": identity})));
            for (name, value) in claims {
                envoy.host.properties.insert(format!("{CLAIM} {name}"), (*value).to_owned());
            }
            let request = [(":method", "GET"), (":path", "/p")];
            let treatment = stream(&mut envoy, 9, &request, "", "");
            let is_mismatch = want != "CLIENT_CREDENTIALS";
            let is_refused = matches!(treatment, HeadAction::Answer(_));
            assert_eq!(is_refused, is_mismatch && on_mismatch == "reject", "{claims:?}");
            let counters = &envoy.host.counters;
            let count = counters.get(&Counter::CredentialMismatch).copied().unwrap_or(0);
            assert_eq!(count, u64::from(is_mismatch && !is_refused), "{claims:?}");
            if !is_refused {
                let calls = kinds(&envoy.deliver(2000), "api_call");
                let told = calls[0].get("credential_type").and_then(Value::as_str);
                assert_eq!(told.unwrap_or_default(), want, "{claims:?}");
            }
        }
    }
}

#[test]
fn an_api_key_is_told_as_a_hash_and_keeps_sessions_apart() {
    let identity = json!({
        "api_key": {"trusted_header": "x-api-key"}, "api_key_salt": "0123456789abcdef",
    });
    let mut envoy = Envoy::new(&config("STANDARD_API", &json!({"identity": identity})));
    for (id, key) in [(1, "k1"), (2, "k2"), (3, "k1")] {
        stream(&mut envoy, id, &[(":method", "GET"), (":path", "/p"), ("x-api-key", key)], "", "");
    }
    let made = envoy.deliver(2000);
    assert!(!json!(made).to_string().contains("k1"));
    let calls = kinds(&made, "api_call");
    assert_eq!(calls[0]["api_key_hash"], calls[2]["api_key_hash"]);
    assert_ne!(calls[0]["api_key_hash"], calls[1]["api_key_hash"]);
    assert_eq!(calls[0]["session_id"], calls[2]["session_id"]);
    assert_ne!(calls[0]["session_id"], calls[1]["session_id"]);
}

#[test]
fn api_calls_are_told_by_route_with_their_sizes() {
    let more = json!({
        "routes": ["/p/orders/{id}", "/p/orders"],
        "exclude": {"paths": ["/p/health*"], "methods": ["OPTIONS"]},
        "pricing": {"tools": [{"tool": "GET /p/orders/{id}", "price": "0.002"}]},
    });
    for kind in ["STANDARD_API", "AGENTIC_API"] {
        let mut envoy = Envoy::new(&config(kind, &more));
        let mut told = Vec::new();
        for (id, method, path) in [
            (1, "GET", "/p/orders/17?x=/y"),
            (2, "POST", "/p/orders"),
            (3, "GET", "/p/orders/17/items"),
            (4, "BREW", "/p"),
            (5, "OPTIONS", "/p/orders"),
            (6, "GET", "/p/healthz"),
        ] {
            let treatment =
                stream(&mut envoy, id, &[(":method", method), (":path", path)], "abc", "answer");
            told.push(matches!(treatment, HeadAction::Follow(_)));
        }
        assert_eq!(told, [true, true, true, true, false, false]);
        let made = envoy.deliver(2000);
        let calls = kinds(&made, "api_call");
        let shown: Vec<Value> = calls
            .iter()
            .map(|call| json!([call["method"], call["route"], call["price"]]))
            .collect();
        assert_eq!(
            shown,
            [
                json!(["GET", "/p/orders/{id}", "0.002"]),
                json!(["POST", "/p/orders", "0"]),
                json!(["GET", "/p", "0"]),
                json!(["OTHER", "/p", "0"]),
            ]
        );
        assert_eq!(calls[0]["request_bytes"], 3);
        assert_eq!(calls[0]["response_bytes"], 6);
        assert_eq!(calls[0]["execution_status"], "SUCCESS");
        assert_eq!(calls[0]["app_id"], "anonymous");
        assert!(calls[0].get("agent_id").is_none());
    }
}

#[test]
fn an_agentic_call_bears_the_cost_of_its_own_generation() {
    let mut config: Value =
        serde_json::from_str(&config("AGENTIC_API", &json!({"llm": {"provider": "openai"}})))
            .unwrap();
    config["rate_cards"] = json!([{"version": "1", "rates": [
        {"provider": "openai", "model": "m", "input": "1", "output": "2"},
    ]}]);
    let mut envoy = Envoy::new(&config.to_string());
    let answer = r#"{"object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#;
    let chat = [(":method", "POST"), (":path", "/p/v1/chat/completions")];
    stream(&mut envoy, 1, &chat, r#"{"model":"m"}"#, answer);
    stream(&mut envoy, 2, &[(":method", "GET"), (":path", "/p/v1/models")], "", "{}");
    let made = envoy.deliver(2000);
    let (calls, tokens) = (kinds(&made, "api_call"), kinds(&made, "token_consumption"));
    assert_eq!((calls.len(), tokens.len()), (2, 1));
    assert_eq!(tokens[0]["call_id"], calls[0]["call_id"]);
    assert_eq!(tokens[0]["tool_name"], "POST /p");
    assert_eq!(tokens[0]["total_provider_cost"], "0.00002");
    assert_eq!(calls[0]["response_bytes"], answer.len());
}

#[test]
fn the_first_thing_on_the_ladder_names_the_session() {
    let call = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
    let named =
        r#"{"id":1,"method":"tools/call","params":{"name":"t","_meta":{"session_id":"m"}}}"#;
    let traced = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    // Each group is one session.
    let groups: [&[(Pairs<'_>, &str)]; 7] = [
        &[
            (&[("mcp-session-id", "a")], call),
            (&[("mcp-session-id", "a"), ("x-session-id", "b")], named),
        ],
        &[
            (&[("x-session-id", "a")], call),
            (&[("x-session-id", "a"), ("baggage", "session.id=z")], named),
        ],
        &[(&[("agent-session-id", "b")], call)],
        &[
            (&[("baggage", "user=1, session.id = a;ttl=1")], call),
            (&[("baggage", "session.id=a")], named),
        ],
        &[(&[], named), (&[traced], named)],
        &[(&[], call), (&[("baggage", "session=a")], call), (&[traced], call)],
        // No protocol sessions in this revision.
        &[(
            &[
                ("mcp-session-id", "x"),
                ("mcp-protocol-version", "2026-07-28"),
                ("x-session-id", "c"),
            ],
            call,
        )],
    ];
    let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({})));
    let mut id = 0;
    for group in groups {
        for (more, body) in group {
            id += 1;
            let request: Vec<_> = [(":method", "POST"), (":path", "/p")]
                .into_iter()
                .chain(more.iter().copied())
                .collect();
            stream(&mut envoy, id, &request, body, r#"{"id":1,"result":{}}"#);
        }
    }
    let made = envoy.deliver(2000);
    let sessions: Vec<Value> =
        kinds(&made, "tool_invocation").iter().map(|call| call["session_id"].clone()).collect();
    let mut at = 0;
    let mut seen = Vec::new();
    for group in groups {
        for session in &sessions[at..at + group.len()] {
            assert_eq!(*session, sessions[at], "{group:?}");
        }
        assert!(!seen.contains(&sessions[at]), "{group:?}");
        seen.push(sessions[at].clone());
        at += group.len();
    }
    let shown = json!(made).to_string();
    assert!(!shown.contains("\"a\"") && !shown.contains("\"m\""));
}

#[test]
fn a_request_to_the_close_path_ends_the_session_that_it_presents() {
    let more = json!({"session": {"close_path": "/p/close"}});
    let mut envoy = Envoy::new(&config("STANDARD_API", &more));
    let session = ("x-session-id", "s");
    stream(&mut envoy, 1, &[(":method", "GET"), (":path", "/p"), session], "", "");
    stream(&mut envoy, 2, &[(":method", "GET"), (":path", "/p"), ("x-session-id", "t")], "", "");
    // Reading the path is no close.
    stream(&mut envoy, 3, &[(":method", "GET"), (":path", "/p/close"), session], "", "");
    let close = [(":method", "POST"), (":path", "/p/close?x"), session];
    let treatment = stream(&mut envoy, 4, &close, "", "");
    assert!(matches!(treatment, HeadAction::Answer(reply) if reply.status == 204));
    let closed = kinds(&envoy.deliver(2000), "session_closed");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["close_reason"], "closed");
    assert_eq!(closed[0]["total_tool_calls"], 2);
}

#[test]
fn an_identity_has_as_many_sessions_as_its_product_allows() {
    let more = json!({
        "identity": {"customer": {"trusted_header": "x-customer"}},
        "session": {"per_identity_max": 2},
    });
    let mut envoy = Envoy::new(&config("STANDARD_API", &more));
    let mut id = 0;
    let mut call = |envoy: &mut Envoy, customer: &str, session: &str| {
        id += 1;
        let request = [
            (":method", "GET"),
            (":path", "/p"),
            ("x-customer", customer),
            ("x-session-id", session),
        ];
        stream(envoy, id, &request, "", "");
        envoy.now.0 += 10;
    };
    for (customer, session) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("a", "1")] {
        call(&mut envoy, customer, session);
    }
    assert!(kinds(&envoy.deliver(1000), "session_closed").is_empty());
    call(&mut envoy, "a", "3");
    let closed = kinds(&envoy.deliver(1000), "session_closed");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["close_reason"], "identity_limit");
    assert_eq!(
        (&closed[0]["customer_id"], &closed[0]["total_tool_calls"]),
        (&json!("a"), &json!(1))
    );
}

#[test]
fn headers_that_clients_must_not_set_are_taken_out() {
    let more = json!({"identity": {"strip_headers": ["x-customer-id", "x-agent-id"]}});
    let mut envoy = Envoy::new(&config("STANDARD_API", &more));
    let request = [(":method", "GET"), (":path", "/p"), ("x-customer-id", "mallory")];
    let HeadAction::Follow(edit) = stream(&mut envoy, 1, &request, "", "") else { panic!() };
    assert_eq!(edit.remove, ["x-customer-id"]);
}

#[test]
fn a_turn_of_an_agent_is_a_step_of_its_conversation() {
    let mut envoy = Envoy::new(&config("AI_AGENT", &json!({})));
    let send = |context: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {
            "messageId": "m", "role": "user", "parts": [], "contextId": context,
        }}})
        .to_string()
    };
    let first = r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m","role":"user","parts":[]}}}"#;
    let task = |state: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"kind":"task","id":"t1","contextId":"c1","status":{{"state":"{state}"}}}}}}"#
        )
    };
    let message = r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"message","messageId":"r","role":"agent","parts":[],"contextId":"c1"}}"#;
    let get = r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"id":"t1"}}"#;
    let post = [(":method", "POST"), (":path", "/p")];
    stream(&mut envoy, 1, &post, first, message);
    stream(&mut envoy, 2, &post, &send("c1"), &task("input-required"));
    stream(&mut envoy, 3, &post, &send("c1"), &task("working"));
    assert_eq!(kinds(&envoy.deliver(1000), "agent_step").len(), 2);
    stream(&mut envoy, 4, &post, get, &task("working"));
    stream(&mut envoy, 5, &post, get, &task("completed"));
    stream(&mut envoy, 6, &post, get, &task("completed"));
    stream(&mut envoy, 7, &post, &send("other"), &task("failed").replace("c1", "other"));
    stream(
        &mut envoy,
        8,
        &[(":method", "GET"), (":path", "/p/.well-known/agent-card.json")],
        "",
        "{}",
    );
    let steps = kinds(&envoy.deliver(2000), "agent_step");
    let status = |step: &Value| step["execution_status"].as_str().unwrap().to_owned();
    let mut shown: Vec<String> = steps.iter().map(status).collect();
    shown.sort();
    assert_eq!(shown, ["ERROR", "SUCCESS"]);
    let closed = kinds(&envoy.deliver(4_000_000), "session_closed");
    let calls: Vec<&Value> = closed.iter().map(|session| &session["total_tool_calls"]).collect();
    assert_eq!(calls, [3, 1]);
    assert_eq!(closed[0]["calls_by_status"], json!({"SUCCESS": 2, "HITL_REQUIRED": 1}));
}

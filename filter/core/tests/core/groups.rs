//! Products that share sessions: the model, the tools and the steps of one agent add up in one.

use std::collections::BTreeSet;

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::products::{Pairs, answer, ask, headers, stream};
use crate::support::test;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"search"}}"#;
const CALL_ANSWER: &str = r#"{"id":1,"result":{}}"#;
const SEND: &str = r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m","role":"user","parts":[]}}}"#;
const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"message","messageId":"r","role":"agent","parts":[]}}"#;
const CHAT_ANSWER: &str = r#"{"object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;

/// An agent that speaks A2A, the models that it asks, the tools that it calls and an API, each with these session
/// rules.
fn config(session: &Value) -> String {
    let product = |id: &str, kind: &str, price: &str| {
        json!({
            "id": id, "type": kind, "match": {"path_prefix": format!("/{id}")},
            "identity": {
                "customer": {"trusted_header": "x-customer"}, "agent": {"value": "bot"},
                "on_missing": "meter_as_anonymous",
            },
            "session": session,
            "pricing": {"default": {"price": price}},
        })
    };
    let mut models = product("models", "AI_AGENT", "0");
    models["llm"] = json!({"provider": "openai"});
    models["pricing"]["tokens"] = json!({"pass_through": true, "markup": "1"});
    json!({
        "products": [
            product("agent", "AI_AGENT", "0.1"),
            models,
            product("tools", "MCP_SERVER", "0.01"),
            product("api", "STANDARD_API", "0.001"),
        ],
        "rate_cards": [{"version": "1", "rates": [
            {"provider": "openai", "model": "m", "input": "1", "output": "2"},
        ]}],
    })
    .to_string()
}

/// One request to each product.
fn one_of_each(envoy: &mut Envoy, first_id: u32, headers: Pairs<'_>) {
    for (id, path, body, answer) in [
        (first_id, "/agent", SEND, MESSAGE),
        (first_id + 1, "/models/v1/chat/completions", r#"{"model":"m"}"#, CHAT_ANSWER),
        (first_id + 2, "/tools", CALL, CALL_ANSWER),
        (first_id + 3, "/api", "", ""),
    ] {
        let request = [&[(":method", "POST"), (":path", path)], headers].concat();
        stream(envoy, id, &request, body, answer);
        envoy.now.0 += 1;
    }
}

#[test]
fn what_one_agent_does_is_one_session_where_its_products_share_a_group() {
    let rungs = ["mcp_session_id", "header", "baggage", "meta", "trace"];
    let named: [(&str, Pairs<'_>); 4] = [
        ("a session header", &[("x-session-id", "s")]),
        ("baggage", &[("baggage", "session.id=s")]),
        ("a trace", &[("traceparent", TRACE)]),
        ("nothing", &[]),
    ];
    for (what, headers) in named {
        for (group, sessions) in [("agent 7", 1), ("", 4)] {
            let rules = json!({"group": group, "ladder": rungs});
            let mut envoy = Envoy::new(&config(&rules));
            one_of_each(&mut envoy, 1, headers);
            let made = envoy.deliver(4_000_000);
            let closed = kinds(&made, "session_closed");
            assert_eq!(closed.len(), sessions, "{what} {group:?}");
            if sessions > 1 {
                continue;
            }
            for (name, value) in [
                ("product_id", json!("agent")),
                ("product_type", json!("AI_AGENT")),
                ("agent_id", json!("bot")),
                ("total_tool_calls", json!(3)),
                ("generations", json!(1)),
                ("total_provider_cost", json!("0.0012")),
                ("unattributed_provider_cost", json!("0.0012")),
                // 0.1 for the step, 0.01 for the tool, 0.001 for the API, and twice the cost of the tokens.
                ("total_revenue", json!("0.1134")),
            ] {
                assert_eq!(closed[0][name], value, "{name}, {what}");
            }
        }
    }
}

#[test]
fn an_event_about_a_call_tells_the_calls_own_product() {
    let mut envoy = Envoy::new(&config(&json!({"group": "agent 7"})));
    one_of_each(&mut envoy, 1, &[("x-session-id", "s")]);
    let made = envoy.deliver(4_000_000);
    let mut sessions = BTreeSet::new();
    for (kind, product, product_type, agent, app, price) in [
        ("agent_step", "agent", "AI_AGENT", Some("bot"), None, "0.1"),
        ("token_consumption", "models", "AI_AGENT", Some("bot"), None, "0.0024"),
        ("tool_invocation", "tools", "MCP_SERVER", Some("bot"), None, "0.01"),
        ("api_call", "api", "STANDARD_API", None, Some("bot"), "0.001"),
    ] {
        let found = kinds(&made, kind);
        assert_eq!(found.len(), 1, "{kind}");
        assert_eq!(found[0]["product_id"], product, "{kind}");
        assert_eq!(found[0]["product_type"], product_type, "{kind}");
        assert_eq!(found[0].get("agent_id").and_then(Value::as_str), agent, "{kind}");
        assert_eq!(found[0].get("app_id").and_then(Value::as_str), app, "{kind}");
        assert_eq!(found[0]["price"], price, "{kind}");
        sessions.insert(found[0]["session_id"].to_string());
    }
    assert_eq!(sessions.len(), 1);
}

#[test]
fn who_calls_still_tells_the_sessions_of_a_group_apart() {
    let mut envoy = Envoy::new(&config(&json!({"group": "agent 7"})));
    one_of_each(&mut envoy, 1, &[("x-session-id", "s"), ("x-customer", "acme")]);
    one_of_each(&mut envoy, 5, &[("x-session-id", "s"), ("x-customer", "rival")]);
    let closed = kinds(&envoy.deliver(4_000_000), "session_closed");
    let told: Vec<Value> =
        closed.iter().map(|s| json!([s["customer_id"], s["total_tool_calls"]])).collect();
    assert_eq!(told, [json!(["acme", 3]), json!(["rival", 3])]);
}

#[test]
fn an_identity_has_as_many_sessions_in_a_group_as_its_products_allow() {
    for (group, closes) in [("agent 7", 1), ("", 0)] {
        let rules = json!({"group": group, "per_identity_max": 2});
        let mut envoy = Envoy::new(&config(&rules));
        for (id, path, session) in [(1, "/tools", "1"), (2, "/agent", "2"), (3, "/api", "3")] {
            let request = [(":method", "POST"), (":path", path), ("x-session-id", session)];
            let (body, answer) = if id == 1 { (CALL, CALL_ANSWER) } else { (SEND, MESSAGE) };
            stream(&mut envoy, id, &request, body, answer);
            envoy.now.0 += 10;
            envoy.tick(10);
        }
        let closed = kinds(&envoy.deliver(1000), "session_closed");
        assert_eq!(closed.len(), closes, "{group:?}");
        for session in closed {
            assert_eq!(session["close_reason"], "identity_limit");
            assert_eq!(session["product_id"], "tools");
        }
    }
}

#[test]
fn servers_of_a_group_may_use_the_same_ids_at_once() {
    // Both answers come on resumed streams, told apart by the server that they come from.
    let config: Value = serde_json::from_str(&config(&json!({"group": "agent 7"}))).unwrap();
    let mut tools = config["products"][2].clone();
    let mut more = tools.clone();
    more["id"] = json!("more");
    more["match"] = json!({"path": "/more"});
    tools["pricing"] = json!({"default": {"price": "1"}});
    let mut envoy = Envoy::new(&json!({"products": [tools, more]}).to_string());
    let session = ("mcp-session-id", "s");
    for (id, path) in [(1, "/tools"), (2, "/more")] {
        let request = [(":method", "POST"), (":path", path), session];
        ask(&mut envoy, id, &request, CALL);
        envoy.worker.stream_end(&mut envoy.host, id, StreamEnd::Aborted, envoy.now);
    }
    for (id, path, result) in
        [(3, "/more", r#"{"isError":true}"#), (4, "/tools", r#"{"content":[]}"#)]
    {
        let request =
            [(":method", "GET"), (":path", path), session, ("accept", "text/event-stream")];
        ask(&mut envoy, id, &request, "");
        let head = [(":status", "200"), ("content-type", "text/event-stream")];
        let event = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}\n\n");
        envoy.worker.response_head(id, Headers(&headers(&head)));
        envoy.worker.response_body(&mut envoy.host, id, event.as_bytes(), true, envoy.now);
        envoy.worker.stream_end(&mut envoy.host, id, StreamEnd::Complete, envoy.now);
    }
    let calls = kinds(&envoy.deliver(2000), "tool_invocation");
    let mut told: Vec<String> = calls
        .iter()
        .map(|call| format!("{} {}", call["product_id"], call["execution_status"]))
        .collect();
    told.sort();
    assert_eq!(told, [r#""more" "ERROR""#, r#""tools" "SUCCESS""#]);
}

#[test]
fn a_generation_of_several_calls_of_a_group_belongs_to_their_session() {
    let mut envoy = Envoy::new(&config(&json!({"group": "agent 7"})));
    let head = |path| {
        [(":method", "POST"), (":path", path), ("x-session-id", "s"), ("traceparent", TRACE)]
    };
    ask(&mut envoy, 1, &head("/tools"), CALL);
    envoy.now.0 += 1;
    ask(&mut envoy, 2, &head("/agent"), SEND);
    let generation = [(":method", "POST"), (":path", "/models/v1/chat/completions"), head("")[3]];
    stream(&mut envoy, 3, &generation, r#"{"model":"m"}"#, CHAT_ANSWER);
    answer(&mut envoy, 1, CALL_ANSWER);
    answer(&mut envoy, 2, MESSAGE);
    let made = envoy.deliver(3000);
    let (tokens, steps) = (kinds(&made, "token_consumption"), kinds(&made, "agent_step"));
    assert_eq!(tokens[0]["session_id"], steps[0]["session_id"]);
    assert_eq!(tokens[0]["attribution"], "none");
    assert_eq!(tokens[0]["product_id"], "tools", "the first that started");
}

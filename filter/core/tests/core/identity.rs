//! Who a request is for where it says so in an ambiguous way: it is refused, never served as nobody.
//! The numbers are those of the attempts that broke, or that must go on failing.

use agent_meter_core::config::Config;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::products::{Pairs, stream};
use crate::support::test;

const JWT: &str = "metadata filter_metadata envoy.filters.http.jwt_authn jwt_payload";
const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
const RESULT: &str = r#"{"id":1,"result":{}}"#;

/// Headers whose values may be any bytes.
type Sent<'a> = &'a [(&'a str, &'a [u8])];

fn config(kind: &str, identity: &Value, price: &str) -> String {
    json!({"products": [{
        "id": "p", "type": kind, "match": {"path": "/p"}, "identity": identity,
        "pricing": {"default": {"price": price}},
    }]})
    .to_string()
}

/// What becomes of a request with these headers: `Ok` if it is metered, else the status and the body
/// of the refusal.
fn fate(envoy: &mut Envoy, headers: Sent<'_>) -> Result<(), (u16, String)> {
    let own = [(":method", "POST".as_bytes()), (":path", b"/p")];
    let request: Vec<_> = own
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
        .collect();
    let Envoy { worker, host, now, .. } = envoy;
    match worker.request_head(host, 9, Headers(&request), *now) {
        HeadAction::Answer(reply) => Err((reply.status, reply.body)),
        HeadAction::Follow(_) => Ok(()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trusted_header_that_is_ambiguous_is_refused() {
    let long = [b'x'; 257];
    let cases: [(&str, &[&[u8]], bool); 14] = [
        ("66: twice", &[b"acme", b"rival"], true),
        ("66: twice the same", &[b"acme", b"acme"], true),
        ("66: the second is empty", &[b"acme", b""], true),
        ("67: an empty first line", &[b"", b"acme"], true),
        ("67: empty", &[b""], true),
        ("67: a blank", &[b" "], true),
        ("69: 257 bytes", &[&long], true),
        ("69: 256 bytes", &[&long[1..]], false),
        ("69: a control character", &[b"ac\x01me"], true),
        ("69: Latin-1", &[b"m\xFCller"], true),
        ("69: UTF-8", &["müller".as_bytes()], false),
        ("70: a space of no width", &["acme\u{200b}".as_bytes()], false),
        ("65: joined by a proxy in front", &[b"acme, rival"], false),
        ("a name", &[b"acme"], false),
    ];
    for level in ["customer", "team", "user", "agent", "api_key"] {
        for on_missing in [json!(null), json!("meter_as_anonymous"), json!("reject")] {
            let identity = json!({
                level: {"trusted_header": "x-who"}, "api_key_salt": "0123456789abcdef",
                "on_missing": on_missing,
            });
            for (name, values, is_refused) in &cases {
                let headers: Vec<_> = values.iter().map(|value| ("x-who", *value)).collect();
                let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
                // A key is hashed, so that its length is of no matter below some KiB.
                let is_refused = *is_refused && !(level == "api_key" && name.contains("257"));
                let fate = fate(&mut envoy, &headers);
                let status = fate.as_ref().err().map(|(status, _)| *status);
                assert_eq!(status, is_refused.then_some(400), "{level}: {name}");
                if let Err((_, body)) = fate {
                    let body: Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(body["error"]["code"], -32_600, "{body}");
                    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &Value::Null));
                    assert_eq!(envoy.host.counters[&Counter::IdentityUnusable], 1);
                }
            }
        }
    }
    let identity = json!({"customer": {"trusted_header": "x-who"}});
    let mut envoy = Envoy::new(&config("STANDARD_API", &identity, "0.1"));
    let (status, body) = fate(&mut envoy, &[("x-who", b"")]).unwrap_err();
    assert_eq!((status, body.starts_with("{\"error\":\"invalid_request\"")), (400, true), "{body}");
}

#[test]
fn an_ambiguous_header_is_not_passed_over_for_the_next_source() {
    let identity = json!({"customer": [{"trusted_header": "x-who"}, {"value": "house"}]});
    let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
    assert_eq!(fate(&mut envoy, &[("x-who", b"")]).unwrap_err().0, 400);
    assert_eq!(fate(&mut envoy, &[]), Ok(()));
}

/// Row 68: a proxy that obeys `connection` takes the header out. Where the filter sees the
/// `connection` it refuses; where Envoy has taken both out, nobody is named, which a product with
/// prices refuses by default.
#[test]
fn a_header_that_connection_lists_is_refused() {
    let identity = json!({"customer": {"trusted_header": "x-who"}});
    for (connection, status) in
        [("x-who", Some(400)), ("close, X-Who", Some(400)), ("keep-alive", None), ("x-whose", None)]
    {
        let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
        let headers = [("connection", connection.as_bytes()), ("x-who", b"acme")];
        let found = fate(&mut envoy, &headers).err().map(|(status, _)| status);
        assert_eq!(found, status, "{connection}");
    }
    let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
    assert_eq!(fate(&mut envoy, &[]).unwrap_err().0, 401);
}

/// Row 71.
#[test]
fn nobody_can_have_a_name_that_the_filter_gives() {
    for level in ["customer", "team", "user", "agent"] {
        let identity = json!({
            level: [{"trusted_header": "x-who"}, {"jwt_claim": "who"}], "jwt_payload": "jwt_payload",
        });
        for name in ["anonymous", "ANONYMOUS", "__other__", "__none__", "__unattributed__", "__x__"]
        {
            let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
            let by_header = fate(&mut envoy, &[("x-who", name.as_bytes())]);
            assert_eq!(by_header.unwrap_err().0, 400, "{level}: {name}");
            envoy.host.properties.insert(format!("{JWT} who"), name.to_owned());
            assert_eq!(fate(&mut envoy, &[]).unwrap_err().0, 401, "{level}: {name}");
        }
        let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
        assert_eq!(fate(&mut envoy, &[("x-who", b"__x")]), Ok(()));
    }
    for name in ["anonymous", "__x__", "a\nb"] {
        let text = config("MCP_SERVER", &json!({"customer": {"value": name}}), "0");
        let refused = Config::from_bytes(text.as_bytes()).unwrap_err().to_string();
        let place = "products[0].identity.customer.value: expected printable text";
        assert!(refused.starts_with(place), "{refused}");
    }
}

/// Rows 76 and 77. Envoy gives a number as the bytes of a double, a flag as one byte, a list or an
/// object as a list of pairs that begins with its length.
#[test]
fn only_text_in_a_claim_names_anybody() {
    let spelled = String::from_utf8(0x636e_692d_656d_6361_u64.to_le_bytes().to_vec()).unwrap();
    assert_eq!(spelled, "acme-inc");
    let long = "x".repeat(257);
    let rows: [(&str, bool, Option<u16>); 10] = [
        ("acme-inc", false, None),
        (&spelled, true, Some(401)),
        ("\0\0\0\0\0\0\u{1c}@", true, Some(401)),
        ("acme", false, None),
        ("\u{1}", false, Some(401)),
        ("\u{1}\0\0\0\u{4}\0\0\0\0\0\0\0acme\0\0", false, Some(401)),
        (&long, false, Some(401)),
        ("ac\nme", false, Some(401)),
        // Nothing: the next source, or what `on_missing` says.
        ("", false, Some(401)),
        (" ", false, Some(401)),
    ];
    for (source, path) in [
        (json!({"jwt_claim": "who"}), format!("{JWT} who")),
        (json!({"jwt_claim": "/act/who"}), format!("{JWT} act who")),
        (json!({"metadata": ["ext", "who"]}), "metadata filter_metadata ext who".to_owned()),
    ] {
        let identity = json!({"customer": source, "jwt_payload": "jwt_payload"});
        for (value, is_number, status) in rows {
            let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
            envoy.host.properties.insert(path.clone(), value.to_owned());
            envoy.host.properties.insert(format!("{JWT} other"), "acme-inc".to_owned());
            if is_number {
                envoy.host.numbers.insert(path.clone());
            }
            let found = fate(&mut envoy, &[]).err().map(|(status, _)| status);
            assert_eq!(found, status, "{source}: {value:?}");
        }
    }
}

#[test]
fn who_names_no_customer_is_refused_by_default_where_calls_have_a_price() {
    let customer = json!({"trusted_header": "x-who"});
    let agent = json!({"trusted_header": "x-agent"});
    for (identity, price, headers, is_refused) in [
        (json!({"customer": customer}), "0.1", &[][..], true),
        (json!({"customer": customer}), "0.1", &[("x-who", "acme")], false),
        (json!({"customer": customer}), "0", &[], false),
        (json!({"customer": customer, "agent": agent}), "0.1", &[("x-who", "acme")], false),
        (json!({"agent": agent}), "0.1", &[], false),
        (json!({}), "0.1", &[], false),
        (json!({"customer": customer, "on_missing": "meter_as_anonymous"}), "0.1", &[], false),
        (json!({"customer": customer, "on_missing": "reject"}), "0", &[], true),
        (json!({"agent": agent, "on_missing": "reject"}), "0", &[], true),
    ] {
        let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, price));
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let status = fate(&mut envoy, &headers).err().map(|(status, _)| status);
        assert_eq!(status, is_refused.then_some(401), "{identity} {price}");
    }
}

#[test]
fn two_names_of_a_session_are_refused() {
    let session = ("mcp-session-id", b"a".as_slice());
    let rows: [(Sent<'_>, bool); 5] = [
        (&[session, ("mcp-session-id", b"b")], true),
        (&[session, session], false),
        (&[("x-session-id", b"a"), ("x-session-id", b"b")], true),
        (&[session, ("x-session-id", b"b"), ("agent-session-id", b"c")], false),
        (&[("baggage", b"user=1"), ("baggage", b"session.id=a")], false),
    ];
    for (headers, is_refused) in rows {
        let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({}), "0.1"));
        let status = fate(&mut envoy, headers).err().map(|(status, _)| status);
        assert_eq!(status, is_refused.then_some(400), "{headers:?}");
    }
}

/// Row 71: what a client calls a tool or a model never reads as a name that the filter gives.
#[test]
fn a_tool_that_is_called_like_the_filters_own_names_is_told_apart() {
    let mut envoy = Envoy::new(&config("MCP_SERVER", &json!({}), "0.1"));
    let request: Pairs<'_> = &[(":method", "POST"), (":path", "/p")];
    let names = ["__unnamed__", "", "__other__", "\\__other__", "__init", "search"];
    for (id, name) in (1..).zip(names) {
        let call = json!({"id": 1, "method": "tools/call", "params": {"name": name}}).to_string();
        stream(&mut envoy, id, request, &call, RESULT);
    }
    let made = envoy.deliver(2000);
    let told: Vec<_> = kinds(&made, "tool_invocation")
        .iter()
        .map(|call| call["tool_name"].as_str().unwrap().to_owned())
        .collect();
    let expected =
        ["\\__unnamed__", "__unnamed__", "\\__other__", "\\\\__other__", "__init", "search"];
    assert_eq!(told, expected);
}

#[test]
fn a_model_that_is_called_like_the_filters_own_names_is_told_apart() {
    let config = json!({"products": [{
        "id": "p", "type": "AI_AGENT", "match": {"path_prefix": "/p"}, "llm": {"provider": "openai"},
    }]});
    let mut envoy = Envoy::new(&config.to_string());
    let answer = |model: &str| {
        json!({
            "object": "chat.completion", "model": model,
            "choices": [{"index": 0, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        })
        .to_string()
    };
    let chat: Pairs<'_> = &[(":method", "POST"), (":path", "/p/v1/chat/completions")];
    for (id, model) in [(1, "__unknown__"), (2, "__other__"), (3, "gpt-4o")] {
        let asked = json!({"model": model}).to_string();
        stream(&mut envoy, id, chat, &asked, &answer(model));
    }
    let made = envoy.deliver(2000);
    let told: Vec<Value> = kinds(&made, "token_consumption")
        .iter()
        .map(|call| json!([call["model"], call["model_requested"]]))
        .collect();
    let expected = ["\\__unknown__", "\\__other__", "gpt-4o"].map(|name| json!([name, name]));
    assert_eq!(told, expected);
}

#[test]
fn what_lets_anonymous_callers_in_is_warned_of() {
    let customer = json!({"trusted_header": "x-who"});
    let guard = |more: Value| {
        let mut guard = json!({"id": "g", "budget": {"calls": 5}, "actions": {"level_3": {}}});
        for (name, value) in more.as_object().unwrap() {
            guard[name] = value.clone();
        }
        json!([guard])
    };
    let open = "guards[0].customers: callers of product \"p\" who are not known pass outside";
    let rows: [(Value, &str, Value, Value, &[&str]); 9] = [
        (json!({"customer": customer}), "0.1", json!([]), json!({}), &[]),
        (json!({"customer": customer}), "0", json!([]), json!({}), &[]),
        (json!({}), "0.1", json!([]), json!({}), &["products[0].identity.customer: "]),
        (
            json!({"customer": customer, "on_missing": "meter_as_anonymous"}),
            "0.1",
            json!([]),
            json!({}),
            &["products[0].identity.on_missing: "],
        ),
        (json!({"customer": customer}), "0", guard(json!({})), json!({}), &[open]),
        (json!({"customer": customer}), "0.1", guard(json!({})), json!({}), &[]),
        (
            json!({"customer": customer}),
            "0",
            guard(json!({"customers": ["*", "anonymous"]})),
            json!({}),
            &[],
        ),
        (json!({"customer": customer}), "0", guard(json!({"scope": "product"})), json!({}), &[]),
        (
            json!({"customer": customer}),
            "0",
            json!([]),
            json!({"trusted_header": "x-metered"}),
            &["already_metered.trusted_peers: everybody who can connect is believed"],
        ),
    ];
    for (identity, price, guards, already_metered, expected) in rows {
        let mut text: Value =
            serde_json::from_str(&config("MCP_SERVER", &identity, price)).unwrap();
        text["guards"] = guards;
        text["already_metered"] = already_metered;
        let config = Config::from_bytes(text.to_string().as_bytes()).unwrap();
        let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), expected.len(), "{text}: {warnings:?}");
        for (warning, start) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(start), "{warning}");
        }
    }
}

#[test]
fn a_call_of_a_refused_caller_is_in_no_event() {
    let identity = json!({"customer": {"trusted_header": "x-who"}});
    let mut envoy = Envoy::new(&config("MCP_SERVER", &identity, "0.1"));
    let request = [(":method", "POST"), (":path", "/p"), ("x-who", "a"), ("x-who", "b")];
    let refused = stream(&mut envoy, 1, &request, CALL, RESULT);
    assert!(matches!(refused, HeadAction::Answer(_)));
    assert!(envoy.deliver(2000).is_empty());
    assert_eq!(envoy.host.counters[&Counter::RequestsRejected], 1);
}

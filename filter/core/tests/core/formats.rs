//! The formats besides CloudEvents: their requests byte by byte, their receivers' replies, what they
//! leave out, and the names that they give.

use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::sink::FormatName;
use agent_meter_core::sink::otel::{Told, log_record};
use agent_meter_core::sink::reply::{HttpReply, Reply};
use serde_json::{Value, json};

use crate::accountant::{DOCUMENTED, document};
use crate::host::{Envoy, taken};
use crate::support::test;

/// The documented configuration with other options of the collector.
pub(crate) fn config(collector: &Value) -> String {
    let mut config: Value = serde_json::from_str(DOCUMENTED).unwrap();
    config["collector"] = collector.clone();
    config.to_string()
}

/// The bodies of what is sent for a while to a receiver that takes all.
fn bodies(envoy: &mut Envoy, during_ms: u64) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..=during_ms / 250 {
        let mut waiting = envoy.tick(250);
        while let Some(dispatch) = waiting.pop() {
            waiting.extend(envoy.reply(&dispatch, taken()));
            bodies.push(String::from_utf8(dispatch.body).unwrap());
        }
    }
    bodies
}

#[test]
fn each_format_writes_the_documented_events_as_its_golden_request() {
    for (name, golden, file) in [
        ("otlp_logs", include_str!("golden/otlp_logs.json"), "otlp_logs"),
        ("aforo", include_str!("golden/aforo.json"), "aforo"),
    ] {
        let config = config(&json!({ "format": name, "path": "/v1/x" }));
        let made = document(&mut Envoy::new(&config), bodies).join("\n") + "\n";
        let again = document(&mut Envoy::new(&config), bodies).join("\n") + "\n";
        assert_eq!(made, again, "{name}: the same events give the same bytes");
        #[cfg(not(target_arch = "wasm32"))]
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(format!("tests/core/golden/{file}.json"), &made).unwrap();
            continue;
        }
        assert_eq!(made, golden, "{file}: UPDATE_GOLDEN=1 writes it anew");
    }
}

/// An Envoy with a batch of three calls on its way in this format.
fn with_three_calls(format: &str) -> (Envoy, agent_meter_core::accountant::outbox::Dispatch) {
    let delivery = json!({ "heartbeat_interval": "0s" });
    let mut text: Value = serde_json::from_str(&config(&json!({ "format": format }))).unwrap();
    text["delivery"] = delivery;
    let mut envoy = Envoy::new(&text.to_string());
    for tool in ["lookup", "write", "lookup"] {
        envoy.call("s", tool, "{}");
    }
    let batch = (0..8).flat_map(|_| envoy.tick(250)).next().expect("a batch");
    (envoy, batch)
}

/// How many events of a batch of otlp_logs and of aforo there are: the first has two of the session too.
const EVENTS: [u64; 2] = [5, 3];

#[test]
fn each_reply_settles_what_it_is_about_and_nothing_else() {
    let aforo = |data: Value| json!({ "success": true, "data": data, "meta": {} }).to_string();
    let rejected = |count: Value| {
        json!({ "partialSuccess": { "rejectedLogRecords": count, "errorMessage": "too old" } })
            .to_string()
    };
    let html = "<html>Log in</html>".to_owned();
    // The format, the reply, how many events are taken, how many are in the log, and whether the
    // request is sent again.
    let [all, three] = EVENTS;
    let rows: [(&str, u16, String, u64, u64, bool); 17] = [
        ("otlp_logs", 200, String::new(), all, 0, false),
        ("otlp_logs", 200, "{}".to_owned(), all, 0, false),
        ("otlp_logs", 200, r#"{"partialSuccess":null}"#.to_owned(), all, 0, false),
        ("otlp_logs", 200, rejected(json!("0")), all, 0, false),
        ("otlp_logs", 200, rejected(json!("1")), 0, all, false),
        ("otlp_logs", 200, rejected(json!(4)), 0, all, false),
        ("otlp_logs", 200, html.clone(), 0, 0, true),
        ("otlp_logs", 503, String::new(), 0, 0, true),
        ("otlp_logs", 401, String::new(), 0, 0, true),
        ("aforo", 202, String::new(), three, 0, false),
        (
            "aforo",
            200,
            aforo(json!({ "accepted": 2, "duplicates": 1, "failed": 0 })),
            three,
            0,
            false,
        ),
        ("aforo", 202, r#"{"accepted":3,"failed":0,"errors":[]}"#.to_owned(), three, 0, false),
        (
            "aforo",
            202,
            aforo(
                json!({ "accepted": 2, "failed": 1, "errors": [{ "index": 1, "message": "UNKNOWN_METRIC" }] }),
            ),
            2,
            1,
            false,
        ),
        ("aforo", 202, aforo(json!({ "accepted": 2, "failed": 1 })), 0, three, false),
        ("aforo", 202, aforo(json!({ "accepted": 2, "failed": 0 })), 0, 0, true),
        ("aforo", 202, html, 0, 0, true),
        ("aforo", 429, String::new(), 0, 0, true),
    ];
    for (format, status, body, taken, in_log, is_again) in rows {
        let (mut envoy, batch) = with_three_calls(format);
        let what = format!("{format} {status} {body}");
        let name: FormatName = serde_json::from_value(json!(format)).unwrap();
        let reply = name.format().reply(&HttpReply {
            status,
            body: body.as_bytes(),
            ..HttpReply::default()
        });
        let mut again = envoy.reply(&batch, reply);
        again.extend((0..8).flat_map(|_| envoy.tick(250)));
        let expected: Vec<&[u8]> = is_again.then_some(&batch.body[..]).into_iter().collect();
        let found: Vec<&[u8]> = again.iter().map(|again| &again.body[..]).collect();
        assert_eq!(found, expected, "{what}");
        assert_eq!(envoy.host.gauges[&Gauge::EventsAcked], taken, "{what}");
        assert_eq!(envoy.host.spilled.len() as u64, in_log, "{what}");
        // What the log has, the collector's ledger can be told of.
        for (reason, event) in &envoy.host.spilled {
            assert_eq!(
                (reason.as_str(), &event["specversion"]),
                ("refused", &json!("1.0")),
                "{what}"
            );
        }
        if in_log == 1 {
            assert_eq!(envoy.host.spilled[0].1["data"]["tool_name"], "write", "{what}");
        }
    }
}

#[test]
fn a_request_that_is_refused_as_a_whole_is_halved_until_the_wrong_event_is_alone() {
    for (format, events) in ["otlp_logs", "aforo"].into_iter().zip(EVENTS) {
        let (mut envoy, batch) = with_three_calls(format);
        let name: FormatName = serde_json::from_value(json!(format)).unwrap();
        let mut waiting = vec![batch];
        let mut requests = 0;
        while let Some(dispatch) = waiting.pop() {
            requests += 1;
            let body = String::from_utf8_lossy(&dispatch.body).into_owned();
            let _: Value = serde_json::from_str(&body).unwrap();
            let status = if body.contains("write") { 400 } else { 200 };
            let reply = HttpReply { status, ..HttpReply::default() };
            waiting.extend(envoy.reply(&dispatch, name.format().reply(&reply)));
            waiting.extend(envoy.tick(250));
        }
        assert!((3..=7).contains(&requests), "{format}: {requests}");
        let tools: Vec<&Value> =
            envoy.host.spilled.iter().map(|(_, event)| &event["data"]["tool_name"]).collect();
        assert_eq!(tools, ["write"], "{format}");
        let _ = (0..8).flat_map(|_| envoy.tick(250)).count();
        assert_eq!(envoy.host.gauges[&Gauge::EventsAcked], events - 1, "{format}");
        assert_eq!(envoy.host.gauges[&Gauge::OutboxEvents], 0, "{format}");
    }
}

#[test]
fn what_a_format_leaves_out_is_counted_and_the_sums_agree() {
    let no_tokens = r#"{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
    for (format, withheld) in [("cloudevents", 0), ("otlp_logs", 0), ("aforo", 1)] {
        let mut envoy = Envoy::new(&config(&json!({ "format": format })));
        envoy.call("s", "lookup", "{}");
        let call = envoy.start("s", "lookup");
        envoy.generate(no_tokens);
        envoy.finish(call, "{}");
        let sent = bodies(&mut envoy, 30_000);
        assert!(
            !sent.is_empty()
                && sent.iter().all(|body| body.contains("lookup") || format != "aforo"),
            "{format}"
        );
        let counted = |counter| envoy.host.counters.get(&counter).copied().unwrap_or(0);
        let gauge = |gauge| envoy.host.gauges[&gauge];
        let left_out = counted(Counter::EventsLeftOut);
        assert_eq!(left_out > 0, format == "aforo", "{format}");
        assert_eq!(counted(Counter::EventsWithheld), withheld, "{format}");
        let known = gauge(Gauge::EventsAcked) + gauge(Gauge::OutboxEvents) + left_out;
        assert_eq!(gauge(Gauge::EventsMade), known, "{format}");
    }
}

#[test]
fn a_receiver_that_wants_sessions_ended_is_counted() {
    let (mut envoy, batch) = with_three_calls("aforo");
    let body = br#"{"data":{"accepted":3,"failed":0,"killedSessionIds":["a","b"]}}"#;
    let reply = HttpReply { status: 202, body, ..HttpReply::default() };
    let reply = FormatName::Aforo.format().reply(&reply);
    assert!(matches!(reply, Reply::Taken { sessions_to_end: 2, .. }), "{reply:?}");
    let _ = envoy.reply(&batch, reply);
    assert_eq!(envoy.host.counters[&Counter::SessionsToEnd], 2);
}

#[test]
fn events_that_another_format_left_are_sent_as_far_as_this_one_sends_them() {
    let mut envoy = Envoy::new(&config(&json!({})));
    envoy.call("s", "lookup", "{}");
    // The collector never answers, and the process goes on with another configuration.
    assert_eq!((0..8).flat_map(|_| envoy.tick(250)).count(), 1);
    let aforo = config(&json!({ "format": "aforo" }));
    envoy.main = crate::host::meter_at(&mut envoy.host, &aforo, envoy.now);
    let sent = bodies(&mut envoy, 60_000);
    let first: Value = serde_json::from_str(&sent[0]).unwrap();
    assert_eq!(first["events"].as_array().map(Vec::len), Some(1), "{first}");
    assert_eq!(first["events"][0]["toolName"], "lookup");
    assert!(envoy.host.counters[&Counter::EventsLeftOut] >= 1);
    assert_eq!(envoy.host.gauges[&Gauge::OutboxEvents], 0);
}

/// The attributes of the record of an event: each key with its value as text.
fn attributes(event_type: &str, data: &Value, with_costs: bool) -> Vec<(String, String)> {
    let record = log_record(&Told {
        source: "urn:agent-meter:edge-1:1",
        id: "00000000000000000001",
        time_ms: 1,
        event_type: &format!("agent-meter.{event_type}"),
        subject: "acme",
        data,
        text: "{}",
        with_costs,
    });
    let record: Value = serde_json::from_str(&record).unwrap();
    let of = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap().to_owned(), text)
    };
    record["attributes"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn what_events_say_has_the_names_of_the_conventions() {
    let tool = |more: Value| {
        let mut data = json!({"product_type": "MCP_SERVER", "tool_name": "lookup", "execution_status": "SUCCESS", "http_status": 200, "quantity": 1, "price": "0.1", "currency": "USD", "session_key": "k"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let generation = |provider: &str, tokens: Value| json!({"provider": provider, "model": "m", "model_requested": "r", "completeness": "COMPLETE", "tokens": tokens, "quantity": 1, "total_provider_cost": "0.2", "http_status": 200});
    let rows: Vec<(&str, Value, &str, Option<&str>)> = vec![
        ("tool_invocation", tool(json!({})), "gen_ai.operation.name", Some("execute_tool")),
        ("tool_invocation", tool(json!({})), "mcp.method.name", Some("tools/call")),
        ("tool_invocation", tool(json!({})), "mcp.session.id", Some("k")),
        ("tool_invocation", tool(json!({"product_type": "AI_AGENT"})), "mcp.method.name", None),
        ("tool_invocation", tool(json!({})), "gen_ai.tool.name", Some("lookup")),
        ("tool_invocation", tool(json!({})), "error.type", None),
        (
            "tool_invocation",
            tool(json!({"execution_status": "ERROR"})),
            "error.type",
            Some("tool_error"),
        ),
        (
            "tool_invocation",
            tool(json!({"execution_status": "ERROR", "http_status": 502})),
            "error.type",
            Some("502"),
        ),
        (
            "tool_invocation",
            tool(json!({"execution_status": "TIMEOUT"})),
            "error.type",
            Some("timeout"),
        ),
        ("tool_invocation", tool(json!({"execution_status": "PENDING"})), "error.type", None),
        ("tool_invocation", tool(json!({"http_status": 0})), "http.response.status_code", None),
        ("tool_invocation", tool(json!({"rpc_id": "7"})), "jsonrpc.request.id", Some("7")),
        ("tool_invocation", tool(json!({"rpc_id": "sha256:ab"})), "jsonrpc.request.id", None),
        (
            "tool_invocation",
            tool(json!({"rpc_id": "sha256:ab"})),
            "agent_meter.rpc_id",
            Some("sha256:ab"),
        ),
        (
            "api_call",
            json!({"method": "GET", "route": "/a", "execution_status": "ERROR", "http_status": 500}),
            "error.type",
            Some("500"),
        ),
        (
            "api_call",
            json!({"method": "GET", "route": "/a", "http_status": 200}),
            "http.request.method",
            Some("GET"),
        ),
        (
            "api_call",
            json!({"method": "OTHER", "route": "/a"}),
            "http.request.method",
            Some("_OTHER"),
        ),
        ("api_call", json!({"method": "GET", "route": "/a"}), "http.route", Some("/a")),
        ("api_call", json!({"request_bytes": 5}), "http.request.body.size", Some("5")),
        (
            "agent_step",
            json!({"operation": "message/send"}),
            "gen_ai.operation.name",
            Some("invoke_agent"),
        ),
        (
            "token_consumption",
            generation("bedrock", json!({"input": 5, "output": 1})),
            "gen_ai.provider.name",
            Some("aws.bedrock"),
        ),
        (
            "token_consumption",
            generation("own", json!({"input": 5, "output": 1})),
            "gen_ai.provider.name",
            Some("own"),
        ),
        (
            "token_consumption",
            generation("openai", json!({"input": 5, "output": 1})),
            "gen_ai.operation.name",
            Some("chat"),
        ),
        (
            "token_consumption",
            generation("openai", json!({"input": 5})),
            "gen_ai.operation.name",
            Some("embeddings"),
        ),
        (
            "token_consumption",
            generation("openai", json!({"input": 5, "output": 1})),
            "gen_ai.request.model",
            Some("r"),
        ),
        (
            "token_consumption",
            generation("openai", json!({"input": 5, "output": 1})),
            "gen_ai.response.model",
            Some("m"),
        ),
        ("token_consumption", json!({"model": "__unknown__"}), "gen_ai.response.model", None),
        (
            "token_consumption",
            json!({"completeness": "FAILED", "http_status": 200}),
            "error.type",
            Some("_OTHER"),
        ),
        (
            "token_consumption",
            generation("anthropic", json!({"input": 9, "cache_write_5m": 2, "cache_write_1h": 3})),
            "gen_ai.usage.cache_write.input_tokens",
            Some("5"),
        ),
        (
            "token_consumption",
            generation("openai", json!({"output": 1})),
            "gen_ai.usage.input_tokens",
            None,
        ),
        ("heartbeat", json!({"sequence_max": "1"}), "gen_ai.operation.name", None),
    ];
    for (kind, data, name, expected) in rows {
        let found = attributes(kind, &data, false);
        let found = found.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(found, expected, "{kind} {data} {name}");
    }
}

#[test]
fn money_is_an_attribute_only_if_the_configuration_asks_and_never_one_of_the_conventions() {
    let data = json!({"price": "0.1", "total_provider_cost": "0.05", "currency": "EUR"});
    for (with_costs, expected) in [
        (false, vec![]),
        (true, vec!["agent_meter.price", "agent_meter.provider_cost", "agent_meter.currency"]),
    ] {
        let found = attributes("token_consumption", &data, with_costs);
        let money = found.iter().filter(|(key, _)| {
            key.contains("cost") || key.contains("price") || key.contains("currency")
        });
        assert_eq!(money.map(|(key, _)| key.as_str()).collect::<Vec<_>>(), expected);
    }
    let (mut plain, mut costly) = (0, 0);
    for (costs, count) in [(false, &mut plain), (true, &mut costly)] {
        let collector = json!({ "format": "otlp_logs", "cost_attributes": costs });
        let sent = document(&mut Envoy::new(&config(&collector)), bodies).concat();
        *count = sent.matches("agent_meter.price").count();
    }
    assert_eq!((plain, costly > 0), (0, true));
}

#[test]
fn metrics_have_the_names_of_the_configuration() {
    let names = json!({ "tool_invocations": "mcp_server.tool_invocations" });
    let collector = json!({ "format": "aforo", "metric_names": names });
    let sent = document(&mut Envoy::new(&config(&collector)), bodies).concat();
    for (name, count) in
        [("mcp_server.tool_invocations", 1), ("ai_tokens", 1), ("tool_invocations\"", 1)]
    {
        assert_eq!(sent.matches(name).count(), count, "{name} in {sent}");
    }
}

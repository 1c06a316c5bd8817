//! Requests that a server may read in another way than the filter, by the numbers of the attempts in
//! which a hostile client sent them. Where nothing acts on the request, the call is counted by its
//! answer, at the dearest price; where a plan or a guard acts, the request is refused.

use std::io::Write;

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::host::Envoy;
use crate::support::test;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"analyze_x","arguments":{}}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false}}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// Attempts.
struct Row {
    name: &'static str,
    method: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    answer: &'static str,
    /// What the ledger has: the tool and the price of each call.
    counted: &'static [(&'static str, &'static str)],
    /// The status where a plan or a guard acts on requests.
    refused: u16,
}

fn row(name: &'static str, body: impl Into<Vec<u8>>) -> Row {
    let counted: &[(&str, &str)] = &[("__unnamed__", "0.1")];
    let (method, headers) = ("POST", &[JSON][..]);
    Row { name, method, headers, body: body.into(), answer: RESULT, counted, refused: 400 }
}

fn utf16(text: &str, mark: bool) -> Vec<u8> {
    let mark = if mark { vec![0xFF, 0xFE] } else { Vec::new() };
    mark.into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn batch(pings: usize, calls: usize) -> String {
    let ping = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let call = |id: usize| {
        format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"analyze_x"}}}}"#)
    };
    let all: Vec<String> = (0..pings).map(ping).chain((pings..pings + calls).map(call)).collect();
    format!("[{}]", all.join(","))
}

#[expect(clippy::too_many_lines, reason = "a table: one row for each attempt")]
fn rows() -> Vec<Row> {
    const CODED: &[(&str, &str)] = &[JSON, ("content-encoding", "br")];
    let blanks = [" ".repeat(3_000_000).as_bytes(), CALL.as_bytes()].concat();
    let decoy = r#"{"jsonrpc":"2.0","id":1,"method":"ping","+AG0-ethod":"tools/call","params":{"name":"analyze_x","arguments":{}}}"#;
    vec![
        row("4: UTF-16 with a mark, no charset", utf16(CALL, true)),
        Row {
            headers: &[("content-type", "application/json; charset=utf-16")],
            refused: 415,
            ..row("5: UTF-16 by its charset", utf16(CALL, false))
        },
        row("5: UTF-32", CALL.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<_>>()),
        Row {
            headers: &[("content-type", "application/json; charset=utf-7")],
            refused: 415,
            ..row("6: UTF-7 behind a decoy", decoy)
        },
        Row {
            headers: &[("content-type", "application/json; charset=cp037")],
            refused: 415,
            ..row("7: EBCDIC", [0xC0, 0x7F, 0x94, 0x85])
        },
        row(
            "9: a repeated method, for a server that takes the first",
            r#"{"id":1,"method":"tools/call","method":"ping","params":{"name":"analyze_x"}}"#,
        ),
        row(
            "10: a repeated name",
            r#"{"id":1,"method":"tools/call","params":{"name":"analyze_x","name":"lookup_x"}}"#,
        ),
        row(
            "10: repeated params",
            r#"{"id":1,"method":"tools/call","params":{"name":"analyze_x"},"params":{"name":"lookup_x"}}"#,
        ),
        row(
            "11: members in another case",
            r#"{"ID":1,"Method":"tools/call","Params":{"name":"analyze_x"}}"#,
        ),
        row(
            "12: a decoy and the method in another case",
            r#"{"id":1,"method":"ping","Method":"tools/call","params":{"name":"analyze_x"}}"#,
        ),
        row(
            "the name in another case",
            r#"{"id":1,"method":"tools/call","params":{"name":"lookup_x","Name":"analyze_x"}}"#,
        ),
        row(
            "a letter that folds to s",
            "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"lookup_x\"},\"param\u{17f}\":{\"name\":\"analyze_x\"}}",
        ),
        row(
            "a member that ends before a NUL, in C",
            r#"{"id":1,"method":"ping","method\u0000":"tools/call","params":{"name":"analyze_x"}}"#,
        ),
        row(
            "a long member that ends before a NUL, in C",
            format!(
                r#"{{"id":1,"method":"ping","method\u0000{}":"tools/call","params":{{"name":"analyze_x"}}}}"#,
                "x".repeat(70)
            ),
        ),
        row(
            "a long member that is cut to the method",
            format!(
                r#"{{"id":1,"method":"ping","method{}":"tools/call","params":{{"name":"analyze_x"}}}}"#,
                " ".repeat(70)
            ),
        ),
        row(
            "a name with white space around it",
            r#"{"id":1,"method":"tools/call","params":{"name":" analyze_x"}}"#,
        ),
        row(
            "a name that ends before a NUL, in C",
            r#"{"id":1,"method":"tools/call","params":{"name":"analyze_x\u0000lookup_x"}}"#,
        ),
        row("26: a list in a list", format!("[[{CALL}]]")),
        row("a message in a string", serde_json::to_string(CALL).unwrap()),
        row("a number beside a message", format!(r#"[1,{CALL}]"#)),
        Row {
            answer: r#"[{"id":1,"result":{"content":[]}},{"id":1,"result":{"content":[]}}]"#,
            counted: &[("__unnamed__", "0.1"), ("__unnamed__", "0.1")],
            ..row(
                "several calls with one id",
                r#"[{"id":1,"Method":"tools/call","params":{"name":"analyze_x"}},{"id":1,"Method":"tools/call","params":{"name":"analyze_x"}}]"#,
            )
        },
        Row {
            answer: r#"{"jsonrpc":"2.0","id":null,"result":{"content":[]}}"#,
            counted: &[("analyze_x", "0.1")],
            ..row(
                "18: a number that servers change as id",
                r#"{"id":1e400,"method":"tools/call","params":{"name":"analyze_x"}}"#,
            )
        },
        Row {
            answer: r#"[{"jsonrpc":"2.0","id":null,"error":{"code":-32602}},{"id":null,"result":{"content":[]}}]"#,
            counted: &[("__unnamed__", "0.1"), ("lookup_x", "0")],
            ..row(
                "a dear call without a plain id behind a cheap one that fails",
                r#"[{"id":NaN,"method":"tools/call","params":{"name":"lookup_x"}},{"id":{},"method":"tools/call","params":{"name":"analyze_x"}}]"#,
            )
        },
        Row {
            headers: &[JSON, ("content-encoding", "deflate")],
            ..row("a text that may be deflate too", format!("\n{CALL}"))
        },
        row(
            "the method in another case",
            r#"{"id":1,"method":"Tools/Call","params":{"name":"analyze_x"}}"#,
        ),
        row(
            "the method before a line separator",
            r#"{"id":1,"method":"tools/call\u2028","params":{"name":"analyze_x"}}"#,
        ),
        row(
            "the method in a list",
            r#"{"id":1,"method":["tools/call"],"params":{"name":"analyze_x"}}"#,
        ),
        row(
            "15: a comment",
            r#"{/*x*/"id":1,"method":"tools/call","params":{"name":"analyze_x"}}"#,
        ),
        row("15: single quotes", r#"{'id':1,'method':'tools/call','params':{'name':'analyze_x'}}"#),
        row(
            "single quotes in arguments that hide a member",
            r#"{"id":1,"params":{"name":"analyze_x","arguments":{"a":'"'}},"method":"ping","b":['"']}"#,
        ),
        row(
            "a comment in arguments that hides a member",
            "{\"id\":1,\"params\":{\"name\":\"analyze_x\",\"arguments\":[1//\"\n]},\"method\":\"ping\",\"b\":[\"]}}\"]}",
        ),
        row(
            "an escape of JSON5",
            r#"{"id":1,"method":"ping","\x6dethod":"tools/call","params":{"name":"analyze_x"}}"#,
        ),
        row("two texts", format!(r#"{{"id":1,"method":"ping"}}{CALL}"#)),
        row("no UTF-8", b"{\"id\":1,\"method\":\"ping\",\"meth\xFFod\":\"tools/call\"}".to_vec()),
        Row {
            answer: r#"{"jsonrpc":"2.0","id":null,"result":{"content":[]}}"#,
            ..row(
                "21: no id",
                r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"analyze_x"}}"#,
            )
        },
        Row {
            answer: r#"{"jsonrpc":"2.0","id":{"a":1},"result":{"content":[]}}"#,
            ..row(
                "21: an object as id",
                r#"{"id":{"a":1},"method":"tools/call","params":{"name":"analyze_x"}}"#,
            )
        },
        Row {
            answer: r#"{"jsonrpc":"2.0","id":null,"result":{"content":[]}}"#,
            ..row(
                "21: null as id",
                r#"{"id":null,"method":"tools/call","params":{"name":"analyze_x"}}"#,
            )
        },
        Row {
            answer: r#"{"jsonrpc":"2.0","id":true,"result":{"content":[]}}"#,
            counted: &[("analyze_x", "0.1")],
            ..row(
                "18: true as id",
                r#"{"id":true,"method":"tools/call","params":{"name":"analyze_x"}}"#,
            )
        },
        row("params by position", r#"{"id":1,"method":"tools/call","params":["analyze_x",{}]}"#),
        Row {
            headers: &[JSON, ("content-encoding", "gzip, gzip")],
            refused: 415,
            ..row("31: a coding twice", gzip(&gzip(CALL.as_bytes())))
        },
        Row {
            headers: &[JSON, ("content-encoding", "gzip"), ("content-encoding", "gzip")],
            refused: 415,
            ..row("31: a coding twice, in two lines", gzip(&gzip(CALL.as_bytes())))
        },
        Row { headers: CODED, refused: 415, ..row("32: br", [0x8B, 0x2C, 0x80]) },
        Row {
            headers: &[
                JSON,
                ("content-encoding", "br"),
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "lookup_cheap"),
            ],
            refused: 415,
            ..row("33: br, and a cheap name in a header", [0x8B, 0x2C, 0x80])
        },
        Row {
            headers: &[JSON, ("content-encoding", "gzip")],
            refused: 413,
            ..row("34: blanks that expand more than decoders do", gzip(&blanks))
        },
        Row {
            headers: &[JSON, ("content-encoding", "gzip")],
            ..row("a coding that the body does not have", CALL)
        },
        Row {
            headers: &[JSON, ("content-type", "multipart/form-data")],
            refused: 415,
            ..row("two media types", CALL)
        },
        Row { method: "PUT", ..row("81: PUT", CALL) },
        Row { method: "PATCH", ..row("81: PATCH", CALL) },
        Row { method: "QUERY", ..row("QUERY", CALL) },
        Row { method: "GET", ..row("GET with a body", CALL) },
        Row { method: "DELETE", ..row("DELETE with a body", CALL) },
    ]
}

fn config(more: &Value) -> String {
    let mut config = json!({
        "emitter": "edge-1",
        "products": [{
            "id": "crm", "type": "MCP_SERVER", "match": { "path": "/mcp" },
            "identity": { "customer": { "trusted_header": "x-customer-id" } },
            "pricing": {
                "default": { "price": "0.001" },
                "tools": [
                    { "tool": "lookup_*", "price": "0.002" },
                    { "tool": "analyze_*", "price": "0.10" },
                ],
            },
        }],
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config.to_string()
}

/// What became of a request: the status with which it was refused, or the data of its calls.
fn send(config: &str, row: &Row, pieces: usize) -> Result<Vec<Value>, (u16, Value)> {
    let mut envoy = Envoy::new(config);
    let mut head = vec![
        (":method".to_owned(), row.method.as_bytes().to_vec()),
        (":path".to_owned(), b"/mcp".to_vec()),
        ("x-customer-id".to_owned(), b"acme".to_vec()),
        ("mcp-session-id".to_owned(), b"s".to_vec()),
    ];
    head.extend(row.headers.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())));
    {
        let Envoy { host, worker, now, .. } = &mut envoy;
        match worker.request_head(host, 7, Headers(&head), *now) {
            HeadAction::Follow(_) => {}
            HeadAction::Answer(reply) => {
                return Err((reply.status, serde_json::from_str(&reply.body).unwrap()));
            }
            other => panic!("{other:?}"),
        }
        if row.body.is_empty()
            && let BodyAction::Answer(reply) = worker.request_body(host, 7, &[], true, *now)
        {
            return Err((reply.status, serde_json::from_str(&reply.body).unwrap()));
        }
        let size = row.body.len().div_ceil(pieces).max(1);
        let mut chunks = row.body.chunks(size).peekable();
        while let Some(chunk) = chunks.next() {
            let is_end = chunks.peek().is_none();
            if let BodyAction::Answer(reply) = worker.request_body(host, 7, chunk, is_end, *now) {
                return Err((reply.status, serde_json::from_str(&reply.body).unwrap()));
            }
        }
        let head = [
            (":status".to_owned(), b"200".to_vec()),
            ("content-type".to_owned(), b"application/json".to_vec()),
        ];
        let _ = worker.response_head(7, Headers(&head));
        worker.response_body(host, 7, row.answer.as_bytes(), true, *now);
        worker.stream_end(host, 7, StreamEnd::Complete, *now);
    }
    Ok(calls_of(&mut envoy))
}

/// The data of the calls that were counted.
fn calls_of(envoy: &mut Envoy) -> Vec<Value> {
    let mut events = Vec::new();
    for _ in 0..8 {
        let waiting = envoy.tick(250);
        events.extend(envoy.take(waiting));
    }
    let calls = events.into_iter().filter(|event| event["type"] == "agent-meter.tool_invocation");
    calls.map(|mut event| event["data"].take()).collect()
}

#[test]
fn what_is_not_understood_for_certain_is_counted_by_its_answer_at_the_dearest_price() {
    let config = config(&json!({}));
    for row in rows() {
        for pieces in [1, 3] {
            let calls = send(&config, &row, pieces).unwrap_or_else(|refused| {
                panic!("{}: refused without a guard: {refused:?}", row.name)
            });
            let counted: Vec<(&str, &str)> = calls
                .iter()
                .map(|c| (c["tool_name"].as_str().unwrap(), c["price"].as_str().unwrap()))
                .collect();
            assert_eq!(counted, row.counted, "{}", row.name);
            assert!(calls.iter().all(|call| call["certainty"] == "inferred"), "{}", row.name);
        }
    }
}

#[test]
fn what_is_not_understood_for_certain_is_refused_where_a_plan_or_a_guard_acts() {
    let plan = json!({ "contracts": {
        "plans": { "free": { "tools": ["lookup_*"] } },
        "customers": { "acme": { "plan": "free" } },
    } });
    let guard = json!({ "guards": [{
        "id": "spend", "budget": { "provider_cost": "5" },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }] });
    for more in [plan, guard] {
        let config = config(&more);
        for row in rows() {
            for pieces in [1, 3] {
                let refused = send(&config, &row, pieces);
                let Err((status, body)) = refused else { panic!("{}: passed", row.name) };
                assert_eq!(status, row.refused, "{}: {body}", row.name);
                assert_eq!(body["error"]["data"]["reason"], "unreadable", "{}", row.name);
            }
        }
    }
}

#[test]
fn a_product_says_what_is_done_with_what_is_not_understood() {
    let mut rejecting: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    rejecting["products"][0]["on_unreadable"] = json!("reject");
    let mut metering: Value = serde_json::from_str(&config(&json!({ "guards": [{
        "id": "spend", "budget": { "provider_cost": "5" },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }] })))
    .unwrap();
    metering["products"][0]["on_unreadable"] = json!("meter");
    let br = || Row { headers: &[("content-encoding", "br")], ..row("br", [1]) };
    assert_eq!(send(&rejecting.to_string(), &br(), 1).unwrap_err().0, 415);
    assert_eq!(send(&metering.to_string(), &br(), 1).unwrap().len(), 1);
    // What is metered is still no way past a plan.
    metering["contracts"] =
        json!({ "plans": { "free": { "tools": ["lookup_*"] } }, "default_plan": "free" });
    assert_eq!(send(&metering.to_string(), &br(), 1).unwrap_err().0, 403);
}

#[test]
fn more_calls_than_are_followed_are_refused_and_what_is_no_call_takes_no_place() {
    for (name, body, passes) in [
        ("as many as fit", batch(1000, 24), true),
        ("22: pings, and calls behind them", batch(1024, 20), true),
        ("F3: more pings than are followed", batch(3000, 1024), true),
        ("23: more calls than fit", batch(0, 1100), false),
    ] {
        let row = Row { answer: "[]", ..row(name, body) };
        for pieces in [1, 3] {
            let became = send(&config(&json!({})), &row, pieces);
            assert_eq!(became.is_ok(), passes, "{name}");
            assert!(became.is_ok() || became.unwrap_err().0 == 413, "{name}");
        }
    }
}

#[test]
fn what_is_certain_stays_certain() {
    let plain =
        |name, body: &str, price| Row { counted: price, ..row(name, body.as_bytes().to_vec()) };
    let rows = [
        plain("a call", CALL, &[("analyze_x", "0.1")]),
        plain("white space around it", &format!(" \r\n\t{CALL}\n "), &[("analyze_x", "0.1")]),
        plain(
            "what JSON allows",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"look\u0075p_x","arguments":{"a":[1.5e-3,true,null,NaN,"\ud83d\ude00 ' // /* \\ \""]},"Name2":1},"x":1,"x":2}"#,
            &[("lookup_x", "0.002")],
        ),
        Row {
            answer: r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            ..plain("no call", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, &[])
        },
        Row {
            answer: "",
            ..plain(
                "a notification",
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                &[],
            )
        },
        Row {
            answer: "",
            ..plain(
                "a response to the server",
                r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#,
                &[],
            )
        },
    ];
    let plan = json!({ "contracts": {
        "plans": { "all": { "tools": ["*"] } }, "default_plan": "all",
    } });
    for config in [config(&json!({})), config(&plan)] {
        for row in &rows {
            for pieces in [1, 3, 1000] {
                let calls = send(&config, row, pieces);
                let calls = calls.unwrap_or_else(|refused| panic!("{}: {refused:?}", row.name));
                let counted: Vec<(&str, &str)> = calls
                    .iter()
                    .map(|c| (c["tool_name"].as_str().unwrap(), c["price"].as_str().unwrap()))
                    .collect();
                assert_eq!(counted, row.counted, "{}", row.name);
                assert!(calls.iter().all(|call| call["certainty"].is_null()), "{}", row.name);
            }
        }
    }
}

#[test]
fn a_call_is_counted_whatever_its_answer_looks_like() {
    let call = |id: &str, tool: &str| {
        format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
    };
    let digits = "9".repeat(30);
    let calls = |tools: [&str; 2]| {
        format!("[{},{}]", call(&digits, tools[0]), call(&format!("{digits}1"), tools[1]))
    };
    let rows = [
        Row {
            answer: r#"[{"id":null,"error":{"code":-32600}},{"id":1,"result":{"content":[]}}]"#,
            counted: &[("analyze_x", "0.1")],
            ..row(
                "an error about another message before it",
                format!(r#"[{{"id":null,"method":"ping"}},{}]"#, call("1", "analyze_x")),
            )
        },
        Row {
            answer: r#"[{"id":0,"error":{"code":-32600}},{"id":1,"result":{"content":[]}}]"#,
            counted: &[("analyze_x", "0.1")],
            ..row(
                "an error about a response of the client before it",
                format!(r#"[{{"id":0,"result":{{}}}},{}]"#, call("1", "analyze_x")),
            )
        },
        Row {
            answer: r#"[{"id":1e30,"result":{"content":[]}},{"id":1e31,"result":{"content":[]}}]"#,
            counted: &[("lookup_x", "0.002"), ("lookup_x", "0.002")],
            ..row("ids that the server changed", calls(["lookup_x", "lookup_x"]))
        },
        Row {
            answer: r#"[{"id":1e30,"result":{"content":[]}},{"id":1e31,"result":{"content":[]}}]"#,
            counted: &[("__unnamed__", "0.1"), ("__unnamed__", "0.1")],
            ..row("ids that the server changed, of two tools", calls(["lookup_x", "analyze_x"]))
        },
    ];
    for row in rows {
        let calls = send(&config(&json!({})), &row, 1).unwrap();
        let paid = calls.iter().filter(|call| call["execution_status"] == "SUCCESS");
        let counted: Vec<(&str, &str)> = paid
            .map(|call| (call["tool_name"].as_str().unwrap(), call["price"].as_str().unwrap()))
            .collect();
        assert_eq!(counted, row.counted, "{}", row.name);
    }
}

// K10, 84: what stands behind the part that is held may be another call, or the name of the tool.
#[test]
fn a_message_that_is_longer_than_what_is_held_is_refused_where_the_tool_decides() {
    let pad = "x".repeat(700_000);
    let calls = format!(
        r#"[{{"id":1,"method":"tools/call","params":{{"name":"lookup_x"}}}},{{"id":2,"method":"tools/call","params":{{"arguments":{{"p":"{pad}"}},"name":"analyze_x"}}}}]"#
    );
    let padded = format!(
        r#"{{"id":1,"method":"tools/call","params":{{"arguments":{{"p":"{pad}"}},"name":"lookup_x"}}}}"#
    );
    let plan = json!({ "contracts": { "plans": { "all": { "tools": ["lookup_*"] } },
        "default_plan": "all" } });
    let by = |more: Value| {
        let mut guard = json!({ "id": "spend", "budget": { "provider_cost": "5" },
            "actions": { "level_3": { "threshold": "0%", "action": "block_request" } } });
        for (name, value) in more.as_object().unwrap() {
            guard[name] = value.clone();
        }
        json!({ "guards": [guard] })
    };
    let by_tool = by(json!({ "scope": "tool" }));
    let reserving = by(json!({ "reserve": { "estimate": "0.1" } }));
    let by_customer = by(json!({}));
    for (name, more, body, status) in [
        ("a plan, a batch", &plan, &calls, 413),
        ("a plan, a padded call", &plan, &padded, 413),
        ("a guard by tool, a batch", &by_tool, &calls, 413),
        ("a guard by tool, a padded call", &by_tool, &padded, 413),
        ("a guard that reserves", &reserving, &padded, 413),
        ("a guard at ease that the head decides", &by_customer, &padded, 200),
    ] {
        let row = Row { answer: "", ..row(name, body.as_bytes()) };
        let became = send(&config(more), &row, 10);
        assert_eq!(became.err().map_or(200, |(status, _)| status), status, "{name}");
    }
}

// K8, 96: the client chooses the coding, and often the text.
#[test]
fn a_whole_response_that_cannot_be_decoded_is_a_result() {
    let blanks = gzip(" ".repeat(3_000_000).as_bytes());
    for (name, status, coding, body, end, expected) in [
        ("br", "200", "br", &b"\x8B"[..], StreamEnd::Complete, "SUCCESS"),
        ("blanks", "200", "gzip", blanks.as_slice(), StreamEnd::Complete, "SUCCESS"),
        ("no gzip", "200", "gzip", RESULT.as_bytes(), StreamEnd::Complete, "SUCCESS"),
        ("br that is cut", "200", "br", b"\x8B", StreamEnd::Aborted, "UNKNOWN"),
        ("an error in br", "500", "br", b"\x8B", StreamEnd::Complete, "ERROR"),
    ] {
        let mut envoy = Envoy::new(&config(&json!({})));
        let stream = envoy.start("s", "analyze_x");
        let Envoy { host, worker, now, .. } = &mut envoy;
        let head = [
            (":status", status),
            ("content-type", "application/json"),
            ("content-encoding", coding),
        ];
        let head = head.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()));
        let _ = worker.response_head(stream, Headers(&head));
        worker.response_body(host, stream, body, true, *now);
        worker.stream_end(host, stream, end, *now);
        let call = calls_of(&mut envoy).pop();
        // A cut call may still be answered on another stream.
        let Some(call) = call else {
            assert_eq!(expected, "UNKNOWN", "{name}");
            continue;
        };
        assert_eq!(call["execution_status"], expected, "{name}");
        let certainty = if expected == "SUCCESS" { json!("inferred") } else { Value::Null };
        assert_eq!(call["certainty"], certainty, "{name}");
        assert_eq!(call["tool_name"], "analyze_x", "{name}");
    }
}

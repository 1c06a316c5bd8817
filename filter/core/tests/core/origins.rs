//! Answers that find their calls, and no others: the wire cases from 137 on, which people who put
//! proxies between MCP clients and servers reported. `tests/README.md` lists them.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

use crate::exchange::{self, CALL as ONE_CALL, EVENTS, PLAIN, Row};
use crate::host::Envoy;
use crate::joins::{
    Body, CALL, CONFIG, ConcatSteps, Cut, Done, GET, Head, JSON, OK, OLD_GET, OLD_POST, POST,
    Request, S, SSE, Step, Wait, check, whole,
};
use crate::support::test;

type Pairs = &'static [(&'static str, &'static str)];

/// The text of a tool's result, as an event.
const GOOD: &str =
    "data: {\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"good\"}]}}\n\n";
const LATE: &str =
    "data: {\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"late\"}]}}\n\n";
const SECOND: &str = r#"{"id":1,"method":"tools/call","params":{"name":"good"}}"#;

/// A call whose stream is cut before its answer.
fn lost() -> [Step; 3] {
    [Request(1, "/mcp", POST, CALL), Head(1, "200", SSE), Cut(1)]
}

fn get(stream: u32, headers: Pairs, events: &'static str) -> [Step; 4] {
    [
        Request(stream, "/mcp", headers, ""),
        Head(stream, "200", SSE),
        Body(stream, events),
        Cut(stream),
    ]
}

#[test]
fn f1_whatever_2xx_answers_nothing_accepts_the_call() {
    for (name, status, media, text) in [
        ("137: 200 without a body", "200", "text/plain", ""),
        ("138: 204", "204", "", ""),
        ("139: 200 and a text", "200", "text/plain", "Accepted"),
        ("140: 200 and JSON that is no message", "200", JSON, r#"{"status":"ok"}"#),
        ("141: 201 and an empty object", "201", JSON, "{}"),
        ("142: 202 and an error that is no JSON-RPC", "202", JSON, r#"{"error":""}"#),
        ("143: 200 and null for an error", "200", JSON, r#"{"error":null,"ok":true}"#),
    ] {
        let stream = || {
            [
                Request(9, "/mcp/sse", OLD_GET, ""),
                Head(9, "200", SSE),
                Body(9, "event: endpoint\ndata: /mcp?sid=1\n\n"),
            ]
        };
        let sent = |path| {
            [Request(1, path, OLD_POST, CALL), Head(1, status, media), Body(1, text), Done(1)]
        };
        let after = [&stream()[..], &sent("/mcp?sid=1"), &[Wait(1), Body(9, GOOD), Cut(9)]];
        check(name, &after.concat_steps(), &[("a", "SUCCESS")]);
        // Java's server writes the answer before it answers the request.
        let before = [
            &stream()[..],
            &[Request(1, "/mcp?sid=1", OLD_POST, CALL), Body(9, GOOD), Wait(1)],
            &[Head(1, status, media), Body(1, text), Done(1), Cut(9)],
        ];
        check(name, &before.concat_steps(), &[("a", "SUCCESS")]);
        // In a session of Streamable HTTP, on its standing stream.
        let posted =
            [Request(1, "/mcp", POST, CALL), Head(1, status, media), Body(1, text), Done(1)];
        let elsewhere = [&posted[..], &get(2, GET, GOOD)].concat_steps();
        check(name, &elsewhere, &[("a", "SUCCESS")]);
    }
    for status in ["400", "401", "500"] {
        let steps = [&whole(1, POST, CALL, status, "text/plain", "no")[..], &get(2, GET, GOOD)];
        let want = match status {
            "400" => "VALIDATION_FAILED",
            "401" => "BLOCKED",
            _ => "ERROR",
        };
        check("an error is an answer", &steps.concat_steps(), &[("a", want)]);
    }
}

#[test]
fn f2_what_is_null_is_absent() {
    let rows = [
        ("144: an error", r#"{"id":1,"result":{"content":[]},"error":null}"#, "SUCCESS"),
        ("145: an error before it", r#"{"error":null,"id":1,"result":{}}"#, "SUCCESS"),
        ("146: a method", r#"{"id":1,"method":null,"result":{"content":[]}}"#, "SUCCESS"),
        ("147: a result beside an error", r#"{"id":1,"result":null,"error":{"code":-1}}"#, "ERROR"),
        ("148: a result alone", r#"{"id":1,"result":null}"#, "SUCCESS"),
        ("149: a flag", r#"{"id":1,"result":{"content":[],"isError":null}}"#, "SUCCESS"),
        ("150: a kind", r#"{"id":1,"result":{"resultType":null}}"#, "SUCCESS"),
        ("151: a task", r#"{"id":1,"result":{"task":null}}"#, "SUCCESS"),
        (
            "152: params and an error",
            r#"{"id":1,"params":null,"error":null,"result":{}}"#,
            "SUCCESS",
        ),
        (
            "an error that is given up for null",
            r#"{"id":1,"error":{},"error":null,"result":{}}"#,
            "SUCCESS",
        ),
    ];
    for (name, response, outcome) in rows {
        let calls: &'static [_] = Box::leak(Box::new([("echo", outcome)]));
        exchange::check(&Row { name, response, calls, ..PLAIN });
        let response = Box::leak(format!("data: {response}\n\n").into_boxed_str());
        exchange::check(&Row { name, response, calls, response_headers: EVENTS, ..PLAIN });
    }
    let open = &[("echo", "open UNKNOWN")];
    for response in [r#"{"id":1,"error":null}"#, r#"{"id":1,"method":null}"#] {
        exchange::check(&Row { name: "153: no answer", response, calls: open, ..PLAIN });
    }
}

#[test]
fn f4_only_an_answer_that_nothing_has_used_ends_a_waiting_call() {
    let good = || whole(3, POST, SECOND, "200", SSE, GOOD);
    check(
        "154: what was answered on its own stream and is repeated",
        &[&lost()[..], &good(), &get(2, GET, GOOD)].concat_steps(),
        &[("a", "UNKNOWN"), ("good", "SUCCESS")],
    );
    check(
        "155: it is repeated before the call's own stream is cut",
        &[&lost()[..2], &good(), &get(2, GET, GOOD), &[Wait(2), Cut(1)]].concat_steps(),
        &[("a", "UNKNOWN"), ("good", "SUCCESS")],
    );
    check(
        "156: the late answer after it",
        &[&lost()[..], &good(), &get(2, GET, GOOD), &get(4, GET, LATE)].concat_steps(),
        &[("a", "SUCCESS"), ("good", "SUCCESS")],
    );
    check(
        "157: the late answer before it",
        &[&lost()[..], &get(4, GET, LATE), &good(), &get(2, GET, GOOD), &get(5, GET, LATE)]
            .concat_steps(),
        &[("a", "SUCCESS"), ("good", "SUCCESS")],
    );
    check(
        "158: the same answer on two streams",
        &[&lost()[..], &lost_again(), &get(2, GET, GOOD), &get(4, GET, GOOD)].concat_steps(),
        &[("a", "SUCCESS"), ("a", "UNKNOWN")],
    );
    check(
        "159: the result of another method",
        &[&lost()[..], &get(2, GET, "data: {\"id\":1,\"result\":{\"tools\":[]}}\n\n")]
            .concat_steps(),
        &[("a", "UNKNOWN")],
    );
    check(
        "160: a ping that was answered on its own stream, repeated",
        &[
            &lost()[..],
            &whole(3, POST, r#"{"id":1,"method":"ping"}"#, "200", SSE, OK),
            &get(2, GET, OK),
        ]
        .concat_steps(),
        &[("a", "UNKNOWN")],
    );
}

fn lost_again() -> [Step; 3] {
    [Request(7, "/mcp", POST, CALL), Head(7, "200", SSE), Cut(7)]
}

#[test]
fn f4_clients_at_one_fixed_endpoint_keep_their_own_answers() {
    const LIST: &str = r#"{"id":1,"method":"tools/list"}"#;
    let stream = |number| {
        [
            Request(number, "/mcp/sse", OLD_GET, ""),
            Head(number, "200", SSE),
            Body(number, "event: endpoint\ndata: /mcp/messages\n\n"),
        ]
    };
    let sent = |number, body| {
        [
            Request(number, "/mcp/messages", OLD_POST, body),
            Head(number, "202", "text/plain"),
            Body(number, "Accepted"),
            Done(number),
        ]
    };
    for (name, answer) in [
        ("161: a list", "data: {\"id\":1,\"result\":{\"tools\":[]}}\n\n"),
        ("162: an error", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601}}\n\n"),
        ("163: an empty result", OK),
    ] {
        let steps = [
            &stream(8)[..],
            &stream(9),
            &sent(1, CALL),
            &sent(2, LIST),
            &[Body(8, answer), Wait(1), Body(9, GOOD), Wait(1), Cut(8), Cut(9)],
        ];
        check(name, &steps.concat_steps(), &[("a", "SUCCESS")]);
    }
}

#[test]
fn f5_streams_without_a_session_are_resumed_by_their_events() {
    let cut = |number, path, body, event| {
        [
            Request(number, path, OLD_POST, body),
            Head(number, "200", SSE),
            Body(number, event),
            Cut(number),
        ]
    };
    const RESUME: Pairs = &[(":method", "GET"), ("last-event-id", "e1")];
    const OTHER: Pairs = &[(":method", "GET"), ("last-event-id", "e2")];
    let one = || cut(1, "/mcp", CALL, "id: e1\ndata:\n\n");
    let two = || cut(2, "/mcp", SECOND, "id: e2\ndata:\n\n");
    check(
        "164: resumed after its first event",
        &[&one()[..], &get(3, RESUME, GOOD)].concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "165: two clients, one id: each finds its own",
        &[&one()[..], &two(), &get(3, OTHER, GOOD)].concat_steps(),
        &[("a", "UNKNOWN"), ("good", "SUCCESS")],
    );
    check(
        "166: after an event that was not the last",
        &[
            &cut(1, "/mcp", CALL, "id: e1\ndata:\n\nid: e9\ndata: {}\n\n")[..],
            &get(3, RESUME, GOOD),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "167: accepted, then a stream without a session",
        &[&whole(1, OLD_POST, CALL, "202", "", "")[..], &get(3, OLD_GET, GOOD)].concat_steps(),
        &[("a", "SUCCESS")],
    );
}

#[test]
fn f6_endpoints_are_resolved_as_clients_resolve_them() {
    for (name, endpoint, path) in [
        ("168: a query", "?sid=1", "/mcp/sse?sid=1"),
        ("169: a dot", "./messages?sid=1", "/mcp/messages?sid=1"),
        ("170: a fragment", "/mcp/messages?sid=1#x", "/mcp/messages?sid=1"),
        ("171: two dots", "../mcp/messages?sid=1", "/mcp/messages?sid=1"),
        ("172: a host", "//other:1/mcp/m?sid=1", "/mcp/m?sid=1"),
        ("173: an escape", "/mcp/m%65ssages?s%69d=1", "/mcp/messages?sid=1"),
        ("174: the same folder", "messages?sid=1", "/mcp/messages?sid=1"),
        ("175: an absolute one", "http://other/mcp/m", "/mcp/m"),
    ] {
        let event = Box::leak(format!("event: endpoint\ndata: {endpoint}\n\n").into_boxed_str());
        let steps = [
            Request(9, "/mcp/sse", OLD_GET, ""),
            Head(9, "200", SSE),
            Body(9, event),
            Request(1, path, OLD_POST, CALL),
            Head(1, "202", ""),
            Done(1),
            Body(9, GOOD),
            Cut(9),
        ];
        check(name, &steps, &[("a", "SUCCESS")]);
    }
}

/// The reasons for which sessions closed, and how many calls each had.
fn closed(steps: &[(u32, Pairs, &str, &str, &str)]) -> Vec<(String, u64)> {
    let mut envoy = Envoy::new(CONFIG);
    let mut seen = Vec::new();
    for (stream, head, body, status, answer) in steps {
        let head: Vec<(String, Vec<u8>)> = [&[(":path", "/mcp")], *head]
            .concat()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let Envoy { worker, host, now, .. } = &mut envoy;
        let _ = worker.request_head(host, *stream, Headers(&head), *now);
        worker.request_body(host, *stream, body.as_bytes(), true, *now);
        let head = [(":status", *status), ("content-type", "application/json")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let _ = worker.response_head(*stream, Headers(&head));
        worker.response_body(host, *stream, answer.as_bytes(), true, *now);
        worker.stream_end(host, *stream, StreamEnd::Complete, *now);
        seen.extend(envoy.deliver(2000));
    }
    seen.extend(envoy.deliver(600_000));
    let closed = seen.iter().map(|event| &event["data"]);
    closed
        .filter(|data| data["event_type"] == "session_closed")
        .map(|data: &Value| {
            let reason = data["close_reason"].as_str().unwrap().to_owned();
            (reason, data["total_tool_calls"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn f7_a_404_is_read_with_its_request() {
    const RESULT: &str = r#"{"id":1,"result":{"content":[]}}"#;
    let call = |stream| (stream, POST, CALL, "200", RESULT);
    let get: Pairs = &[(":method", "GET"), S];
    let rows: &[(&str, Pairs, &str, &str)] = &[
        ("176: a GET", get, "", "Cannot GET /mcp"),
        (
            "177: a method that the server does not know",
            POST,
            r#"{"id":5,"method":"prompts/list"}"#,
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"Method not found"}}"#,
        ),
        (
            "178: an unknown tool",
            POST,
            r#"{"id":5,"method":"resources/read"}"#,
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"Unknown tool"}}"#,
        ),
        (
            "179: a POST, but the session goes on",
            POST,
            r#"{"id":5,"method":"ping"}"#,
            "default backend - 404",
        ),
    ];
    for (name, head, body, answer) in rows {
        let steps = [call(1), (2, *head, *body, "404", *answer), call(3), call(4)];
        let found = closed(&steps);
        assert_eq!(found, [("session_timeout".to_owned(), 3)], "{name}");
    }
    let gone =
        r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#;
    let steps = [call(1), (2, POST, CALL, "404", gone)];
    assert_eq!(closed(&steps), [("session_gone".to_owned(), 2)], "180: the session is gone");
}

#[test]
fn f8_a_redirected_call_counts_with_the_request_that_follows() {
    for (name, status) in [
        ("181: 307", "307"),
        ("182: 308", "308"),
        ("183: 301", "301"),
        ("184: 302", "302"),
        ("185: 303", "303"),
    ] {
        let steps = [
            &whole(1, POST, CALL, status, "text/html", "moved")[..],
            &whole(2, POST, CALL, "200", SSE, GOOD),
        ];
        check(name, &steps.concat_steps(), &[("a", "SUCCESS")]);
    }
    let row = Row {
        name: "186: nobody follows",
        response_headers: &[(":status", "307"), ("location", "/mcp/")],
        response: "",
        calls: &[],
        ..PLAIN
    };
    exchange::check(&row);
    let seen = exchange::play(&row, &[ONE_CALL.as_bytes()], &[]).unwrap();
    assert!(seen.counts.contains(&Counter::CallsRedirected));
}

#[test]
fn f11_what_gateways_answer_is_read_by_its_status() {
    const OAUTH: &str = r#"{"error":"invalid_token","error_description":"expired"}"#;
    const NEST: &str = r#"{"statusCode":401,"message":"no","error":"Unauthorized"}"#;
    const GOOGLE: &str = r#"{"error":{"code":401,"message":"no","status":"UNAUTHENTICATED"}}"#;
    const SERVER: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no"},"id":null}"#;
    const NAMED: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no"},"id":1}"#;
    const OWN: &str = r#"{"jsonrpc":"2.0","error":{"code":401,"message":"no"},"id":1}"#;
    const GONE: &str = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"no"},"id":null}"#;
    let by_status = [
        ("401", "BLOCKED"),
        ("403", "BLOCKED"),
        ("429", "BLOCKED"),
        ("408", "TIMEOUT"),
        ("504", "TIMEOUT"),
        ("400", "VALIDATION_FAILED"),
        ("422", "VALIDATION_FAILED"),
        ("404", "ERROR"),
        ("500", "ERROR"),
        ("503", "ERROR"),
    ];
    let check = |status: &'static str, response: &'static str, outcome: &'static str| {
        let head = [(":status", status), ("content-type", "application/json")];
        exchange::check(&Row {
            name: "187, 188, 189, 190, 191, 192, 193, 194, 195, 196: what gateways answer",
            response_headers: Box::leak(Box::new(head)),
            response,
            calls: Box::leak(Box::new([("echo", outcome)])),
            ..PLAIN
        });
    };
    for (status, outcome) in by_status {
        for response in [OAUTH, NEST, GOOGLE, SERVER, NAMED, OWN, GONE, "no", "", "{}"] {
            check(status, response, outcome);
        }
    }
    for (status, code, outcome) in [
        ("400", "-32602", "VALIDATION_FAILED"),
        ("500", "-32602", "VALIDATION_FAILED"),
        ("403", "-32603", "ERROR"),
        ("400", "-32700", "ERROR"),
        ("400", "-32020", "ERROR"),
        ("200", "-32001", "TIMEOUT"),
        ("200", "-32000", "ERROR"),
        ("200", "\"-32602\"", "ERROR"),
        ("500", "-32800", "CANCELLED"),
    ] {
        let response = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code}}}}}"#);
        check(status, Box::leak(response.into_boxed_str()), outcome);
    }
    check("200", r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, "ERROR");
}

#[test]
fn f12_ids_are_told_apart_to_their_end() {
    let id = |end: &str| format!("{}{end}", "i".repeat(300));
    let (one, two) = (id("1"), id("2"));
    let call = |id: &str, tool: &str| {
        format!(r#"{{"id":"{id}","method":"tools/call","params":{{"name":"{tool}"}}}}"#)
    };
    let request = format!("[{},{}]", call(&one, "a"), call(&two, "b"));
    let response = format!(
        r#"[{{"id":"{two}","result":{{"content":[]}}}},{{"id":"{one}","result":{{"isError":true}}}}]"#
    );
    exchange::check(&Row {
        name: "197: two ids that differ at the end, answered in the other order",
        request: Box::leak(request.into_boxed_str()),
        response: Box::leak(response.into_boxed_str()),
        calls: &[("b", "SUCCESS"), ("a", "ERROR")],
        ..PLAIN
    });
    for name in ["n".repeat(140), "\u{e9}".repeat(100)] {
        let name: &'static str = Box::leak(name.into_boxed_str());
        exchange::check(&Row {
            name: "198: a long name is whole",
            request: Box::leak(call("x", name).into_boxed_str()),
            response: r#"{"id":"x","result":{"content":[]}}"#,
            calls: Box::leak(Box::new([(name, "SUCCESS")])),
            ..PLAIN
        });
    }
}

#[test]
fn the_answer_to_another_method_waits_for_the_end_of_its_request_s_own_stream() {
    const LIST: &str = r#"{"id":1,"method":"tools/list"}"#;
    const LISTED: &str = "data: {\"id\":1,\"result\":{\"tools\":[]}}\n\n";
    let mut envoy = Envoy::new(CONFIG);
    let head = |method: &str| {
        let method = (":method".to_owned(), method.as_bytes().to_vec());
        vec![method, (":path".to_owned(), b"/mcp".to_vec())]
    };
    let reply = |status: &str| {
        let media = ("content-type".to_owned(), b"text/event-stream".to_vec());
        vec![(":status".to_owned(), status.as_bytes().to_vec()), media]
    };
    let now = envoy.now;
    let Envoy { worker, host, .. } = &mut envoy;
    for (stream, method, body) in [(1, "GET", ""), (2, "POST", LIST)] {
        let _ = worker.request_head(host, stream, Headers(&head(method)), now);
        worker.request_body(host, stream, body.as_bytes(), true, now);
    }
    let _ = worker.response_head(1, Headers(&reply("200")));
    worker.response_body(host, 1, LISTED.as_bytes(), false, now);
    envoy.deliver(1000);
    let now = envoy.now;
    let Envoy { worker, host, .. } = &mut envoy;
    let _ = worker.response_head(2, Headers(&reply("202")));
    worker.stream_end(host, 2, StreamEnd::Complete, now);
    envoy.deliver(200_000);
    assert_eq!(envoy.host.counters.get(&Counter::EvidenceUnused).copied().unwrap_or(0), 0);
}

//! The wire cases of `tests/README.md` that the other tables do not hold, by number. Cases of one stream are cut at
//! every byte; cases of several streams are lists of steps.

use std::io::Write;

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::domain::session::SessionEnd;
use agent_meter_core::exchange::Exchange;
use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::fact::Fact;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::{Headers, ResponseHead};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::exchange::{self, CALL, CONFIG, EVENTS, JSON, PLAIN, POST, Row, calls, headers, play};
use crate::host::Envoy;
use crate::joins::{self, Body, ConcatSteps, Cut, Done, GET, Head, MODERN, Request, Wait, whole};
use crate::support::{cuts, start_exchange, test};

type Pairs = &'static [(&'static str, &'static str)];

const BATCH: &str = r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#;
const STATELESS: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
const MODERN_CALL: Pairs = &[
    (":method", "POST"),
    (":path", "/mcp"),
    STATELESS,
    ("mcp-method", "tools/call"),
    ("mcp-name", "echo"),
    ("accept", "application/json, text/event-stream"),
];
const TEXT_401: Pairs = &[(":status", "401"), ("content-type", "text/plain")];
const JSON_400: Pairs = &[(":status", "400"), ("content-type", "application/json")];
const JSON_404: Pairs = &[(":status", "404"), ("content-type", "application/json")];

fn check_all(rows: &[Row]) {
    for row in rows {
        exchange::check(row);
    }
}

#[test]
fn streamable_http() {
    let refused = |name, response_headers, outcome| Row {
        name,
        response_headers,
        response: "no",
        calls: outcome,
        ..PLAIN
    };
    let nothing = |name, request, response| Row { name, request, response, calls: &[], ..PLAIN };
    check_all(&[
        Row {
            name: "11: an unknown tool that the server reports as isError",
            response: r#"{"result":{"content":[{"type":"text","text":"Unknown tool: echo"}],"isError":true},"jsonrpc":"2.0","id":1}"#,
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "13: HTTP 404 with a text for an id",
            response_headers: JSON_404,
            response: r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}"#,
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "14: HTTP 400 for an unknown session",
            response_headers: JSON_400,
            response: r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        refused("15: HTTP 401", TEXT_401, &[("echo", "BLOCKED")]),
        refused("18: HTTP 415", &[(":status", "415")], &[("echo", "ERROR")]),
        refused("18: HTTP 406", &[(":status", "406")], &[("echo", "ERROR")]),
        refused("18: HTTP 429", &[(":status", "429")], &[("echo", "BLOCKED")]),
        refused("18: HTTP 503", &[(":status", "503")], &[("echo", "ERROR")]),
        nothing("21: ping", r#"{"id":1,"method":"ping"}"#, r#"{"id":1,"result":{}}"#),
        nothing(
            "21: prompts/get",
            r#"{"id":1,"method":"prompts/get","params":{"name":"echo"}}"#,
            r#"{"id":1,"result":{"messages":[]}}"#,
        ),
        nothing(
            "21: resources/read",
            r#"{"id":1,"method":"resources/read","params":{"uri":"x:y"}}"#,
            r#"{"id":1,"result":{"contents":[]}}"#,
        ),
        nothing("21: a notification", r#"{"method":"notifications/initialized"}"#, ""),
        nothing("21: an answer of the client", r#"{"id":1,"result":{"content":[]}}"#, ""),
        Row { name: "23: no session and no initialize", ..PLAIN },
        Row {
            name: "30: an integer of 30 digits",
            request: r#"{"id":123456789012345678901234567890,"method":"tools/call","params":{"name":"echo"}}"#,
            response_headers: EVENTS,
            response: "data: {\"id\":123456789012345678901234567891,\"result\":{\"isError\":true}}\n\ndata: {\"id\":123456789012345678901234567890,\"result\":{}}\n\n",
            ..PLAIN
        },
        Row {
            name: "32: neither result nor error under HTTP 404",
            response_headers: JSON_404,
            response: r#"{"jsonrpc":"2.0","id":1}"#,
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "124: the server overlooks the wish for a task",
            request: r#"{"id":1,"method":"tools/call","params":{"name":"echo","task":{"ttl":60000}}}"#,
            ..PLAIN
        },
    ]);
}

#[test]
fn batches() {
    check_all(&[
        Row {
            name: "37: a notification between two calls",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"method":"notifications/x"},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#,
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"result\":{}}\n\ndata: {\"id\":2,\"result\":{}}\n\n",
            calls: &[("a", "SUCCESS"), ("b", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "38: answered by an array",
            request: BATCH,
            response: r#"[{"id":1,"result":{}},{"id":2,"result":{}}]"#,
            calls: &[("a", "SUCCESS"), ("b", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "38: answered by an array in another order",
            request: BATCH,
            response: r#"[{"result":{},"id":2},{"result":{},"id":1}]"#,
            calls: &[("b", "SUCCESS"), ("a", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "40: one isError and one not",
            request: BATCH,
            response: r#"[{"id":1,"result":{"isError":true}},{"id":2,"result":{}}]"#,
            calls: &[("a", "ERROR"), ("b", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "114: a batch of 2026-07-28 is refused",
            request_headers: exchange::MODERN,
            request: BATCH,
            response_headers: JSON_400,
            response: r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"Batches are not supported"}}"#,
            calls: &[("a", "ERROR"), ("b", "ERROR")],
            ..PLAIN
        },
    ]);
}

#[test]
fn event_streams() {
    let events = |name, response| Row { name, response_headers: EVENTS, response, ..PLAIN };
    check_all(&[
        events(
            "61: lines that end in CRLF",
            "event: message\r\ndata: {\"id\":1,\"result\":{}}\r\n\r\n",
        ),
        events("62: lines that end in CR", "data: {\"id\":1,\"result\":{}}\r\rdata: {}\r\r"),
        events("63: a byte order mark", "\u{FEFF}data: {\"id\":1,\"result\":{}}\n\n"),
        events("64: no space behind the colon", "data:{\"id\":1,\"result\":{}}\n\n"),
        events(
            "65: JSON over many lines",
            "data: {\ndata:   \"id\": 1,\ndata:   \"result\": {\ndata:   }\ndata: }\n\n",
        ),
        events(
            "66: signs of several bytes, cut anywhere",
            "data: {\"result\":{\"content\":[{\"text\":\"\u{E9}\u{20AC}\u{1F600}\"}]},\"id\":1}\r\n\r\n",
        ),
        events(
            "67: comments between and inside events",
            ": ping\n\n: ping\ndata: {\"id\":1,\n: ping\ndata: \"result\":{}}\n: ping\n\n: ping\n\n",
        ),
        events("68: no event field", "data: \nretry: 3000\n\ndata: {\"id\":1,\"result\":{}}\n\n"),
        events(
            "70: id and retry behind the data",
            "data: {\"id\":1,\"result\":{}}\nid: 7\nretry: 10\n\n",
        ),
    ]);
}

#[test]
fn request_bodies() {
    let body = |name, request| Row { name, request, ..PLAIN };
    check_all(&[
        body(
            "74: escapes in a value",
            r#"{"id":1,"method":"tools\/c\u0061ll","params":{"name":"echo"}}"#,
        ),
        body(
            "75: escapes in a key",
            r#"{"id":1,"\u006dethod":"tools/call","params":{"name":"echo"}}"#,
        ),
        body("76: the method last", r#"{"params":{"name":"echo"},"id":1,"method":"tools/call"}"#),
        Row {
            name: "77, 78: the last duplicate is a call, but of which tool is not certain",
            request: r#"{"id":1,"method":"tools/list","params":{"name":"a","name":"echo"},"method":"tools/call"}"#,
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "77: the last duplicate is no call, but the answer is one's",
            request: r#"{"id":1,"method":"tools/call","method":"tools/list","params":{"name":"a"}}"#,
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        body(
            "79: a byte order mark",
            "\u{FEFF}{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\"}}",
        ),
        body(
            "81: half a surrogate pair",
            r#"{"id":1,"method":"tools/call","params":{"arguments":{"a":"\ud800"},"name":"echo"}}"#,
        ),
        body(
            "82: NaN",
            r#"{"id":1,"method":"tools/call","params":{"arguments":{"a":NaN},"name":"echo"}}"#,
        ),
        Row {
            name: "84: a body in a coding that is not read is a call if it is answered as one",
            request: "\u{1f}\u{8b}\u{8}",
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "85: two texts in one body, refused",
            request: r#"{"id":1,"method":"tools/call","params":{"name":"echo"}}{"id":2,"method":"tools/call","params":{"name":"b"}}"#,
            response_headers: JSON_400,
            response: r#"{"jsonrpc":"2.0","error":{"code":-32700},"id":null}"#,
            calls: &[("__unnamed__", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "86: a server that takes another case for `method` answers with a tool result",
            request: r#"{"id":1,"Method":"tools/call","params":{"name":"echo"}}"#,
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row { name: "87: an empty body", request: "", response: "", calls: &[], ..PLAIN },
        Row {
            name: "87: invalid JSON",
            request: "{\"id\":1,,",
            response_headers: JSON_400,
            response: "",
            calls: &[],
            ..PLAIN
        },
    ]);
}

/// What is not in a coding that the scanner reads is counted, and so is what has no end.
#[test]
fn what_is_no_json_is_counted() {
    // 84, 87, 136: a body in gzip, in UTF-16, cut, and none.
    let utf_16 = CALL.bytes().flat_map(|byte| [byte, 0]).collect::<Vec<_>>();
    for (body, unparsed) in [
        (b"\x1F\x8B\x08".as_slice(), 1_usize),
        (utf_16.as_slice(), 1),
        (&CALL.as_bytes()[..30], 1),
        (b"", 0),
    ] {
        let seen = play(&PLAIN, &[body], &[PLAIN.response.as_bytes()]).unwrap();
        let count = seen.counts.iter().filter(|&&seen| seen == Counter::RequestUnparsed).count();
        // What is no JSON-RPC, but is answered with a tool result, is a call.
        let shown = String::from_utf8_lossy(body);
        assert_eq!((calls(&seen).len(), count), (unparsed, unparsed), "{shown}");
    }
}

/// 80: as deep as servers read, and deeper.
#[test]
fn depth_of_arguments() {
    for depth in [200, 20_000] {
        let arguments = ["[".repeat(depth), "]".repeat(depth)].concat();
        let body = format!(
            r#"{{"id":1,"method":"tools/call","params":{{"arguments":{arguments},"name":"echo"}}}}"#
        );
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(1000).collect();
        let seen = play(&PLAIN, &pieces, &[PLAIN.response.as_bytes()]).unwrap();
        assert_eq!(calls(&seen), [("echo", "SUCCESS".to_owned())], "{depth} levels");
    }
}

/// 88: the answer comes while the request is on its way.
#[test]
fn an_answer_before_the_end_of_the_request() {
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let start = || start_exchange(&config, Headers(&headers(POST))).unwrap();
    let told = |exchange: &mut Box<dyn Exchange>| {
        let _ = exchange.response_head(&ResponseHead::read(Headers(&headers(JSON))));
        exchange.response_body(PLAIN.response.as_bytes(), false, Timestamp(2));
    };
    // The message is complete, the request is not.
    let mut exchange = start();
    exchange.request_body(CALL.as_bytes(), Timestamp(1));
    told(&mut exchange);
    exchange.request_body(b"  \n", Timestamp(3));
    exchange.request_end(Timestamp(3));
    assert_eq!(
        calls(&exchange.end(StreamEnd::Complete, Timestamp(4))),
        [("echo", "SUCCESS".to_owned())]
    );
    // The message is not complete: the answer tells that there is a call, once, whether or not the rest comes.
    for rest in [&CALL.as_bytes()[40..], b""] {
        let mut exchange = start();
        exchange.request_body(&CALL.as_bytes()[..40], Timestamp(1));
        told(&mut exchange);
        exchange.request_body(rest, Timestamp(3));
        let seen = exchange.end(StreamEnd::Aborted, Timestamp(4));
        assert_eq!(calls(&seen), [("__unnamed__", "SUCCESS".to_owned())]);
    }
}

#[test]
fn stateless_revision() {
    let modern = Row { request_headers: MODERN_CALL, ..PLAIN };
    check_all(&[
        Row {
            name: "96: a call answered in JSON",
            response: r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[]}}"#,
            ..modern
        },
        Row {
            name: "97: a call answered by events",
            response_headers: EVENTS,
            response: "data: {\"method\":\"notifications/progress\",\"params\":{\"progressToken\":0}}\n\ndata: {\"id\":1,\"result\":{\"resultType\":\"complete\"}}\n\n",
            ..modern
        },
        Row {
            name: "98: a name in base64, and the tool from the body",
            request_headers: &[
                (":method", "POST"),
                (":path", "/mcp"),
                STATELESS,
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?w6ljaG8=?="),
            ],
            request: r#"{"id":1,"method":"tools/call","params":{"name":"écho"}}"#,
            calls: &[("écho", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "99: headers and body differ",
            response_headers: JSON_400,
            response: r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"HeaderMismatch"}}"#,
            calls: &[("echo", "ERROR")],
            ..modern
        },
        Row {
            name: "100: headers are missing",
            request_headers: exchange::MODERN,
            response_headers: JSON_400,
            response: "",
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        Row {
            name: "106: a leg with a requestState only",
            response: r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#,
            calls: &[("echo", "HITL_REQUIRED")],
            ..modern
        },
        Row {
            name: "108: a capability of the client is missing",
            response_headers: JSON_400,
            response: r#"{"id":1,"error":{"code":-32021}}"#,
            calls: &[("echo", "ERROR")],
            ..modern
        },
        Row {
            name: "109: no resultType",
            response: r#"{"id":1,"result":{"content":[]}}"#,
            ..modern
        },
        Row {
            name: "110: an unknown resultType",
            response: r#"{"id":1,"result":{"resultType":"surprise"}}"#,
            calls: &[("echo", "UNKNOWN")],
            ..modern
        },
        Row {
            name: "112: a subscription that ends with a result",
            request: r#"{"id":1,"method":"subscriptions/listen","params":{}}"#,
            response_headers: EVENTS,
            response: "data: {\"method\":\"notifications/subscriptions/acknowledged\"}\n\ndata: {\"id\":1,\"result\":{\"resultType\":\"complete\"}}\n\n",
            calls: &[],
            ..modern
        },
        Row {
            name: "115: an unknown method",
            request: r#"{"id":1,"method":"tools/run","params":{"name":"echo"}}"#,
            response_headers: JSON_404,
            response: r#"{"id":1,"error":{"code":-32601}}"#,
            calls: &[],
            ..modern
        },
        Row {
            name: "116: the header says tools/call, the body does not",
            request: r#"{"id":1,"method":"tools/list"}"#,
            response: r#"{"id":1,"result":{"tools":[]}}"#,
            calls: &[],
            ..modern
        },
    ]);
}

/// 36: what a response says of sessions changes nothing.
#[test]
fn session_ids_of_responses() {
    let session = |response_headers: Pairs| {
        let request_headers: Pairs =
            &[(":method", "POST"), (":path", "/mcp"), ("mcp-session-id", "s")];
        let row = Row { request_headers, response_headers, ..PLAIN };
        let seen = play(&row, &[CALL.as_bytes()], &[row.response.as_bytes()]).unwrap();
        match seen.facts.as_slice() {
            [Fact::Call(call)] => call.session.clone(),
            other => panic!("{other:?}"),
        }
    };
    let other: Pairs =
        &[(":status", "200"), ("content-type", "application/json"), ("mcp-session-id", "t")];
    assert_eq!(session(JSON), session(other));
}

/// 13, 14: a 404 ends the session, a 400 does not.
#[test]
fn sessions_that_are_gone() {
    for (status, want) in [("404", Some(SessionEnd::SessionGone)), ("400", None)] {
        let request_headers: Pairs =
            &[(":method", "POST"), (":path", "/mcp"), ("mcp-session-id", "s")];
        let response_headers: Pairs = Box::leak(Box::new([(":status", status)]));
        let row = Row { request_headers, response_headers, ..PLAIN };
        let seen = play(&row, &[CALL.as_bytes()], &[b"no"]).unwrap();
        let found = seen.facts.iter().find_map(|fact| match fact {
            Fact::SessionEnd { reason, .. } => Some(*reason),
            _ => None,
        });
        assert_eq!(found, want, "HTTP {status}");
    }
}

const SSE: &str = joins::SSE;
const IN_JSON: &str = joins::JSON;
const LEGACY: Pairs = joins::POST;
const CALL_A: &str = joins::CALL;
const OK_A: &str = joins::OK;
const JSON_OK: &str = r#"{"id":1,"result":{}}"#;

#[test]
fn requests_of_the_server_and_answers_of_the_client() {
    let open = || [Request(1, "/mcp", LEGACY, CALL_A), Head(1, "200", SSE)];
    let reply = |stream, body| whole(stream, LEGACY, body, "202", "", "");
    joins::check(
        "5: elicitation",
        &[
            &open()[..],
            &[Body(
                1,
                "data: {\"id\":\"e-1\",\"method\":\"elicitation/create\",\"params\":{}}\n\n",
            )],
            &reply(2, r#"{"jsonrpc":"2.0","id":"e-1","result":{"action":"accept"}}"#),
            &[Body(1, OK_A), Done(1)],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    joins::check(
        "6: sampling under the id of the call",
        &[
            &open()[..],
            &[Body(1, "data: {\"id\":1,\"method\":\"sampling/createMessage\",\"params\":{}}\n\n")],
            &reply(2, r#"{"jsonrpc":"2.0","id":1,"result":{"role":"assistant"}}"#),
            &[Wait(1), Body(1, "data: {\"id\":1,\"result\":{\"isError\":true}}\n\n"), Done(1)],
        ]
        .concat_steps(),
        &[("a", "ERROR")],
    );
    const SAMPLE: &str = "data: {\"id\":0,\"method\":\"sampling/createMessage\",\"params\":{\"messages\":[{\"content\":[{\"type\":\"tool_use\",\"name\":\"b\",\"method\":\"tools/call\"}]}],\"tools\":[{\"name\":\"b\"}]}}\n\n";
    const SAMPLED: &str = r#"{"id":0,"result":{"content":[{"type":"tool_use","name":"b","id":"x","method":"tools/call"}],"stopReason":"toolUse"}}"#;
    joins::check(
        "7: sampling with tools, three times",
        &[
            &open()[..],
            &[Body(1, SAMPLE)],
            &reply(2, SAMPLED),
            &[Body(1, SAMPLE)],
            &reply(3, SAMPLED),
            &[Body(1, SAMPLE)],
            &reply(4, SAMPLED),
            &[Body(1, OK_A), Done(1)],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
}

#[test]
fn calls_that_are_sent_again() {
    let again = whole(2, LEGACY, CALL_A, "200", IN_JSON, JSON_OK);
    for (name, status) in [
        ("15: with a token", "401"),
        ("16: with more scope", "403"),
        ("17: in a new session", "404"),
    ] {
        let outcome = if status == "404" { "ERROR" } else { "BLOCKED" };
        let first = whole(1, LEGACY, CALL_A, status, "text/plain", "no");
        let mut want = [("a", outcome), ("a", "SUCCESS")];
        want.sort();
        joins::check(name, &[&first[..], &again].concat_steps(), &want);
    }
    let modern = |stream, status, answer| whole(stream, MODERN, CALL_A, status, IN_JSON, answer);
    const ANOTHER: Pairs = &[(":method", "POST"), ("mcp-protocol-version", "2027-01-01")];
    joins::check(
        "101: at a version that the server knows",
        &[
            &whole(1, ANOTHER, CALL_A, "400", IN_JSON, r#"{"id":1,"error":{"code":-32022}}"#)[..],
            &modern(2, "200", JSON_OK),
        ]
        .concat_steps(),
        &[("a", "ERROR"), ("a", "SUCCESS")],
    );
    joins::check(
        "102: to a server that wants to be initialized",
        &[
            &modern(1, "400", r#"{"error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#)[..],
            &whole(2, &[(":method", "POST")], r#"{"id":0,"method":"initialize"}"#, "200", SSE, "data: {\"id\":0,\"result\":{}}\n\n"),
            &whole(3, LEGACY, r#"{"method":"notifications/initialized"}"#, "202", "", ""),
            &whole(4, LEGACY, CALL_A, "200", SSE, OK_A),
        ]
        .concat_steps(),
        &[("a", "SUCCESS"), ("a", "VALIDATION_FAILED")],
    );
    joins::check(
        "117: after an address was visited",
        &[
            &whole(
                1,
                LEGACY,
                CALL_A,
                "200",
                IN_JSON,
                r#"{"id":1,"error":{"code":-32042,"data":{"elicitations":[]}}}"#,
            )[..],
            &whole(
                2,
                LEGACY,
                r#"{"id":2,"method":"tools/call","params":{"name":"a"}}"#,
                "200",
                IN_JSON,
                r#"{"id":2,"result":{}}"#,
            ),
        ]
        .concat_steps(),
        &[("a", "HITL_REQUIRED"), ("a", "SUCCESS")],
    );
}

#[test]
fn clients_that_use_the_same_ids() {
    const ONE: Pairs = &[(":method", "POST"), ("x-customer-id", "one")];
    const TWO: Pairs = &[(":method", "POST"), ("x-customer-id", "two")];
    const CALL_B: &str = r#"{"id":1,"method":"tools/call","params":{"name":"b"}}"#;
    for (name, other) in [("24: of two customers", TWO), ("24: of one customer", ONE)] {
        joins::check(
            name,
            &[
                Request(1, "/mcp", ONE, CALL_A),
                Request(2, "/mcp", other, CALL_B),
                Head(2, "200", SSE),
                Head(1, "200", IN_JSON),
                Body(1, JSON_OK),
                Body(2, "data: {\"id\":1,\"result\":{\"isError\":true}}\n\n"),
                Done(2),
                Done(1),
            ],
            &[("a", "SUCCESS"), ("b", "ERROR")],
        );
    }
    joins::check(
        "25: one after the other in one session",
        &[
            &whole(1, LEGACY, CALL_A, "200", SSE, OK_A)[..],
            &whole(2, LEGACY, CALL_B, "200", SSE, OK_A),
        ]
        .concat_steps(),
        &[("a", "SUCCESS"), ("b", "SUCCESS")],
    );
}

#[test]
fn a_message_that_is_accepted_and_then_refused() {
    joins::check(
        "95: a parse error on the event stream",
        &[
            &[
                Request(1, "/mcp/sse", joins::OLD_GET, ""),
                Head(1, "200", SSE),
                Body(1, "event: endpoint\ndata: /mcp/message?sessionId=x\n\n"),
                Request(2, "/mcp/message?sessionId=x", joins::OLD_POST, CALL_A),
                Head(2, "202", "text/plain"),
                Done(2),
            ][..],
            &[
                Body(1, "event: message\ndata: {\"error\":{\"code\":-32700},\"id\":null}\n\n"),
                Wait(1),
                Cut(1),
            ],
        ]
        .concat_steps(),
        &[("a", "UNKNOWN")],
    );
}

#[test]
fn input_and_tasks() {
    const INPUT: &str = r#"{"id":1,"result":{"resultType":"input_required","requestState":"s","inputRequests":{}}}"#;
    const ROUND: &str = r#"{"id":1,"method":"tools/call","params":{"name":"a","requestState":"s","inputResponses":{}}}"#;
    let first = || whole(1, MODERN, CALL_A, "200", IN_JSON, INPUT);
    let round = |stream, answer| whole(stream, MODERN, ROUND, "200", IN_JSON, answer);
    joins::check(
        "104: three rounds of input",
        &[&first()[..], &round(2, INPUT), &round(3, INPUT), &round(4, JSON_OK)].concat_steps(),
        &[("a", "HITL_REQUIRED"), ("a", "HITL_REQUIRED"), ("a", "HITL_REQUIRED"), ("a", "SUCCESS")],
    );
    const TASK: &str = r#"{"id":1,"result":{"resultType":"task","taskId":"t","status":"working"}}"#;
    const NAMED: Pairs = &[
        (":method", "POST"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tasks/get"),
        ("mcp-name", "t"),
    ];
    const ASK: &str = r#"{"id":2,"method":"tasks/get","params":{"taskId":"t"}}"#;
    const WORKING: &str =
        r#"{"id":2,"result":{"resultType":"complete","taskId":"t","status":"working"}}"#;
    const ENDED: &str = r#"{"id":2,"result":{"resultType":"complete","taskId":"t","status":"completed","result":{"isError":false}}}"#;
    let ask = |stream, answer| whole(stream, NAMED, ASK, "200", IN_JSON, answer);
    joins::check(
        "131: a task's id in Mcp-Name",
        &[&whole(1, MODERN, CALL_A, "200", IN_JSON, TASK)[..], &ask(2, WORKING), &ask(3, ENDED)]
            .concat_steps(),
        &[("a", "SUCCESS")],
    );
    joins::check(
        "132: input, then a task",
        &[&first()[..], &round(2, TASK), &ask(3, WORKING), &ask(4, ENDED), &ask(5, ENDED)]
            .concat_steps(),
        &[("a", "HITL_REQUIRED"), ("a", "SUCCESS")],
    );
}

/// 60: the VM that saw the call is gone; what comes afterwards belongs to nobody, and is counted.
#[test]
fn an_answer_whose_call_was_never_seen() {
    let mut envoy = Envoy::new(joins::CONFIG);
    let Envoy { worker, host, now, .. } = &mut envoy;
    let request = headers(&[&[(":path", "/mcp")], GET].concat());
    assert!(matches!(worker.request_head(host, 1, Headers(&request), *now), HeadAction::Follow(_)));
    worker.request_body(host, 1, &[], true, *now);
    assert_eq!(worker.response_head(1, Headers(&headers(EVENTS))), BodyInterest::Bytes);
    worker.response_body(host, 1, OK_A.as_bytes(), false, *now);
    worker.stream_end(host, 1, StreamEnd::Aborted, *now);
    assert!(envoy.deliver(180_000).is_empty());
    assert_eq!(envoy.host.counters.get(&Counter::EvidenceUnused), Some(&1));
}

/// 84: a body in a coding that is read.
#[test]
fn a_request_in_gzip() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(CALL.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let request_headers: Pairs =
        &[(":method", "POST"), (":path", "/mcp"), ("content-encoding", "gzip")];
    let row = Row { request_headers, ..PLAIN };
    for cut in cuts(&body) {
        let seen = play(&row, &cut, &[row.response.as_bytes()]).unwrap();
        assert_eq!(calls(&seen), [("echo", "SUCCESS".to_owned())], "in {} pieces", cut.len());
    }
}

#[test]
fn an_answer_long_before_the_end_of_the_stream_of_its_call() {
    joins::check(
        "51: the stream of the call ends 70 seconds later",
        &[
            &[Request(1, "/mcp", LEGACY, CALL_A), Head(1, "200", SSE)][..],
            &[Request(2, "/mcp", GET, ""), Head(2, "200", SSE), Body(2, OK_A), Wait(70), Cut(1)],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
}

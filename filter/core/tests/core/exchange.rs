//! HTTP streams, as bytes, to facts: every row is cut at every byte.

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::domain::session::SessionEnd;
use agent_meter_core::exchange::kind::{Observed, StreamEnd};
use agent_meter_core::fact::Fact;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::wire::http::{Headers, ResponseHead};

use crate::dice::Dice;
use crate::support::{cuts, start_exchange, test};

pub(crate) const CONFIG: &str = r#"{"products": [{
    "id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"},
    "identity": {"customer": {"trusted_header": "x-customer-id"}, "team": {"value": "blue"}}
}]}"#;

/// One HTTP stream, and what it should come to.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) request_headers: &'static [(&'static str, &'static str)],
    pub(crate) request: &'static str,
    pub(crate) response_headers: &'static [(&'static str, &'static str)],
    pub(crate) response: &'static str,
    pub(crate) end: StreamEnd,
    /// Tool and outcome of each call, in order.
    pub(crate) calls: &'static [(&'static str, &'static str)],
}

pub(crate) const POST: &[(&str, &str)] = &[(":method", "POST"), (":path", "/mcp?x=1")];
pub(crate) const MODERN: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/mcp"), ("mcp-protocol-version", "2026-07-28")];
pub(crate) const JSON: &[(&str, &str)] =
    &[(":status", "200"), ("content-type", "application/json")];
pub(crate) const EVENTS: &[(&str, &str)] =
    &[(":status", "200"), ("content-type", "text/event-stream")];
pub(crate) const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#;
const RESULT: &str = r#"{"result":{"content":[]},"jsonrpc":"2.0","id":1}"#;

pub(crate) const PLAIN: Row = Row {
    name: "1: a call answered in JSON",
    request_headers: POST,
    request: CALL,
    response_headers: JSON,
    response: RESULT,
    end: StreamEnd::Complete,
    calls: &[("echo", "SUCCESS")],
};

pub(crate) fn headers(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

pub(crate) fn play(row: &Row, request: &[&[u8]], response: &[&[u8]]) -> Option<Observed> {
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let request_headers = headers(row.request_headers);
    let mut exchange = start_exchange(&config, Headers(&request_headers))?;
    for chunk in request {
        exchange.request_body(chunk, Timestamp(1001));
    }
    exchange.request_end(Timestamp(1002));
    if !row.response_headers.is_empty() {
        let _ =
            exchange.response_head(&ResponseHead::read(Headers(&headers(row.response_headers))));
    }
    let mut seen = exchange.take_observed();
    for chunk in response {
        exchange.response_body(chunk, false, Timestamp(1010));
        let more = exchange.take_observed();
        seen.facts.extend(more.facts);
        seen.counts.extend(more.counts);
    }
    let rest = exchange.end(row.end, Timestamp(1020));
    seen.facts.extend(rest.facts);
    seen.counts.extend(rest.counts);
    Some(seen)
}

/// Tool and outcome of each call; `open` before the outcome means that its answer may come on another stream.
pub(crate) fn calls(observed: &Observed) -> Vec<(&str, String)> {
    observed
        .facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Call(call) => Some((call.tool.as_str(), call.status.name().to_owned())),
            Fact::Open(open) => {
                Some((open.call.tool.as_str(), format!("open {}", open.call.status.name())))
            }
            Fact::CallUpdate(_)
            | Fact::Redirected { .. }
            | Fact::OtherOpen(_)
            | Fact::OtherAnswered { .. }
            | Fact::CallStarted(_)
            | Fact::Reserved(_)
            | Fact::Released { .. }
            | Fact::GenerationStarted(_)
            | Fact::GenerationAwaited { .. }
            | Fact::Generation(_)
            | Fact::Running { .. }
            | Fact::SessionEnd { .. }
            | Fact::Calls(_) => None,
        })
        .collect()
}

pub(crate) fn check(row: &Row) {
    let (request, response) = (row.request.as_bytes(), row.response.as_bytes());
    let want: Vec<(&str, String)> =
        row.calls.iter().map(|&(tool, outcome)| (tool, outcome.to_owned())).collect();
    for cut in cuts(request) {
        let seen = play(row, &cut, &[response]).unwrap();
        assert_eq!(calls(&seen), want, "{}: request in {} pieces", row.name, cut.len());
    }
    for cut in cuts(response) {
        let seen = play(row, &[request], &cut).unwrap();
        assert_eq!(calls(&seen), want, "{}: response in {} pieces", row.name, cut.len());
    }
}

#[test]
fn calls_end_as_the_wire_says() {
    let rows = [
        PLAIN,
        Row {
            name: "2: media types are compared without case and parameters",
            response_headers: &[
                (":status", "200"),
                ("content-type", "Application/JSON; charset=UTF-8"),
            ],
            ..PLAIN
        },
        Row {
            name: "3: progress before the answer",
            response_headers: EVENTS,
            response: "data: {\"method\":\"notifications/progress\",\"params\":{}}\n\ndata: {\"id\":1,\"result\":{}}\n\n",
            ..PLAIN
        },
        Row {
            name: "4: a priming event",
            response_headers: EVENTS,
            response: "id: a\ndata: \n\nevent: message\nid: b\ndata: {\"id\":1,\"result\":{}}\n\n",
            ..PLAIN
        },
        Row {
            name: "6: a request of the server with the call's id",
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"method\":\"sampling/createMessage\"}\n\ndata: {\"id\":1,\"result\":{\"isError\":true}}\n\n",
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "9: isError",
            response: r#"{"id":1,"result":{"isError":true}}"#,
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "10: a JSON-RPC error",
            response: r#"{"id":1,"error":{"code":-32602}}"#,
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        Row {
            name: "JSON-RPC -32603",
            response: r#"{"id":1,"error":{"code":-32603}}"#,
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "JSON-RPC -32001",
            response: r#"{"id":1,"error":{"code":-32001}}"#,
            calls: &[("echo", "TIMEOUT")],
            ..PLAIN
        },
        Row {
            name: "JSON-RPC -32800",
            response: r#"{"id":1,"error":{"code":-32800}}"#,
            calls: &[("echo", "CANCELLED")],
            ..PLAIN
        },
        Row {
            name: "117: JSON-RPC -32042",
            response: r#"{"id":1,"error":{"code":-32042}}"#,
            calls: &[("echo", "HITL_REQUIRED")],
            ..PLAIN
        },
        Row {
            name: "12: HTTP 400 with an error without id",
            response_headers: &[(":status", "400"), ("content-type", "application/json")],
            response: r#"{"jsonrpc":"2.0","error":{"code":-32000},"id":null}"#,
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        Row {
            name: "18: HTTP 413 in text",
            response_headers: &[(":status", "413"), ("content-type", "text/plain")],
            response: "too large",
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "a result under an HTTP error is no success",
            response_headers: &[(":status", "503"), ("content-type", "application/json")],
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "HTTP 400",
            response_headers: &[(":status", "400")],
            response: "",
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        Row {
            name: "HTTP 422",
            response_headers: &[(":status", "422")],
            response: "",
            calls: &[("echo", "VALIDATION_FAILED")],
            ..PLAIN
        },
        Row {
            name: "15: HTTP 401",
            response_headers: &[(":status", "401")],
            response: "",
            calls: &[("echo", "BLOCKED")],
            ..PLAIN
        },
        Row {
            name: "16: HTTP 403",
            response_headers: &[(":status", "403")],
            response: "",
            calls: &[("echo", "BLOCKED")],
            ..PLAIN
        },
        Row {
            name: "HTTP 429",
            response_headers: &[(":status", "429")],
            response: "",
            calls: &[("echo", "BLOCKED")],
            ..PLAIN
        },
        Row {
            name: "HTTP 408",
            response_headers: &[(":status", "408")],
            response: "",
            calls: &[("echo", "TIMEOUT")],
            ..PLAIN
        },
        Row {
            name: "HTTP 504",
            response_headers: &[(":status", "504")],
            response: "",
            calls: &[("echo", "TIMEOUT")],
            ..PLAIN
        },
        Row {
            name: "HTTP 500",
            response_headers: &[(":status", "500")],
            response: "",
            calls: &[("echo", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "HTTP 202 says accepted, not executed",
            response_headers: &[(":status", "202")],
            response: "",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "19: a notification",
            request: r#"{"method":"tools/call","params":{"name":"echo"}}"#,
            response: "",
            calls: &[],
            ..PLAIN
        },
        Row {
            name: "20: a null id",
            request: r#"{"id":null,"method":"tools/call"}"#,
            response: "",
            calls: &[],
            ..PLAIN
        },
        Row {
            name: "21: another method",
            request: r#"{"id":1,"method":"tools/list"}"#,
            response: r#"{"id":1,"result":{"tools":[]}}"#,
            calls: &[],
            ..PLAIN
        },
        Row {
            name: "another method, answered with the result of a tool",
            request: r#"{"id":1,"method":"tools/list"}"#,
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "28: id 1.0 answered as 1",
            request: r#"{"id":1.0,"method":"tools/call","params":{"name":"echo"}}"#,
            ..PLAIN
        },
        Row {
            name: "id 1e1 answered as 10",
            request: r#"{"id":1e1,"method":"tools/call","params":{"name":"echo"}}"#,
            response: r#"{"id":10,"result":{}}"#,
            ..PLAIN
        },
        Row {
            name: "29: id \"1\" answered as 1",
            request: r#"{"id":"1","method":"tools/call","params":{"name":"echo"}}"#,
            ..PLAIN
        },
        Row {
            name: "31: a constant id in a JSON answer",
            response: r#"{"id":0,"result":{}}"#,
            ..PLAIN
        },
        Row {
            name: "a constant id in an event is not taken for the call's",
            response_headers: EVENTS,
            response: "data: {\"id\":0,\"result\":{}}\n\n",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "32: neither result nor error",
            response: r#"{"jsonrpc":"2.0","id":1}"#,
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "27: ids \"1\" and 1 are two calls",
            request: r#"[{"id":"1","method":"tools/call","params":{"name":"a"}},{"id":1,"method":"tools/call","params":{"name":"b"}}]"#,
            response: r#"[{"id":1,"result":{}},{"id":"1","result":{"isError":true}}]"#,
            calls: &[("b", "SUCCESS"), ("a", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "37, 40: a batch with answers in any order, as events",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"method":"notifications/x"},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#,
            response_headers: EVENTS,
            response: "data: {\"id\":2,\"result\":{}}\n\ndata: {\"id\":1,\"result\":{\"isError\":true}}\n\n",
            calls: &[("b", "SUCCESS"), ("a", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "39: a batch of one answered by an object",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}}]"#,
            calls: &[("a", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "41: answers batched in one event",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#,
            response_headers: EVENTS,
            response: "data: [{\"id\":1,\"result\":{}},\ndata: {\"id\":2,\"result\":{}}]\n\n",
            calls: &[("a", "SUCCESS"), ("b", "SUCCESS")],
            ..PLAIN
        },
        Row {
            name: "42: one answer for two calls with the same id",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":1,"method":"tools/call","params":{"name":"b"}}]"#,
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"result\":{}}\n\n",
            calls: &[("a", "SUCCESS"), ("b", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "43: a batch refused as a whole",
            request: r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#,
            response_headers: &[(":status", "400"), ("content-type", "application/json")],
            response: r#"{"jsonrpc":"2.0","error":{"code":-32600},"id":null}"#,
            calls: &[("a", "ERROR"), ("b", "ERROR")],
            ..PLAIN
        },
        Row {
            name: "the same answer twice counts once",
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"result\":{}}\n\ndata: {\"id\":1,\"result\":{}}\n\n",
            ..PLAIN
        },
        Row {
            name: "52: an event stream without an answer",
            response_headers: EVENTS,
            response: ": nothing\n\n",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "55: a legacy client leaves",
            response_headers: EVENTS,
            response: "",
            end: StreamEnd::Aborted,
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "56: a modern client leaves",
            request_headers: MODERN,
            response_headers: EVENTS,
            response: "",
            end: StreamEnd::Aborted,
            calls: &[("echo", "CANCELLED")],
            ..PLAIN
        },
        Row {
            name: "a modern client leaves before any response",
            request_headers: MODERN,
            response_headers: &[],
            response: "",
            end: StreamEnd::Aborted,
            calls: &[("echo", "CANCELLED")],
            ..PLAIN
        },
        Row {
            name: "57: reset behind a complete answer",
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"result\":{}}\n\n",
            end: StreamEnd::Aborted,
            ..PLAIN
        },
        Row {
            name: "58: the end cuts the event off",
            response_headers: EVENTS,
            response: "data: {\"id\":1,\"result\":{}}\n",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "a JSON answer cut in the middle",
            response: r#"{"id":1,"result":{"#,
            end: StreamEnd::Aborted,
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "69: an event type that clients pass over",
            response_headers: EVENTS,
            response: "event: result\ndata: {\"id\":1,\"result\":{}}\n\n",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "103: input required",
            response: r#"{"id":1,"result":{"resultType":"input_required"}}"#,
            calls: &[("echo", "HITL_REQUIRED")],
            ..PLAIN
        },
        Row {
            name: "118: a task of 2025-11-25",
            response: r#"{"id":1,"result":{"task":{"taskId":"t"}}}"#,
            calls: &[("echo", "open PENDING")],
            ..PLAIN
        },
        Row {
            name: "126: a task of 2026-07-28",
            response: r#"{"id":1,"result":{"resultType":"task","taskId":"t"}}"#,
            calls: &[("echo", "open PENDING")],
            ..PLAIN
        },
        Row {
            name: "110: an unknown resultType",
            response: r#"{"id":1,"result":{"resultType":"new"}}"#,
            calls: &[("echo", "UNKNOWN")],
            ..PLAIN
        },
        Row {
            name: "a gzip answer is not guessed",
            response_headers: &[
                (":status", "200"),
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ],
            response: "\u{1f}\u{8b}",
            calls: &[("echo", "open UNKNOWN")],
            ..PLAIN
        },
        Row { name: "JSON that does not say so", response_headers: &[(":status", "200")], ..PLAIN },
        Row {
            name: "a tool without a name",
            request: r#"{"id":1,"method":"tools/call"}"#,
            calls: &[("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row { name: "87: no JSON at all", request: "hello", response: "", calls: &[], ..PLAIN },
        Row {
            name: "what cannot be read is as many calls as are answered, under whatever ids",
            request_headers: &[
                (":method", "POST"),
                (":path", "/mcp"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?ZWNobw==?="),
            ],
            request: "\u{1}",
            response: r#"[{"id":1,"result":{"content":[]}},{"id":1,"result":{"content":[]}},{"id":2,"result":{}}]"#,
            // The client's own header prices nothing.
            calls: &[("__unnamed__", "SUCCESS"), ("__unnamed__", "SUCCESS")],
            ..PLAIN
        },
        Row { name: "an empty body", request: "", response: "", calls: &[], ..PLAIN },
        Row {
            name: "a request cut in the middle is no call",
            request: r#"{"id":1,"method":"tools/call""#,
            response: "",
            end: StreamEnd::Aborted,
            calls: &[],
            ..PLAIN
        },
    ];
    for row in &rows {
        check(row);
    }
}

#[test]
fn what_matches_no_product_is_not_followed() {
    for path in ["/", "/mcp/a", "/mcpx", "/other?path=/mcp", ""] {
        let request_headers = [(":method", "POST"), (":path", path)];
        let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
        let headers = headers(&request_headers);
        assert!(start_exchange(&config, Headers(&headers)).is_none(), "{path:?}");
    }
}

#[test]
fn durations_run_from_the_end_of_the_request_to_the_end_of_the_answer() {
    let seen = play(&PLAIN, &[CALL.as_bytes()], &[RESULT.as_bytes()]).unwrap();
    let [Fact::Call(call)] = seen.facts.as_slice() else { panic!("{seen:?}") };
    assert_eq!((call.started_at, call.ended_at), (Timestamp(1002), Timestamp(1010)));
}

#[test]
fn sessions_end_by_delete_and_by_404_only_where_a_session_is_named() {
    const ID: (&str, &str) = ("mcp-session-id", "secret");
    const MODERN_REVISION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
    // 13, 33: what ends a session.
    type Sent = &'static [(&'static str, &'static str)];
    let rows: &[(&str, Sent, &str, Option<SessionEnd>)] = &[
        ("DELETE", &[ID], "200", Some(SessionEnd::ClientDelete)),
        ("DELETE", &[ID], "204", Some(SessionEnd::ClientDelete)),
        ("DELETE", &[ID], "405", None),
        ("DELETE", &[ID], "404", Some(SessionEnd::SessionGone)),
        ("DELETE", &[], "200", None),
        ("DELETE", &[ID, MODERN_REVISION], "200", None),
        ("POST", &[ID], "404", Some(SessionEnd::SessionGone)),
        ("POST", &[ID], "200", None),
        ("GET", &[ID], "405", None),
    ];
    for &(method, extra, status, want) in rows {
        let pairs = [&[(":method", method), (":path", "/mcp")], extra].concat();
        let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
        let request_headers = headers(&pairs);
        let mut exchange = start_exchange(&config, Headers(&request_headers)).unwrap();
        exchange.request_end(Timestamp(0));
        let _ =
            exchange.response_head(&ResponseHead::read(Headers(&headers(&[(":status", status)]))));
        let seen = exchange.end(StreamEnd::Complete, Timestamp(5));
        let found = seen.facts.iter().find_map(|fact| match fact {
            Fact::SessionEnd { reason, .. } => Some(*reason),
            Fact::Call(_)
            | Fact::Redirected { .. }
            | Fact::OtherOpen(_)
            | Fact::OtherAnswered { .. }
            | Fact::Open(_)
            | Fact::CallStarted(_)
            | Fact::Reserved(_)
            | Fact::Released { .. }
            | Fact::GenerationStarted(_)
            | Fact::GenerationAwaited { .. }
            | Fact::Generation(_)
            | Fact::CallUpdate(_)
            | Fact::Calls(_)
            | Fact::Running { .. } => None,
        });
        assert_eq!(found, want, "{method} {extra:?} answered {status}");
        let shown = format!("{:?}", seen.facts);
        assert!(!shown.contains("secret"), "a session id in clear: {shown}");
    }
}

#[test]
fn a_session_is_named_by_what_is_presented_and_by_whom() {
    let key = |pairs: &[(&'static str, &'static str)]| {
        let pairs = [POST, pairs].concat();
        let row = Row { request_headers: Box::leak(pairs.into_boxed_slice()), ..PLAIN };
        let seen = play(&row, &[CALL.as_bytes()], &[RESULT.as_bytes()]).unwrap();
        match seen.facts.as_slice() {
            [Fact::Call(call)] => call.session.clone(),
            other => panic!("{other:?}"),
        }
    };
    let customer = ("x-customer-id", "acme");
    let base = key(&[customer, ("mcp-session-id", "s")]);
    assert_eq!(base.identity.customer, "acme");
    assert_eq!(base.identity.team, "blue");
    assert_eq!(base.identity.agent, "anonymous");
    assert_eq!(key(&[("mcp-session-id", "s"), customer, ("x-session-id", "other")]), base);
    let others = [
        key(&[customer, ("mcp-session-id", "t")]),
        key(&[("x-customer-id", "globex"), ("mcp-session-id", "s")]),
        key(&[customer, ("x-session-id", "s")]),
        key(&[customer]),
        // 111: a revision without sessions.
        key(&[customer, ("mcp-session-id", "s"), ("mcp-protocol-version", "2026-07-28")]),
    ];
    for other in &others {
        assert_ne!(other.key, base.key, "{other:?}");
    }
    // Without a protocol session the activity window is the same for all calls of one identity.
    assert_eq!(others[3], others[4]);
}

#[test]
fn identities_and_names_of_any_bytes_are_bounded_text() {
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let mut dice = Dice(3);
    let mut followed = 0;
    for _ in 0..2000 {
        let length = dice.below(600);
        // Bytes of any kind are refused; of those below 128 a few hundred are names.
        let highest = if dice.below(2) == 0 { 255 } else { 126 };
        let lowest = if highest == 126 { 32 } else { 0 };
        let value: Vec<u8> =
            (0..length).map(|_| dice.next().to_le_bytes()[0].clamp(lowest, highest)).collect();
        let headers = vec![
            (":method".to_owned(), b"POST".to_vec()),
            (":path".to_owned(), b"/mcp".to_vec()),
            ("x-customer-id".to_owned(), value.clone()),
            ("mcp-session-id".to_owned(), value),
        ];
        let Some(mut exchange) = start_exchange(&config, Headers(&headers)) else { continue };
        followed += 1;
        exchange.request_body(CALL.as_bytes(), Timestamp(0));
        exchange.request_end(Timestamp(0));
        let (session, _) = exchange.running().unwrap();
        let named = &headers[2].1;
        assert!(named.len() <= 256);
        assert_eq!(session.identity.customer.as_bytes(), named.trim_ascii());
        for fact in exchange.end(StreamEnd::Aborted, Timestamp(0)).facts {
            assert_eq!(Fact::decode(&fact.encode()), Some(fact));
        }
    }
    assert!(followed > 300, "{followed}");
}

#[test]
fn damaged_facts_are_refused_and_never_panic() {
    let seen = play(&PLAIN, &[CALL.as_bytes()], &[RESULT.as_bytes()]).unwrap();
    let whole = seen.facts[0].encode();
    let mut dice = Dice(4);
    for length in 0..whole.len() {
        assert_eq!(Fact::decode(&whole[..length]), None, "cut at {length}");
    }
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=dice.below(4) {
            let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
            bytes[at] = dice.next().to_le_bytes()[0];
        }
        let _ = Fact::decode(&bytes);
    }
    let other_version = [&[1], &whole[1..]].concat();
    assert_eq!(Fact::decode(&other_version), None);
}

#[test]
fn what_is_seen_is_counted() {
    let count = |row: &Row, counter| {
        let seen = play(row, &[row.request.as_bytes()], &[row.response.as_bytes()]).unwrap();
        seen.counts.iter().filter(|&&seen| seen == counter).count()
    };
    assert_eq!(count(&PLAIN, Counter::Exchanges), 1);
    assert_eq!(count(&PLAIN, Counter::RequestUnparsed), 0);
    assert_eq!(count(&PLAIN, Counter::ResponseUnparsed), 0);
    assert_eq!(count(&Row { request: "\u{1f}\u{8b}", ..PLAIN }, Counter::RequestUnparsed), 1);
    assert_eq!(count(&Row { response: "<html>", ..PLAIN }, Counter::ResponseUnparsed), 1);
    let twice = r#"[{"id":1,"result":{}},{"id":1,"result":{}}]"#;
    assert_eq!(count(&Row { response: twice, ..PLAIN }, Counter::AnswerUnmatched), 1);
    let other = r#"{"id":1,"method":"tools/list"}"#;
    assert_eq!(count(&Row { request: other, ..PLAIN }, Counter::AnswerUnmatched), 0);
    let calls: Vec<String> =
        (0..1100).map(|id| format!(r#"{{"id":{id},"method":"tools/call"}}"#)).collect();
    let many = format!("[{}]", calls.join(","));
    let row = Row { request: Box::leak(many.into_boxed_str()), ..PLAIN };
    assert_eq!(count(&row, Counter::CallsOverLimit), 1100 - 1024);
}

#[test]
fn any_exchange_is_read_alike_however_it_is_cut() {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\n",
        "\r",
        "\n\n",
        "data: ",
        "data:",
        "event: endpoint\n",
        "event: message\n",
        "\"id\":1",
        "\"id\":\"1\"",
        "\"id\":null",
        "\"method\":\"tools/call\"",
        "\"method\":\"tasks/result\"",
        "\"method\":\"notifications/cancelled\"",
        "\"params\":{\"name\":\"x\"}",
        "\"params\":{\"taskId\":\"t\"}",
        "\"params\":{\"requestId\":1}",
        "\"result\":{\"isError\":true}",
        "\"result\":{\"task\":{\"taskId\":\"t\"}}",
        "\"result\":{\"tasks\":[{\"taskId\":\"t\",\"status\":\"failed\"}]}",
        "\"error\":{\"code\":-32602}",
        "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"y\"}}",
        "{\"id\":1,\"result\":{\"content\":[]}}",
        "data: {\"id\":1,\"result\":{}}\n\n",
        "\u{FEFF}",
        "\u{1F600}",
    ];
    const HEADS: &[&[(&str, &str)]] =
        &[POST, MODERN, &[(":method", "GET"), (":path", "/mcp"), ("mcp-session-id", "s")]];
    let mut dice = Dice(5);
    let pick = |dice: &mut Dice, end: usize| usize::try_from(dice.below(end as u64)).unwrap();
    for round in 0..20_000 {
        let text = |dice: &mut Dice| -> String {
            (0..dice.below(14)).map(|_| WORDS[pick(dice, WORDS.len())]).collect()
        };
        let (request, response) = (text(&mut dice), text(&mut dice));
        let row = Row {
            request_headers: HEADS[pick(&mut dice, HEADS.len())],
            response_headers: if dice.below(2) == 0 { JSON } else { EVENTS },
            end: if dice.below(2) == 0 { StreamEnd::Complete } else { StreamEnd::Aborted },
            ..PLAIN
        };
        let (request, response) = (request.as_bytes(), response.as_bytes());
        let whole = play(&row, &[request], &[response]).unwrap();
        let single = play(
            &row,
            &request.chunks(1).collect::<Vec<_>>(),
            &response.chunks(1).collect::<Vec<_>>(),
        );
        assert_eq!(single.unwrap(), whole, "round {round}: {:?}", (request, response));
        for fact in whole.facts {
            assert_eq!(Fact::decode(&fact.encode()), Some(fact));
        }
    }
}

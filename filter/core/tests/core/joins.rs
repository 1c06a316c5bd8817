//! Calls whose ends are seen on different HTTP streams: each is counted once, with its first final outcome.
//! Each row is a list of streams; the numbers are those of the wire cases in `tests/README.md`.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

use crate::host::Envoy;
use crate::support::test;

pub(crate) const CONFIG: &str = r#"{"products": [{
    "id": "mcp", "type": "MCP_SERVER", "match": {"path_prefix": "/mcp"},
    "identity": {
        "customer": {"trusted_header": "x-customer-id"},
        "agent": {"trusted_header": "x-agent-id"}
    },
    "session": {"session_timeout": "5m"}, "call_timeout": "110s"
}]}"#;

/// What happens to a stream, in order.
pub(crate) enum Step {
    /// The whole request goes up.
    Request(u32, &'static str, &'static [(&'static str, &'static str)], &'static str),
    /// The response's head comes down: status and content type.
    Head(u32, &'static str, &'static str),
    /// Bytes of the response come down.
    Body(u32, &'static str),
    /// The response is complete.
    Done(u32),
    /// Somebody leaves.
    Cut(u32),
    /// Seconds pass.
    Wait(u64),
}
pub(crate) use Step::{Body, Cut, Done, Head, Request, Wait};

pub(crate) const S: (&str, &str) = ("mcp-session-id", "s");
pub(crate) const POST: &[(&str, &str)] = &[(":method", "POST"), S];
pub(crate) const GET: &[(&str, &str)] = &[(":method", "GET"), S, ("last-event-id", "1")];
pub(crate) const MODERN: &[(&str, &str)] =
    &[(":method", "POST"), ("mcp-protocol-version", "2026-07-28")];
/// HTTP+SSE has no session header.
pub(crate) const OLD_POST: &[(&str, &str)] = &[(":method", "POST")];
pub(crate) const OLD_GET: &[(&str, &str)] = &[(":method", "GET")];
pub(crate) const SSE: &str = "text/event-stream";
pub(crate) const JSON: &str = "application/json";
pub(crate) const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#;
pub(crate) const CALL_2: &str = r#"{"id":2,"method":"tools/call","params":{"name":"b"}}"#;
pub(crate) const OK: &str = "data: {\"id\":1,\"result\":{}}\n\n";
pub(crate) const OK_2: &str = "data: {\"id\":2,\"result\":{}}\n\n";
const CREATED: &str = r#"{"id":1,"result":{"task":{"taskId":"t","status":"working"}}}"#;
const CREATED_MODERN: &str =
    r#"{"id":1,"result":{"resultType":"task","taskId":"t","status":"working"}}"#;
const ASK_RESULT: &str = r#"{"id":5,"method":"tasks/result","params":{"taskId":"t"}}"#;
const ASK_STATUS: &str = r#"{"id":6,"method":"tasks/get","params":{"taskId":"t"}}"#;
const ASK_CANCEL: &str = r#"{"id":7,"method":"tasks/cancel","params":{"taskId":"t"}}"#;

fn play(steps: &[Step]) -> Vec<(String, String)> {
    let mut envoy = Envoy::new(CONFIG);
    let mut seen = Vec::new();
    for step in steps {
        let now = envoy.now;
        match step {
            Request(stream, path, headers, body) => {
                let headers: Vec<(String, Vec<u8>)> = [&[(":path", *path)], *headers]
                    .concat()
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                    .collect();
                let Envoy { worker, host, .. } = &mut envoy;
                let head = worker.request_head(host, *stream, Headers(&headers), now);
                assert!(matches!(head, HeadAction::Follow(_)));
                worker.request_body(host, *stream, body.as_bytes(), true, now);
            }
            Head(stream, status, media_type) => {
                let headers = [(":status", *status), ("content-type", *media_type)]
                    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
                let _ = envoy.worker.response_head(*stream, Headers(&headers));
            }
            Body(stream, text) => {
                envoy.worker.response_body(&mut envoy.host, *stream, text.as_bytes(), false, now);
            }
            Done(stream) => {
                envoy.worker.stream_end(&mut envoy.host, *stream, StreamEnd::Complete, now);
            }
            Cut(stream) => {
                envoy.worker.stream_end(&mut envoy.host, *stream, StreamEnd::Aborted, now);
            }
            Wait(seconds) => seen.extend(envoy.deliver(seconds * 1000)),
        }
    }
    // Every session times out, and with it what still waits.
    seen.extend(envoy.deliver(600_000));
    let calls: Vec<&Value> = seen
        .iter()
        .map(|event| &event["data"])
        .filter(|data| data["event_type"] == "tool_invocation")
        .collect();
    let closed: u64 = seen
        .iter()
        .filter(|event| event["data"]["event_type"] == "session_closed")
        .map(|event| event["data"]["total_tool_calls"].as_u64().unwrap())
        .sum();
    assert_eq!(closed, calls.len() as u64, "final events and calls differ");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut outcomes: Vec<(String, String)> = calls
        .iter()
        .map(|data| (text(&data["tool_name"]), text(&data["execution_status"])))
        .collect();
    outcomes.sort();
    outcomes
}

/// A whole exchange over one stream.
pub(crate) fn whole(
    stream: u32,
    headers: &'static [(&'static str, &'static str)],
    request: &'static str,
    status: &'static str,
    media_type: &'static str,
    response: &'static str,
) -> [Step; 4] {
    [
        Request(stream, "/mcp", headers, request),
        Head(stream, status, media_type),
        Body(stream, response),
        Done(stream),
    ]
}

pub(crate) fn check(name: &str, steps: &[Step], want: &[(&str, &str)]) {
    let want: Vec<(String, String)> =
        want.iter().map(|(tool, outcome)| ((*tool).to_owned(), (*outcome).to_owned())).collect();
    assert_eq!(play(steps), want, "{name}");
}

#[test]
fn no_version_and_no_other_agent_takes_a_resumed_answer_from_its_call() {
    type Sent = &'static [(&'static str, &'static str)];
    const AGENT: (&str, &str) = ("x-agent-id", "one");
    const OTHER_AGENT: (&str, &str) = ("x-agent-id", "other");
    const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
    const UNKNOWN: (&str, &str) = ("mcp-protocol-version", "zzz");
    const NEWER: (&str, &str) = ("mcp-protocol-version", "2027-01-01");
    const LAST: (&str, &str) = ("last-event-id", "1");
    const PUT: (&str, &str) = (":method", "POST");
    const ASK: (&str, &str) = (":method", "GET");
    let rows: &[(&str, Sent, Sent, &str)] = &[
        ("row 57: no version", &[PUT, S], &[ASK, S, LAST], "SUCCESS"),
        ("row 58: 2026-07-28 with a session", &[PUT, S, VERSION], &[ASK, S, LAST], "SUCCESS"),
        ("row 58: both", &[PUT, S, VERSION], &[ASK, S, LAST, VERSION], "SUCCESS"),
        ("row 58: an unknown version", &[PUT, S, UNKNOWN], &[ASK, S, LAST, UNKNOWN], "SUCCESS"),
        ("row 58: a newer version", &[PUT, S, NEWER], &[ASK, S, LAST], "SUCCESS"),
        ("row 58: then an unknown one", &[PUT, S], &[ASK, S, LAST, UNKNOWN], "SUCCESS"),
        ("an unknown version, no session", &[PUT, UNKNOWN], &[ASK, LAST, UNKNOWN], "SUCCESS"),
        ("no version, no session", &[PUT], &[ASK, LAST], "SUCCESS"),
        ("another agent", &[PUT, S, AGENT], &[ASK, S, LAST, OTHER_AGENT], "SUCCESS"),
        // A revision without sessions, and no session: leaving cancels.
        ("2026-07-28", &[PUT, VERSION], &[ASK, LAST], "CANCELLED"),
        ("another session", &[PUT, S], &[ASK, ("mcp-session-id", "t"), LAST], "UNKNOWN"),
        ("then no session", &[PUT, S], &[ASK, LAST], "UNKNOWN"),
        (
            "another customer",
            &[PUT, S, ("x-customer-id", "a")],
            &[ASK, S, LAST, ("x-customer-id", "b")],
            "UNKNOWN",
        ),
    ];
    for (name, post, get, outcome) in rows {
        let steps = [
            Request(1, "/mcp", post, CALL),
            Head(1, "200", SSE),
            Cut(1),
            Request(2, "/mcp", get, ""),
            Head(2, "200", SSE),
            Body(2, OK),
            Cut(2),
        ];
        check(name, &steps, &[("a", outcome)]);
    }
}

#[test]
fn a_stream_that_is_resumed_without_one_session_leaves_a_trace() {
    // Two names are refused.
    for (sessions, want) in [(&[][..], 1), (&[S][..], 0), (&[S, S][..], 1)] {
        let mut envoy = Envoy::new(CONFIG);
        let head = [(":method", "GET"), (":path", "/mcp"), ("last-event-id", "1")];
        let head: Vec<(String, Vec<u8>)> = [&head[..], sessions]
            .concat()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let _ = envoy.worker.request_head(&mut envoy.host, 9, Headers(&head), envoy.now);
        let found = envoy.host.counters.get(&Counter::ResumesUnnamed).copied().unwrap_or(0);
        assert_eq!(found, want, "{sessions:?}");
    }
}

#[test]
fn answers_on_resumed_streams_count_once() {
    let cut_post = || {
        [Request(1, "/mcp", POST, CALL), Head(1, "200", SSE), Body(1, "id: 1\ndata:\n\n"), Cut(1)]
    };
    let get = |answer: &'static str| {
        [Request(2, "/mcp", GET, ""), Head(2, "200", SSE), Body(2, answer), Cut(2)]
    };
    check(
        "44: only on the resumed stream",
        &[&cut_post()[..], &get(OK)].concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "44, later",
        &[&cut_post()[..], &[Wait(30)], &get(OK)].concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "46: the same stream resumed twice",
        &[&cut_post()[..], &get(OK), &[Wait(5)], &get(OK)].concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "51: the answer is read before the call's stream is known to have ended",
        &[&[Request(1, "/mcp", POST, CALL), Head(1, "200", SSE)][..], &get(OK), &[Wait(5), Cut(1)]]
            .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "45, 47, 48, 50: replays of what was answered on its own stream",
        &[
            &[Request(1, "/mcp", POST, CALL), Head(1, "200", SSE), Body(1, OK), Done(1)][..],
            &[
                Request(3, "/mcp", POST, CALL_2),
                Head(3, "200", SSE),
                Body(3, OK_2),
                Body(3, OK),
                Done(3),
            ],
            &get(
                "data: {\"id\":1,\"result\":{}}\n\ndata: {}\n\ndata: {\"id\":2,\"result\":{}}\n\n",
            ),
        ]
        .concat_steps(),
        &[("a", "SUCCESS"), ("b", "SUCCESS")],
    );
    check(
        "49: polled three times",
        &[
            &cut_post()[..],
            &[Request(4, "/mcp", GET, ""), Head(4, "200", SSE), Done(4), Wait(3)],
            &[Request(5, "/mcp", GET, ""), Head(5, "200", SSE), Done(5), Wait(3)],
            &get(OK),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check("52, 55: nothing ever comes", &cut_post(), &[("a", "UNKNOWN")]);
    check(
        "25: an id that is used again is another call, and an old answer is not its own",
        &[
            &[Request(1, "/mcp", POST, CALL), Head(1, "200", SSE), Body(1, OK), Done(1), Wait(1)][..],
            &get(OK),
            &[Wait(1), Request(6, "/mcp", POST, CALL), Head(6, "200", SSE), Cut(6), Wait(1)],
        ]
        .concat_steps(),
        &[("a", "SUCCESS"), ("a", "UNKNOWN")],
    );
    check(
        "26: the same id in flight twice, one answer",
        &[
            Request(1, "/mcp", POST, CALL),
            Request(2, "/mcp", POST, CALL),
            Head(1, "200", SSE),
            Head(2, "200", SSE),
            Body(2, OK),
            Done(2),
            Cut(1),
        ],
        &[("a", "SUCCESS"), ("a", "UNKNOWN")],
    );
    check(
        "an answer of another session is not this one's",
        &[
            &cut_post()[..],
            &[
                Request(2, "/mcp", &[(":method", "GET"), ("mcp-session-id", "other")], ""),
                Head(2, "200", SSE),
                Body(2, OK),
                Done(2),
            ],
        ]
        .concat_steps(),
        &[("a", "UNKNOWN")],
    );
    check(
        "29: an answer whose id changed its type",
        &[&cut_post()[..], &get("data: {\"id\":\"1\",\"result\":{}}\n\n")].concat_steps(),
        &[("a", "SUCCESS")],
    );
}

#[test]
fn a_cancelled_call_is_cancelled_unless_it_is_answered() {
    const CANCEL: &str = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    let open = || [Request(1, "/mcp", POST, CALL), Head(1, "200", SSE)];
    let cancel = || [Request(2, "/mcp", POST, CANCEL), Head(2, "202", ""), Done(2)];
    check(
        "53: silence",
        &[&open()[..], &cancel(), &[Wait(200)]].concat_steps(),
        &[("a", "CANCELLED")],
    );
    check(
        "the stream ends",
        &[&open()[..], &cancel(), &[Done(1)]].concat_steps(),
        &[("a", "CANCELLED")],
    );
    check(
        "cancelled after the stream had been cut",
        &[&open()[..], &[Cut(1), Wait(1)], &cancel()].concat_steps(),
        &[("a", "CANCELLED")],
    );
    check(
        "54: the answer wins",
        &[&open()[..], &cancel(), &[Body(1, OK), Done(1)]].concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "no answer in time, and nobody cancelled",
        &[&open()[..], &[Wait(200)]].concat_steps(),
        &[("a", "TIMEOUT")],
    );
}

#[test]
fn http_with_sse_is_joined_by_the_endpoint() {
    let stream = |endpoint: &'static str| {
        [Request(1, "/mcp/sse", OLD_GET, ""), Head(1, "200", SSE), Body(1, endpoint)]
    };
    let accepted = |stream: u32, path: &'static str, body: &'static str| {
        [
            Request(stream, path, OLD_POST, body),
            Head(stream, "202", "text/plain"),
            Body(stream, "Accepted"),
            Done(stream),
        ]
    };
    for endpoint in [
        "event: endpoint\ndata: /mcp/message?sessionId=x\n\n",
        "event: endpoint\r\ndata: http://host:1/mcp/message?sessionId=x\r\n\r\n",
        "event: endpoint\ndata: message?sessionId=x\n\n",
    ] {
        check(
            "89, 90, 93: answered on the stream, out of order",
            &[
                &stream(endpoint)[..],
                &accepted(2, "/mcp/message?sessionId=x", CALL),
                &accepted(3, "/mcp/message?sessionId=x", CALL_2),
                &[Wait(1), Body(1, OK_2), Body(1, OK), Wait(1), Cut(1)],
            ]
            .concat_steps(),
            &[("a", "SUCCESS"), ("b", "SUCCESS")],
        );
    }
    // 59 of the table of attacks: the call is found under every spelling of its address.
    for spelling in [
        "//mcp/message?sessionId=x",
        "/MCP/message/?sessionId=x",
        "/mcp/%6dessage?sessionId=x",
        "/mcp/a/../message;b?sessionId=x",
        "/mcp/message?a=b&sessionId=x",
        "/mcp/message?session%49d=%78#c",
        "/mcp/message?session_id=X",
    ] {
        let endpoint = "event: endpoint\ndata: /mcp/message?sessionId=x\n\n";
        check(
            spelling,
            &[&stream(endpoint)[..], &accepted(2, spelling, CALL), &[Body(1, OK), Cut(1)]]
                .concat_steps(),
            &[("a", "SUCCESS")],
        );
    }
    let endpoint = "event: endpoint\ndata: /mcp/message?sessionId=x\n\n";
    check(
        "92: the stream goes before the answer",
        &[&stream(endpoint)[..], &accepted(2, "/mcp/message?sessionId=x", CALL), &[Cut(1)]]
            .concat_steps(),
        &[("a", "UNKNOWN")],
    );
    check(
        "94: the same id under another endpoint",
        &[
            &stream(endpoint)[..],
            &accepted(2, "/mcp/message?sessionId=y", CALL),
            &[Body(1, OK), Cut(1)],
        ]
        .concat_steps(),
        &[("a", "UNKNOWN")],
    );
    check(
        "91: the server refuses the message",
        &[
            &stream(endpoint)[..],
            &[Request(2, "/mcp/message?sessionId=z", OLD_POST, CALL), Head(2, "404", ""), Done(2)],
        ]
        .concat_steps(),
        &[("a", "ERROR")],
    );
}

#[test]
fn tasks_count_once_at_their_first_final_state() {
    let created =
        || [Request(1, "/mcp", POST, CALL), Head(1, "200", JSON), Body(1, CREATED), Done(1)];
    let modern = || {
        [Request(1, "/mcp", MODERN, CALL), Head(1, "200", JSON), Body(1, CREATED_MODERN), Done(1)]
    };
    let ask = |headers: &'static [(&'static str, &'static str)],
               body: &'static str,
               answer: &'static str| {
        [Request(2, "/mcp", headers, body), Head(2, "200", JSON), Body(2, answer), Done(2)]
    };
    let working =
        || ask(POST, ASK_STATUS, r#"{"id":6,"result":{"taskId":"t","status":"working"}}"#);
    let completed =
        || ask(POST, ASK_STATUS, r#"{"id":6,"result":{"taskId":"t","status":"completed"}}"#);
    let result = || ask(POST, ASK_RESULT, r#"{"id":5,"result":{"content":[]}}"#);
    check("118: accepted, and the session ends", &created(), &[("a", "UNKNOWN")]);
    check(
        "119, 120: polled, completed, and fetched twice",
        &[
            &created()[..],
            &working(),
            &[Wait(2)],
            &working(),
            &completed(),
            &result(),
            &[Wait(2)],
            &result(),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check("the result alone", &[&created()[..], &result()].concat_steps(), &[("a", "SUCCESS")]);
    check(
        "121: failed",
        &[
            &created()[..],
            &ask(POST, ASK_STATUS, r#"{"id":6,"result":{"taskId":"t","status":"failed"}}"#),
        ]
        .concat_steps(),
        &[("a", "ERROR")],
    );
    check(
        "the result reports an error",
        &[&created()[..], &ask(POST, ASK_RESULT, r#"{"id":5,"result":{"isError":true}}"#)]
            .concat_steps(),
        &[("a", "ERROR")],
    );
    check(
        "a task that the server no longer knows says nothing of the call",
        &[
            &created()[..],
            &ask(POST, ASK_RESULT, r#"{"id":5,"error":{"code":-32602}}"#),
            &completed(),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "122: cancelled",
        &[
            &created()[..],
            &ask(POST, ASK_CANCEL, r#"{"id":7,"result":{"taskId":"t","status":"cancelled"}}"#),
        ]
        .concat_steps(),
        &[("a", "CANCELLED")],
    );
    check(
        "123: told by a notification only",
        &[
            &created()[..],
            &[
                Request(3, "/mcp", GET, ""),
                Head(3, "200", SSE),
                Body(3, "data: {\"method\":\"notifications/tasks/status\",\"params\":{\"taskId\":\"t\",\"status\":\"completed\"}}\n\n"),
                Cut(3),
            ],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "told by a list",
        &[
            &created()[..],
            &ask(
                POST,
                r#"{"id":8,"method":"tasks/list"}"#,
                r#"{"id":8,"result":{"tasks":[{"taskId":"u","status":"failed"},{"status":"completed","taskId":"t"}]}}"#,
            ),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check("125: nobody asks", &[&created()[..], &[Wait(200)]].concat_steps(), &[("a", "UNKNOWN")]);
    for (name, answer, outcome) in [
        (
            "126: polled",
            r#"{"id":6,"result":{"resultType":"complete","taskId":"t","status":"completed","result":{"isError":false}}}"#,
            "SUCCESS",
        ),
        (
            "127: polled",
            r#"{"id":6,"result":{"resultType":"complete","taskId":"t","status":"completed","result":{"isError":true}}}"#,
            "ERROR",
        ),
        (
            "128: polled",
            r#"{"id":6,"result":{"resultType":"task","taskId":"t","status":"completed","result":{}}}"#,
            "SUCCESS",
        ),
        (
            "failed",
            r#"{"id":6,"result":{"resultType":"task","taskId":"t","status":"failed","error":{"code":-1}}}"#,
            "ERROR",
        ),
    ] {
        let twice = [
            &modern()[..],
            &ask(MODERN, ASK_STATUS, answer),
            &[Wait(3)],
            &ask(MODERN, ASK_STATUS, answer),
        ];
        check(name, &twice.concat_steps(), &[("a", outcome)]);
    }
    check(
        "129: pushed after it was polled",
        &[
            &modern()[..],
            &ask(MODERN, ASK_STATUS, r#"{"id":6,"result":{"taskId":"t","status":"completed","result":{}}}"#),
            &[
                Request(3, "/mcp", MODERN, r#"{"id":9,"method":"subscriptions/listen","params":{"taskIds":["t"]}}"#),
                Head(3, "200", SSE),
                Body(3, "data: {\"method\":\"notifications/tasks\",\"params\":{\"taskId\":\"t\",\"status\":\"completed\",\"result\":{}}}\n\n"),
                Body(3, "data: {\"id\":9,\"result\":{\"resultType\":\"complete\"}}\n\n"),
                Done(3),
            ],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "130: polled by another customer's connection",
        &[
            &modern()[..],
            &ask(
                &[
                    (":method", "POST"),
                    ("mcp-protocol-version", "2026-07-28"),
                    ("x-customer-id", "other"),
                ],
                ASK_STATUS,
                r#"{"id":6,"result":{"taskId":"t","status":"completed","result":{}}}"#,
            ),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        "a call whose stream was cut becomes a task on the resumed stream",
        &[
            &[Request(1, "/mcp", POST, CALL), Head(1, "200", SSE), Cut(1)][..],
            &[
                Request(3, "/mcp", GET, ""),
                Head(3, "200", SSE),
                Body(3, "data: {\"id\":1,\"result\":{\"task\":{\"taskId\":\"t\"}}}\n\n"),
                Cut(3),
            ],
            &result(),
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
}

#[test]
fn each_round_of_input_is_a_leg() {
    const INPUT: &str = r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#;
    const RETRY: &str = r#"{"id":2,"method":"tools/call","params":{"name":"a","requestState":"s","inputResponses":{}}}"#;
    const DONE: &str = r#"{"id":2,"result":{"resultType":"complete"}}"#;
    let leg = || [Request(1, "/mcp", MODERN, CALL), Head(1, "200", JSON), Body(1, INPUT), Done(1)];
    let retry = |stream: u32| {
        [
            Request(stream, "/mcp", MODERN, RETRY),
            Head(stream, "200", JSON),
            Body(stream, DONE),
            Done(stream),
        ]
    };
    check(
        "103: one round",
        &[&leg()[..], &retry(2)].concat_steps(),
        &[("a", "HITL_REQUIRED"), ("a", "SUCCESS")],
    );
    check("105: given up", &leg(), &[("a", "HITL_REQUIRED")]);
    check(
        "107: the same state twice is two executions",
        &[&leg()[..], &retry(2), &retry(3)].concat_steps(),
        &[("a", "HITL_REQUIRED"), ("a", "SUCCESS"), ("a", "SUCCESS")],
    );
}

#[test]
fn a_task_that_is_polled_lives_on() {
    const WORKING: &str = r#"{"id":6,"result":{"taskId":"t","status":"working"}}"#;
    const COMPLETED: &str = r#"{"id":6,"result":{"taskId":"t","status":"completed"}}"#;
    let ask = |answer: &'static str| {
        [Request(2, "/mcp", POST, ASK_STATUS), Head(2, "200", JSON), Body(2, answer), Done(2)]
    };
    let created = || {
        [Request(1, "/mcp", POST, CALL), Head(1, "200", JSON), Body(1, CREATED), Done(1), Wait(90)]
    };
    // Other calls keep the session alive; without a poll the call is over after two minutes.
    let other = || {
        [Request(3, "/mcp", POST, CALL_2), Head(3, "200", SSE), Body(3, OK_2), Done(3), Wait(90)]
    };
    check(
        "119, 125: longer than call_timeout, but polled",
        &[&created()[..], &ask(WORKING), &other(), &ask(COMPLETED)].concat_steps(),
        &[("a", "SUCCESS"), ("b", "SUCCESS")],
    );
    check(
        "119, 125: longer than call_timeout, and not polled",
        &[&created()[..], &other(), &ask(COMPLETED)].concat_steps(),
        &[("a", "UNKNOWN"), ("b", "SUCCESS")],
    );
}

#[test]
fn what_cannot_be_read_does_not_bill_again_what_was_billed() {
    const CODED: &[(&str, &str)] = &[(":method", "POST"), S, ("content-encoding", "br")];
    check(
        "120: the result of a task, asked for by a request that cannot be read",
        &[
            &[Request(1, "/mcp", POST, CALL), Head(1, "200", JSON), Body(1, CREATED), Done(1)][..],
            &[Request(2, "/mcp", POST, ASK_STATUS), Head(2, "200", JSON)],
            &[Body(2, r#"{"id":6,"result":{"taskId":"t","status":"completed"}}"#), Done(2)],
            &[Request(3, "/mcp", CODED, "\u{1}"), Head(3, "200", JSON)],
            &[Body(3, r#"{"id":5,"result":{"content":[],"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}"#), Done(3)],
        ]
        .concat_steps(),
        &[("a", "SUCCESS")],
    );
    check(
        // Only a stream that a GET resumes may replay, so this is the response to that request.
        "47: a result on the stream of a request that cannot be read",
        &[
            Request(1, "/mcp", POST, CALL),
            Head(1, "200", SSE),
            Body(1, OK),
            Done(1),
            Request(3, "/mcp", CODED, "\u{1}"),
            Head(3, "200", SSE),
            Body(3, "data: {\"id\":1,\"result\":{\"content\":[]}}\n\n"),
            Done(3),
        ],
        &[("__unnamed__", "SUCCESS"), ("a", "SUCCESS")],
    );
    check(
        "47: an answer on the stream of a request that is no call",
        &[
            Request(1, "/mcp", POST, CALL),
            Head(1, "200", SSE),
            Cut(1),
            Request(9, "/mcp", POST, r#"{"id":9,"method":"tools/list"}"#),
            Head(9, "200", SSE),
            Body(9, OK),
            Body(9, "data: {\"id\":9,\"result\":{}}\n\n"),
            Done(9),
        ],
        &[("a", "SUCCESS")],
    );
}

/// Joins lists of steps.
pub(crate) trait ConcatSteps {
    fn concat_steps(self) -> Vec<Step>;
}

impl<const N: usize> ConcatSteps for [&[Step]; N] {
    fn concat_steps(self) -> Vec<Step> {
        let copy = |step: &Step| match *step {
            Request(stream, path, headers, body) => Request(stream, path, headers, body),
            Head(stream, status, media_type) => Head(stream, status, media_type),
            Body(stream, text) => Body(stream, text),
            Done(stream) => Done(stream),
            Cut(stream) => Cut(stream),
            Wait(seconds) => Wait(seconds),
        };
        self.into_iter().flatten().map(copy).collect()
    }
}

//! Responses that stream and are ended in the middle, because a guard has come to its third level meanwhile.

use agent_meter_core::base::time::Millis;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::amazon_event_stream;
use agent_meter_core::wire::amazon_event_stream::MessageHeaders;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::guarded::{Became, Guarded, guard};
use crate::support::test;

const CHAT: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "api.openai.com"),
    ("x-customer-id", "acme"),
];
const CHAT_REQUEST: &str = r#"{"model":"gpt-4o","stream":true}"#;
const EVENTS: &str = "text/event-stream";

/// A stream, how it is asked for, and what it ends with.
struct Row {
    name: &'static str,
    head: Vec<(&'static str, &'static str)>,
    request: &'static str,
    media_type: &'static str,
    /// What comes before it would go on; `|` stands behind each event.
    events: &'static str,
    last: &'static str,
}

fn llm(path: &'static str, host: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(":method", "POST"), (":path", path), (":authority", host), ("x-customer-id", "acme")]
}

fn rows() -> Vec<Row> {
    let row = |name, head, request, events, last| Row {
        name,
        head,
        request,
        media_type: EVENTS,
        events,
        last,
    };
    vec![
        row(
            "chat completions",
            CHAT.to_vec(),
            CHAT_REQUEST,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n|\
             : ping\n\n|data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" wörld\"}}]}\n\n|",
            "data: {\"error\":{\"code\":\"SERVICE_RESTRICTED_MARGIN\",\"message\":\"margin limit exceeded\",\
             \"param\":null,\"type\":\"rate_limit_error\"}}\n\ndata: [DONE]\n\n",
        ),
        row(
            "responses",
            llm("/v1/responses", "api.openai.com"),
            r#"{"model":"gpt-4o","stream":true}"#,
            "event: response.output_text.delta\r\n\
             data: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello\"}\r\n\r\n|\
             event: response.output_text.delta\r\n\
             data: {\"type\":\"response.output_text.delta\",\"delta\":\" world\"}\r\n\r\n|",
            "event: error\ndata: {\"code\":\"SERVICE_RESTRICTED_MARGIN\",\"error\":\
             {\"code\":\"SERVICE_RESTRICTED_MARGIN\",\"message\":\"margin limit exceeded\",\"param\":null,\
             \"type\":\"rate_limit_error\"},\"message\":\"margin limit exceeded\",\"param\":null,\"type\":\"error\"}\n\n",
        ),
        row(
            "messages",
            llm("/v1/messages", "api.anthropic.com"),
            r#"{"model":"claude-sonnet-4-5","stream":true}"#,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5\",\
             \"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n|event: ping\ndata: {\"type\":\"ping\"}\n\n|",
            "event: error\ndata: {\"error\":{\"message\":\"margin limit exceeded\",\"type\":\"rate_limit_error\"},\
             \"type\":\"error\"}\n\n",
        ),
        row(
            "generate content",
            llm(
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
                "generativelanguage.googleapis.com",
            ),
            r#"{"contents":[]}"#,
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]}}],\
             \"usageMetadata\":{\"promptTokenCount\":4}}\r\n\r\n|data: {\"candidates\":[]}\r\n\r\n|",
            "data: {\"error\":{\"code\":429,\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\
             \"reason\":\"SERVICE_RESTRICTED_MARGIN\"}],\"message\":\"margin limit exceeded\",\
             \"status\":\"RESOURCE_EXHAUSTED\"}}\n\n",
        ),
        Row {
            media_type: "application/x-ndjson",
            ..row(
                "ollama",
                llm("/v1/api/chat", "localhost"),
                r#"{"model":"llama3"}"#,
                "{\"model\":\"llama3\",\"message\":{\"content\":\"Hi\"},\"done\":false}\n|\
                 {\"model\":\"llama3\",\"message\":{\"content\":\"!\"},\"done\":false}\n|",
                "{\"error\":\"margin limit exceeded\"}\n",
            )
        },
        row(
            "tool call",
            vec![(":method", "POST"), (":path", "/mcp"), ("x-customer-id", "acme")],
            r#"{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{"name":"slow"}}"#,
            "id: 1\ndata:\n\n|event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n|",
            "event: message\ndata: {\"error\":{\"code\":-32013,\"data\":{\"guard_id\":\"margin\",\"level\":\"L3_BLOCK\",\
             \"reason\":\"margin\",\"resets_at\":\"2025-12-01T00:00:00.000Z\",\"retry_after_seconds\":RETRY,\
             \"scope\":\"customer\"},\"message\":\"margin limit exceeded\"},\"id\":\"one\",\"jsonrpc\":\"2.0\"}\n\n",
        ),
        row(
            "step of an agent",
            vec![(":method", "POST"), (":path", "/a2a"), ("x-customer-id", "acme")],
            r#"{"jsonrpc":"2.0","id":7,"method":"message/stream","params":{"message":{"messageId":"m"}}}"#,
            "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"kind\":\"status-update\",\"taskId\":\"t\",\
             \"contextId\":\"c\",\"status\":{\"state\":\"working\"}}}\n\n|",
            "data: {\"error\":{\"code\":-32013,\"data\":{\"guard_id\":\"margin\",\"level\":\"L3_BLOCK\",\
             \"reason\":\"margin\",\"resets_at\":\"2025-12-01T00:00:00.000Z\",\"retry_after_seconds\":RETRY,\
             \"scope\":\"customer\"},\"message\":\"margin limit exceeded\"},\"id\":7,\"jsonrpc\":\"2.0\"}\n\n",
        ),
    ]
}

/// A guard that ends streams, and the products that the rows need.
fn guarded(more: &Value) -> Guarded {
    let mut rules = guard(&json!({}));
    rules["actions"]["level_3"]["stop_streams"] = json!(true);
    for (name, value) in more.as_object().unwrap() {
        rules[name] = value.clone();
    }
    let identity = json!({ "customer": { "trusted_header": "x-customer-id" } });
    let product = |id: &str, kind: &str, at: Value| json!({ "id": id, "type": kind, "match": at, "identity": identity });
    let mut llm = product("llm", "AI_AGENT", json!({ "path_prefix": "/v1" }));
    llm["llm"] = json!({});
    let mut beta = product("beta", "AI_AGENT", json!({ "path_prefix": "/v1beta" }));
    beta["llm"] = json!({});
    let mut bedrock = product("bedrock", "AI_AGENT", json!({ "path_prefix": "/model" }));
    bedrock["llm"] = json!({ "provider": "bedrock" });
    let products = json!([
        bedrock,
        product("crm", "MCP_SERVER", json!({ "path": "/mcp" })),
        product("a2a", "AI_AGENT", json!({ "path": "/a2a" })),
        llm,
        beta,
    ]);
    Guarded::with(&json!([rules]), &json!({ "products": products }))
}

impl Guarded {
    fn stream_head(&mut self, stream: u32, media_type: &str, more: &[(&str, &str)]) {
        let head = [&[(":status", "200"), ("content-type", media_type)], more].concat();
        let head: Vec<_> =
            head.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let (meter, _) = self.meter_of(stream);
        let _ = meter.response_head(stream, Headers(&head));
    }

    fn chunk(&mut self, stream: u32, chunk: &[u8]) -> Vec<u8> {
        let now = self.envoy.now;
        let (meter, host) = self.meter_of(stream);
        let passed = meter.response_body(host, stream, chunk, false, now);
        passed.unwrap_or_else(|| chunk.to_vec())
    }

    fn start(&mut self, row: &Row) -> u32 {
        let Became::Passed(stream, ..) = self.send(&row.head, row.request) else {
            panic!("{}: refused", row.name)
        };
        self.stream_head(stream, row.media_type, &[]);
        stream
    }

    /// The customer has spent everything, which everybody knows some time later.
    fn block(&mut self) {
        assert_eq!(self.generate("acme", 50_000), 200);
        self.settle();
        assert_eq!(self.call("acme", "t").status(), 429);
    }

    fn end(&mut self, stream: u32) {
        let now = self.envoy.now;
        let (meter, host) = self.meter_of(stream);
        meter.stream_end(host, stream, StreamEnd::Aborted, now);
    }
}

#[test]
fn a_stream_ends_behind_a_whole_event_with_an_error_in_its_own_form_wherever_it_is_cut() {
    for row in rows() {
        let text = row.events.replace('|', "");
        let all = [text.as_str(), text.as_str()].concat().into_bytes();
        for size in [1, 3, all.len()] {
            let mut guarded = guarded(&json!({}));
            let streams: Vec<u32> = (0..=text.len()).map(|_| guarded.start(&row)).collect();
            for (at, stream) in streams.iter().enumerate() {
                for chunk in all[..at].chunks(size) {
                    assert_eq!(guarded.chunk(*stream, chunk), chunk, "{}", row.name);
                }
            }
            guarded.block();
            for (at, stream) in streams.iter().enumerate() {
                let mut passed = all[..at].to_vec();
                for chunk in all[at..].chunks(size) {
                    passed.extend(guarded.chunk(*stream, chunk));
                }
                guarded.end(*stream);
                let passed = String::from_utf8(passed).unwrap();
                let name = format!("{}, cut at {at} by {size}: {passed}", row.name);
                let whole = before_last(&passed, row.last).expect(&name);
                assert!(whole.len() >= at && all.starts_with(whole.as_bytes()), "{name}");
                let ends = ends(row.events);
                assert!(ends.contains(&whole.len()), "{name}");
                if size == 1 {
                    let first = ends.into_iter().find(|end| *end >= at).unwrap_or_default();
                    // With or without the LF behind a CR.
                    assert!((first..=first + 1).contains(&whole.len()), "{name}");
                }
            }
            let stopped = u64::try_from(streams.len()).unwrap();
            assert_eq!(guarded.count(Counter::GuardStopped), stopped, "{}", row.name);
            guarded.settle();
            check_told(&guarded, &row, streams.len());
        }
    }
}

/// Where the stream may end if it comes twice. After a CR an event is over; the LF behind it changes nothing.
fn ends(events: &str) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    for event in [events, events].concat().split_terminator('|') {
        at += event.len();
        if event.ends_with("\r\n") {
            ends.push(at - 1);
        }
        ends.push(at);
    }
    ends
}

/// What stands before the last events, if these are there once and nothing behind them.
fn before_last<'a>(passed: &'a str, last: &str) -> Option<&'a str> {
    let (start, end) = last.split_once("RETRY").unwrap_or((last, ""));
    let (whole, behind) = passed.split_once(start)?;
    let number = behind.strip_suffix(end)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(whole)
}

/// Each stream is told of once, with an estimate of what was used, or as a call that was given up.
fn check_told(guarded: &Guarded, row: &Row, count: usize) {
    let told: Vec<&Value> = guarded.told.iter().map(|event| &event["data"]).collect();
    let is_llm = row.head.iter().any(|(_, value)| value.starts_with("/v1"));
    let cancelled = told.iter().filter(|data| data["execution_status"] == "CANCELLED").count();
    let is_step = row.name == "responses";
    assert_eq!(cancelled, if is_llm && !is_step { 0 } else { count }, "{}", row.name);
    let generations = told.iter().filter(|data| data["event_type"] == "token_consumption");
    let (whole, cut): (Vec<&Value>, Vec<&Value>) =
        generations.partition(|data| data["completeness"] == "COMPLETE");
    assert_eq!(whole.len(), 1, "what spent everything");
    assert_eq!(cut.len(), if is_llm { count } else { 0 }, "{}", row.name);
    for generation in cut {
        assert!(generation["tokens"]["input"].as_u64() > Some(0), "{generation}");
    }
}

/// The types of the messages, exceptions' with `!`.
#[derive(Default)]
struct Types(Vec<String>);

impl amazon_event_stream::FrameHandler for Types {
    fn payload(&mut self, _headers: &MessageHeaders, _piece: &[u8]) {}

    fn dispatch(&mut self, headers: &MessageHeaders) {
        let (event, exception) = (&headers.event_type, &headers.exception_type);
        let name = String::from_utf8([event.as_slice(), exception].concat()).unwrap();
        self.0.push(if headers.is_event() { name } else { format!("!{name}") });
    }
}

#[test]
fn an_amazon_event_stream_ends_with_an_exception_wherever_it_is_cut() {
    let event = |name: &str, payload: &str| {
        let headers = [
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ];
        amazon_event_stream::message(&headers, payload.as_bytes())
    };
    let one = event("messageStart", r#"{"role":"assistant"}"#);
    let two = event("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"Hello"}}"#);
    let all = [one.as_slice(), &two, &two].concat();
    let row = Row {
        name: "converse",
        head: llm("/model/anthropic.claude-sonnet-4/converse-stream", "bedrock.example"),
        request: r#"{"messages":[]}"#,
        media_type: "application/vnd.amazon.eventstream",
        events: "",
        last: "",
    };
    let mut guarded = guarded(&json!({}));
    let streams: Vec<u32> = (0..all.len()).map(|_| guarded.start(&row)).collect();
    for (at, stream) in streams.iter().enumerate() {
        assert_eq!(guarded.chunk(*stream, &all[..at]), &all[..at]);
    }
    guarded.block();
    for (at, stream) in streams.iter().enumerate() {
        let mut passed = all[..at].to_vec();
        for chunk in all[at..].chunks(5) {
            passed.extend(guarded.chunk(*stream, chunk));
        }
        guarded.end(*stream);
        let (mut framer, mut types) = (amazon_event_stream::Framer::default(), Types::default());
        framer.feed(&passed, &mut types);
        assert!(!framer.is_broken(), "cut at {at}");
        let whole = [0, one.len(), one.len() + two.len(), all.len()];
        let events = whole.iter().position(|end| *end >= at).unwrap();
        let expected = ["messageStart", "contentBlockDelta", "contentBlockDelta"];
        let expected = [&expected[..events], &["!throttlingException"]].concat();
        // The last cut is so late that the stream ends with its own last message.
        let is_over = passed == all;
        assert!(types.0 == expected || is_over, "cut at {at}: {:?}", types.0);
        assert!(!is_over || at > all.len() - 5, "cut at {at}: never ended");
    }
}

fn chat(done: bool) -> Row {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n|";
    let mut row = rows().remove(0);
    if done {
        row.events = finish;
    }
    row
}

#[test]
fn what_has_come_to_its_end_is_not_cut() {
    let mut guarded = guarded(&json!({}));
    let finished = chat(true);
    let open = [guarded.start(&finished), guarded.start(&finished)];
    let call = guarded.start(&rows()[5]);
    for stream in open {
        guarded.chunk(stream, finished.events.trim_end_matches('|').as_bytes());
    }
    guarded.block();
    let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\ndata: [DONE]\n\n";
    for stream in open {
        assert_eq!(guarded.chunk(stream, usage), usage);
    }
    let answer = b"data: {\"jsonrpc\":\"2.0\",\"id\":\"one\",\"result\":{}}\n\n";
    assert_eq!(guarded.chunk(call, answer), answer, "the answer that is here already");
    assert_eq!(guarded.chunk(call, b": ping\n\n"), b": ping\n\n");
    assert_eq!(guarded.count(Counter::GuardStopped), 0);
}

#[test]
fn only_whom_it_is_about_and_only_where_the_guard_says_so() {
    let row = chat(false);
    let event = row.events.split('|').next().unwrap().as_bytes();
    // Another customer, a guard that does not say so, one that only observes, a coding that hides the events.
    let mut other = guarded(&json!({}));
    let mut rival = row.head.clone();
    rival[3].1 = "rival";
    let Became::Passed(stream, ..) = other.send(&rival, row.request) else { panic!() };
    other.stream_head(stream, EVENTS, &[]);
    other.block();
    assert_eq!(other.chunk(stream, event), event);

    let mut silent = Guarded::new(&json!([guard(&json!({}))]));
    let stream = silent.start(&row);
    silent.block();
    assert_eq!(silent.chunk(stream, event), event);

    let mut observing = guarded(&json!({ "mode": "observe" }));
    let stream = observing.start(&row);
    observing.generate("acme", 50_000);
    observing.settle();
    for _ in 0..10 {
        observing.envoy.now.0 += 200;
        assert_eq!(observing.chunk(stream, event), event);
    }
    assert_eq!(observing.count(Counter::GuardWouldStop), 1, "told once");

    let mut coded = guarded(&json!({}));
    let Became::Passed(stream, ..) = coded.send(&row.head, row.request) else { panic!() };
    coded.stream_head(stream, EVENTS, &[("content-encoding", "gzip")]);
    coded.block();
    assert_eq!(coded.chunk(stream, event), event);
    for guarded in [other, silent, observing, coded] {
        assert_eq!(guarded.count(Counter::GuardStopped), 0);
    }
}

#[test]
fn a_stream_that_was_ended_is_closed_a_moment_later_and_only_once() {
    let row = chat(false);
    let mut guarded = guarded(&json!({}));
    let streams = [guarded.start(&row), guarded.start(&row)];
    guarded.block();
    let now = guarded.envoy.now;
    for stream in streams {
        let passed = guarded.chunk(stream, b"data: {}\n\n");
        assert!(passed.ends_with(b"data: [DONE]\n\n"));
        assert_eq!(guarded.chunk(stream, b"data: {}\n\n"), b"");
    }
    // The client has left one of them by itself.
    guarded.end(streams[0]);
    for (later_ms, expected) in [(0, vec![]), (499, vec![]), (500, vec![streams[1]]), (750, vec![])]
    {
        let at = now.plus(Millis(later_ms));
        let closed = [guarded.meter_of(0).0.closes(at), guarded.meter_of(1).0.closes(at)].concat();
        assert_eq!(closed, expected, "{later_ms} ms later");
    }
    assert_eq!(guarded.chunk(streams[1], b"data: {}\n\n"), b"", "until Envoy has closed it");
}

#[test]
fn the_response_comes_without_a_coding_and_without_a_length() {
    let mut guarded = guarded(&json!({}));
    let headers: Vec<_> = [CHAT, &[("accept-encoding", "gzip, br")]]
        .concat()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .collect();
    let now = guarded.envoy.now;
    let (meter, host) = guarded.meter_of(2);
    let HeadAction::Follow(edit) = meter.request_head(host, 2, Headers(&headers), now) else {
        panic!()
    };
    assert_eq!(edit.accept_encoding.as_deref(), Some("identity"));
    guarded.stream_head(2, EVENTS, &[("content-length", "1000")]);
    assert!(guarded.meter_of(2).0.shortens_response(2));
    guarded.stream_head(2, "application/json", &[]);
}

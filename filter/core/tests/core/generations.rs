//! Generations: from the bytes of two streams on two workers to one event, on the call that caused it.

use std::collections::BTreeMap;

use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::{Envoy, meter};
use crate::support::test;

pub(crate) const TRACE_A: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const TRACE_B: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00f067aa0ba902b7-01";

pub(crate) fn config(llm: &Value) -> String {
    json!({
        "emitter": "edge-1",
        "rate_cards": [{"version": "2025-11-01", "currency": "USD", "rates": [
            {"provider": "openai", "model": "gpt-4o*", "input": "2.5", "output": "10", "cache_read": "1.25"},
        ]}],
        "products": [
            {
                "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"},
                "identity": {"customer": {"trusted_header": "x-customer-id"}},
                "pricing": {"default": {"price": "0.05"}},
            },
            {
                "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
                "llm": llm,
                "pricing": {"tokens": {"pass_through": true, "markup": "0.2"}},
            },
        ],
    })
    .to_string()
}

/// Two workers and what passes them.
pub(crate) struct Mesh {
    pub(crate) envoy: Envoy,
    pub(crate) second: Meter,
    next_stream: u32,
    /// The trace context with which each request went up.
    pub(crate) carried: BTreeMap<u32, Vec<(String, String)>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Worker {
    First,
    Second,
}

/// The headers of a row.
pub(crate) type Head<'a> = &'a [(&'a str, &'a str)];

pub(crate) const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":400}}}"#;
pub(crate) const JSON: &str = "application/json";

impl Mesh {
    pub(crate) fn new(config: &str) -> Self {
        let mut envoy = Envoy::new(config);
        let second = meter(&mut envoy.host, config);
        Self { envoy, second, next_stream: 100, carried: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, worker: Worker, head: &[(&str, &str)], body: &str) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 1;
        let headers: Vec<_> =
            head.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let Envoy { host, worker: first, now, .. } = &mut self.envoy;
        let meter = match worker {
            Worker::First => first,
            Worker::Second => &mut self.second,
        };
        let HeadAction::Follow(edit) = meter.request_head(host, stream, Headers(&headers), *now)
        else {
            panic!("not followed")
        };
        let sent = head.iter().filter(|(name, _)| name.starts_with("trace"));
        let mut carried: BTreeMap<&str, &str> = sent.copied().collect();
        carried.extend(edit.set.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let carried = carried.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.carried.insert(stream, carried.collect());
        meter.request_body(host, stream, body.as_bytes(), true, *now);
        stream
    }

    pub(crate) fn answer(
        &mut self,
        worker: Worker,
        stream: u32,
        head: &[(&str, &str)],
        body: &str,
        end: StreamEnd,
    ) {
        self.envoy.now.0 += 5;
        let headers: Vec<_> =
            head.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let Envoy { host, worker: first, now, .. } = &mut self.envoy;
        let meter = match worker {
            Worker::First => first,
            Worker::Second => &mut self.second,
        };
        if !head.is_empty() {
            let _ = meter.response_head(stream, Headers(&headers));
            meter.response_body(host, stream, body.as_bytes(), true, *now);
        }
        meter.stream_end(host, stream, end, *now);
    }

    /// A tool call of `session` on the first worker, whose request has gone up.
    pub(crate) fn call(&mut self, session: &str, trace: &str) -> u32 {
        let head = [
            (":method", "POST"),
            (":path", "/mcp"),
            ("mcp-session-id", session),
            ("x-customer-id", "acme"),
            ("traceparent", trace),
        ];
        let body = r#"{"id":1,"method":"tools/call","params":{"name":"summarise"}}"#;
        self.send(Worker::First, &head, body)
    }

    pub(crate) fn answer_call(&mut self, stream: u32) {
        let head = [(":status", "200"), ("content-type", JSON)];
        self.answer(Worker::First, stream, &head, r#"{"id":1,"result":{}}"#, StreamEnd::Complete);
    }

    /// A chat completion on the second worker, whose request has gone up.
    pub(crate) fn ask(&mut self, trace: &str) -> u32 {
        let head = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("traceparent", trace),
        ];
        self.send(Worker::Second, &head, r#"{"model":"gpt-4o"}"#)
    }

    /// A chat completion by a tool that carries on these headers of the call that runs it.
    pub(crate) fn ask_in(&mut self, call: u32, names: &[&str]) -> u32 {
        let carried = self.carried[&call].clone();
        let mut head = vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
        ];
        let carried = carried.iter().filter(|(name, _)| names.contains(&name.as_str()));
        head.extend(carried.map(|(name, value)| (name.as_str(), value.as_str())));
        self.send(Worker::Second, &head, r#"{"model":"gpt-4o"}"#)
    }

    pub(crate) fn answer_chat(&mut self, stream: u32) {
        let head = [(":status", "200"), ("content-type", JSON)];
        self.answer(Worker::Second, stream, &head, CHAT, StreamEnd::Complete);
    }

    /// The token events, and the tool event, of what has happened.
    pub(crate) fn events(&mut self) -> (Vec<Value>, Vec<Value>) {
        let made = self.envoy.deliver(2000);
        (kinds(&made, "token_consumption"), kinds(&made, "tool_invocation"))
    }
}

/// What happens, in its order, and whether the accountant reads in between.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Call,
    Ask,
    Answer,
    AnswerCall,
    Tick,
    /// The accountant's VM dies, and another takes over.
    Die,
}

#[test]
fn a_generation_belongs_to_the_call_that_was_running_however_the_two_end() {
    use Step::{Answer, AnswerCall, Ask, Call, Die, Tick};
    let orders: [&[Step]; 9] = [
        &[Call, Ask, Answer, AnswerCall],
        &[Call, Tick, Ask, Tick, Answer, Tick, AnswerCall],
        &[Call, Ask, AnswerCall, Answer],
        &[Call, Ask, Tick, AnswerCall, Tick, Tick, Tick, Tick, Answer],
        &[Call, Tick, Tick, Tick, Ask, AnswerCall, Answer, Tick],
        &[Call, Tick, Die, Ask, Tick, Answer, AnswerCall],
        &[Call, Ask, Tick, Die, Answer, Tick, AnswerCall],
        &[Call, Ask, Answer, Tick, Die, AnswerCall],
        &[Call, Ask, Tick, Tick, Tick, Die, AnswerCall, Tick, Die, Answer],
    ];
    for order in orders {
        let config = config(&json!({}));
        let mut mesh = Mesh::new(&config);
        let (mut call, mut asked) = (0, 0);
        let mut made = Vec::new();
        for step in order {
            match step {
                Call => call = mesh.call("s", TRACE_A),
                Ask => asked = mesh.ask_in(call, &["traceparent", "tracestate"]),
                Answer => mesh.answer_chat(asked),
                AnswerCall => mesh.answer_call(call),
                Tick => {
                    let waiting = mesh.envoy.tick(1100);
                    made.extend(mesh.envoy.take(waiting));
                }
                Die => {
                    mesh.envoy.main = meter(&mut mesh.envoy.host, &config);
                    // The lease lapses.
                    while !mesh.envoy.main.is_accountant() {
                        let waiting = mesh.envoy.tick(250);
                        assert!(waiting.is_empty() || mesh.envoy.main.is_accountant());
                        made.extend(mesh.envoy.take(waiting));
                    }
                }
            }
        }
        made.extend(mesh.envoy.deliver(4000));
        let (tokens, calls) = (kinds(&made, "token_consumption"), kinds(&made, "tool_invocation"));
        assert_eq!((tokens.len(), calls.len()), (1, 1), "{order:?}");
        for (name, value) in [
            ("call_id", &calls[0]["call_id"]),
            ("session_id", &calls[0]["session_id"]),
            ("attribution", &json!("trace")),
            ("tool_name", &json!("summarise")),
            ("customer_id", &json!("acme")),
            ("total_provider_cost", &json!("0.003")),
            ("price", &json!("0.0036")),
        ] {
            assert_eq!(&tokens[0][name], value, "{name} of {order:?}");
        }
        assert!(mesh.envoy.host.counters.get(&Counter::FactsUnreadable).is_none_or(|n| *n == 0));
        let rest = mesh.envoy.deliver(4_000_000);
        let closed = kinds(&rest, "session_closed");
        assert_eq!(closed.len(), 1, "{order:?}");
        for (name, value) in [
            ("total_provider_cost", json!("0.003")),
            ("total_revenue", json!("0.0536")),
            ("unattributed_provider_cost", json!("0")),
            ("generations", json!(1)),
            (
                "total_tokens",
                json!({"input": 1000, "output": 100, "reasoning": 0, "cache_read": 400, "cache_write": 0}),
            ),
            (
                "calls_by_tool",
                json!([{"tool_name": "summarise", "calls": 1, "billable_calls": 1, "revenue": "0.05", "provider_cost": "0.003"}]),
            ),
        ] {
            assert_eq!(closed[0][name], value, "{name} of {order:?}");
        }
        // Nothing is kept of what has ended.
        let left = mesh.envoy.host.data.iter().filter(|(key, (value, _))| {
            let name = key.rsplit('.').next().unwrap();
            // A slot that is free holds its stamp only.
            (name.starts_with('t') || name.starts_with('u')) && value.len() > 8
        });
        let left: Vec<_> = left.map(|(key, _)| key).collect();
        assert!(left.is_empty(), "{left:?} of {order:?}");
    }
}

/// The configuration, with a rule for the traces of calls.
pub(crate) fn traced(rule: &str, llm: &Value) -> String {
    let mut config: Value = serde_json::from_str(&config(llm)).unwrap();
    config["products"][0]["trace"] = json!(rule);
    config.to_string()
}

/// Who bears the cost of a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Call,
    Session,
    Customer,
    Nobody,
}

#[test]
fn a_cause_that_is_not_certain_is_not_claimed() {
    use Owner::{Call, Customer, Nobody, Session};
    // The options, the traces and sessions of calls that run, the generation's trace: what is claimed.
    let off = json!({});
    let infer = json!({"infer_when_unambiguous": true});
    let rows: [(&str, &Value, Head<'_>, &str, &str, Owner); 13] = [
        ("trust", &off, &[("s", TRACE_A)], TRACE_A, "trace", Call),
        ("trust", &off, &[("s", TRACE_A), ("t", TRACE_B)], TRACE_B, "trace", Call),
        ("trust", &off, &[("s", TRACE_A)], TRACE_B, "none", Nobody),
        ("trust", &off, &[("s", TRACE_A)], "", "none", Nobody),
        ("trust", &off, &[("s", "")], "", "none", Nobody),
        ("trust", &off, &[("s", TRACE_A), ("s", TRACE_A)], TRACE_A, "none", Session),
        // Row 100: two sessions with one trace cannot make the cost vanish.
        ("trust", &off, &[("s", TRACE_A), ("t", TRACE_A)], TRACE_A, "none", Customer),
        ("state", &off, &[("s", TRACE_A)], TRACE_A, "none", Nobody),
        ("own", &off, &[("s", TRACE_A)], TRACE_A, "none", Nobody),
        ("state", &infer, &[("s", "")], "", "inferred", Call),
        ("state", &infer, &[("s", TRACE_A)], "", "inferred", Call),
        ("state", &infer, &[("s", ""), ("s", "")], "", "none", Nobody),
        ("state", &infer, &[], "", "none", Nobody),
    ];
    for (rule, llm, calls, trace, attribution, owner) in rows {
        let mut mesh = Mesh::new(&traced(rule, llm));
        let open: Vec<u32> =
            calls.iter().map(|(session, trace)| mesh.call(session, trace)).collect();
        let asked = mesh.ask(trace);
        mesh.answer_chat(asked);
        for stream in open {
            mesh.answer_call(stream);
        }
        let (tokens, ended) = mesh.events();
        let shown = format!("{rule} {llm} {calls:?} {trace}");
        assert_eq!(tokens.len(), 1, "{shown}");
        assert_eq!(tokens[0]["attribution"], attribution, "{shown}");
        let is_theirs = ended.iter().any(|call| call["session_id"] == tokens[0]["session_id"]);
        let found = match (tokens[0].get("call_id"), is_theirs, tokens[0]["customer_id"].as_str()) {
            (Some(_), true, Some("acme")) => Call,
            (None, true, Some("acme")) => Session,
            (None, false, Some("acme")) => Customer,
            (None, false, Some("anonymous")) => Nobody,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, owner, "{shown}");
        let product = if owner == Nobody { "llm" } else { "crm" };
        assert_eq!(tokens[0]["product_id"], product, "{shown}");
    }
}

#[test]
fn a_call_that_ended_before_the_generation_was_asked_for_is_not_its_cause() {
    let mut mesh = Mesh::new(&config(&json!({"infer_when_unambiguous": true})));
    let call = mesh.call("s", TRACE_A);
    mesh.answer_call(call);
    mesh.envoy.now.0 += 1;
    let asked = mesh.ask(TRACE_A);
    mesh.answer_chat(asked);
    let (tokens, _) = mesh.events();
    assert_eq!(tokens[0]["attribution"], "none");
}

#[test]
fn the_proof_of_a_call_counts_for_a_second_after_its_end() {
    for (ticks, attribution) in [(0, "trace"), (1, "trace"), (3, "trace"), (12, "none")] {
        let mut mesh = Mesh::new(&config(&json!({})));
        let call = mesh.call("s", TRACE_A);
        mesh.answer_call(call);
        for _ in 0..ticks {
            let waiting = mesh.envoy.tick(250);
            mesh.envoy.take(waiting);
        }
        let asked = mesh.ask_in(call, &["traceparent", "tracestate"]);
        mesh.answer_chat(asked);
        let (tokens, _) = mesh.events();
        assert_eq!(tokens[0]["attribution"], attribution, "{ticks} ticks");
    }
}

#[test]
fn a_copied_trace_spends_nobody_elses_money() {
    for (rule, customer, attribution, payer) in [
        ("trust", "acme", "trace", "acme"),
        ("trust", "mallory", "none", "mallory"),
        ("trust", "", "trace", "acme"),
        ("state", "acme", "trace", "acme"),
        ("state", "mallory", "none", "mallory"),
        ("state", "", "none", "anonymous"),
    ] {
        let mut config: Value = serde_json::from_str(&traced(rule, &json!({}))).unwrap();
        config["products"][1]["identity"] = json!({
            "customer": {"trusted_header": "x-caller"}, "on_missing": "meter_as_anonymous",
        });
        let mut mesh = Mesh::new(&config.to_string());
        let call = mesh.call("s", TRACE_A);
        let mut head = vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("traceparent", TRACE_A),
        ];
        if !customer.is_empty() {
            head.push(("x-caller", customer));
        }
        let asked = mesh.send(Worker::Second, &head, "{}");
        mesh.answer_chat(asked);
        mesh.answer_call(call);
        let (tokens, _) = mesh.events();
        assert_eq!(tokens[0]["attribution"], attribution, "{rule} {customer}");
        assert_eq!(tokens[0]["customer_id"], payer, "{rule} {customer}");
    }
}

#[test]
fn a_trace_in_the_message_counts_like_one_in_the_head() {
    let mut mesh = Mesh::new(&traced("trust", &json!({})));
    let head = [(":method", "POST"), (":path", "/mcp"), ("x-customer-id", "acme")];
    let body = json!({"id": 1, "method": "tools/call", "params": {
        "name": "summarise", "_meta": {"traceparent": TRACE_B},
    }});
    let call = mesh.send(Worker::First, &head, &body.to_string());
    let asked = mesh.ask(TRACE_B);
    mesh.answer_chat(asked);
    mesh.answer_call(call);
    let (tokens, calls) = mesh.events();
    assert_eq!(tokens[0]["call_id"], calls[0]["call_id"]);
}

#[test]
fn a_stored_response_is_counted_once_however_often_it_is_told() {
    let mut mesh = Mesh::new(&config(&json!({})));
    let told = |status: &str, usage: &str, at: u64| {
        format!(
            r#"{{"id":"resp_1","object":"response","created_at":{at},"status":"{status}","model":"gpt-4o","usage":{usage}}}"#
        )
    };
    let now = mesh.envoy.now.0 / 1000;
    let usage = r#"{"input_tokens":10,"output_tokens":20,"total_tokens":30}"#;
    let (post, get) = (
        [(":method", "POST"), (":path", "/v1/responses"), (":authority", "api.openai.com")],
        [(":method", "GET"), (":path", "/v1/responses/resp_1"), (":authority", "api.openai.com")],
    );
    let head = [(":status", "200"), ("content-type", JSON)];
    for (ask, body, answer) in [
        (&post, r#"{"background":true}"#, told("queued", "null", now)),
        (&get, "", told("in_progress", "null", now)),
        (&get, "", told("completed", usage, now)),
        (&get, "", told("completed", usage, now)),
        (&get, "", told("completed", usage, now)),
    ] {
        let stream = mesh.send(Worker::First, ask, body);
        mesh.answer(Worker::First, stream, &head, &answer, StreamEnd::Complete);
    }
    let (tokens, _) = mesh.events();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0]["quantity"], 30);
    assert_eq!(mesh.envoy.host.counters[&Counter::GenerationsToldAgain], 2);
    // Another one that was counted before what is remembered.
    let old = told("completed", usage, now - 90_000).replace("resp_1", "resp_0");
    let stream = mesh.send(Worker::First, &get, "");
    mesh.answer(Worker::First, stream, &head, &old, StreamEnd::Complete);
    assert_eq!(mesh.events().0.len(), 0);
    assert_eq!(mesh.envoy.host.counters[&Counter::GenerationsTooOld], 1);
}

#[test]
fn what_a_request_makes_is_new_whatever_time_its_server_reports() {
    let head = [(":status", "200"), ("content-type", JSON)];
    for (number, created_at) in ["0", "1", "1763900000", "1763900000.5", "null"].iter().enumerate()
    {
        let mut mesh = Mesh::new(&config(&json!({})));
        let id = format!("resp_{number}");
        let told = format!(
            r#"{{"id":"{id}","object":"response","created_at":{created_at},"status":"completed","model":"gpt-4o","usage":{{"input_tokens":10,"output_tokens":20,"total_tokens":30}}}}"#
        );
        let post =
            [(":method", "POST"), (":path", "/v1/responses"), (":authority", "api.openai.com")];
        let path = format!("/v1/responses/{id}");
        let get = [(":method", "GET"), (":path", &path), (":authority", "api.openai.com")];
        for (ask, body) in [(&post, r#"{"model":"gpt-4o"}"#), (&get, "")] {
            let stream = mesh.send(Worker::First, ask, body);
            mesh.answer(Worker::First, stream, &head, &told, StreamEnd::Complete);
        }
        let (tokens, _) = mesh.events();
        assert_eq!(tokens.len(), 1, "{created_at}");
        assert_eq!(tokens[0]["quantity"], 30, "{created_at}");
    }
}

#[test]
fn a_run_whose_stream_was_cut_is_counted_once() {
    let run = |status: &str, usage: &str| {
        format!(
            r#"{{"id":"run_1","object":"thread.run","created_at":1,"status":"{status}","model":"gpt-4o","usage":{usage}}}"#
        )
    };
    let cut = format!("event: thread.run.in_progress\ndata: {}\n\n", run("in_progress", "null"));
    let whole =
        run("completed", r#"{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}"#);
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let plain = [(":status", "200"), ("content-type", JSON)];
    for path in ["/v1/threads/t/runs", "/v1/threads/runs"] {
        for policy in ["bill_observed", "estimate", "waive"] {
            let mut mesh = Mesh::new(&config(&json!({"incomplete_usage": policy})));
            let post = [(":method", "POST"), (":path", path), (":authority", "api.openai.com")];
            let stream = mesh.send(Worker::First, &post, r#"{"stream":true}"#);
            mesh.answer(Worker::First, stream, &events, &cut, StreamEnd::Aborted);
            let get = [
                (":method", "GET"),
                (":path", "/v1/threads/t/runs/run_1"),
                (":authority", "api.openai.com"),
            ];
            let mut made = Vec::new();
            if policy != "estimate" {
                let (tokens, _) = mesh.events();
                assert_eq!(tokens[0]["completeness"], "MISSING", "{policy}");
                made.extend(tokens);
            }
            for _ in 0..2 {
                let stream = mesh.send(Worker::First, &get, "");
                let told = whole.replace("\"created_at\":1,", "");
                mesh.answer(Worker::First, stream, &plain, &told, StreamEnd::Complete);
            }
            made.extend(mesh.events().0);
            let sum: u64 = made.iter().map(|event| event["quantity"].as_u64().unwrap()).sum();
            assert_eq!(sum, 30, "{path} {policy}: {made:?}");
            let told_again = mesh.envoy.host.counters[&Counter::GenerationsToldAgain];
            assert_eq!(told_again, 1, "{path} {policy}");
        }
    }
}

const NOTHING: &str = r#"{"object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;
const FIRST: &str = r#"data: {"object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"twelve bytes"}}]}

"#;
const STARTED: &str = r#"data: {"type":"message_start","message":{"model":"claude","usage":{"input_tokens":50,"output_tokens":1}}}

data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"forty bytes of text, which are 10 tokens"}}

"#;

#[test]
fn what_is_not_known_is_named_and_never_zero() {
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let plain = [(":status", "200"), ("content-type", JSON)];
    let brotli = [(":status", "200"), ("content-type", JSON), ("content-encoding", "br")];
    let error = [(":status", "429"), ("content-type", JSON)];
    let (complete, aborted) = (StreamEnd::Complete, StreamEnd::Aborted);
    let rows: [(&str, &str, Head<'_>, &str, StreamEnd, Value); 15] = [
        (
            "bill_observed",
            "openai",
            &plain,
            CHAT,
            complete,
            json!(["COMPLETE", {"input": 1000, "output": 100, "cache_read": 400, "provider_total": 1100}, false, "0.003", "0.0036", null]),
        ),
        (
            "bill_observed",
            "openai",
            &plain,
            "{}",
            complete,
            json!(["MISSING", {}, false, null, "0", "unknown_usage"]),
        ),
        (
            "bill_observed",
            "openai",
            &plain,
            "<html>",
            complete,
            json!(["FAILED", {}, false, null, "0", "unknown_usage"]),
        ),
        (
            "bill_observed",
            "openai",
            &brotli,
            "?",
            complete,
            json!(["FAILED", {}, false, null, "0", "unknown_usage"]),
        ),
        (
            "bill_observed",
            "openai",
            &events,
            FIRST,
            aborted,
            json!(["MISSING", {}, false, null, "0", "unknown_usage"]),
        ),
        (
            "bill_observed",
            "openai",
            &[],
            "",
            aborted,
            json!(["MISSING", {}, false, null, "0", "unknown_usage"]),
        ),
        // 18 bytes of request, 12 of text.
        (
            "estimate",
            "openai",
            &events,
            FIRST,
            aborted,
            json!(["MISSING", {"input": 5, "output": 3}, true, "0.0000425", "0.000051", null]),
        ),
        // 104: a stream that comes to its end without usage.
        (
            "estimate",
            "openai",
            &events,
            FIRST,
            complete,
            json!(["MISSING", {"input": 5, "output": 3}, true, "0.0000425", "0.000051", null]),
        ),
        // Left before the response began.
        (
            "estimate",
            "openai",
            &[],
            "",
            aborted,
            json!(["MISSING", {"input": 5}, true, "0.0000125", "0.000015", null]),
        ),
        // What cannot be read may all be text.
        (
            "estimate",
            "openai",
            &brotli,
            "12 bytes long",
            complete,
            json!(["FAILED", {"input": 5, "output": 4}, true, "0.0000525", "0.000063", null]),
        ),
        // A zero that the provider says stays zero.
        (
            "estimate",
            "openai",
            &plain,
            NOTHING,
            complete,
            json!(["COMPLETE", {"input": 0, "output": 0, "provider_total": 0}, false, "0", "0", null]),
        ),
        (
            "estimate",
            "anthropic",
            &events,
            STARTED,
            aborted,
            json!(["PARTIAL", {"input": 50, "output": 10}, true, null, "0", "no_rate"]),
        ),
        (
            "bill_observed",
            "anthropic",
            &events,
            STARTED,
            aborted,
            json!(["PARTIAL", {"input": 50, "output": 1}, false, null, "0", "no_rate"]),
        ),
        (
            "waive",
            "openai",
            &plain,
            CHAT,
            complete,
            json!(["COMPLETE", {"input": 1000, "output": 100, "cache_read": 400, "provider_total": 1100}, false, "0.003", "0.0036", null]),
        ),
        (
            "bill_observed",
            "openai",
            &error,
            r#"{"error":{"message":"slow down"}}"#,
            complete,
            json!(null),
        ),
    ];
    for (policy, provider, head, body, end, want) in rows {
        let mut mesh =
            Mesh::new(&config(&json!({"incomplete_usage": policy, "provider": provider})));
        let path = if provider == "openai" { "/v1/chat/completions" } else { "/v1/messages" };
        let ask = [(":method", "POST"), (":path", path)];
        let stream = mesh.send(Worker::Second, &ask, r#"{"model":"gpt-4o"}"#);
        mesh.answer(Worker::Second, stream, head, body, end);
        let (tokens, _) = mesh.events();
        let shown = format!("{policy} {provider} {body}");
        if want.is_null() {
            assert_eq!(tokens.len(), 0, "{shown}");
            assert_eq!(mesh.envoy.host.counters[&Counter::GenerationsRefused], 1, "{shown}");
            continue;
        }
        let found = &tokens[0];
        let found = json!([
            found["completeness"],
            found["tokens"],
            found["estimated"],
            found["total_provider_cost"],
            found["price"],
            found["unpriced_reason"]
        ]);
        assert_eq!(found, want, "{shown}");
        let unknown = want[1].as_object().unwrap().is_empty();
        let count = |counter| mesh.envoy.host.counters.get(&counter).copied().unwrap_or(0);
        assert_eq!(count(Counter::UsageUnknown), u64::from(unknown), "{shown}");
        assert_eq!(count(Counter::GenerationsUnpriced), u64::from(want[3].is_null()), "{shown}");
    }
}

#[test]
fn what_is_waived_costs_the_operator_alone() {
    let mut mesh = Mesh::new(&config(&json!({"incomplete_usage": "waive"})));
    let ask =
        [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com")];
    let stream = mesh.send(Worker::Second, &ask, r#"{"model":"gpt-4o"}"#);
    // A server that counts on in each chunk, cut in the middle.
    let chunk = format!(
        "data: {}\n\n",
        json!({"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"index": 0}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 7}})
    );
    let head = [(":status", "200"), ("content-type", "text/event-stream")];
    mesh.answer(Worker::Second, stream, &head, &chunk, StreamEnd::Aborted);
    let (tokens, _) = mesh.events();
    assert_eq!(tokens[0]["completeness"], "PARTIAL");
    assert_eq!(tokens[0]["total_provider_cost"], "0.00257");
    assert_eq!(tokens[0]["price"], "0");
}

#[test]
fn what_envoy_has_extracted_fills_in_and_never_replaces_what_is_known_better() {
    // 1000 read, 200 made, complete.
    let record = [0x1a, 3, 0x08, 0xe8, 0x07, 0x22, 3, 0x08, 0xc8, 0x01, 0x48, 1];
    let same = CHAT.replace("\"completion_tokens\":100", "\"completion_tokens\":200");
    for (body, output, source, disagreements) in [
        ("{}", 200, "envoy_metadata", 0),
        (same.as_str(), 200, "envoy_metadata", 0),
        (CHAT, 100, "body", 1),
    ] {
        let mut mesh = Mesh::new(&config(&json!({})));
        let stream = mesh.ask("");
        let head = [(":status", "200"), ("content-type", JSON)]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let Mesh { envoy, second, .. } = &mut mesh;
        assert_eq!(second.response_head(stream, Headers(&head)), BodyInterest::Bytes);
        second.response_body(&mut envoy.host, stream, body.as_bytes(), true, envoy.now);
        assert!(second.wants_envoy_usage(stream));
        second.envoy_usage(stream, &record);
        second.stream_end(&mut envoy.host, stream, StreamEnd::Complete, envoy.now);
        let (tokens, _) = mesh.events();
        assert_eq!(tokens[0]["tokens"]["output"], output, "{body}");
        assert_eq!(tokens[0]["usage_source"], source, "{body}");
        assert_eq!(tokens[0]["completeness"], "COMPLETE", "{body}");
        let count = mesh.envoy.host.counters.get(&Counter::UsageDisagreement).copied();
        assert_eq!(count.unwrap_or(0), disagreements, "{body}");
    }
}

#[test]
fn what_a_tool_reports_and_cannot_be_read_is_told() {
    let places = json!({"model": "/m", "input": "/in", "output": "/out", "cache_read": "/read",
        "cache_write": "/write", "cache_write_1h": "/hour", "reasoning": "/think"});
    let headers = json!({"model": "m", "input": "in", "output": "out", "cache_read": "read",
        "cache_write": "write", "cache_write_1h": "hour", "reasoning": "think"});
    let told = |tokens: Value, completeness: &'static str, is_inconsistent: bool| {
        Some((tokens, completeness, is_inconsistent))
    };
    let known = || told(json!({"input": 10, "output": 4}), "COMPLETE", false);
    let unreadable = || told(json!({}), "FAILED", true);
    let mut rows = vec![
        // Servers write numbers as text too.
        (json!({"in": "10", "out": 4}), known()),
        (json!({"in": 10.0, "out": 4, "read": null}), known()),
        (json!({"in": null, "out": null}), None),
        (json!({"m": "gpt-4o"}), None),
        (json!({"in": null, "out": 4}), told(json!({"output": 4}), "COMPLETE", false)),
        (
            json!({"read": 6, "think": 2}),
            told(
                json!({"input": 6, "cache_read": 6, "output": 2,
            "reasoning": 2}),
                "COMPLETE",
                true,
            ),
        ),
        (
            json!({"in": 10, "out": 4, "write": 6}),
            told(
                json!({"input": 10, "output": 4,
            "cache_write_5m": 6}),
                "COMPLETE",
                false,
            ),
        ),
        (
            json!({"in": 10, "out": 4, "write": 6, "hour": 5}),
            told(
                json!({"input": 10, "output": 4,
            "cache_write_5m": 1, "cache_write_1h": 5}),
                "COMPLETE",
                false,
            ),
        ),
        (
            json!({"in": 10, "out": 4, "hour": 5}),
            told(
                json!({"input": 10, "output": 4,
            "cache_write_1h": 5}),
                "COMPLETE",
                false,
            ),
        ),
        // What is more than its whole is beside it.
        (
            json!({"in": 20, "out": 4, "write": 6, "hour": 7}),
            told(
                json!({"input": 20, "output": 4,
            "cache_write_5m": 6, "cache_write_1h": 7}),
                "COMPLETE",
                true,
            ),
        ),
        (
            json!({"in": 2, "out": 4, "read": 6}),
            told(
                json!({"input": 8, "output": 4,
            "cache_read": 6}),
                "COMPLETE",
                true,
            ),
        ),
    ];
    for odd in [
        json!("many"),
        json!(""),
        json!(1.5),
        json!(-1),
        json!(true),
        json!([10]),
        json!({"a": 10}),
        json!("123456789012345678901234567890"),
    ] {
        rows.push((json!({"in": odd, "out": 4}), told(json!({"output": 4}), "COMPLETE", true)));
        rows.push((json!({"in": odd, "out": odd}), unreadable()));
        rows.push((json!({"read": odd}), unreadable()));
    }
    let in_head = |counts: &Value| {
        let counts = counts.as_object().expect("an object");
        let counts = counts.iter().filter(|(_, value)| value.is_string() || value.is_number());
        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let counts = counts.map(|(name, value)| (name.clone(), text(value)));
        counts.collect::<Vec<(String, String)>>()
    };
    let plain = [(":status", "200"), ("content-type", JSON)];
    let ask = |rules: Value, head: Head<'_>, result: &Value| {
        let mut config: Value = serde_json::from_str(&config(&json!({}))).unwrap();
        config["products"][0]["reported_usage"] = rules;
        let mut mesh = Mesh::new(&config.to_string());
        let call = mesh.call("s", "");
        let body = json!({"id": 1, "result": result}).to_string();
        mesh.answer(Worker::First, call, head, &body, StreamEnd::Complete);
        let (tokens, calls) = mesh.events();
        assert_eq!(calls.len(), 1, "{result}");
        let count = |counter| mesh.envoy.host.counters.get(&counter).copied().unwrap_or(0);
        (tokens, count(Counter::UsageUnknown), count(Counter::UsageInconsistent))
    };
    for (counts, expected) in rows {
        let head = in_head(&counts);
        let is_the_same = head.len() == counts.as_object().expect("an object").len();
        let head: Vec<(&str, &str)> = plain
            .into_iter()
            .chain(head.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .collect();
        let mut found = vec![ask(json!({"provider": "openai", "result": places}), &plain, &counts)];
        if is_the_same {
            let rules = json!({"provider": "openai", "trusted_headers": headers});
            found.push(ask(rules, &head, &json!({})));
        }
        for (tokens, unknown, inconsistent) in found {
            let found = tokens.first().map(|event| {
                let completeness = event["completeness"].as_str().unwrap();
                (event["tokens"].clone(), completeness, event["inconsistent"] == true)
            });
            assert_eq!(found, expected, "{counts}");
            let (is_unknown, is_inconsistent) = expected
                .as_ref()
                .map_or((false, false), |expected| (expected.1 == "FAILED", expected.2));
            assert_eq!(
                (unknown, inconsistent),
                (is_unknown.into(), is_inconsistent.into()),
                "{counts}"
            );
        }
    }
    // Two values of one header.
    let twice = [plain.as_slice(), &[("in", "10"), ("in", "11"), ("out", "4")]].concat();
    let rules = json!({"provider": "openai", "trusted_headers": headers});
    let (tokens, ..) = ask(rules, &twice, &json!({}));
    assert_eq!(
        (&tokens[0]["tokens"], &tokens[0]["inconsistent"]),
        (&json!({"output": 4}), &json!(true))
    );
}

#[test]
fn a_tool_may_report_the_generations_that_it_made_inside() {
    let places = json!({"model": "/_meta/usage/model", "input": "/_meta/usage/in", "output": "/structuredContent/a~1b"});
    let headers = json!({"model": "x-model", "input": "x-in", "output": "x-out"});
    let in_result = r#"{"id":1,"result":{"_meta":{"usage":{"in":10,"model":"gpt-4o"}},"structuredContent":{"a/b":4},"usage":{"in":99}}}"#;
    let in_events = format!("data: {{\"id\":7,\"method\":\"x\"}}\n\ndata: {in_result}\n\n");
    let plain = [(":status", "200"), ("content-type", JSON)];
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let in_head = [
        (":status", "200"),
        ("content-type", JSON),
        ("x-in", "10"),
        ("x-out", "4"),
        ("x-model", "gpt-4o"),
    ];
    let none = r#"{"id":1,"result":{}}"#;
    let rows: [(Value, Head<'_>, &str, Option<&str>); 7] = [
        (json!({"provider": "openai", "result": places}), &plain, in_result, Some("mcp_result")),
        (json!({"provider": "openai", "result": places}), &events, &in_events, Some("mcp_result")),
        (
            json!({"provider": "openai", "trusted_headers": headers}),
            &in_head,
            none,
            Some("response_headers"),
        ),
        (json!({"provider": "openai", "result": places}), &plain, none, None),
        (json!({"provider": "openai", "result": places}), &in_head, none, None),
        (json!({}), &in_head, in_result, None),
        (
            json!({"provider": "openai", "result": places, "trusted_headers": headers}),
            &in_head,
            in_result,
            Some("mcp_result"),
        ),
    ];
    for (rules, head, body, source) in rows {
        let mut config: Value = serde_json::from_str(&config(&json!({}))).unwrap();
        config["products"][0]["reported_usage"] = rules.clone();
        let mut mesh = Mesh::new(&config.to_string());
        let call = mesh.call("s", "");
        mesh.answer(Worker::First, call, head, body, StreamEnd::Complete);
        let (tokens, calls) = mesh.events();
        let shown = format!("{rules} {head:?}");
        assert_eq!(calls.len(), 1, "{shown}");
        assert_eq!(tokens.len(), usize::from(source.is_some()), "{shown}");
        if let Some(source) = source {
            for (name, value) in [
                ("usage_source", json!(source)),
                ("attribution", json!("result")),
                ("call_id", calls[0]["call_id"].clone()),
                ("session_id", calls[0]["session_id"].clone()),
                ("tokens", json!({"input": 10, "output": 4})),
                ("total_provider_cost", json!("0.000065")),
            ] {
                assert_eq!(tokens[0][name], value, "{name}: {shown}");
            }
        }
    }
}

//! A call exists with its head: what becomes of it where no body, no answer, or only a part came.

use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::products::{Pairs, headers};
use crate::support::test;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
const MESSAGE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{"messageId":"m"}}}"#;
const REPLY: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"message","messageId":"r"}}"#;
const PROMPT: &str = r#"{"model":"m","messages":[]}"#;
const CHAT: &str = r#"{"object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":1}}"#;
const RESPONSE: &str = r#"{"object":"response","id":"resp_1","model":"m","status":"completed","usage":{"input_tokens":10,"output_tokens":1}}"#;

/// One product of each kind of exchange.
const CONFIG: &str = r#"{
    "products": [
        {"id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"}, "call_timeout": "1m"},
        {"id": "api", "type": "STANDARD_API", "match": {"path_prefix": "/api"}},
        {"id": "agentic", "type": "AGENTIC_API", "match": {"path_prefix": "/agentic"}, "llm": {}},
        {"id": "a2a", "type": "AI_AGENT", "match": {"path_prefix": "/a2a"}},
        {"id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"}, "llm": {}}
    ]
}"#;

/// How much of a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Half,
    Whole,
}

/// A request, and the answer that it gets where it gets one.
struct Kind {
    name: &'static str,
    head: Pairs<'static>,
    body: &'static str,
    answer: &'static str,
    /// The event of a call, the name of the call in it, and what its head alone names it.
    call: Option<(&'static str, &'static str, &'static str)>,
    /// Whether it makes a generation.
    is_generation: bool,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "MCP, 2026-07-28",
        head: &[
            (":method", "POST"),
            (":path", "/mcp"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "t"),
        ],
        body: CALL,
        answer: RESULT,
        call: Some(("tool_invocation", "t", "__unnamed__")),
        is_generation: false,
    },
    Kind {
        name: "API",
        head: &[(":method", "POST"), (":path", "/api/x")],
        body: "0123456789",
        answer: "ok",
        call: Some(("api_call", "POST", "POST")),
        is_generation: false,
    },
    Kind {
        name: "API that makes a generation",
        head: &[(":method", "POST"), (":path", "/agentic/v1/chat/completions")],
        body: PROMPT,
        answer: CHAT,
        call: Some(("api_call", "POST", "POST")),
        is_generation: true,
    },
    Kind {
        name: "A2A over HTTP+JSON",
        head: &[(":method", "POST"), (":path", "/a2a/v1/message:send")],
        body: r#"{"message":{"messageId":"m"}}"#,
        answer: r#"{"message":{"messageId":"r"}}"#,
        call: Some(("agent_step", "message/send", "message/send")),
        is_generation: false,
    },
    Kind {
        name: "Responses",
        head: &[(":method", "POST"), (":path", "/v1/responses")],
        body: PROMPT,
        answer: RESPONSE,
        call: Some(("agent_step", "responses.create", "responses.create")),
        is_generation: true,
    },
    Kind {
        name: "a chat completion",
        head: &[(":method", "POST"), (":path", "/v1/chat/completions")],
        body: PROMPT,
        answer: CHAT,
        call: None,
        is_generation: true,
    },
];

/// Sends a part of a request.
fn send(envoy: &mut Envoy, stream: u32, kind: &Kind, part: Part) -> HeadAction {
    let head = headers(kind.head);
    let action = envoy.worker.request_head(&mut envoy.host, stream, Headers(&head), envoy.now);
    let HeadAction::Follow(edit) = &action else { return action };
    let body = kind.body.as_bytes();
    let body = if part == Part::Half { &body[..body.len() / 2] } else { body };
    let is_end = part == Part::Whole;
    match (part, edit.body_interest) {
        (Part::Head, _) => {}
        (_, BodyInterest::Size) => {
            envoy.worker.request_size(stream, body.len(), envoy.now);
            if is_end {
                envoy.worker.request_body(&mut envoy.host, stream, &[], true, envoy.now);
            }
        }
        _ => {
            let passed =
                envoy.worker.request_body(&mut envoy.host, stream, body, is_end, envoy.now);
            if let BodyAction::Answer(reply) = passed {
                return HeadAction::Answer(reply);
            }
        }
    }
    action
}

/// Answers it: with a status alone, or with its answer under 200.
fn answer(envoy: &mut Envoy, stream: u32, kind: &Kind, status: &str) {
    let head = headers(&[(":status", status), ("content-type", "application/json")]);
    let interest = envoy.worker.response_head(stream, Headers(&head));
    let body = if status == "200" { kind.answer } else { "" };
    match interest {
        BodyInterest::None => {}
        BodyInterest::Size => envoy.worker.response_size(stream, body.len()),
        BodyInterest::Bytes => {
            envoy.worker.response_body(&mut envoy.host, stream, body.as_bytes(), true, envoy.now);
        }
    }
}

fn count(envoy: &Envoy, counter: Counter) -> u64 {
    envoy.host.counters.get(&counter).copied().unwrap_or(0)
}

fn calls(events: &[Value]) -> Vec<Value> {
    ["tool_invocation", "api_call", "agent_step"].map(|kind| kinds(events, kind)).concat()
}

/// The name of a call in its event.
fn name_of(call: &Value) -> &Value {
    let names = ["tool_name", "operation", "method"].map(|member| &call[member]);
    names.into_iter().find(|name| name.is_string()).unwrap()
}

#[test]
fn a_call_that_is_ended_before_its_body_came_is_an_event_with_the_right_status() {
    use Part::{Half, Head, Whole};
    // What came of the request, the status of the answer, how the stream ended: the outcome of the call.
    for (part, status, end, outcome) in [
        // Local replies: rbac, rate limit, no route, no healthy upstream, a timeout, a redirection, a fault.
        (Head, Some("403"), StreamEnd::Complete, "BLOCKED"),
        (Head, Some("429"), StreamEnd::Complete, "BLOCKED"),
        (Head, Some("404"), StreamEnd::Complete, "ERROR"),
        (Head, Some("503"), StreamEnd::Complete, "ERROR"),
        (Head, Some("504"), StreamEnd::Complete, "TIMEOUT"),
        (Head, Some("400"), StreamEnd::Complete, "VALIDATION_FAILED"),
        (Head, Some("418"), StreamEnd::Aborted, "ERROR"),
        (Half, Some("429"), StreamEnd::Complete, "BLOCKED"),
        // A server that answers early, and the stream ends.
        (Head, Some("200"), StreamEnd::Complete, "SUCCESS"),
        (Half, Some("200"), StreamEnd::Complete, "SUCCESS"),
        // The client leaves.
        (Head, None, StreamEnd::Aborted, "CANCELLED"),
        (Half, None, StreamEnd::Aborted, "CANCELLED"),
        (Whole, None, StreamEnd::Aborted, "CANCELLED"),
        (Whole, Some("200"), StreamEnd::Complete, "SUCCESS"),
        (Whole, Some("429"), StreamEnd::Complete, "BLOCKED"),
    ] {
        for kind in KINDS {
            let what = format!("{}, {part:?} {status:?} {end:?}", kind.name);
            let mut envoy = Envoy::new(CONFIG);
            send(&mut envoy, 9, kind, part);
            envoy.now.0 += 5;
            if let Some(status) = status {
                answer(&mut envoy, 9, kind, status);
            }
            envoy.worker.stream_end(&mut envoy.host, 9, end, envoy.now);
            let events = envoy.deliver(2000);
            let calls = calls(&events);
            assert_eq!(calls.len(), usize::from(kind.call.is_some()), "{what}");
            assert_eq!(count(&envoy, Counter::Calls), calls.len() as u64, "{what}");
            if let (Some((event_type, whole, by_head)), Some(call)) = (kind.call, calls.first()) {
                assert_eq!(call["event_type"], event_type, "{what}");
                assert_eq!(call["execution_status"], outcome, "{what}");
                let http_status = status.map_or(0, |status| status.parse::<u64>().unwrap());
                assert_eq!(call["http_status"], http_status, "{what}");
                let names: &[&str] = match (part, status) {
                    (Whole, _) => &[whole],
                    // An answer to what was not read is counted by its own rules.
                    (_, Some("200")) => &[whole, by_head],
                    _ => &[by_head],
                };
                assert!(names.contains(&name_of(call).as_str().unwrap()), "{what}: {call}");
                assert_eq!(call["execution_duration_ms"], 5, "{what}");
            }
            let generations = kinds(&events, "token_consumption");
            let refused = count(&envoy, Counter::GenerationsRefused);
            assert_eq!(count(&envoy, Counter::Generations), u64::from(kind.is_generation));
            assert_eq!(
                generations.len() as u64 + refused,
                u64::from(kind.is_generation),
                "{what}: {generations:?}"
            );
            assert_eq!(count(&envoy, Counter::ExchangesUnread), 0, "{what}");
        }
    }
}

#[test]
fn a_request_whose_head_does_not_say_that_it_is_a_call_is_counted_if_it_is_not_read() {
    for path in ["/mcp", "/a2a"] {
        let kind = Kind {
            name: path,
            head: if path == "/mcp" {
                &[(":method", "POST"), (":path", "/mcp")]
            } else {
                &[(":method", "POST"), (":path", "/a2a")]
            },
            body: CALL,
            answer: "{}",
            call: None,
            is_generation: false,
        };
        for (part, unread) in [(Part::Head, 1), (Part::Half, 1), (Part::Whole, 0)] {
            let mut envoy = Envoy::new(CONFIG);
            send(&mut envoy, 9, &kind, part);
            answer(&mut envoy, 9, &kind, "403");
            envoy.worker.stream_end(&mut envoy.host, 9, StreamEnd::Complete, envoy.now);
            assert_eq!(count(&envoy, Counter::ExchangesUnread), unread, "{path} {part:?}");
            let events = calls(&envoy.deliver(2000));
            assert_eq!(count(&envoy, Counter::Calls), events.len() as u64, "{path} {part:?}");
        }
    }
}

#[test]
fn an_agent_s_answer_to_what_was_not_read_is_that_of_a_step() {
    const TASK: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t","contextId":"c","status":{"state":"completed"}}}"#;
    const LISTED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[]}}"#;
    const FAILED: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600}}"#;
    // What comes of the request, the answer, and the steps.
    for (body, is_end, answer_text, outcomes) in [
        ("", false, REPLY, &["SUCCESS"][..]),
        (&MESSAGE[..20], false, REPLY, &["SUCCESS"]),
        ("no JSON", true, REPLY, &["SUCCESS"]),
        ("no JSON", true, TASK, &["SUCCESS"]),
        ("no JSON", true, LISTED, &[]),
        ("no JSON", true, FAILED, &[]),
        (r#"{"id":1,"method":"tasks/get","params":{"id":"t"}}"#, true, TASK, &[]),
        (MESSAGE, true, REPLY, &["SUCCESS"]),
    ] {
        let mut envoy = Envoy::new(CONFIG);
        let head = headers(&[(":method", "POST"), (":path", "/a2a")]);
        let Envoy { worker, host, now, .. } = &mut envoy;
        let _ = worker.request_head(host, 9, Headers(&head), *now);
        if is_end || !body.is_empty() {
            worker.request_body(host, 9, body.as_bytes(), is_end, *now);
        }
        let head = headers(&[(":status", "200"), ("content-type", "application/json")]);
        let _ = worker.response_head(9, Headers(&head));
        worker.response_body(host, 9, answer_text.as_bytes(), true, *now);
        worker.stream_end(host, 9, StreamEnd::Complete, *now);
        let steps = kinds(&envoy.deliver(2000), "agent_step");
        let found: Vec<&str> =
            steps.iter().map(|step| step["execution_status"].as_str().unwrap()).collect();
        assert_eq!(found, outcomes, "{body:?} {answer_text}");
    }
}

#[test]
fn the_stats_count_as_many_calls_as_there_are_events() {
    // All kinds, ends and parts on one Envoy, and requests that a guard refuses.
    let mut config: Value = serde_json::from_str(CONFIG).unwrap();
    config["guards"] = json!([{
        "id": "g", "scope": "product", "period": "month", "budget": {"calls": 40},
        "products": ["mcp", "api", "agentic", "a2a", "llm"],
        "actions": {"level_3": {"threshold": "10%", "action": "block_request"}},
    }]);
    config["products"][1]["exclude"] = json!({"statuses": [404]});
    for product in config["products"].as_array_mut().unwrap() {
        product["identity"] = json!({"customer": {"value": "acme"}});
    }
    let mut envoy = Envoy::new(&config.to_string());
    let mut events = Vec::new();
    let mut stream = 10;
    let mut is_refused = false;
    for _ in 0..3 {
        for kind in KINDS {
            for part in [Part::Head, Part::Half, Part::Whole] {
                for status in [None, Some("200"), Some("404"), Some("429"), Some("503")] {
                    for end in [StreamEnd::Complete, StreamEnd::Aborted] {
                        stream += 1;
                        match send(&mut envoy, stream, kind, part) {
                            HeadAction::Follow(_) => {}
                            _ => is_refused = true,
                        }
                        if let Some(status) = status {
                            answer(&mut envoy, stream, kind, status);
                        }
                        envoy.worker.stream_end(&mut envoy.host, stream, end, envoy.now);
                        events.extend(envoy.deliver(250));
                    }
                }
            }
        }
    }
    events.extend(envoy.deliver(200_000));
    assert!(is_refused, "no guard has refused anything");
    let calls = calls(&events);
    assert!(calls.len() > 300, "{}", calls.len());
    let quantities = calls.iter().map(|call| call["quantity"].as_u64().unwrap());
    assert_eq!(count(&envoy, Counter::Calls), quantities.sum::<u64>());
    let generations = kinds(&events, "token_consumption").len() as u64;
    let without = [Counter::GenerationsRefused, Counter::GenerationsToldAgain];
    let without: u64 = without.iter().map(|&counter| count(&envoy, counter)).sum();
    assert_eq!(count(&envoy, Counter::Generations), generations + without);
}

/// The outcome of a gRPC call with this head and these trailers.
fn grpc(content_type: &str, head: Pairs<'_>, trailers: Option<Pairs<'_>>) -> String {
    let mut envoy = Envoy::new(CONFIG);
    let request = headers(&[(":method", "POST"), (":path", "/api/pkg.Service/Method")]);
    let Envoy { worker, host, now, .. } = &mut envoy;
    let _ = worker.request_head(host, 9, Headers(&request), *now);
    worker.request_body(host, 9, &[], true, *now);
    let head = headers(&[&[(":status", "200"), ("content-type", content_type)], head].concat());
    let _ = worker.response_head(9, Headers(&head));
    let end = match trailers {
        Some(trailers) => {
            worker.response_size(9, 12);
            worker.response_trailers(9, Headers(&headers(trailers)));
            StreamEnd::Complete
        }
        None => StreamEnd::Complete,
    };
    worker.stream_end(host, 9, end, *now);
    let calls = kinds(&envoy.deliver(2000), "api_call");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["http_status"], 200);
    calls[0]["execution_status"].as_str().unwrap().to_owned()
}

#[test]
fn a_grpc_call_comes_to_what_its_status_says() {
    for (code, outcome) in [
        ("0", "SUCCESS"),
        ("1", "CANCELLED"),
        ("2", "ERROR"),
        ("3", "VALIDATION_FAILED"),
        ("4", "TIMEOUT"),
        ("5", "ERROR"),
        ("6", "ERROR"),
        ("7", "BLOCKED"),
        ("8", "BLOCKED"),
        ("9", "ERROR"),
        ("10", "ERROR"),
        ("11", "ERROR"),
        ("12", "ERROR"),
        ("13", "ERROR"),
        ("14", "ERROR"),
        ("15", "ERROR"),
        ("16", "BLOCKED"),
        ("17", "ERROR"),
        ("-1", "ERROR"),
        ("99999999999", "ERROR"),
        ("OK", "ERROR"),
        ("", "ERROR"),
    ] {
        let status = [("grpc-status", code)];
        assert_eq!(grpc("application/grpc", &status, None), outcome, "{code} in the head");
        for media_type in ["application/grpc", "application/grpc+proto", "Application/gRPC+json"] {
            assert_eq!(grpc(media_type, &[], Some(&status)), outcome, "{code} in the trailers");
        }
        assert_eq!(grpc("application/grpc-web+proto", &status, None), outcome, "{code}, web");
    }
    // Never told; not gRPC at all; in the body, which is not read.
    assert_eq!(grpc("application/grpc", &[], Some(&[])), "UNKNOWN");
    assert_eq!(grpc("application/grpc", &[], None), "UNKNOWN");
    let failed = [("grpc-status", "13")];
    assert_eq!(grpc("application/json", &failed, Some(&failed)), "SUCCESS");
    assert_eq!(grpc("application/grpc-web-text", &[], Some(&failed)), "SUCCESS");
    // The head decides before the trailers, as for clients.
    assert_eq!(grpc("application/grpc", &failed, Some(&[("grpc-status", "0")])), "ERROR");
}

/// What the customer pays for a call that its client leaves, and the outcome.
fn left(pricing: &Value, kind: &Kind, part: Part, has_response: bool) -> (String, String) {
    let mut config: Value = serde_json::from_str(CONFIG).unwrap();
    for product in config["products"].as_array_mut().unwrap() {
        product["pricing"] = pricing.clone();
    }
    let mut envoy = Envoy::new(&config.to_string());
    send(&mut envoy, 9, kind, part);
    if has_response {
        let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
        let _ = envoy.worker.response_head(9, Headers(&head));
    }
    envoy.worker.stream_end(&mut envoy.host, 9, StreamEnd::Aborted, envoy.now);
    let calls = calls(&envoy.deliver(90_000));
    assert_eq!(calls.len(), 1);
    let text = |member: &str| calls[0][member].as_str().unwrap().to_owned();
    assert_eq!(calls[0]["billable"], text("price") != "0");
    (text("execution_status"), text("price"))
}

#[test]
fn row_56_a_client_that_leaves_pays_if_the_product_says_so() {
    let sessions = Kind {
        name: "MCP, 2025-11-25",
        head: &[(":method", "POST"), (":path", "/mcp"), ("mcp-session-id", "s")],
        ..KINDS[0]
    };
    let unpaid = json!({"default": {"price": "0.1"}});
    let paid = |key: &str| json!({"default": {"price": "0.1"}, key: ["CANCELLED", "UNKNOWN"]});
    let after_sent = paid("billable_after_request_sent");
    let mut always = paid("billable_statuses");
    always["billable_statuses"] = json!(["SUCCESS", "CANCELLED", "UNKNOWN"]);
    for kind in [&KINDS[0], &KINDS[1], &KINDS[2], &KINDS[3], &KINDS[4], &sessions] {
        for has_response in [false, true] {
            let outcome = match (kind.name, has_response) {
                ("MCP, 2025-11-25", _) => "UNKNOWN",
                ("MCP, 2026-07-28" | "A2A over HTTP+JSON", _) | (_, false) => "CANCELLED",
                (_, true) => "UNKNOWN",
            };
            let is = |pricing: &Value, part: Part, price: &str| {
                let found = left(pricing, kind, part, has_response);
                let want = (outcome.to_owned(), price.to_owned());
                assert_eq!(found, want, "{} {part:?} {has_response} {pricing}", kind.name);
            };
            is(&unpaid, Part::Whole, "0");
            is(&after_sent, Part::Whole, "0.1");
            is(&always, Part::Whole, "0.1");
            if kind.name == sessions.name {
                continue;
            }
            is(&after_sent, Part::Half, "0");
            is(&after_sent, Part::Head, "0");
            is(&always, Part::Head, "0.1");
        }
    }
}

//! Requests of OpenAI's kind that run an agent: Responses and Assistants runs are steps, with their generations.

use std::collections::BTreeSet;

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::products::{Pairs, ask, headers, stream};
use crate::support::test;

const RESPONSES: &str = "/v1/responses";
const CHAT: &str = "/v1/chat/completions";
const RESPONSE: &str = r#"{"object":"response","id":"resp_1","model":"m","status":"completed","usage":{"input_tokens":1000,"output_tokens":100}}"#;
const QUEUED: &str = r#"{"object":"thread.run","id":"run_1","model":"m","status":"queued"}"#;
const DONE: &str = r#"{"object":"thread.run","id":"run_1","model":"m","status":"completed","usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;
const COMPLETION: &str = r#"{"object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;

/// One product of this type, of an agent that speaks like OpenAI.
fn agent(kind: &str, provider: &str) -> Envoy {
    let config = json!({
        "products": [{
            "id": "agent", "type": kind, "match": {"path_prefix": "/v1"},
            "llm": {"provider": provider},
            "pricing": {"tools": [{"tool": "responses.create", "price": "0.25"}]},
        }],
        "rate_cards": [{"version": "1", "rates": [
            {"provider": "*", "model": "m", "input": "1", "output": "2"},
        ]}],
    });
    let config = config
        .to_string()
        .replace(r#""*""#, &format!("{:?}", provider.replace("auto", "openai_compatible")));
    Envoy::new(&config)
}

fn post(path: &str) -> [(&'static str, &str); 2] {
    [(":method", "POST"), (":path", path)]
}

#[test]
fn only_a_request_that_runs_an_agent_is_a_step() {
    // The product's type and provider, the request: the step that it is, and whether it makes a generation.
    for (kind, provider, method, path, answer, step, generations) in [
        ("AI_AGENT", "openai", "POST", RESPONSES, RESPONSE, Some("responses.create"), 1),
        ("AI_AGENT", "auto", "POST", "/v1/responses?x=1", RESPONSE, Some("responses.create"), 1),
        ("AI_AGENT", "azure_openai", "POST", RESPONSES, RESPONSE, Some("responses.create"), 1),
        ("AI_AGENT", "openai", "POST", "/v1/threads/t/runs", DONE, Some("threads.runs.create"), 1),
        (
            "AI_AGENT",
            "openai",
            "POST",
            "/v1/threads/t/runs",
            QUEUED,
            Some("threads.runs.create"),
            0,
        ),
        ("AI_AGENT", "openai", "POST", "/v1/threads/runs", DONE, Some("threads.runs.create"), 1),
        ("AI_AGENT", "openai", "POST", CHAT, COMPLETION, None, 1),
        ("AI_AGENT", "openai", "GET", "/v1/responses/resp_1", RESPONSE, None, 1),
        ("AI_AGENT", "openai", "POST", "/v1/responses/resp_1/cancel", RESPONSE, None, 1),
        ("AI_AGENT", "openai", "GET", "/v1/threads/t/runs/run_1", DONE, None, 1),
        (
            "AI_AGENT",
            "openai",
            "POST",
            "/v1/threads/t/runs/run_1/submit_tool_outputs",
            DONE,
            None,
            1,
        ),
        ("AI_AGENT", "openai", "POST", "/v1/threads/t/messages", "{}", None, 0),
        // A provider without such requests.
        ("AI_AGENT", "anthropic", "POST", RESPONSES, RESPONSE, None, 0),
        // An API call is one already.
        ("AGENTIC_API", "openai", "POST", RESPONSES, RESPONSE, None, 1),
    ] {
        let what = format!("{kind} {provider} {method} {path}");
        let mut envoy = agent(kind, provider);
        stream(&mut envoy, 1, &[(":method", method), (":path", path)], r#"{"model":"m"}"#, answer);
        let made = envoy.deliver(4_000_000);
        let (steps, tokens) = (kinds(&made, "agent_step"), kinds(&made, "token_consumption"));
        let told: Vec<&Value> = steps.iter().map(|step| &step["operation"]).collect();
        assert_eq!(told, step.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(tokens.len(), generations, "{what}");
        let is_step = step.is_some();
        assert_eq!(kinds(&made, "api_call").len(), usize::from(kind == "AGENTIC_API"), "{what}");
        for generation in tokens.iter().filter(|_| kind == "AI_AGENT") {
            let attribution = if is_step { "result" } else { "none" };
            assert_eq!(generation["attribution"], attribution, "{what}");
            assert_eq!(generation.get("call_id"), steps.first().map(|step| &step["call_id"]));
            assert_eq!(generation.get("tool_name"), steps.first().map(|step| &step["operation"]));
        }
        let closed = kinds(&made, "session_closed");
        if is_step {
            assert_eq!(closed.len(), 1, "{what}");
            assert_eq!(closed[0]["total_tool_calls"], 1, "{what}");
            assert_eq!(closed[0]["unattributed_provider_cost"], "0", "{what}");
        }
    }
}

#[test]
fn a_step_is_priced_and_bears_the_cost_of_its_generation() {
    let mut envoy = agent("AI_AGENT", "openai");
    stream(&mut envoy, 1, &post(RESPONSES), r#"{"model":"m"}"#, RESPONSE);
    let made = envoy.deliver(4_000_000);
    let step = &kinds(&made, "agent_step")[0];
    for (name, value) in [
        ("execution_status", json!("SUCCESS")),
        ("transport", json!("json")),
        ("price", json!("0.25")),
        ("execution_duration_ms", json!(5)),
        ("metric_id", json!("agent_steps")),
        ("agent_id", json!("anonymous")),
    ] {
        assert_eq!(step[name], value, "{name}");
    }
    assert_eq!(
        kinds(&made, "session_closed")[0]["calls_by_tool"],
        json!([{
            "tool_name": "responses.create", "calls": 1, "billable_calls": 1, "revenue": "0.25",
            "provider_cost": "0.0012",
        }])
    );
}

#[test]
fn the_status_of_a_step_is_that_of_its_response() {
    let events = format!("data: {{\"type\":\"response.completed\",\"response\":{RESPONSE}}}\n\n");
    for (http_status, content_type, end, status, transport, generations) in [
        ("200", "text/event-stream; charset=utf-8", StreamEnd::Complete, "SUCCESS", "sse", 1),
        ("200", "text/event-stream", StreamEnd::Aborted, "UNKNOWN", "sse", 1),
        ("400", "text/plain", StreamEnd::Complete, "VALIDATION_FAILED", "none", 0),
        ("401", "text/plain", StreamEnd::Complete, "BLOCKED", "none", 0),
        ("429", "text/plain", StreamEnd::Complete, "BLOCKED", "none", 0),
        ("500", "text/plain", StreamEnd::Complete, "ERROR", "none", 0),
        ("504", "text/plain", StreamEnd::Complete, "TIMEOUT", "none", 0),
        // The client left before the response began; a generation may have been made.
        ("", "", StreamEnd::Aborted, "CANCELLED", "none", 1),
    ] {
        let mut envoy = agent("AI_AGENT", "openai");
        ask(&mut envoy, 1, &post(RESPONSES), r#"{"model":"m"}"#);
        envoy.now.0 += 5;
        if !http_status.is_empty() {
            let head = [(":status", http_status), ("content-type", content_type)];
            envoy.worker.response_head(1, Headers(&headers(&head)));
            let body = if http_status == "200" { events.as_str() } else { "no" };
            envoy.worker.response_body(&mut envoy.host, 1, body.as_bytes(), true, envoy.now);
        }
        envoy.worker.stream_end(&mut envoy.host, 1, end, envoy.now);
        let made = envoy.deliver(2000);
        let steps = kinds(&made, "agent_step");
        assert_eq!(steps.len(), 1, "{http_status} {end:?}");
        assert_eq!(steps[0]["execution_status"], status, "{http_status} {end:?}");
        assert_eq!(steps[0]["transport"], transport, "{http_status} {end:?}");
        assert_eq!(kinds(&made, "token_consumption").len(), generations, "{http_status} {end:?}");
    }
}

#[test]
fn the_conversation_names_the_session_where_nothing_earlier_does() {
    let plain = r#"{"model":"m"}"#;
    let by_id = r#"{"model":"m","conversation":"conv_1"}"#;
    let by_object = r#"{"conversation":{"id":"conv_1"},"model":"m"}"#;
    let other = r#"{"model":"m","conversation":"conv_2"}"#;
    let header = ("x-session-id", "s");
    let traced = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    // Each group is one session.
    let groups: [&[(&str, &str, Pairs<'_>, &str)]; 5] = [
        &[
            ("POST", RESPONSES, &[], by_id),
            ("POST", RESPONSES, &[], by_object),
            ("POST", RESPONSES, &[traced], by_id),
        ],
        &[("POST", RESPONSES, &[], other)],
        &[("POST", RESPONSES, &[header], by_id), ("POST", "/v1/threads/t1/runs", &[header], plain)],
        &[
            ("POST", "/v1/threads/t1/runs", &[], plain),
            // The thread of the path, whatever the body says.
            ("POST", "/v1/threads/t1/runs?include=x", &[], by_id),
            ("GET", "/v1/threads/t1/runs/run_1", &[], ""),
            ("POST", "/v1/threads/t1/runs/run_1/submit_tool_outputs", &[], plain),
        ],
        // What names no conversation; a chat has none.
        &[
            ("POST", RESPONSES, &[], plain),
            ("POST", "/v1/threads/runs", &[], plain),
            ("POST", CHAT, &[], by_id),
        ],
    ];
    let mut envoy = agent("AI_AGENT", "openai");
    let mut expected = Vec::new();
    for (id, (group, (method, path, more, body))) in (0..).zip(
        groups.iter().enumerate().flat_map(|(at, group)| group.iter().map(move |row| (at, row))),
    ) {
        let request = [&[(":method", *method), (":path", *path)], *more].concat();
        // Every generation is another one.
        let number = format!("{id}\"");
        let answer = if path.contains("runs") { DONE } else { RESPONSE };
        let answer =
            if *path == CHAT { COMPLETION.to_owned() } else { answer.replace("_1\"", &number) };
        stream(&mut envoy, id, &request, body, &answer);
        envoy.now.0 += 1;
        expected.push(group);
    }
    let made = envoy.deliver(2000);
    let tokens = kinds(&made, "token_consumption");
    assert_eq!(tokens.len(), expected.len());
    let mut sessions: Vec<BTreeSet<String>> = vec![BTreeSet::new(); groups.len()];
    for (generation, group) in tokens.iter().zip(expected) {
        sessions[group].insert(generation["session_id"].to_string());
    }
    assert!(sessions.iter().all(|group| group.len() == 1), "{sessions:?}");
    assert_eq!(sessions.iter().flatten().collect::<BTreeSet<_>>().len(), groups.len());
    // A step is in the session of its generation.
    for step in kinds(&made, "agent_step") {
        let mut own = tokens.iter().filter(|generation| generation["call_id"] == step["call_id"]);
        assert_eq!(own.next().map(|g| &g["session_id"]), Some(&step["session_id"]), "{step}");
    }
}

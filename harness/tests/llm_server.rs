//! Tests the LLM endpoint from outside: each API's report must agree with the endpoint's own
//! account.

use std::time::Duration;

use agent_meter::llm_server::{LlmOptions, LlmServer};
use agent_meter::stack::ANY_PORT;
use futures_util::StreamExt;
use serde_json::{Value, json};

const TOKENS: &str = "in=1000,out=800,cached=500,written=100,reasoning=200";

async fn start(delay: Duration) -> LlmServer {
    LlmServer::start(ANY_PORT, LlmOptions { delay }).await.expect("an endpoint")
}

/// Sends a request with [`TOKENS`]; returns status, content type and body.
async fn ask(server: &LlmServer, path: &str, body: Value) -> (u16, String, String) {
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{}{path}", server.addr())).json(&body);
    let answer = request.header("x-tokens", TOKENS).send().await.expect(path);
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    (status, kind, answer.text().await.expect(path))
}

/// The JSON texts of an event stream.
fn events(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect(data))
        .collect()
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).expect(body)
}

#[tokio::test]
async fn every_api_reports_what_the_account_says() {
    let chat = |stream: bool, usage: bool| json!({"model": "gpt-4o", "messages": [], "stream": stream, "stream_options": {"include_usage": usage}});
    let anthropic =
        |stream: bool| json!({"model": "claude-sonnet-4-0", "messages": [], "stream": stream});
    let openai = json!({"input": 1000, "output": 800, "reasoning": 200, "cache_read": 500, "cache_write": 0});
    let written = json!({"input": 1000, "output": 800, "reasoning": 0, "cache_read": 500, "cache_write": 100});
    // 500 × 2.5 + 500 × 1.25 + 800 × 10, and 400 × 3 + 500 × 0.3 + 100 × 3.75 + 800 × 15, for a
    // million.
    let (gpt, claude) = ("0.009875", "0.013725");
    let gemini = "/v1beta/models/gemini-2.5-flash:";
    let bedrock = "anthropic.claude-sonnet-4-20250514-v1:0";
    for (path, body, kind, provider, model, tokens, cost) in [
        (
            "/v1/chat/completions",
            chat(false, false),
            "application/json",
            "openai",
            "gpt-4o-2024-08-06",
            &openai,
            gpt,
        ),
        (
            "/v1/chat/completions",
            chat(true, true),
            "text/event-stream",
            "openai",
            "gpt-4o-2024-08-06",
            &openai,
            gpt,
        ),
        (
            "/v1/responses",
            json!({"model": "gpt-4o"}),
            "application/json",
            "openai",
            "gpt-4o-2024-08-06",
            &openai,
            gpt,
        ),
        (
            "/v1/responses",
            json!({"model": "gpt-4o", "stream": true}),
            "text/event-stream",
            "openai",
            "gpt-4o-2024-08-06",
            &openai,
            gpt,
        ),
        (
            "/v1/messages",
            anthropic(false),
            "application/json",
            "anthropic",
            "claude-sonnet-4-20250514",
            &written,
            claude,
        ),
        (
            "/v1/messages",
            anthropic(true),
            "text/event-stream",
            "anthropic",
            "claude-sonnet-4-20250514",
            &written,
            claude,
        ),
        (
            &format!("{gemini}generateContent"),
            json!({}),
            "application/json",
            "gemini",
            "gemini-2.5-flash",
            &openai,
            "0.002165",
        ),
        (
            &format!("{gemini}streamGenerateContent"),
            json!({}),
            "application/json",
            "gemini",
            "gemini-2.5-flash",
            &openai,
            "0.002165",
        ),
        (
            &format!("{gemini}streamGenerateContent?alt=sse"),
            json!({}),
            "text/event-stream",
            "gemini",
            "gemini-2.5-flash",
            &openai,
            "0.002165",
        ),
        (
            &format!("/model/{}/converse", bedrock.replace(':', "%3A")),
            json!({}),
            "application/json",
            "bedrock",
            bedrock,
            &written,
            claude,
        ),
        (
            "/api/chat",
            json!({"model": "llama3.2"}),
            "application/x-ndjson",
            "ollama",
            "llama3.2",
            &json!({"input": 1000, "output": 800, "reasoning": 0, "cache_read": 0, "cache_write": 0}),
            "0",
        ),
        (
            "/api/chat",
            json!({"model": "llama3.2", "stream": false}),
            "application/json",
            "ollama",
            "llama3.2",
            &json!({"input": 1000, "output": 800, "reasoning": 0, "cache_read": 0, "cache_write": 0}),
            "0",
        ),
    ] {
        let server = start(Duration::ZERO).await;
        let (status, media_type, text) = ask(&server, path, body.clone()).await;
        assert_eq!((status, media_type.as_str()), (200, kind), "{path}");
        let mut entry = tokens.clone();
        for (member, value) in [
            ("provider", json!(provider)),
            ("model", json!(model)),
            ("generations", json!(1)),
            ("unreported", json!(0)),
            ("cost", json!(cost)),
        ] {
            entry[member] = value;
        }
        let expected = json!({"requests": 1, "entries": [entry]});
        assert_eq!(
            serde_json::to_value(server.account()).expect("json"),
            expected,
            "{path} {body}"
        );
        let account =
            reqwest::get(format!("http://{}/account", server.addr())).await.expect("an account");
        assert_eq!(account.json::<Value>().await.expect("json"), expected, "{path} {body}");
        assert_eq!(input_and_output(path, &text), (1000, 800), "{path} {text}");
        server.stop().await;
    }
}

/// Reads the report as a client would.
fn input_and_output(path: &str, text: &str) -> (u64, u64) {
    let number = |value: &Value| value.as_u64().expect("a number");
    let last = |list: Vec<Value>| list.into_iter().next_back().expect("a part");
    if path.ends_with("completions") {
        let usage =
            if text.starts_with('{') { json_of(text) } else { last(events(text)) }["usage"].take();
        (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"]))
    } else if path.ends_with("responses") {
        let response = if text.starts_with('{') {
            json_of(text)
        } else {
            last(events(text))["response"].take()
        };
        (number(&response["usage"]["input_tokens"]), number(&response["usage"]["output_tokens"]))
    } else if path.ends_with("messages") {
        let (first, output) = if text.starts_with('{') {
            let usage = json_of(text)["usage"].take();
            (usage.clone(), usage["output_tokens"].clone())
        } else {
            let events = events(text);
            assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
            let end = events.iter().find(|event| event["type"] == "message_delta").expect("an end");
            (events[0]["message"]["usage"].clone(), end["usage"]["output_tokens"].clone())
        };
        let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
        (input.map(|member| number(&first[member])).iter().sum(), number(&output))
    } else if path.contains("Content") {
        let part = match text.as_bytes()[0] {
            b'[' => last(json_of(text).as_array().expect("an array").clone()),
            b'{' => json_of(text),
            _ => last(events(text)),
        };
        let usage = &part["usageMetadata"];
        let output = number(&usage["candidatesTokenCount"]) + number(&usage["thoughtsTokenCount"]);
        (number(&usage["promptTokenCount"]), output)
    } else if path.ends_with("converse") {
        let usage = json_of(text)["usage"].take();
        let input = ["inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"];
        (input.map(|member| number(&usage[member])).iter().sum(), number(&usage["outputTokens"]))
    } else {
        let part = json_of(text.lines().next_back().expect("a line"));
        (number(&part["prompt_eval_count"]), number(&part["eval_count"]))
    }
}

#[tokio::test]
async fn a_stream_reports_only_when_it_is_asked_to() {
    let server = start(Duration::ZERO).await;
    let body = json!({"model": "gpt-4o", "messages": [], "stream": true});
    let (_, _, text) = ask(&server, "/v1/chat/completions", body).await;
    assert!(!text.contains("usage") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let entry = &server.account().entries[0];
    assert_eq!((entry.generations, entry.unreported, entry.tokens.input), (1, 1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_rest_unreported() {
    let server = start(Duration::from_millis(50)).await;
    let body = json!({"model": "claude-sonnet-4-0", "messages": [], "stream": true});
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{}/v1/messages", server.addr())).json(&body);
    let answer = request.header("x-tokens", TOKENS).send().await.expect("an answer");
    let mut parts = answer.bytes_stream();
    assert!(
        parts.next().await.expect("a part").expect("bytes").starts_with(b"event: message_start")
    );
    drop(parts);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let entry = &server.account().entries[0];
    assert_eq!((entry.tokens.input, entry.tokens.output, entry.unreported), (1000, 1, 0));
}

#[tokio::test]
async fn what_is_no_generation_is_refused_and_costs_nothing() {
    let server = start(Duration::ZERO).await;
    for (path, body) in [
        ("/v1/embeddings", json!({"model": "gpt-4o"})),
        ("/v1/responses", json!({"input": "no model"})),
        ("/v1/messages", json!([])),
        ("/v1beta/models/gemini-2.5-flash:countTokens", json!({})),
    ] {
        assert_eq!(ask(&server, path, body).await.0, 404, "{path}");
    }
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{}/v1/messages", server.addr()));
    let request = request.header("x-status", "429").header("traceparent", "00-1-2-01");
    let answer =
        request.json(&json!({"model": "claude-sonnet-4-0"})).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 429);
    assert_eq!(server.account().requests, 5);
    assert_eq!(server.account().entries, []);
    assert_eq!(server.traceparents(), ["00-1-2-01"]);

    // Without the header, the same request always has the same tokens; a model without a rate has
    // no cost.
    let body =
        json!({"model": "house-model", "messages": [{"role": "user", "content": "Sum this up"}]});
    for _ in 0..2 {
        let answer =
            client.post(format!("http://{}/v1/chat/completions", server.addr())).json(&body);
        answer.send().await.expect("an answer");
    }
    let account = server.account();
    assert!(account.entries[0].tokens.input > 0 && account.entries[0].tokens.input % 2 == 0);
    assert_eq!((account.entries[0].generations, account.entries[0].cost), (2, None));
    server.stop().await;
}

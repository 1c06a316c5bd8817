//! Generations that the provider makes while nobody waits, and whose result a client asks for later:
//! each is billed once, however late, and named if it told nothing.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::generations::{JSON, Mesh, Worker, config};
use crate::host::meter;
use crate::support::test;

const DAY_MS: u64 = 24 * 3_600_000;

/// A request for a generation, or one for its result, and the answer.
type Asked<'a> = (&'a str, &'a str, &'a str, String);

fn exchange(mesh: &mut Mesh, host: &str, (method, path, body, answer): &Asked<'_>) {
    let ask = [(":method", *method), (":path", *path), (":authority", host)];
    let stream = mesh.send(Worker::First, &ask, body);
    let head = [(":status", "200"), ("content-type", JSON)];
    mesh.answer(Worker::First, stream, &head, answer, StreamEnd::Complete);
}

fn counted(mesh: &Mesh, counter: Counter) -> u64 {
    mesh.envoy.host.counters.get(&counter).copied().unwrap_or(0)
}

#[test]
fn a_result_that_is_polled_tells_its_generation_whatever_it_says() {
    const REPLICATE: &str = "api.replicate.com";
    const OPENAI: &str = "api.openai.com";
    const PERPLEXITY: &str = "api.perplexity.ai";
    let nothing = || Some(json!(["MISSING", {}, Value::Null]));
    for (host, path, answer, expected) in [
        (
            REPLICATE,
            "/v1/predictions/p",
            r#"{"id":"p","status":"succeeded","metrics":{"predict_time":40}}"#,
            Some(json!(["COMPLETE", {}, {"compute_seconds": "40"}])),
        ),
        (
            REPLICATE,
            "/v1/predictions/p",
            r#"{"id":"p","status":"succeeded","metrics":{"predict_time":0.2,"input_token_count":14,"output_token_count":5}}"#,
            Some(json!(["COMPLETE", {"input": 14, "output": 5}, Value::Null])),
        ),
        (REPLICATE, "/v1/predictions/p", r#"{"id":"p","status":"succeeded"}"#, nothing()),
        (REPLICATE, "/v1/predictions/p", r#"{"id":"p","status":"made_up"}"#, nothing()),
        (REPLICATE, "/v1/predictions/p", r#"{"id":"p","status":"processing"}"#, None),
        // A list of them.
        (REPLICATE, "/v1/predictions", r#"{"next":null,"results":[{"id":"p"}]}"#, None),
        (
            OPENAI,
            "/v1/responses/r",
            r#"{"id":"r","object":"response","status":"completed","usage":null}"#,
            nothing(),
        ),
        (
            OPENAI,
            "/v1/responses/r",
            r#"{"id":"r","object":"response","status":"made_up","usage":{"input_tokens":14,"output_tokens":5}}"#,
            Some(json!(["COMPLETE", {"input": 14, "output": 5}, Value::Null])),
        ),
        (OPENAI, "/v1/responses/r", r#"{"id":"r","object":"response","status":"queued"}"#, None),
        (
            OPENAI,
            "/v1/threads/t/runs/r",
            r#"{"id":"r","object":"thread.run","status":"made_up","usage":{"prompt_tokens":14,"completion_tokens":5}}"#,
            Some(json!(["COMPLETE", {"input": 14, "output": 5}, Value::Null])),
        ),
        (
            OPENAI,
            "/v1/threads/t/runs/r",
            r#"{"id":"r","object":"thread.run","status":"requires_action","usage":null}"#,
            None,
        ),
        (
            PERPLEXITY,
            "/async/chat/completions/r",
            r#"{"id":"r","status":"MADE_UP","response":{"usage":{"prompt_tokens":14,"completion_tokens":5}}}"#,
            Some(json!(["COMPLETE", {"input": 14, "output": 5}, Value::Null])),
        ),
        (
            PERPLEXITY,
            "/async/chat/completions/r",
            r#"{"id":"r","status":"IN_PROGRESS","response":null}"#,
            None,
        ),
    ] {
        let mut value: Value = serde_json::from_str(&config(&json!({}))).unwrap();
        value["products"][1]["match"] = json!({ "path_prefix": "/" });
        value["products"].as_array_mut().unwrap().remove(0);
        let mut mesh = Mesh::new(&value.to_string());
        // However often it is asked for.
        for _ in 0..2 {
            exchange(&mut mesh, host, &("GET", path, "", answer.to_owned()));
        }
        let (tokens, _) = mesh.events();
        let told = tokens
            .iter()
            .map(|event| json!([event["completeness"], event["tokens"], event["units"]]));
        assert_eq!(
            told.collect::<Vec<_>>(),
            expected.iter().cloned().collect::<Vec<_>>(),
            "{answer}"
        );
        let again = counted(&mesh, Counter::GenerationsToldAgain);
        assert_eq!(again, u64::from(expected.is_some()), "{answer}");
        let unknown = counted(&mesh, Counter::UsageUnknown);
        assert_eq!(unknown, u64::from(expected == nothing()), "{answer}");
    }
}

fn response(status: &str, created_at: u64, usage: &str) -> String {
    format!(
        r#"{{"id":"resp_1","object":"response","created_at":{created_at},"status":"{status}","model":"gpt-4o","usage":{usage}}}"#
    )
}

#[test]
fn what_was_asked_for_in_the_background_is_billed_however_late_it_is_polled() {
    let usage = r#"{"input_tokens":10,"output_tokens":20,"total_tokens":30}"#;
    let poll = |usage: &str, created| {
        ("GET", "/v1/responses/resp_1", "", response("completed", created, usage))
    };
    // Whether the filter saw the request, and how often the accountant dies meanwhile.
    for (is_seen, dies, after_ms, billed, too_old) in [
        (true, false, 0, 1, 0),
        (true, false, 3 * DAY_MS, 1, 0),
        (true, true, 3 * DAY_MS, 1, 0),
        (false, false, 0, 1, 0),
        (false, false, 3 * DAY_MS, 0, 3),
    ] {
        let json = config(&json!({}));
        let mut mesh = Mesh::new(&json);
        let created = mesh.envoy.now.0 / 1000;
        let mut made = Vec::new();
        if is_seen {
            let body = r#"{"model":"gpt-4o","background":true}"#;
            let answer = response("queued", created, "null");
            exchange(&mut mesh, "api.openai.com", &("POST", "/v1/responses", body, answer));
            made.extend(mesh.envoy.deliver(1_000));
        }
        if dies {
            mesh.envoy.main = meter(&mut mesh.envoy.host, &json);
            while !mesh.envoy.main.is_accountant() {
                let waiting = mesh.envoy.tick(250);
                made.extend(mesh.envoy.take(waiting));
            }
        }
        mesh.envoy.now.0 += after_ms;
        for _ in 0..3 {
            exchange(&mut mesh, "api.openai.com", &poll(usage, created));
            made.extend(mesh.envoy.deliver(2_000));
        }
        let tokens = kinds(&made, "token_consumption");
        let name = format!("{is_seen} {dies} {after_ms}");
        assert_eq!(tokens.len(), billed, "{name}");
        assert!(tokens.iter().all(|event| event["quantity"] == 30), "{name}");
        assert_eq!(counted(&mesh, Counter::GenerationsTooOld), too_old, "{name}");
        let again = counted(&mesh, Counter::GenerationsToldAgain);
        assert_eq!(again, if billed > 0 { 2 } else { 0 }, "{name}");
    }
}

/// A flood of what one customer asks for forgets its own, and nothing of another's.
#[test]
fn what_is_awaited_is_bounded_and_shared_fairly() {
    let mut value: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    value["products"][1]["identity"] = json!({"customer": {"trusted_header": "x-customer-id"}});
    let mut mesh = Mesh::new(&value.to_string());
    let created = mesh.envoy.now.0 / 1000;
    let ask = |mesh: &mut Mesh, method: &str, customer: &str, number: u32| {
        let (path, status, usage) = match method {
            "GET" => (
                format!("/v1/responses/{customer}_{number}"),
                "completed",
                r#"{"input_tokens":10,"output_tokens":20,"total_tokens":30}"#,
            ),
            _ => ("/v1/responses".to_owned(), "queued", "null"),
        };
        let answer =
            response(status, created, usage).replace("resp_1", &format!("{customer}_{number}"));
        let head = [
            (":method", method),
            (":path", path.as_str()),
            (":authority", "api.openai.com"),
            ("x-customer-id", customer),
        ];
        let stream = mesh.send(Worker::First, &head, r#"{"background":true}"#);
        let told = [(":status", "200"), ("content-type", JSON)];
        mesh.answer(Worker::First, stream, &told, &answer, StreamEnd::Complete);
    };
    ask(&mut mesh, "POST", "small", 0);
    for number in 0..4500 {
        ask(&mut mesh, "POST", "large", number);
        if number % 500 == 0 {
            mesh.envoy.deliver(0);
        }
    }
    mesh.envoy.deliver(1_000);
    mesh.envoy.now.0 += 3 * DAY_MS;
    ask(&mut mesh, "GET", "small", 0);
    ask(&mut mesh, "GET", "large", 4499);
    ask(&mut mesh, "GET", "large", 0);
    let (tokens, _) = mesh.events();
    let customers: Vec<_> = tokens.iter().map(|event| event["customer_id"].as_str()).collect();
    assert_eq!(customers, [Some("small"), Some("large")]);
    assert_eq!(counted(&mesh, Counter::GenerationsTooOld), 1);
}

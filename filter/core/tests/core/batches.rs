//! The results of a provider's batch: each is counted once, however it comes and however often.

use std::io::Write;

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::wire::http::Headers;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::generations::{Mesh, Worker, config};
use crate::support::{cuts, test};

/// A path, its host, a file of results, and the ids, inputs and outputs in it.
type Row = (&'static str, &'static str, String, Vec<(&'static str, u64, u64)>);

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn chat(id: Option<&str>, input: u64, output: u64) -> Value {
    let mut body = json!({"object": "chat.completion", "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "\n{\"usage\":"}}],
        "usage": {"prompt_tokens": input, "completion_tokens": output,
            "total_tokens": input + output}});
    if let Some(id) = id {
        body["id"] = json!(id);
    }
    body
}

fn openai(status: u16, body: &Value) -> Value {
    json!({"id": "batch_req_1", "custom_id": "request-1", "error": null,
        "response": {"status_code": status, "request_id": "r", "body": body}})
}

fn message(id: &str, input: u64, output: u64) -> Value {
    json!({"custom_id": "a", "result": {"type": "succeeded", "message": {
        "id": id, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Left."}], "stop_reason": "end_turn",
        "usage": {"input_tokens": input, "output_tokens": output, "service_tier": "batch"}}}})
}

fn content(id: &str, input: u64, output: u64) -> Value {
    json!({"response": {"responseId": id, "modelVersion": "gemini-2.5-flash",
        "candidates": [{"content": {"parts": [{"text": "Left."}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output,
            "totalTokenCount": input + output}}})
}

fn rows() -> Vec<Row> {
    let of_openai = lines(&[
        openai(200, &chat(Some("chatcmpl-1"), 10, 3)),
        openai(
            200,
            &json!({"id": "resp_2", "object": "response", "status": "completed",
            "created_at": 1, "model": "gpt-4o",
            "usage": {"input_tokens": 20, "output_tokens": 4, "total_tokens": 24}}),
        ),
        // A text that was embedded, and one that the API refused.
        openai(
            200,
            &json!({"object": "list", "model": "text-embedding-3-small", "data": [],
            "usage": {"prompt_tokens": 7, "total_tokens": 7}}),
        ),
        openai(400, &json!({"error": {"message": "no"}})),
        json!({"id": "batch_req_5", "custom_id": "e", "response": null,
            "error": {"code": "batch_expired", "message": "late"}}),
    ]);
    let of_anthropic = lines(&[
        message("msg_1", 10, 3),
        json!({"custom_id": "b", "result": {"type": "errored", "error": {"type": "error",
            "error": {"type": "invalid_request_error", "message": "no"}}}}),
        json!({"custom_id": "c", "result": {"type": "expired"}}),
        message("msg_2", 20, 4),
    ]);
    let inlined = json!({"name": "batches/1", "done": true,
        "metadata": {"state": "BATCH_STATE_SUCCEEDED", "model": "models/gemini-2.5-flash",
            "output": {"inlinedResponses": {"inlinedResponses": [content("g1", 10, 3)]}}},
        "response": {"inlinedResponses": {"inlinedResponses": [
            content("g1", 10, 3), {"error": {"code": 3}}, content("g2", 20, 4)]}}});
    let of_gemini = lines(&[
        {
            let mut line = content("g1", 10, 3);
            line["key"] = json!("a");
            line
        },
        json!({"key": "b", "error": {"code": 3}}),
        content("g2", 20, 4),
    ]);
    let two = || vec![("1", 10, 3), ("2", 20, 4)];
    let file = "/v1/files/file-out/content";
    vec![
        (file, "api.openai.com", of_openai.clone(), vec![("1", 10, 3), ("2", 20, 4), ("-", 7, 0)]),
        (
            file,
            "api.mistral.ai",
            lines(&[openai(200, &chat(Some("1"), 10, 3))]),
            vec![("1", 10, 3)],
        ),
        (
            "/openai/files/file-out/content?api-version=2024-10-21",
            "x.openai.azure.com",
            of_openai,
            vec![("1", 10, 3), ("2", 20, 4), ("-", 7, 0)],
        ),
        ("/v1/messages/batches/msgbatch_1/results", "api.anthropic.com", of_anthropic, two()),
        (
            "/v1beta/batches/1",
            "generativelanguage.googleapis.com",
            serde_json::to_string_pretty(&inlined).unwrap(),
            two(),
        ),
        (
            "/download/v1beta/files/1:download?alt=media",
            "generativelanguage.googleapis.com",
            of_gemini,
            two(),
        ),
        // Files that are no results: a batch's input, training data, no text.
        (
            file,
            "api.openai.com",
            lines(&[json!({"custom_id": "a", "method": "POST",
            "url": "/v1/chat/completions", "body": chat(Some("x"), 1, 1)})]),
            vec![],
        ),
        (file, "api.openai.com", lines(&[chat(Some("x"), 1, 1)]), vec![]),
        (file, "api.openai.com", "%PDF-1.7\n\u{0}\u{1}{\n".to_owned(), vec![]),
        // What is damaged is left out, and what follows it is not.
        (
            file,
            "api.openai.com",
            format!("{{\"id\": oops]\n{}", lines(&[openai(200, &chat(Some("1"), 10, 3))])),
            vec![("1", 10, 3)],
        ),
        // What tells no counts was generated all the same; an error was not.
        (
            file,
            "api.openai.com",
            lines(&[
                openai(200, &json!({"id": "x", "object": "chat.completion", "usage": null})),
                openai(422, &json!({"object": "error", "message": "no"})),
                openai(200, &chat(Some("1"), 10, 3)),
            ]),
            vec![("MISSING", 0, 0), ("1", 10, 3)],
        ),
        (
            file,
            "api.mistral.ai",
            lines(&[openai(
                200,
                &json!({"model": "mistral-ocr", "pages": [],
                "usage_info": {"pages_processed": 900}}),
            )]),
            vec![("pages", 0, 0)],
        ),
        // The last line may have no end.
        (
            file,
            "api.openai.com",
            openai(200, &chat(Some("1"), 10, 3)).to_string(),
            vec![("1", 10, 3)],
        ),
    ]
}

impl Mesh {
    fn fetch(&mut self, path: &str, host: &str, coding: &str, status: &str, chunks: &[&[u8]]) {
        let ask = [(":method", "GET"), (":path", path), (":authority", host)];
        let stream = self.send(Worker::First, &ask, "");
        let headers: Vec<_> = [
            (":status", status),
            ("content-type", "application/octet-stream"),
            ("content-encoding", coding),
        ]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
        let worker = &mut self.envoy.worker;
        let _ = worker.response_head(stream, Headers(&headers));
        for chunk in chunks {
            worker.response_body(&mut self.envoy.host, stream, chunk, false, self.envoy.now);
        }
        worker.stream_end(&mut self.envoy.host, stream, StreamEnd::Complete, self.envoy.now);
    }

    fn told(&mut self) -> Vec<Value> {
        kinds(&self.envoy.deliver(2000), "token_consumption")
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn each_result_is_counted_once_however_often_it_is_fetched() {
    for (path, host, file, results) in rows() {
        let mut mesh = Mesh::new(&llm());
        mesh.fetch(path, host, "", "200", &[file.as_bytes()]);
        let tokens = mesh.told();
        let counts: Vec<(u64, u64)> = tokens
            .iter()
            .map(|event| {
                let count = |kind: &str| event["tokens"][kind].as_u64().unwrap_or(0);
                (count("input"), count("output"))
            })
            .collect();
        let expected: Vec<_> = results.iter().map(|(_, input, output)| (*input, *output)).collect();
        assert_eq!(counts, expected, "{host}{path}: {file}");
        for (event, (name, ..)) in tokens.iter().zip(&results) {
            let completeness = if *name == "MISSING" { "MISSING" } else { "COMPLETE" };
            assert_eq!(event["service_tier"], "batch", "{host}{path}");
            assert_eq!(event["completeness"], completeness, "{host}{path}");
            let pages = if *name == "pages" { json!({"pages": "900"}) } else { Value::Null };
            assert_eq!(event["units"], pages, "{host}{path}");
        }
        mesh.fetch(path, host, "", "200", &[file.as_bytes()]);
        mesh.fetch(path, host, "gzip", "200", &[&gzip(file.as_bytes())]);
        assert_eq!(mesh.told().len(), 0, "{host}{path}: {file}");
    }
}

fn llm() -> String {
    let mut config: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    config["products"][1]["match"] = json!({"path_prefix": "/"});
    config["products"].as_array_mut().unwrap().remove(0);
    config.to_string()
}

#[test]
fn a_file_of_results_tells_the_same_however_it_is_cut() {
    for (path, host, file, results) in rows() {
        let coded = gzip(file.as_bytes());
        let plain = cuts(file.as_bytes()).into_iter().map(|cut| ("", cut));
        let coded = cuts(&coded).into_iter().step_by(17).map(|cut| ("gzip", cut));
        let mut mesh = Mesh::new(&llm());
        let mut before = 0;
        // Each file is fetched under another name: only what has no id is told anew.
        for (number, (coding, cut)) in plain.step_by(5).chain(coded).enumerate() {
            let path = path.replace("file-out", &format!("file-{number}"));
            mesh.fetch(&path, host, coding, "200", &cut);
            let count = |mesh: &Mesh| {
                mesh.envoy.host.counters.get(&Counter::Generations).copied().unwrap_or(0)
            };
            let told = count(&mesh) - before;
            before = count(&mesh);
            // One batch tells its first result in two places.
            let twice = u64::from(path.ends_with("/batches/1"));
            assert_eq!(told, results.len() as u64 + twice, "{host}{path} {coding} {number}");
            mesh.envoy.deliver(0);
        }
    }
}

#[test]
fn what_is_damaged_between_results_is_counted() {
    let good = lines(&[openai(200, &chat(Some("1"), 10, 3))]);
    let cut = good.trim_end().trim_end_matches('}');
    for (file, unread) in [
        (good.clone(), 0),
        (format!("{good}\n  \n{good}"), 0),
        (format!("{good}{{\"id\": oops]\n{good}"), 1),
        (format!("{{\"id\": oops]\n{good}<html>\n"), 2),
        (format!("{good}<html>"), 1),
        (format!("{good}{cut}"), 1),
        // No results, so nothing to miss.
        ("%PDF-1.7\n\u{0}\u{1}{\n".to_owned(), 0),
        ("<html>\n<html>\n".to_owned(), 0),
    ] {
        for cut in cuts(file.as_bytes()).into_iter().step_by(3) {
            let mut mesh = Mesh::new(&llm());
            mesh.fetch("/v1/files/file-out/content", "api.openai.com", "", "200", &cut);
            let found = mesh.envoy.host.counters.get(&Counter::BatchResultsUnread).copied();
            assert_eq!(found.unwrap_or(0), unread, "{file}");
        }
    }
}

/// The deepest members of a batch within its operation.
#[test]
fn an_inlined_batch_tells_its_parts() {
    let mut body = content("g1", 1000, 3);
    body["response"]["usageMetadata"]["promptTokensDetails"] =
        json!([{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 900}]);
    body["response"]["candidates"][0]["groundingMetadata"] =
        json!({"webSearchQueries": ["a", "b"], "groundingChunks": [{"maps": {"uri": "u"}}]});
    let results = json!({"inlinedResponses": {"inlinedResponses": [body]}});
    for batch in [
        json!({"name": "batches/1", "response": results}),
        json!({"name": "batches/1", "metadata": {"output": results}}),
    ] {
        let mut mesh = Mesh::new(&llm());
        let host = "generativelanguage.googleapis.com";
        mesh.fetch("/v1beta/batches/1", host, "", "200", &[batch.to_string().as_bytes()]);
        let told = mesh.told();
        let tokens =
            json!({"input": 1000, "output": 3, "input_audio": 900, "provider_total": 1003});
        assert_eq!(told[0]["tokens"], tokens, "{batch}");
        assert_eq!(told[0]["units"], json!({"web_searches": "2", "maps_queries": "1"}), "{batch}");
    }
}

#[test]
fn a_fetch_that_fails_tells_nothing() {
    let mut mesh = Mesh::new(&llm());
    let file = lines(&[openai(200, &chat(Some("1"), 10, 3))]);
    let (path, host) = ("/v1/files/file-out/content", "api.openai.com");
    mesh.fetch(path, host, "", "404", &[file.as_bytes()]);
    mesh.fetch(path, host, "br", "200", &[file.as_bytes()]);
    assert_eq!(mesh.told().len(), 0);
    assert_eq!(mesh.envoy.host.counters[&Counter::BatchResultsUnread], 1);
}

#[test]
fn many_results_lose_nothing_and_stay_known_after_a_death() {
    let file: String = (0..9000)
        .map(|number| {
            let body = chat(Some(&format!("chatcmpl-{number}")), 1, 1);
            format!("{}\n", openai(200, &body))
        })
        .collect();
    let config = llm();
    let mut mesh = Mesh::new(&config);
    let mut made = Vec::new();
    for round in 0..2 {
        let ask = [
            (":method", "GET"),
            (":path", "/v1/files/file-out/content"),
            (":authority", "api.openai.com"),
        ];
        let stream = mesh.send(Worker::First, &ask, "");
        let headers = [(":status".to_owned(), b"200".to_vec())];
        let _ = mesh.envoy.worker.response_head(stream, Headers(&headers));
        for chunk in file.as_bytes().chunks(65_536) {
            let now = mesh.envoy.now;
            mesh.envoy.worker.response_body(&mut mesh.envoy.host, stream, chunk, false, now);
            made.extend(mesh.envoy.deliver(0));
        }
        let now = mesh.envoy.now;
        mesh.envoy.worker.stream_end(&mut mesh.envoy.host, stream, StreamEnd::Complete, now);
        made.extend(mesh.envoy.deliver(5000));
        let tokens = kinds(&made, "token_consumption");
        assert_eq!(tokens.len(), 9000, "{round}");
        mesh.envoy.main = crate::host::meter(&mut mesh.envoy.host, &config);
        while !mesh.envoy.main.is_accountant() {
            made.extend(mesh.envoy.deliver(0));
        }
    }
    assert_eq!(mesh.envoy.host.counters[&Counter::GenerationsToldAgain], 9000);
    assert!(mesh.envoy.host.spilled.is_empty());
}

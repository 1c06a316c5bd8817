//! Exchanges as Envoy shows them. Each has a number, so that no two are the same call.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::host::Headers;

/// As in `agent-meter bench`.
const CALL_BYTES: usize = 420;
const RESULT_BYTES: usize = 470;

/// Puts another value in the place of a header's.
pub(crate) fn set_header(exchange: &mut Exchange, name: &str, value: &str) {
    for (of, held) in &mut exchange.request {
        if of == name {
            *held = value.as_bytes().to_vec();
        }
    }
}

/// One HTTP exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub(crate) request: Headers,
    pub(crate) request_body: Vec<Vec<u8>>,
    pub(crate) response: Headers,
    pub(crate) response_body: Vec<Vec<u8>>,
}

fn header(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

/// A request's head as Envoy shows it, with what Envoy adds.
fn head(method: &str, path: &str, number: u64, size: Option<usize>) -> Headers {
    let mut headers = vec![
        header(":authority", "gateway.example.com"),
        header(":path", path),
        header(":method", method),
        header(":scheme", "https"),
        header("user-agent", "python-httpx/0.28.1"),
        header("accept", "application/json, text/event-stream"),
        header("accept-encoding", "gzip, deflate"),
        header("content-type", "application/json"),
        header("x-customer-id", "acme"),
        header("x-agent-id", "support-bot"),
        header("x-forwarded-proto", "https"),
        header("x-request-id", &format!("5ab7cd21-0000-4000-8000-{number:012}")),
    ];
    headers.extend(size.map(|size| header("content-length", &size.to_string())));
    headers
}

fn mcp(
    number: u64,
    session: &str,
    body: String,
    answer: Vec<String>,
    media_type: &str,
) -> Exchange {
    let mut request = head("POST", "/mcp", number, Some(body.len()));
    request.push(header("mcp-session-id", session));
    request.push(header("mcp-protocol-version", "2025-11-25"));
    Exchange {
        request,
        request_body: vec![body.into_bytes()],
        response: answered(media_type),
        response_body: answer.into_iter().map(String::into_bytes).collect(),
    }
}

fn answered(media_type: &str) -> Headers {
    vec![
        header(":status", "200"),
        header("content-type", media_type),
        header("server", "envoy"),
        header("date", "Sat, 28 Nov 2026 10:00:00 GMT"),
        header("x-envoy-upstream-service-time", "3"),
    ]
}

fn padded(bytes: usize, start: &str, end: &str) -> String {
    let text = "The customer asks which invoices are open, and since when. ".chars().cycle();
    let text = text.take(bytes.saturating_sub(start.len() + end.len()));
    start.chars().chain(text).chain(end.chars()).collect()
}

/// Ids have eight digits, so that every exchange has the same size.
fn id(number: u64) -> u64 {
    10_000_000 + number
}

fn call(number: u64, bytes: usize) -> String {
    let id = id(number);
    let start = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"lookup_customer","_meta":{{"progressToken":"p-1"}},"arguments":{{"customer_id":"c-1042","reason":""#
    );
    padded(bytes, &start, r#""}}}"#)
}

fn result(number: u64) -> String {
    result_of(number, RESULT_BYTES)
}

fn result_of(number: u64, bytes: usize) -> String {
    let id = id(number);
    let start =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
    padded(bytes, &start, r#""}],"isError":false}}"#)
}

const SESSION: &str = "9f2c1a7e-5d1b-4c0e-8a34-0c51f0e7d2aa";
const JSON: &str = "application/json";

pub(crate) fn json_call(number: u64) -> anyhow::Result<Exchange> {
    Ok(mcp(number, SESSION, call(number, CALL_BYTES), vec![result(number)], JSON))
}

pub(crate) fn new_session(number: u64) -> anyhow::Result<Exchange> {
    call_in(number, number)
}

/// A call in the session of this number.
pub(crate) fn call_in(number: u64, session: u64) -> anyhow::Result<Exchange> {
    let session = format!("9f2c1a7e-5d1b-4c0e-8a34-{session:012}");
    Ok(mcp(number, &session, call(number, CALL_BYTES), vec![result(number)], JSON))
}

pub(crate) fn sse_call(number: u64) -> anyhow::Result<Exchange> {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p-1","progress":1,"total":2,"message":"looking"}}"#;
    let answer = vec![
        "id: 1\ndata: \n\n".to_owned(),
        format!("data: {progress}\n\n"),
        format!("id: 2\ndata: {}\n\n", result(number)),
    ];
    Ok(mcp(number, SESSION, call(number, CALL_BYTES), answer, "text/event-stream"))
}

/// The revision of MCP without sessions.
pub(crate) fn stateless_call(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = mcp(number, "", call(number, CALL_BYTES), vec![result(number)], JSON);
    exchange.request.truncate(exchange.request.len() - 2);
    exchange.request.extend([
        header("mcp-protocol-version", "2026-07-28"),
        header("mcp-method", "tools/call"),
        header("mcp-name", "lookup_customer"),
    ]);
    Ok(exchange)
}

pub(crate) fn batch(number: u64) -> anyhow::Result<Exchange> {
    batch_of(number, 10)
}

/// A list of this many calls.
pub(crate) fn batch_of(number: u64, calls: u64) -> anyhow::Result<Exchange> {
    let list = |each: fn(u64) -> String| {
        let all: Vec<String> = (0..calls).map(|at| each(number * calls + at)).collect();
        format!("[{}]", all.join(","))
    };
    let calls = list(|number| call(number, CALL_BYTES));
    Ok(mcp(number, SESSION, calls, vec![list(result)], JSON))
}

/// Arguments of 1 MB in chunks of 16 KiB.
pub(crate) fn large_call(number: u64) -> anyhow::Result<Exchange> {
    call_of(number, 1_000_000, 16_384)
}

/// A call with a body of this many bytes, in chunks.
pub(crate) fn call_of(number: u64, bytes: usize, chunk_bytes: usize) -> anyhow::Result<Exchange> {
    let mut exchange = mcp(number, SESSION, call(number, bytes), vec![result(number)], JSON);
    let body = exchange.request_body.concat();
    exchange.request_body = body.chunks(chunk_bytes).map(<[u8]>::to_vec).collect();
    Ok(exchange)
}

/// A call whose answer has this many bytes, in chunks of 16 KiB.
pub(crate) fn answer_of(number: u64, bytes: usize) -> anyhow::Result<Exchange> {
    let answer = vec![result_of(number, bytes)];
    let mut exchange = mcp(number, SESSION, call(number, CALL_BYTES), answer, JSON);
    let body = exchange.response_body.concat();
    exchange.response_body = body.chunks(16_384).map(<[u8]>::to_vec).collect();
    Ok(exchange)
}

pub(crate) fn gzip_call(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = json_call(number)?;
    let mut coder = GzEncoder::new(Vec::new(), Compression::default());
    coder.write_all(&exchange.response_body.concat())?;
    exchange.response_body = vec![coder.finish()?];
    exchange.response.push(header("content-encoding", "gzip"));
    Ok(exchange)
}

pub(crate) fn list(number: u64) -> anyhow::Result<Exchange> {
    let id = id(number);
    let request = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#);
    let tool = r#"{"name":"lookup_customer","description":"Finds a customer by name or number.","inputSchema":{"type":"object","properties":{"customer_id":{"type":"string"}}}}"#;
    let tools = vec![tool; 20].join(",");
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{tools}]}}}}"#);
    Ok(mcp(number, SESSION, request, vec![answer], JSON))
}

/// A client that opens the stream of its session, which the server does not offer.
pub(crate) fn get(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = mcp(number, SESSION, String::new(), Vec::new(), JSON);
    exchange.request_body.clear();
    set_header(&mut exchange, ":method", "GET");
    exchange.response = vec![header(":status", "405"), header("content-length", "0")];
    Ok(exchange)
}

fn chat(number: u64, more: &str) -> Exchange {
    let text = padded(2_000, "", "");
    let body =
        format!(r#"{{"model":"gpt-4o",{more}"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let path = "/llm/v1/chat/completions";
    let mut request = head("POST", path, number, Some(body.len()));
    request.push(header("authorization", "Bearer sk-of-the-caller"));
    let request_body = vec![body.into_bytes()];
    Exchange { request, request_body, response: answered(JSON), response_body: Vec::new() }
}

const USAGE: &str = r#""usage":{"prompt_tokens":419,"completion_tokens":2000,"total_tokens":2419,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

pub(crate) fn generation(number: u64) -> anyhow::Result<Exchange> {
    let text = padded(1_500, "", "");
    let answer = format!(
        r#"{{"id":"chatcmpl-{number:012}","object":"chat.completion","created":1780000000,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},"service_tier":"default","system_fingerprint":"fp_11aa22bb33"}}"#
    );
    Ok(Exchange { response_body: vec![answer.into_bytes()], ..chat(number, "") })
}

pub(crate) fn stream(number: u64) -> anyhow::Result<Exchange> {
    stream_of(number, 2_000)
}

/// A generation that streams this many chunks of one delta each.
pub(crate) fn stream_of(number: u64, deltas: usize) -> anyhow::Result<Exchange> {
    let chunk = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-{number:012}\",\"object\":\"chat.completion.chunk\",\"created\":1780000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_11aa22bb33\",\"choices\":[{choices}],{usage}}}\n\n"
        )
    };
    let delta = r#"{"index":0,"delta":{"content":" kettle"},"logprobs":null,"finish_reason":null}"#;
    let mut chunks = vec![chunk(delta, r#""usage":null"#).into_bytes(); deltas];
    chunks.push(chunk("", USAGE).into_bytes());
    chunks.push(b"data: [DONE]\n\n".to_vec());
    let asked = r#""stream":true,"stream_options":{"include_usage":true},"#;
    let response = answered("text/event-stream");
    Ok(Exchange { response, response_body: chunks, ..chat(number, asked) })
}

pub(crate) fn api_call(number: u64) -> anyhow::Result<Exchange> {
    let body = padded(CALL_BYTES, r#"{"note":""#, r#""}"#);
    let path = format!("/orders/{}", id(number));
    Ok(Exchange {
        request: head("POST", &path, number, Some(body.len())),
        request_body: vec![body.into_bytes()],
        response: answered(JSON),
        response_body: vec![padded(RESULT_BYTES, r#"{"note":""#, r#""}"#).into_bytes()],
    })
}

pub(crate) fn unmatched(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = api_call(number)?;
    exchange.request = head("POST", "/elsewhere", number, Some(CALL_BYTES));
    Ok(exchange)
}

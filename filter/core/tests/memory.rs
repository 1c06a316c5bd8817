//! What streams cost in memory: bodies of any size, and many streams at once.

#![cfg(not(target_arch = "wasm32"))]
#![expect(clippy::disallowed_macros, reason = "it prints what it measures")]

mod heap;

use agent_meter_core::admission::{Admission, admit};
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::domain::usage::Completeness;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::exchange::{self, Exchange};
use agent_meter_core::fact::Fact;
use agent_meter_core::protocol::llm::ResponseReader;
use agent_meter_core::protocol::llm::provider::{Asked, route};
use agent_meter_core::wire::http::{Headers, ResponseHead};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Crc;

use self::heap::{live, take_peak};

const CONFIG: &str =
    r#"{"products": [{"id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"}}]}"#;
const CHUNK: usize = 64 * 1024;
const BODY: usize = 64 * 1024 * 1024;
/// What one exchange may hold beyond what it held before its bodies.
const BODY_COST_MAX: isize = 64 * 1024;
/// What an open exchange may hold; `limits.rs` counts on about 1 KiB.
const EXCHANGE_COST_MAX: isize = 2 * 1024;

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// The exchange of a request of which Envoy knows nothing but its headers.
fn start_exchange(config: &Config, headers: Headers<'_>) -> Option<Box<dyn Exchange>> {
    match admit(config, headers, false, &mut |_| None, Timestamp(0)) {
        Admission::Follow(admitted) => exchange::start(config, *admitted, "0".to_owned()).ok(),
        Admission::Pass
        | Admission::Unmatched
        | Admission::Exempt(_)
        | Admission::Skip { .. }
        | Admission::Answer { .. } => None,
    }
}

fn start() -> Box<dyn Exchange> {
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let headers = headers(&[(":method", "POST"), (":path", "/mcp")]);
    start_exchange(&config, Headers(&headers)).unwrap()
}

/// Feeds head, filling, tail; gives how far live heap rose above where it began.
fn feed(mut take: impl FnMut(&[u8]), head: &[u8], filling: &[u8], tail: &[u8]) -> isize {
    let chunk = filling.repeat(CHUNK / filling.len());
    take(head);
    let began = live();
    let _ = take_peak();
    for _ in 0..BODY / chunk.len() {
        take(&chunk);
    }
    take(tail);
    take_peak() - began
}

const CALL_HEAD: &[u8] = br#"{"jsonrpc":"2.0","params":{"name":"big","arguments":{"text":""#;
const CALL_TAIL: &[u8] = br#""}},"method":"tools/call","id":1}"#;

/// 83: 64 MB of arguments, the method and the id behind them.
#[test]
fn a_large_request_costs_nothing() {
    for filling in [b"x".as_slice(), b"\\\"", "\u{E9}".as_bytes()] {
        let mut exchange = start();
        let cost = feed(
            |bytes| drop(exchange.request_body(bytes, Timestamp(1))),
            CALL_HEAD,
            filling,
            CALL_TAIL,
        );
        exchange.request_end(Timestamp(2));
        assert!(exchange.running().is_some(), "the call is seen");
        assert!(cost < BODY_COST_MAX, "{cost} bytes");
    }
}

/// 8, 71: 64 MB of result before the id, as JSON and as one line of an event.
#[test]
fn a_large_answer_costs_nothing() {
    let json = (
        "application/json",
        br#"{"result":{"content":[{"type":"text","text":""#.as_slice(),
        br#""}]},"jsonrpc":"2.0","id":1}"#.as_slice(),
    );
    let event = (
        "text/event-stream",
        b"event: message\ndata: {\"result\":{\"content\":[{\"type\":\"text\",\"text\":\""
            .as_slice(),
        b"\"}]},\"jsonrpc\":\"2.0\",\"id\":1}\n\n".as_slice(),
    );
    for (media_type, head, tail) in [json, event] {
        let mut exchange = start();
        exchange.request_body(&[CALL_HEAD, CALL_TAIL].concat(), Timestamp(1));
        exchange.request_end(Timestamp(1));
        let _ = exchange.response_head(&ResponseHead::read(Headers(&headers(&[
            (":status", "200"),
            ("content-type", media_type),
        ]))));
        let take = |bytes: &[u8]| drop(exchange.response_body(bytes, false, Timestamp(2)));
        let cost = feed(take, head, b"y", tail);
        assert!(cost < BODY_COST_MAX, "{media_type}: {cost} bytes");
        let facts = exchange.end(StreamEnd::Complete, Timestamp(3)).facts;
        assert!(
            matches!(facts.as_slice(), [Fact::Call(call)] if call.status.name() == "SUCCESS"),
            "{facts:?}"
        );
    }
}

/// 133: 10,000 streams that are open, with a call each.
#[test]
fn an_open_stream_costs_little() {
    const STREAMS: isize = 10_000;
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let request = headers(&[(":method", "POST"), (":path", "/mcp"), ("mcp-session-id", "s")]);
    let response = headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    let body = [CALL_HEAD, CALL_TAIL].concat();
    let before = live();
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut exchange = start_exchange(&config, Headers(&request)).unwrap();
        exchange.request_body(&body, Timestamp(1));
        exchange.request_end(Timestamp(1));
        let _ = exchange.response_head(&ResponseHead::read(Headers(&response)));
        exchange.response_body(b": ping\n\n", false, Timestamp(2));
        let _ = exchange.take_observed();
        open.push(exchange);
    }
    let each = (live() - before) / STREAMS;
    println!("{each} bytes for each open stream");
    assert!(each < EXCHANGE_COST_MAX, "{each} bytes");
    drop(open);
    assert!(live() - before < BODY_COST_MAX, "{} bytes are left", live() - before);
}

/// The bytes of a stream of a generation.
const GENERATION: usize = 50 * 1024 * 1024;

/// Feeds one chunk again and again and then the last; gives how far live heap rose above where it began.
fn feed_generation(path: &str, media_type: &str, chunk: &[u8], last: &[u8]) -> isize {
    let route = route(Asked::default(), "POST", "gateway", path).unwrap();
    let headers = headers(&[("content-type", media_type)]);
    let began = live();
    let _ = take_peak();
    let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
    for _ in 0..GENERATION / chunk.len() {
        reader.feed(chunk);
    }
    reader.feed(last);
    let (generation, is_readable) = reader.end();
    assert_eq!(generation.completeness(is_readable), Some(Completeness::Complete));
    assert_eq!(generation.usage.total(), 29);
    take_peak() - began
}

#[test]
fn a_long_stream_of_a_generation_costs_nothing() {
    const DELTA: &str =
        r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    const LAST: &str = r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9}}"#;
    let event = |data: &str| format!("data: {data}\n\n").into_bytes();
    let many = event(DELTA).repeat(CHUNK / DELTA.len());
    let one = event(&DELTA.replace('x', &"y".repeat(GENERATION / 4)));
    for chunk in [many, one] {
        let cost =
            feed_generation("/v1/chat/completions", "text/event-stream", &chunk, &event(LAST));
        assert!(cost < BODY_COST_MAX, "{cost} bytes");
    }
}

/// A message of an Amazon event stream.
fn frame(event_type: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", event_type), (":message-type", "event")] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let length = u32::try_from(headers.len()).unwrap();
    let mut bytes = [total.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend_from_slice(&crc(&bytes));
    bytes.extend_from_slice(&headers);
    bytes.extend_from_slice(payload.as_bytes());
    bytes.extend_from_slice(&crc(&bytes));
    bytes
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

#[test]
fn a_long_stream_of_bedrock_costs_nothing() {
    const STREAM: &str = "application/vnd.amazon.eventstream";
    const METRICS: &str =
        r#"{"amazon-bedrock-invocationMetrics":{"inputTokenCount":20,"outputTokenCount":9}}"#;
    const USAGE: &str = r#"{"usage":{"inputTokens":20,"outputTokens":9}}"#;
    let converse = |text: &str| {
        frame("contentBlockDelta", &format!(r#"{{"delta":{{"text":"{text}"}},"p":"abc"}}"#))
    };
    let wrapped = |inner: &str| {
        let coded = BASE64_STANDARD.encode(inner);
        frame("chunk", &format!(r#"{{"bytes":"{coded}","p":"abc"}}"#))
    };
    let invoke = |text: &str| wrapped(&format!(r#"{{"generation":"{text}"}}"#));
    let stop = [frame("messageStop", r#"{"stopReason":"end_turn"}"#), frame("metadata", USAGE)];
    // Many messages, and a few of the longest.
    let long = "y".repeat(12 * 1024 * 1024);
    for (verb, chunk, last) in [
        ("converse-stream", converse("x").repeat(500), stop.concat()),
        ("converse-stream", converse(&long), stop.concat()),
        ("invoke-with-response-stream", invoke("x").repeat(500), wrapped(METRICS)),
        ("invoke-with-response-stream", invoke(&long), wrapped(METRICS)),
    ] {
        let cost = feed_generation(&format!("/model/m/{verb}"), STREAM, &chunk, &last);
        assert!(cost < BODY_COST_MAX, "{verb}: {cost} bytes");
    }
}

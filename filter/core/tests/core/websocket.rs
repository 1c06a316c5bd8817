//! WebSockets on which generations are made: one event for each response, however the frames come.

use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::host::Envoy;
use crate::support::{rate, test};

const RESPONSES: &str = "/v1/responses";
const REALTIME: &str = "/v1/realtime?x=1&model=gpt-realtime%2D2";

fn config(product_type: &str) -> String {
    let rate = |model, rates| rate("openai", model, rates);
    json!({
        "rate_cards": [{ "version": "1", "rates": [
            rate("gpt-5.1", json!({ "input": "1.25", "output": "10", "cache_read": "0.125",
                "service_tiers": { "flex": { "input": "0.625", "output": "5", "cache_read": "0.0625" } } })),
            rate("gpt-realtime-2", json!({ "input": "4", "input_audio": "32", "cache_read": "0.4",
                "cache_read_audio": "0.4", "input_image": "5", "cache_read_image": "0.5",
                "output": "16", "output_audio": "64" })),
            rate("whisper-1", json!({ "units": { "input_audio_seconds": "0.0001" } })),
            rate("gpt-4o-transcribe", json!({ "input": "2.5", "input_audio": "6", "output": "10" })),
        ]}],
        "products": [{ "id": "openai", "type": product_type,
            "match": { "host": "api.openai.com", "path_prefix": "/v1" },
            "pricing": { "default": { "price": "0.5" } },
            "llm": { "provider": "openai" } }],
    })
    .to_string()
}

/// A frame of text in two fragments, with a ping in between, masked if the client sends it.
fn frames(message: &Value, is_masked: bool) -> Vec<u8> {
    let text = message.to_string();
    let (first, rest) = text.as_bytes().split_at(text.len() / 3);
    let frame = |head: u8, payload: &[u8]| {
        let bit = if is_masked { 0x80 } else { 0 };
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![head];
        match u8::try_from(payload.len()) {
            Ok(short) if short < 126 => bytes.push(short | bit),
            _ => bytes.extend([126 | bit, length[0], length[1]]),
        }
        let key = if is_masked { [1, 2, 3, 0xA4] } else { [0; 4] };
        bytes.extend(key.iter().filter(|_| is_masked));
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    };
    [frame(0x01, first), frame(0x89, b"ping"), frame(0x80, rest)].concat()
}

/// One side of what is said, in order: the client's or the server's.
enum Said {
    Client(Value),
    Server(Value),
    Bytes(&'static [u8]),
}
use Said::{Client, Server};

struct Played {
    lines: Vec<String>,
    steps: usize,
    counters: std::collections::BTreeMap<Counter, u64>,
}

/// Plays a connection; each part of what is said comes as `cut` makes chunks of it.
fn play(
    product_type: &str,
    path: &str,
    more: &[(&str, &str)],
    said: &[Said],
    cut: &dyn Fn(&[u8]) -> Vec<Vec<u8>>,
) -> Played {
    let mut envoy = Envoy::new(&config(product_type));
    let headers = |rows: &[(&str, &str)]| -> Vec<_> {
        rows.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
    };
    let head = headers(&[
        (":method", "GET"),
        (":path", path),
        (":authority", "api.openai.com"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
    ]);
    {
        let Envoy { host, worker, now, .. } = &mut envoy;
        let HeadAction::Follow(edit) = worker.request_head(host, 1, Headers(&head), *now) else {
            panic!("not followed")
        };
        assert_eq!(edit.remove, ["sec-websocket-extensions"]);
        assert_eq!(edit.body_interest, BodyInterest::Bytes);
        let answer = headers(&[&[(":status", "101"), ("upgrade", "websocket")], more].concat());
        assert_eq!(worker.response_head(1, Headers(&answer)), BodyInterest::Bytes);
        for part in said {
            let (bytes, is_client) = match part {
                Client(message) => (frames(message, true), true),
                Server(message) => (frames(message, false), false),
                Said::Bytes(bytes) => (bytes.to_vec(), false),
            };
            for chunk in cut(&bytes) {
                if is_client {
                    let _ = worker.request_body(host, 1, &chunk, false, *now);
                } else {
                    assert_eq!(worker.response_body(host, 1, &chunk, false, *now), None);
                }
            }
        }
        worker.stream_end(host, 1, StreamEnd::Aborted, *now);
    }
    // An estimate waits for what a later response may tell.
    let events = [envoy.deliver(2000), envoy.deliver(40_000), envoy.deliver(2000)].concat();
    let line = |event: &Value| {
        let text = |name: &str| event[name].as_str().unwrap_or("null").to_owned();
        let cost = if event["total_provider_cost"].is_null() {
            text("unpriced_reason")
        } else {
            text("total_provider_cost")
        };
        let estimated = if event["estimated"] == true { " estimated" } else { "" };
        format!("{} {} {cost}{estimated}", text("model"), text("completeness"))
    };
    Played {
        lines: kinds(&events, "token_consumption").iter().map(line).collect(),
        steps: kinds(&events, "agent_step").len(),
        counters: envoy.host.counters.clone(),
    }
}

fn whole(bytes: &[u8]) -> Vec<Vec<u8>> {
    vec![bytes.to_vec()]
}

fn created(id: &str, lane: Option<&str>) -> Value {
    json!({ "type": "response.created", "stream_id": lane,
        "response": { "id": id, "status": "in_progress", "model": "gpt-5.1", "usage": null } })
}

fn delta(text: &str, lane: Option<&str>) -> Value {
    json!({ "type": "response.output_text.delta", "item_id": "i", "delta": text, "stream_id": lane })
}

fn completed(id: &str, lane: Option<&str>, input: u64, output: u64) -> Value {
    json!({ "type": "response.completed", "stream_id": lane,
        "response": { "id": id, "status": "completed", "model": "gpt-5.1", "usage": {
            "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output, "total_tokens": input + output } } })
}

fn ask(more: &Value) -> Value {
    let mut ask = json!({ "type": "response.create", "model": "gpt-5.1", "input": "Hi." });
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask
}

type Row = (&'static str, &'static str, Vec<Said>, &'static [&'static str]);

fn responses() -> Vec<Row> {
    let flex = json!({ "service_tier": "flex" });
    let (a, b) = (Some("a"), Some("b"));
    let lane = |name: &str| json!({ "stream_id": name });
    vec![
        (
            "two responses, one after another",
            RESPONSES,
            vec![
                Client(ask(&json!({}))),
                Server(created("r1", None)),
                Server(delta("Hello", None)),
                Server(completed("r1", None, 1000, 100)),
                Client(ask(&flex)),
                Server(created("r2", None)),
                Server(completed("r2", None, 2000, 100)),
            ],
            &["gpt-5.1 COMPLETE 0.00225", "gpt-5.1 COMPLETE 0.00175"],
        ),
        (
            "two lanes, of which one is cut",
            RESPONSES,
            vec![
                Client(ask(&lane("a"))),
                Client(ask(&lane("b"))),
                Server(created("r1", b)),
                Server(created("r2", a)),
                Server(delta("four words of text", a)),
                Server(completed("r1", b, 1000, 0)),
            ],
            &["gpt-5.1 COMPLETE 0.00125", "gpt-5.1 MISSING 0.00007375 estimated"],
        ),
        (
            "an error is no generation, and a later request is",
            RESPONSES,
            vec![
                Client(ask(&flex)),
                Server(
                    json!({ "type": "error", "status": 429, "error": { "code": "rate_limit_exceeded" } }),
                ),
                Client(ask(&json!({}))),
                Server(created("r1", None)),
                Server(completed("r1", None, 1000, 100)),
            ],
            &["gpt-5.1 COMPLETE 0.00225"],
        ),
        (
            "a response is told twice, and one whose beginning was not seen",
            RESPONSES,
            vec![
                Server(completed("r1", None, 1000, 100)),
                Server(completed("r1", None, 1000, 100)),
                Server(json!({ "type": "rate_limits.updated" })),
            ],
            &["gpt-5.1 COMPLETE 0.00225"],
        ),
        ("a connection on which nothing is asked for", RESPONSES, vec![], &[]),
    ]
}

fn realtime() -> Vec<Row> {
    let session = json!({ "type": "session.created", "session": { "type": "realtime", "model": "gpt-realtime-2",
        "audio": { "input": { "transcription": { "model": "gpt-4o-transcribe" } } } } });
    let started = |id: &str| json!({ "type": "response.created", "response": { "id": id, "status": "in_progress" } });
    let audio = json!({ "type": "response.output_audio.delta", "response_id": "r1", "delta": "A".repeat(4000) });
    let words = json!({ "type": "response.output_audio_transcript.delta", "response_id": "r2", "delta": "four words of text" });
    let done = json!({ "type": "response.done", "response": { "id": "r1", "status": "completed", "usage": {
        "total_tokens": 1500, "input_tokens": 1000, "output_tokens": 500,
        "input_token_details": { "text_tokens": 300, "audio_tokens": 700, "cached_tokens": 400,
            "cached_tokens_details": { "text_tokens": 100, "audio_tokens": 300 } },
        "output_token_details": { "text_tokens": 100, "audio_tokens": 400 } } } });
    let heard = json!({ "type": "conversation.item.input_audio_transcription.completed", "transcript": "Hi.",
        "usage": { "type": "tokens", "input_tokens": 100, "output_tokens": 10, "total_tokens": 110,
            "input_token_details": { "text_tokens": 0, "audio_tokens": 100 } } });
    let by_time = json!({ "type": "conversation.item.input_audio_transcription.completed", "transcript": "Hi.",
        "usage": { "type": "duration", "seconds": 60.5 } });
    let whisper = json!({ "type": "session.updated", "session": { "type": "realtime", "model": "gpt-realtime-2",
        "audio": { "input": { "transcription": { "model": "whisper-1" } } } } });
    let pictures = json!({ "type": "response.done", "response": { "id": "r4", "status": "completed", "usage": {
        "total_tokens": 1000, "input_tokens": 1000, "output_tokens": 0,
        "input_token_details": { "text_tokens": 300, "audio_tokens": 0, "image_tokens": 700, "cached_tokens": 600,
            "cached_tokens_details": { "text_tokens": 100, "audio_tokens": 0, "image_tokens": 500 } } } } });
    let create = json!({ "type": "response.create", "response": { "instructions": "Be kind." } });
    vec![
        (
            // 200 text at 4, 400 audio at 32, 400 cached at 0.4, 100 text at 16, 400 audio at 64.
            "text, audio and what was cached, beside what was transcribed",
            REALTIME,
            vec![
                Server(session.clone()),
                Server(heard),
                Client(create),
                Server(started("r1")),
                Server(audio),
                Server(done),
            ],
            &["gpt-4o-transcribe COMPLETE 0.0007", "gpt-realtime-2 COMPLETE 0.04096"],
        ),
        (
            // 200 text at 4, 100 cached at 0.4, 200 images at 5, 500 cached at 0.5.
            "pictures that were cached, beside what was transcribed by the time it took",
            REALTIME,
            vec![
                Server(session.clone()),
                Server(whisper),
                Server(by_time),
                Server(started("r4")),
                Server(pictures),
            ],
            &["whisper-1 COMPLETE 0.00605", "gpt-realtime-2 COMPLETE 0.00209"],
        ),
        (
            "what is cut is estimated by its text",
            REALTIME,
            vec![Server(session), Server(started("r2")), Server(words)],
            &["gpt-realtime-2 MISSING 0.00008 estimated"],
        ),
        (
            "without a session, the query names the model",
            REALTIME,
            vec![Server(started("r3"))],
            &["gpt-realtime-2 MISSING unknown_usage"],
        ),
    ]
}

#[test]
fn each_response_on_a_connection_is_a_generation_however_the_frames_come() {
    for (name, path, said, expected) in responses().into_iter().chain(realtime()) {
        let check = |cut: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
            let played = play("AI_AGENT", path, &[], &said, cut);
            assert_eq!(played.lines, expected, "{name}");
            assert_eq!(played.counters.get(&Counter::WebSockets), Some(&1), "{name}");
            assert_eq!(played.counters.get(&Counter::WebSocketsUnread), None, "{name}");
            assert_eq!(played.counters.get(&Counter::LlmRequestsUnseen), None, "{name}");
        };
        check(&whole);
        check(&|bytes: &[u8]| bytes.chunks(1).map(<[u8]>::to_vec).collect());
        for at in 0..120 {
            check(&|bytes: &[u8]| {
                let (start, end) = bytes.split_at(at.min(bytes.len()));
                vec![start.to_vec(), end.to_vec()]
            });
        }
    }
}

#[test]
fn a_response_on_a_connection_is_a_step_of_an_agent_as_one_by_http_is() {
    let said = || responses().remove(0).2;
    assert_eq!(play("AI_AGENT", RESPONSES, &[], &said(), &whole).steps, 2);
    // The request for the connection is the one call of an API.
    let played = play("AGENTIC_API", RESPONSES, &[], &said(), &whole);
    assert_eq!((played.steps, played.lines.len()), (0, 2));
    assert_eq!(play("AI_AGENT", REALTIME, &[], &realtime().remove(0).2, &whole).steps, 0);
}

#[test]
fn what_cannot_be_read_is_counted_and_named() {
    let extension = [("sec-websocket-extensions", "permessage-deflate")];
    let compressed = Said::Bytes(b"\xC1\x02\xF2\x48");
    let whole_one = || Server(completed("r1", None, 1000, 100));
    for (name, more, said, lines) in [
        ("a compressed message", &[][..], vec![compressed, whole_one()], 2),
        ("an extension that nobody offered", &extension, vec![whole_one()], 2),
        ("a message that is no JSON", &[], vec![Said::Bytes(b"\x81\x02no"), whole_one()], 2),
        ("bytes that are no frames", &[], vec![whole_one(), Said::Bytes(b"HTTP")], 2),
        ("a connection that is closed", &[], vec![whole_one(), Said::Bytes(b"\x88\x00HTTP")], 1),
    ] {
        let played = play("AI_AGENT", RESPONSES, more, &said, &whole);
        assert_eq!(played.lines.len(), lines, "{name}: {:?}", played.lines);
        let is_named = played.lines.iter().any(|line| line.starts_with("__unknown__ FAILED"));
        assert_eq!(is_named, lines == 2, "{name}: {:?}", played.lines);
        let unread = played.counters.get(&Counter::WebSocketsUnread).copied().unwrap_or(0);
        assert_eq!(unread == 1, lines == 2, "{name}");
    }
}

#[test]
fn a_connection_that_the_server_refuses_makes_nothing() {
    let mut envoy = Envoy::new(&config("AI_AGENT"));
    let head = [
        (":method", "GET"),
        (":path", RESPONSES),
        (":authority", "api.openai.com"),
        ("upgrade", "websocket"),
    ]
    .map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()));
    let Envoy { host, worker, now, .. } = &mut envoy;
    let action = worker.request_head(host, 1, Headers(&head), *now);
    assert!(matches!(action, HeadAction::Follow(_)));
    let answer = [(":status".to_owned(), b"401".to_vec())];
    assert_eq!(worker.response_head(1, Headers(&answer)), BodyInterest::None);
    worker.stream_end(host, 1, StreamEnd::Complete, *now);
    let events = envoy.deliver(2000);
    assert!(kinds(&events, "token_consumption").is_empty(), "{events:?}");
}

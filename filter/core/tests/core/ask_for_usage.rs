//! `ask_for_usage`: what the server gets and what the client sees, however the bodies are cut.

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::domain::usage::Completeness;
use agent_meter_core::exchange::Exchange;
use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::fact::Fact;
use agent_meter_core::wire::http::{Headers, ResponseHead};

use crate::support::{cuts, start_exchange, test};

const CONFIG: &str = r#"{"products": [{
    "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
    "llm": {"provider": "openai", "ask_for_usage": true}
}]}"#;

fn start(path: &str) -> Box<dyn Exchange> {
    let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
    let headers = [(":method", "POST"), (":path", path)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    start_exchange(&config, Headers(&headers)).unwrap()
}

/// What the server gets of a request.
fn sent(exchange: &mut Box<dyn Exchange>, chunks: &[&[u8]]) -> String {
    let mut sent = Vec::new();
    for chunk in chunks {
        sent.extend(exchange.request_body(chunk, Timestamp(1)).unwrap_or_else(|| chunk.to_vec()));
    }
    exchange.request_end(Timestamp(1));
    String::from_utf8(sent).unwrap()
}

/// What the client sees of a response.
fn seen(exchange: &mut Box<dyn Exchange>, content_type: &str, chunks: &[&[u8]]) -> String {
    let headers = [(":status", "200"), ("content-type", content_type)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(exchange.response_head(&ResponseHead::read(Headers(&headers))), BodyInterest::Bytes);
    let mut seen = Vec::new();
    for chunk in chunks {
        let edited = exchange.response_body(chunk, false, Timestamp(2));
        seen.extend(edited.unwrap_or_else(|| chunk.to_vec()));
    }
    seen.extend(exchange.response_body(&[], true, Timestamp(2)).unwrap_or_default());
    String::from_utf8(seen).unwrap()
}

#[test]
fn a_request_for_a_stream_gets_the_option_that_it_lacks() {
    let rows = [
        (
            r#"{"model":"m","stream":true}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            "{ \"stream\" : true,\n \"messages\": [{\"content\": \"} \\\" }\"}]\n}\n",
            "{ \"stream\" : true,\n \"messages\": [{\"content\": \"} \\\" }\"}]\n,\"stream_options\":{\"include_usage\":true}}\n",
        ),
        (
            r#"{"stream_options":{},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
            r#"{"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}"#,
        ),
    ];
    for (body, want) in rows {
        for chunks in cuts(body.as_bytes()) {
            let mut exchange = start("/v1/chat/completions");
            assert!(exchange.may_edit());
            assert_eq!(sent(&mut exchange, &chunks), want, "{chunks:?}");
        }
        let json: serde_json::Value = serde_json::from_str(want).unwrap();
        assert_eq!(json["stream_options"]["include_usage"], true);
    }
}

#[test]
fn any_other_request_goes_on_as_it_is() {
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","stream":false}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":null}"#,
        r#"{"messages":[{"stream":true}]}"#,
        r#"{"stream":"true"}"#,
        r#"["stream"]"#,
        r#"{"stream":true"#,
        "}}}",
        "",
    ] {
        for chunks in cuts(body.as_bytes()) {
            let mut exchange = start("/v1/chat/completions");
            assert_eq!(sent(&mut exchange, &chunks), body, "{chunks:?}");
        }
    }
    for path in ["/v1/embeddings", "/v1/responses", "/v1/messages"] {
        let config = Config::from_bytes(CONFIG.as_bytes()).unwrap();
        let headers = [(":method", "POST"), (":path", path)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let exchange = start_exchange(&config, Headers(&headers));
        assert!(exchange.is_none_or(|exchange| !exchange.may_edit()), "{path}");
    }
}

const TEXT: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}";
const STOP: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}";
const USAGE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}";
const WITH_CHOICE: &str = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}";
const DONE: &str = "data: [DONE]";

#[test]
fn the_client_sees_what_it_would_have_seen() {
    let huge = format!("data: {{\"choices\":[],\"x\":\"{}\"}}", "y".repeat(20_000));
    let rows: [(&[&str], &[&str]); 6] = [
        (&[TEXT, STOP, USAGE, DONE], &[TEXT, STOP, DONE]),
        (&[": comment", TEXT, STOP, USAGE, DONE], &[": comment", TEXT, STOP, DONE]),
        (&[TEXT, STOP, USAGE], &[TEXT, STOP]),
        // The usage came with something that the client asked for.
        (&[TEXT, WITH_CHOICE, DONE], &[TEXT, WITH_CHOICE, DONE]),
        (
            &["event: error\ndata: {\"error\":{}}", DONE],
            &["event: error\ndata: {\"error\":{}}", DONE],
        ),
        (&[&huge, USAGE, DONE], &[&huge, DONE]),
    ];
    for line_end in ["\n", "\r\n", "\r"] {
        for (events, want) in rows {
            let text = |events: &[&str]| -> String {
                events.iter().map(|event| format!("{event}\n\n").replace('\n', line_end)).collect()
            };
            let (stream, want) = (text(events), text(want));
            let all = if stream.len() > 5000 {
                stream.as_bytes().chunks(997).map(|_| vec![stream.as_bytes()]).take(1).collect()
            } else {
                cuts(stream.as_bytes())
            };
            for chunks in all {
                let mut exchange = start("/v1/chat/completions");
                let _ = sent(&mut exchange, &[br#"{"stream":true}"#]);
                let seen = seen(&mut exchange, "text/event-stream", &chunks);
                assert_eq!(seen, want, "{line_end:?} {chunks:?}");
            }
        }
    }
}

#[test]
fn what_is_taken_out_is_counted() {
    let mut exchange = start("/v1/chat/completions");
    let _ = sent(&mut exchange, &[br#"{"stream":true}"#]);
    let stream = [TEXT, STOP, USAGE, DONE].map(|event| format!("{event}\n\n")).concat();
    let _ = seen(&mut exchange, "text/event-stream", &[stream.as_bytes()]);
    let observed = exchange.end(StreamEnd::Complete, Timestamp(3));
    let [Fact::Generation(generation)] = observed.facts.as_slice() else { panic!("{observed:?}") };
    assert_eq!((generation.usage.input, generation.usage.output), (Some(9), Some(2)));
    assert_eq!(generation.completeness, Completeness::Complete);
}

#[test]
fn the_response_of_a_request_that_was_left_alone_is_left_alone() {
    let stream = [TEXT, STOP, USAGE, DONE].map(|event| format!("{event}\n\n")).concat();
    for (body, content_type) in [
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, "text/event-stream"),
        (r#"{"stream":false}"#, "text/event-stream"),
        (r#"{"stream":true}"#, "application/json"),
    ] {
        let mut exchange = start("/v1/chat/completions");
        let _ = sent(&mut exchange, &[body.as_bytes()]);
        assert_eq!(seen(&mut exchange, content_type, &[stream.as_bytes()]), stream, "{body}");
    }
}

#[test]
fn an_event_that_the_end_cuts_off_passes() {
    let cut = format!("{TEXT}\n\n{}", &USAGE[..40]);
    let mut exchange = start("/v1/chat/completions");
    let _ = sent(&mut exchange, &[br#"{"stream":true}"#]);
    assert_eq!(seen(&mut exchange, "text/event-stream", &[cut.as_bytes()]), cut);
}

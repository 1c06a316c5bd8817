//! Amazon Bedrock, beside the golden bodies: who answers, what is wrapped, and counts that are told twice.

use agent_meter_core::domain::price_factors::ServiceTier;
use agent_meter_core::domain::usage::{Completeness, Usage};
use agent_meter_core::protocol::llm::provider::Family;
use agent_meter_core::protocol::llm::{Generation, ResponseReader};
use agent_meter_core::wire::http::{Headers, ResponseHead};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

use crate::amazon_event_stream::{event, message};
use crate::support::{cuts, route, test};

const STREAM: &str = "application/vnd.amazon.eventstream";
const INVOKE: &str = "/model/arn:aws:bedrock:eu-west-1:1:application-inference-profile%2Fx1/invoke";
const CONVERSE: &str = "/model/amazon.nova-pro-v1:0/converse-stream";
const METRICS: &str = r#""amazon-bedrock-invocationMetrics":{"inputTokenCount":20,"outputTokenCount":9,"cacheReadInputTokenCount":80,"cacheWriteInputTokenCount":5}"#;

/// What a response tells, the same however it is cut.
fn read(path: &str, headers: &[(&str, &str)], body: &[u8]) -> (Generation, Option<Completeness>) {
    let route = route(Some(Family::Bedrock), "POST", "gateway", path).expect("a route");
    let headers: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let mut told = cuts(body).into_iter().map(|cut| {
        let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
        cut.iter().for_each(|chunk| reader.feed(chunk));
        let (generation, is_readable) = reader.end();
        let completeness = generation.completeness(is_readable);
        (generation, completeness)
    });
    let first = told.next().expect("a cut");
    assert!(told.all(|again| again == first));
    first
}

fn read_stream(path: &str, events: &[Vec<u8>]) -> (Usage, Option<Completeness>) {
    let (generation, completeness) = read(path, &[("content-type", STREAM)], &events.concat());
    (generation.usage, completeness)
}

/// An event of a vendor, wrapped.
fn chunk(inner: &str) -> Vec<u8> {
    let coded = BASE64_STANDARD.encode(inner);
    event("chunk", format!(r#"{{"bytes":"{coded}","p":"abcde"}}"#).as_bytes())
}

fn both(input: u64, output: u64) -> Usage {
    Usage { input: Some(input), output: Some(output), ..Usage::default() }
}

/// What [`METRICS`] says.
fn metered() -> Usage {
    Usage { cache_read: Some(80), cache_write_5m: Some(5), ..both(105, 9) }
}

#[test]
fn paths_name_the_model() {
    let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-v1:0";
    let encoded = arn.replace(':', "%3A").replace('/', "%2F");
    for (path, model) in [
        ("/model/amazon.nova-pro-v1:0/converse".to_owned(), "amazon.nova-pro-v1:0"),
        ("/model/amazon.nova-pro-v1%3a0/converse-stream?x=/y".to_owned(), "amazon.nova-pro-v1:0"),
        (format!("/model/{encoded}/invoke"), arn),
        (format!("/bedrock/model/{arn}/invoke-with-response-stream"), arn),
        ("/model/a%zz%4/invoke".to_owned(), "a%zz%4"),
        ("/model/%C3%A9%2B%+A/invoke".to_owned(), "\u{E9}+%+A"),
    ] {
        for provider in [Some(Family::Bedrock), None] {
            let route = route(provider, "POST", "gateway", &path).expect("a route");
            assert_eq!(route.model.as_deref(), Some(model), "{path}");
            assert_eq!(route.provider.family, Family::Bedrock, "{path}");
            assert!(!route.reports_again);
        }
    }
    let host = "bedrock-runtime.eu-central-1.amazonaws.com";
    for (path, is_routed) in [
        ("/openai/v1/chat/completions", true),
        ("/anthropic/v1/messages", true),
        ("/model/m/count-tokens", false),
        ("/model/m/invoke-with-bidirectional-stream", false),
        ("/model/converse", false),
        ("/guardrail/g/version/1/apply", false),
        ("/guardrail-checks/invoke", false),
        ("/async-invoke", true),
    ] {
        let route = route(None, "POST", host, path);
        assert_eq!(route.is_some(), is_routed, "{path}");
        assert!(route.is_none_or(|route| route.provider.family == Family::Bedrock), "{path}");
    }
    assert!(route(None, "GET", host, "/model/m/converse").is_none());
}

#[test]
fn headers_tell_what_a_body_does_not() {
    let headers: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("x-amzn-bedrock-input-token-count", "20"),
        ("x-amzn-bedrock-output-token-count", "9"),
        ("x-amzn-bedrock-cache-read-input-token-count", "80"),
        ("x-amzn-bedrock-cache-write-input-token-count", "5"),
        ("x-amzn-bedrock-service-tier", "flex"),
    ];
    let anthropic = r#"{"type":"message","model":"claude","usage":{"input_tokens":20,"output_tokens":9,
        "cache_read_input_tokens":80,"cache_creation_input_tokens":5,
        "cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}}}"#;
    let openai = r#"{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":105,
        "completion_tokens":9,"total_tokens":114,"prompt_tokens_details":{"cached_tokens":80}}}"#;
    let lifetimes = Usage { cache_write_5m: Some(2), cache_write_1h: Some(3), ..metered() };
    let total = Usage { provider_total: Some(114), ..metered() };
    for (body, usage) in [
        (r#"{"outputs":[{"text":"hello","stop_reason":"stop"}]}"#, metered()),
        ("{", metered()),
        ("", metered()),
        (anthropic, lifetimes),
        (openai, total),
    ] {
        let (generation, completeness) = read(INVOKE, headers, body.as_bytes());
        assert_eq!(generation.usage, usage, "{body}");
        assert_eq!(completeness, Some(Completeness::Complete), "{body}");
        assert_eq!(generation.service_tier, Some(ServiceTier::Flex), "{body}");
    }
    let nothing = [("x-amzn-bedrock-input-token-count", "-1"), ("x-amzn-bedrock-service-tier", "")];
    assert!(read(INVOKE, &nothing, b"{}").0.usage.is_unknown());
}

#[test]
fn metrics_are_no_second_generation() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":20,"output_tokens":1,
        "cache_read_input_tokens":80,"cache_creation_input_tokens":5,
        "cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":5}}}}"#;
    let stop = format!(r#"{{"type":"message_stop",{METRICS}}}"#);
    let chat = format!(
        r#"{{"object":"chat.completion.chunk","choices":[],"usage":{{"prompt_tokens":105,"completion_tokens":9}},{METRICS}}}"#
    );
    let chat_without = format!(
        r#"{{"object":"chat.completion.chunk","choices":[{{"index":0,"finish_reason":"stop"}}],{METRICS}}}"#
    );
    let long = Usage { cache_write_5m: Some(0), cache_write_1h: Some(5), ..metered() };
    for (events, usage) in [
        (vec![start, &stop], long),
        (vec![&stop], metered()),
        (vec![&chat], metered()),
        (vec![&chat_without], metered()),
        (
            vec![r#"{"generation":"a","prompt_token_count":20,"generation_token_count":1}"#, &stop],
            metered(),
        ),
    ] {
        let events: Vec<Vec<u8>> = events.iter().map(|inner| chunk(inner)).collect();
        assert_eq!(read_stream(INVOKE, &events), (usage, Some(Completeness::Complete)));
    }
}

#[test]
fn a_chunk_is_unwrapped_however_it_is_written() {
    let inner = format!(r#"{{"text":"{}???>>>",{METRICS}}}"#, "x".repeat(1500));
    let coded = BASE64_STANDARD.encode(&inner);
    assert!(coded.contains('/') && coded.len() > 2000);
    for payload in [
        format!(r#"{{"bytes":"{coded}"}}"#),
        format!(r#" {{ "p" : "bytes" , "bytes" : "{coded}" }} "#),
        format!(
            r#"{{"q":{{"bytes":"no","a":["bytes",{{}}]}},"r":null,"bytes":"{coded}","z":[1]}}"#
        ),
        format!(r#"{{"bytesx":"no","byte":"no","p":"\"bytes\"","bytes":"{coded}"}}"#),
        format!(r#"{{"bytes":"{}"}}"#, coded.replace('/', "\\/")),
        format!(r#"{{"bytes":"{}"}}"#, BASE64_STANDARD_NO_PAD.encode(&inner)),
    ] {
        let told = read_stream(INVOKE, &[event("chunk", payload.as_bytes())]);
        assert_eq!(told, (metered(), Some(Completeness::Complete)), "{payload}");
    }
}

#[test]
fn what_is_wrapped_wrong_tells_nothing_and_the_next_event_does() {
    let coded = BASE64_STANDARD.encode(format!("{{{METRICS}}}"));
    let late = format!("{coded}!");
    for payload in [
        late.as_str(),
        &format!("{coded}\\n"),
        &format!("\\u0041{coded}"),
        &format!("{}{coded}", "*".repeat(3000)),
        &coded[..40],
        "",
    ] {
        let broken = event("chunk", format!(r#"{{"bytes":"{payload}"}}"#).as_bytes());
        let told = read_stream(INVOKE, std::slice::from_ref(&broken));
        // Nothing is missing of an empty event.
        let is_lost = !payload.is_empty();
        let nothing = if is_lost { Completeness::Failed } else { Completeness::Missing };
        assert_eq!(told, (Usage::default(), Some(nothing)), "{payload}");
        let metrics = chunk(&format!("{{{METRICS}}}"));
        let told = read_stream(INVOKE, &[metrics, broken.clone()]);
        let some = if is_lost { Completeness::Partial } else { Completeness::Complete };
        assert_eq!(told, (metered(), Some(some)), "{payload}");
        let told = read_stream(INVOKE, &[broken, chunk(&format!("{{{METRICS}}}"))]);
        assert_eq!(told, (metered(), Some(Completeness::Complete)), "{payload}");
    }
    for payload in
        [format!(r#"{{"bytes":"{coded}"#), format!(r#"{{"bytes":"{coded}""#), "bytes".into()]
    {
        let broken = event("chunk", payload.as_bytes());
        let told = read_stream(INVOKE, &[broken, chunk(&format!("{{{METRICS}}}"))]);
        assert_eq!(told.0, metered(), "{payload}");
    }
}

#[test]
fn exceptions_tell_nothing() {
    let exception = |payload: &str| {
        let headers: &[(&str, u8, &[u8])] =
            &[(":message-type", 7, b"exception"), (":exception-type", 7, b"throttlingException")];
        message(headers, payload.as_bytes())
    };
    let usage = r#"{"usage":{"inputTokens":1,"outputTokens":2}}"#;
    let start = chunk(
        r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#,
    );
    let told = read_stream(CONVERSE, &[exception(usage)]);
    assert_eq!(told, (Usage::default(), Some(Completeness::Missing)));
    let (usage, completeness) = read_stream(INVOKE, &[start, exception("{")]);
    assert_eq!((usage.input, usage.output), (Some(3), Some(1)));
    assert_eq!(completeness, Some(Completeness::Partial));
}

#[test]
fn a_prompt_router_names_its_model_and_text_is_measured() {
    let events = [
        event("messageStart", br#"{"role":"assistant"}"#),
        event("contentBlockDelta", br#"{"contentBlockIndex":0,"delta":{"text":"hello"}}"#),
        event("contentBlockDelta", br#"{"delta":{"reasoningContent":{"text":"ab"}}}"#),
        event("contentBlockDelta", br#"{"delta":{"toolUse":{"input":"{}"}}}"#),
        event("messageStop", br#"{"stopReason":"end_turn"}"#),
        event("metadata", br#"{"usage":{"inputTokens":5,"outputTokens":6,"totalTokens":11},
            "trace":{"promptRouter":{"invokedModelId":"arn:aws:bedrock:x"}},"serviceTier":{"type":"reserved"}}"#),
    ];
    let headers = [("content-type", STREAM)];
    let (generation, completeness) = read(CONVERSE, &headers, &events.concat());
    assert_eq!(generation.model.as_deref(), Some("arn:aws:bedrock:x"));
    assert_eq!(generation.text_bytes, 9);
    assert_eq!(generation.service_tier, Some(ServiceTier::new("reserved")));
    assert_eq!(completeness, Some(Completeness::Complete));
    let (generation, completeness) = read(CONVERSE, &headers, &events[..5].concat());
    assert_eq!(generation.text_bytes, 9);
    assert_eq!(completeness, Some(Completeness::Missing));
}

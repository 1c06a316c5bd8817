//! What a response says that bears on the price and cannot be read for certain: it is counted dearest, or named.

use agent_meter_core::domain::price_factors::ServiceTier;
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::{Completeness, Usage};
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::protocol::llm::provider::{self, Asked};
use agent_meter_core::protocol::llm::{Generation, LlmRequestBody, ResponseReader, Route};
use agent_meter_core::protocol::request_body::BodyHead;
use agent_meter_core::wire::http::{Headers, ResponseHead};

use serde_json::json;

use crate::generations::{Mesh, Worker};
use crate::llm_formats::read_by;
use crate::support::test;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const CONTENT: &str = "/v1beta/models/m:generateContent";
const RESPONSES: &str = "/v1/responses";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fn route(provider: &str, path: &str) -> Route {
    let asked = Asked { seller: Seller::new(provider), ..Asked::default() };
    provider::route(asked, "POST", "gateway", path).expect("a route")
}

fn read(provider: &str, path: &str, media_type: &str, body: &str) -> (Generation, bool) {
    read_by(&route(provider, path), media_type, body)
}

/// Completeness, input, output, the further counts, the units, and `odd` if the event is inconsistent.
fn told(provider: &str, path: &str, body: &str) -> String {
    let media_type = if body.starts_with("data:") { EVENTS } else { JSON };
    let (generation, is_readable) = read(provider, path, media_type, body);
    let Usage { input, output, cache_read, cache_write_5m, cache_write_1h, input_image, .. } =
        generation.usage;
    let mut words = vec![format!("{:?}", generation.completeness(is_readable).unwrap())];
    let counts = [
        ("in", input),
        ("out", output),
        ("read", cache_read),
        ("5m", cache_write_5m),
        ("1h", cache_write_1h),
        ("image", input_image),
    ];
    words.extend(counts.iter().filter_map(|(name, count)| Some(format!("{name}={}", (*count)?))));
    words.extend(generation.units.iter().map(|unit| format!("{}={}", unit.name, unit.quantity)));
    let is_odd = generation.is_inconsistent || generation.units.is_over_limit();
    words.extend(is_odd.then(|| "odd".to_owned()));
    words.join(" ")
}

pub(crate) fn check(rows: &[(&str, &str, &str, &str, &str)]) {
    for (name, provider, path, body, expected) in rows {
        assert_eq!(told(provider, path, body), *expected, "{name}");
    }
}

#[test]
fn a_count_that_cannot_be_read_is_no_count_of_zero() {
    let image_tool = r#"{"object":"response","status":"completed","usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2},
        "tool_usage":{"image_gen":{"input_tokens":"50","output_tokens":4160,"total_tokens":4210}}}"#;
    check(&[
        (
            "a text",
            "openai",
            CHAT,
            r#"{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":"120000","completion_tokens":5,"total_tokens":120005}}"#,
            "Complete in=120000 out=5 odd",
        ),
        (
            "an object, and the total tells the rest",
            "openai",
            CHAT,
            r#"{"usage":{"prompt_tokens":{},"completion_tokens":5,"total_tokens":120005}}"#,
            "Complete in=120000 out=5 odd",
        ),
        (
            "the output",
            "openai",
            CHAT,
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":[900]}}"#,
            "Partial in=5 odd",
        ),
        (
            "what was read from a cache",
            "anthropic",
            MESSAGES,
            r#"{"type":"message","usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":"90000"}}"#,
            "Complete in=90010 out=5 read=90000 odd",
        ),
        (
            "the input beside a cache",
            "anthropic",
            MESSAGES,
            r#"{"type":"message","usage":{"input_tokens":null,"output_tokens":5,"cache_read_input_tokens":9}}"#,
            "Partial out=5 read=9",
        ),
        (
            "a run within the response",
            "anthropic",
            MESSAGES,
            r#"{"type":"message","usage":{"input_tokens":10,"output_tokens":5,"iterations":[{"type":"message","input_tokens":10,"output_tokens":{}}]}}"#,
            "Complete in=10 out=5 odd",
        ),
        ("a run beside the response", "openai", RESPONSES, image_tool, "Complete in=1 out=1 odd"),
        (
            "thoughts",
            "gemini",
            CONTENT,
            r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":"500"}}"#,
            "Complete in=10 out=505 odd",
        ),
        (
            "a modality",
            "gemini",
            CONTENT,
            r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"promptTokensDetails":[{"modality":"IMAGE","tokenCount":[7]}]}}"#,
            "Complete in=10 out=5 odd",
        ),
        (
            "a text that was embedded",
            "vertex",
            "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
            r#"{"predictions":[{"embeddings":{"statistics":{"token_count":3}}},{"embeddings":{"statistics":{"token_count":-1}}}]}"#,
            "Partial in=3 odd",
        ),
        (
            "two counts of the same",
            "openai_compatible",
            CHAT,
            r#"{"usage":{"prompt_tokens":900,"completion_tokens":5,"cached_tokens":800,"prompt_tokens_details":{"cached_tokens":3}}}"#,
            "Complete in=900 out=5 read=800 odd",
        ),
        (
            "a zero beside a count of the same",
            "openai_compatible",
            CHAT,
            r#"{"usage":{"prompt_tokens":900,"completion_tokens":5,"cached_tokens":800,"prompt_tokens_details":{"cached_tokens":0}}}"#,
            "Complete in=900 out=5 read=800",
        ),
    ]);
}

#[test]
fn a_quantity_that_cannot_be_read_is_named() {
    let quantity = |written: &str| {
        let body = format!(
            r#"{{"usage":{{"prompt_tokens":9,"completion_tokens":5,"num_search_queries":{written}}}}}"#
        );
        told("openai_compatible", CHAT, &body)
    };
    for (written, expected) in [
        ("3", "web_searches=3"),
        ("\"3\"", "web_searches=3"),
        ("2.5", "web_searches=2.5"),
        ("null", ""),
        ("0", ""),
        ("-3", "odd"),
        ("{\"count\":3}", "odd"),
        ("true", "odd"),
        ("1e30", "odd"),
        ("2000000000000", "web_searches=1000000000000 odd"),
    ] {
        let expected = ["Complete in=9 out=5", expected].join(" ");
        assert_eq!(quantity(written), expected.trim_end(), "{written}");
    }
}

#[test]
fn more_elements_than_the_filter_keeps_are_named() {
    let call = |at: u64| format!(r#"{{"type":"code_interpreter_call","container_id":"c{at}"}}"#);
    for (containers, expected) in
        [(31, "code_sessions=31 web_searches=1"), (32, "code_sessions=32 odd")]
    {
        let calls: Vec<_> = (0..containers).map(call).collect();
        let body = format!(
            r#"{{"object":"response","status":"completed","output":[{},{{"type":"web_search_call","action":{{"type":"search"}}}}],
                "usage":{{"input_tokens":9,"output_tokens":5}}}}"#,
            calls.join(",")
        );
        let mut told =
            told("openai", RESPONSES, &body).split(' ').map(str::to_owned).collect::<Vec<_>>();
        told.sort();
        let mut expected: Vec<_> =
            ["Complete in=9 out=5", expected].join(" ").split(' ').map(str::to_owned).collect();
        expected.sort();
        assert_eq!(told, expected, "{containers}");
    }
}

#[test]
fn what_is_billed_beside_tokens_does_not_complete_what_is_billed_by_tokens() {
    let search = r#"{"type":"web_search_call","action":{"type":"search"}}"#;
    let failed = format!(
        r#"{{"object":"response","status":"failed","model":"gpt-5.1","output":[{search}],"usage":null}}"#
    );
    check(&[
        ("a response", "openai", RESPONSES, &failed, "Missing web_searches=1"),
        (
            "an interaction",
            "gemini",
            "/v1beta/interactions",
            r#"{"id":"i","status":"completed","usage":{"grounding_tool_count":[{"type":"google_search","count":2}]}}"#,
            "Missing web_searches=2",
        ),
        (
            "a chat that searches",
            "cohere",
            "/v2/chat",
            r#"{"id":"c","meta":{"billed_units":{"search_units":2}}}"#,
            "Missing search_units=2",
        ),
        (
            "a rerank has no tokens",
            "cohere",
            "/v2/rerank",
            r#"{"id":"c","meta":{"billed_units":{"search_units":2}}}"#,
            "Complete search_units=2",
        ),
        (
            "images have no tokens",
            "openai",
            "/v1/images/generations",
            r#"{"data":[{"url":"a"}]}"#,
            "Complete output_images=1",
        ),
    ]);
}

#[test]
fn a_count_that_text_followed_is_not_the_last() {
    let start = r#"data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let text = r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"tea"}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}"#;
    let messages = |usage: &str| format!("{start}\n\n{text}\n\ndata: {end}{usage}}}\n\n");
    let chunk = |delta: &str, rest: &str| {
        format!(
            r#"data: {{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{{delta}}}{rest}}}"#
        ) + "\n\n"
    };
    let hot = r#""content":"hot""#;
    let usage = r#"],"usage":{"prompt_tokens":9,"completion_tokens":1}"#;
    let finish = r#","finish_reason":"stop"}]"#;
    let early = chunk("", &format!("}}{usage}")) + &chunk(hot, "}]") + &chunk("", finish);
    let late = chunk(hot, "}]") + &chunk("", &format!(r#","finish_reason":"stop"}}{usage}"#));
    let null = late.clone() + &chunk("", r#"}],"usage":null"#) + "data: [DONE]\n\n";
    let gemini = r#"data: {"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":1}}

data: {"candidates":[{"finishReason":"STOP","content":{"parts":[{"text":"tea"}]}}]}

"#;
    check(&[
        ("no usage at the end", "anthropic", MESSAGES, &messages(""), "Partial in=9 out=1"),
        (
            "a count that cannot be read",
            "anthropic",
            MESSAGES,
            &messages(r#","usage":{"output_tokens":[]}"#),
            "Partial in=9 out=1 odd",
        ),
        (
            "a count as text",
            "anthropic",
            MESSAGES,
            &messages(r#","usage":{"output_tokens":"9000"}"#),
            "Complete in=9 out=9000 odd",
        ),
        ("a first count", "openai", CHAT, &early, "Partial in=9 out=1"),
        ("a last count", "openai", CHAT, &late, "Complete in=9 out=1"),
        ("null behind a last count", "openai", CHAT, &null, "Complete in=9 out=1"),
        ("a first count of Gemini", "gemini", CONTENT, gemini, "Partial in=9 out=1"),
    ]);
}

#[test]
fn what_the_total_holds_beyond_input_and_output_is_output() {
    check(&[
        (
            "a count that is not known",
            "gemini",
            CONTENT,
            r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"newTokenCount":400,"totalTokenCount":415}}"#,
            "Complete in=10 out=405 odd",
        ),
        (
            "the same of Bedrock",
            "bedrock",
            "/model/m/converse",
            r#"{"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":415}}"#,
            "Complete in=10 out=405 odd",
        ),
    ]);
}

#[test]
fn writes_for_a_time_that_is_not_known_are_the_longer_ones() {
    let anthropic = |split: &str| {
        format!(
            r#"{{"type":"message","usage":{{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":5000,"cache_creation":{split}}}}}"#
        )
    };
    let bedrock = |written: &str, ttl: &str| {
        format!(
            r#"{{"stopReason":"end_turn","usage":{{"inputTokens":10,"outputTokens":5,{written}"cacheDetails":[{{"ttl":"{ttl}","inputTokens":5000}}]}}}}"#
        )
    };
    check(&[
        (
            "a new one",
            "anthropic",
            MESSAGES,
            &anthropic(r#"{"ephemeral_24h_input_tokens":5000}"#),
            "Complete in=5010 out=5 1h=5000 odd",
        ),
        (
            "two new ones beside a known one",
            "anthropic",
            MESSAGES,
            &anthropic(r#"{"ephemeral_5m_input_tokens":1000,"a":2000,"b":1500,"word":"x"}"#),
            "Complete in=5010 out=5 5m=1500 1h=3500 odd",
        ),
        (
            "a new one of zero, and the rest of a split",
            "anthropic",
            MESSAGES,
            &anthropic(r#"{"ephemeral_24h_input_tokens":0,"ephemeral_1h_input_tokens":1000}"#),
            "Complete in=5010 out=5 5m=4000 1h=1000",
        ),
        (
            "one of OpenAI",
            "openai",
            RESPONSES,
            r#"{"object":"response","status":"completed","usage":{"input_tokens":9000,"output_tokens":5,"input_tokens_details":
                {"cache_write_tokens":5000,"cache_write_tokens_details":{"ttl_24h_tokens":5000}}}}"#,
            "Complete in=9000 out=5 1h=5000 odd",
        ),
        (
            "one of Bedrock, without the whole",
            "bedrock",
            "/model/m/converse",
            &bedrock("", "24h"),
            "Complete in=5010 out=5 1h=5000 odd",
        ),
        (
            "a known one of Bedrock",
            "bedrock",
            "/model/m/converse",
            &bedrock(r#""cacheWriteInputTokens":5000,"#, "1h"),
            "Complete in=5010 out=5 1h=5000",
        ),
    ]);
}

#[test]
fn the_counts_of_several_results_add_up() {
    check(&[
        (
            "of watsonx",
            "watsonx",
            "/ml/v1/text/generation",
            r#"{"results":[{"input_token_count":5,"generated_token_count":7,"stop_reason":"eos_token"},{"input_token_count":5,"generated_token_count":9,"stop_reason":"eos_token"}]}"#,
            "Complete in=10 out=16",
        ),
        (
            "of Titan",
            "bedrock",
            "/model/m/invoke",
            r#"{"inputTextTokenCount":5,"results":[{"tokenCount":7,"completionReason":"FINISH"},{"tokenCount":9,"completionReason":"FINISH"}]}"#,
            "Complete in=5 out=16",
        ),
        (
            "searches of two kinds",
            "mistral",
            "/v1/conversations",
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":7,"connectors":{"web_search_premium":3,"web_search":1}}}"#,
            "Complete in=5 out=7 web_searches=1 web_searches:premium=3",
        ),
        (
            "images and video",
            "dashscope",
            "/api/v1/services/aigc/multimodal-generation/generation",
            r#"{"output":{"finish_reason":"stop"},"usage":{"input_tokens":900,"output_tokens":7,"input_tokens_details":{"image_tokens":100,"video_tokens":700}}}"#,
            "Complete in=900 out=7 image=800",
        ),
    ]);
}

#[test]
fn a_modality_that_is_not_known_is_named() {
    for (modality, expected) in [
        (r#""modality":"Image","#, "image=5 "),
        (r#""modality":"video","#, "image=5 "),
        (r#""modality":"Text","#, ""),
        (r#""modality":"MODALITY_UNSPECIFIED","#, ""),
        ("", ""),
        (r#""modality":"SENSOR","#, "odd"),
    ] {
        let body = format!(
            r#"{{"candidates":[{{"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":5,"promptTokensDetails":[{{{modality}"tokenCount":5}}]}}}}"#
        );
        let expected = ["Complete in=9 out=5", expected].join(" ");
        assert_eq!(told("gemini", CONTENT, &body), expected.trim_end(), "{modality}");
    }
}

#[test]
fn a_tier_that_is_no_word_is_not_the_list_price() {
    let unreadable = Some(ServiceTier::new("unreadable"));
    let of_chat = |tier: &str| read("openai", CHAT, JSON, &format!(r#"{{"service_tier":{tier}}}"#));
    for (tier, expected, is_odd) in [
        ("\"flex\"", Some(ServiceTier::Flex), false),
        ("null", None, false),
        ("\"\"", None, false),
        ("\" \"", None, false),
        ("{\"type\":\"priority\"}", unreadable, true),
        ("[\"flex\"]", unreadable, true),
        ("3", unreadable, true),
    ] {
        let (told, _) = of_chat(tier);
        assert_eq!((told.service_tier, told.is_inconsistent), (expected, is_odd), "{tier}");
        let mut request = LlmRequestBody::new(
            BodyHead::read(Headers(&[])),
            route("openai", CHAT).format.asks,
            false,
        );
        request.feed(format!(r#"{{"service_tier":{tier}}}"#).as_bytes());
        assert_eq!(request.requested().service_tier, expected, "{tier}");
    }
    for (metadata, expected) in [
        (r#""serviceTier":"PRIORITY","trafficType":"ON_DEMAND""#, Some(ServiceTier::Priority)),
        (r#""trafficType":"ON_DEMAND_FLEX","serviceTier":"flex""#, Some(ServiceTier::Flex)),
        (r#""trafficType":"TRAFFIC_TYPE_UNSPECIFIED""#, None),
        (r#""serviceTier":" ","trafficType":"ON_DEMAND""#, Some(ServiceTier::Standard)),
        (r#""serviceTier":"flex","trafficType":"ON_DEMAND_PRIORITY""#, unreadable),
    ] {
        let (told, _) =
            read("vertex", CONTENT, JSON, &format!(r#"{{"usageMetadata":{{{metadata}}}}}"#));
        assert_eq!(told.service_tier, expected, "{metadata}");
    }
}

#[test]
fn a_modifier_that_is_no_word_is_not_the_list_price() {
    for (usage, special) in [
        (r#""speed":"fast""#, vec!["fast"]),
        (r#""speed":null,"inference_geo":"global""#, vec![]),
        (r#""speed":["fast"],"inference_geo":7"#, vec!["unreadable", "unreadable"]),
    ] {
        let body = format!(r#"{{"type":"message","usage":{{{usage}}}}}"#);
        let (told, _) = read("anthropic", MESSAGES, JSON, &body);
        let words: Vec<_> =
            told.modifiers.special().map(|(_, word)| word.as_str().to_owned()).collect();
        assert_eq!(words, special, "{usage}");
    }
    // How fast a voice speaks.
    let mut request = LlmRequestBody::new(
        BodyHead::read(Headers(&[])),
        route("openai", "/v1/audio/speech").format.asks,
        true,
    );
    request.feed(br#"{"input":"Hello","speed":1.25}"#);
    assert_eq!(request.requested().modifiers.special().count(), 0);
}

#[test]
fn a_header_that_cannot_be_read_is_named() {
    let invoke = "/model/m/invoke";
    let unreadable = Some(ServiceTier::new("unreadable"));
    for (provider, path, name, value, tier, is_odd) in [
        (
            "gemini",
            CONTENT,
            "x-gemini-service-tier",
            "flex".as_bytes(),
            Some(ServiceTier::Flex),
            false,
        ),
        ("gemini", CONTENT, "x-gemini-service-tier", b" ", None, false),
        ("gemini", CONTENT, "x-gemini-service-tier", b"\xff", unreadable, false),
        ("bedrock", invoke, "x-amzn-bedrock-service-tier", b"\xff", unreadable, false),
        ("bedrock", invoke, "x-amzn-bedrock-input-token-count", b"12", None, false),
        ("bedrock", invoke, "x-amzn-bedrock-input-token-count", b"twelve", None, true),
    ] {
        let route = route(provider, path);
        let headers = [(name.to_owned(), value.to_vec())];
        let told =
            ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers))).end().0;
        assert_eq!((told.service_tier, told.is_inconsistent), (tier, is_odd), "{name} {value:?}");
    }
}

#[test]
fn what_a_head_told_stays_whole_whatever_text_follows() {
    let route = route("bedrock", "/model/m/invoke");
    let headers = [
        ("content-type".to_owned(), JSON.as_bytes().to_vec()),
        ("x-amzn-bedrock-input-token-count".to_owned(), b"12".to_vec()),
        ("x-amzn-bedrock-output-token-count".to_owned(), b"3".to_vec()),
    ];
    let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
    reader.feed(br#"{"outputs":[{"text":"Hot tea."}]}"#);
    assert_eq!(reader.end().0.completeness(true), Some(Completeness::Complete));
}

#[test]
fn an_event_names_what_could_not_be_read() {
    let config = json!({
        "rate_cards": [{ "version": "1", "rates": [
            { "provider": "openai", "model": "gpt-5.1", "input": "1.25", "output": "10" }] }],
        "products": [{ "id": "llm", "type": "AI_AGENT", "match": { "host": "llm", "path_prefix": "/" },
            "llm": { "provider": "openai" } }],
    });
    for (member, completeness, tokens, cost) in [
        (r#""service_tier":["priority"],"#, "COMPLETE", json!([9, 5]), "no_rate_for_tier"),
        ("", "COMPLETE", json!([9, 5]), "0.00006125"),
        // The rest of the request is about 4 tokens.
        (
            r#""usage":{"prompt_tokens":[9],"completion_tokens":5},"#,
            "PARTIAL",
            json!([5, 5]),
            "0.00005625",
        ),
    ] {
        let usage = r#""usage":{"prompt_tokens":9,"completion_tokens":5}"#;
        let usage = if member.contains("usage") { r#""user":null"# } else { usage };
        let answer = format!(r#"{{"object":"chat.completion",{member}{usage}}}"#);
        let mut mesh = Mesh::new(&config.to_string());
        let ask = [(":method", "POST"), (":path", CHAT), (":authority", "llm")];
        let stream = mesh.send(Worker::First, &ask, r#"{"model":"gpt-5.1"}"#);
        let head = [(":status", "200"), ("content-type", JSON)];
        mesh.answer(Worker::First, stream, &head, &answer, StreamEnd::Complete);
        let (events, _) = mesh.events();
        let [event] = events.as_slice() else { panic!("{events:?}") };
        let told = event["total_provider_cost"].as_str().or(event["unpriced_reason"].as_str());
        assert_eq!((&event["completeness"], told), (&json!(completeness), Some(cost)), "{event}");
        assert_eq!(json!([event["tokens"]["input"], event["tokens"]["output"]]), tokens, "{event}");
        let counted = mesh.envoy.host.counters.get(&Counter::UsageInconsistent).copied();
        let is_odd = event["inconsistent"] == true;
        assert_eq!(
            (is_odd, counted.unwrap_or(0)),
            (!member.is_empty(), u64::from(is_odd)),
            "{event}"
        );
    }
}

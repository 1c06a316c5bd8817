//! What providers' wire formats hold in store beside the golden bodies: who is asked, and odd texts, inline.

use agent_meter_core::domain::price_factors::ServiceTier;
use agent_meter_core::domain::units::{Unit, Units};
use agent_meter_core::domain::usage::{Completeness, Usage};
use agent_meter_core::protocol::llm::provider::Family;
use agent_meter_core::protocol::llm::{
    Generation, LlmRequestBody, Requested, ResponseReader, Route,
};
use agent_meter_core::protocol::request_body::BodyHead;
use agent_meter_core::wire::http::{Headers, ResponseHead};

use crate::support::{cuts, route, test};

const CHAT: &str = "/v1/chat/completions";

/// What a body tells on a path of a provider, the same however it is cut.
fn read(provider: Family, path: &str, content_type: &str, body: &str) -> (Generation, bool) {
    let route = route(Some(provider), "POST", "gateway", path).expect("a route");
    read_by(&route, content_type, body)
}

/// What a body tells on a route, the same however it is cut.
pub(crate) fn read_by(route: &Route, content_type: &str, body: &str) -> (Generation, bool) {
    let headers = [("content-type".to_owned(), content_type.as_bytes().to_vec())];
    let mut told = cuts(body.as_bytes()).into_iter().map(|cut| {
        let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
        cut.iter().for_each(|chunk| reader.feed(chunk));
        reader.end()
    });
    let first = told.next().expect("a cut");
    assert!(told.all(|again| again == first), "{body}");
    first
}

fn usage(provider: Family, path: &str, content_type: &str, body: &str) -> Usage {
    read(provider, path, content_type, body).0.usage
}

fn both(input: u64, output: u64) -> Usage {
    Usage { input: Some(input), output: Some(output), ..Usage::default() }
}

#[test]
fn the_host_and_then_the_path_tell_who_is_asked() {
    for (host, path, provider) in [
        ("api.openai.com", CHAT, Family::OpenAi),
        ("EU.API.OpenAI.com:443", CHAT, Family::OpenAi),
        ("api.openai.com.", CHAT, Family::OpenAi),
        ("notapi.openai.com", CHAT, Family::OpenAiCompatible),
        ("shop.openai.azure.com", "/openai/v1/chat/completions", Family::AzureOpenAi),
        ("shop.services.ai.azure.com", "/models/chat/completions", Family::AzureOpenAi),
        ("shop.services.ai.azure.com", "/anthropic/v1/messages", Family::AzureOpenAi),
        ("api.anthropic.com", "/v1/messages?beta=true", Family::Anthropic),
        ("aiplatform.googleapis.com", "/v1/publishers/google/models/m:predict", Family::Vertex),
        ("aiplatform.eu.rep.googleapis.com", "/v1/x/models/m:generateContent", Family::Vertex),
        ("bedrock-runtime-fips.us-east-1.amazonaws.com", "/model/m/invoke", Family::Bedrock),
        (
            "vpce-1-a.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            "/model/m/converse-stream",
            Family::Bedrock,
        ),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "/model/m/converse", Family::Bedrock),
        ("bedrock-mantle.us-east-1.api.aws", CHAT, Family::Bedrock),
        ("bedrock-runtime.example.com", CHAT, Family::OpenAiCompatible),
        ("api.mistral.ai", "/v1/conversations", Family::Mistral),
        ("api.mistral.ai", "/v1/conversations/conv_1", Family::Mistral),
        ("api.cohere.ai", "/v1/chat", Family::Cohere),
        ("api.cohere.com", "/compatibility/v1/chat/completions", Family::Cohere),
        ("api.deepseek.com", "/anthropic/v1/messages", Family::DeepSeek),
        ("[::1]:11434", "/v1/messages", Family::Ollama),
        ("localhost:11434", CHAT, Family::Ollama),
        ("[fe80::11434]", CHAT, Family::OpenAiCompatible),
        ("generativelanguage.googleapis.com", "/v1beta/openai/embeddings", Family::Gemini),
        ("gw", "/v1beta/tunedModels/m%3AstreamGenerateContent", Family::Gemini),
        ("gw", "/v1beta1/projects/p/locations/l/interactions", Family::Vertex),
        ("gw", "/v1/projects/p/locations/l/endpoints/9:generateContent", Family::Vertex),
        ("gw", "/openai/deployments/d/embeddings", Family::AzureOpenAi),
        ("gw", "/v1/messages", Family::Anthropic),
        ("gw", "/v2/embed", Family::Cohere),
        ("gw", "/api/generate", Family::Ollama),
        ("gw", "/v1/fim/completions", Family::Mistral),
        ("gw", CHAT, Family::OpenAiCompatible),
    ] {
        // Images are made by this model, not embeddings.
        let path = path.replace("/m:predict", "/text-embedding-005:predict");
        let found = route(None, "POST", host, &path).map(|route| route.provider.family);
        assert_eq!(found, Some(provider), "{host} {path}");
    }
}

#[test]
fn what_makes_no_generation_has_no_route() {
    for (provider, method, path) in [
        (None, "GET", CHAT),
        (None, "GET", "/v1/models"),
        (None, "POST", "/v1/threads/t/messages"),
        (None, "POST", "/v1/channels/c/messages"),
        (Some(Family::Anthropic), "POST", "/v1/threads/t/messages"),
        (None, "POST", "/v1/messages/count_tokens"),
        (None, "POST", "/v1/messages/batches"),
        (None, "POST", "/v1/files"),
        (Some(Family::Anthropic), "POST", CHAT),
        (Some(Family::Gemini), "POST", "/v1beta/models/m:countTokens"),
        (Some(Family::Gemini), "POST", "/v1beta/models/m:batchGenerateContent"),
        (Some(Family::Gemini), "DELETE", "/v1beta/interactions/v1_1"),
        (Some(Family::Vertex), "POST", "/v1/publishers/google/models/veo-3:fetchPredictOperation"),
        (None, "GET", "/v1/videos/video_1"),
        (Some(Family::Vertex), "POST", "/v1/publishers/anthropic/models/count-tokens:rawPredict"),
        (Some(Family::Cohere), "POST", "/v1/tokenize"),
        (Some(Family::Ollama), "POST", "/api/pull"),
    ] {
        let found = route(provider, method, "gw", path).map(|route| route.provider.family);
        assert_eq!(found, None, "{method} {path}");
    }
}

#[test]
fn what_is_not_paid_in_tokens_has_a_route_too() {
    for (provider, path, model) in [
        (None, "/v1/audio/speech", None),
        (None, "/v1/images/variations", None),
        (None, "/v1/videos", None),
        (None, "/v1/videos/video_1/remix", None),
        (None, "/v1/multimodalembeddings", None),
        (None, "/v1/reranking", None),
        (Some(Family::Mistral), "/v1/ocr", None),
        (Some(Family::Mistral), "/v1/audio/speech", None),
        (Some(Family::AzureOpenAi), "/openai/deployments/d/audio/speech", Some("d")),
        (Some(Family::Cohere), "/v2/rerank", None),
        (Some(Family::Bedrock), "/rerank", None),
        (Some(Family::Bedrock), "/async-invoke", None),
        (Some(Family::Gemini), "/v1beta/models/imagen-4:predict", Some("imagen-4")),
        (Some(Family::Gemini), "/v1beta/models/veo-3:predictLongRunning", Some("veo-3")),
        (
            None,
            "/v1/projects/p/locations/l/publishers/google/models/imagen-4:predict",
            Some("imagen-4"),
        ),
        (None, "/v1/projects/p/locations/l/endpoints/1:rawPredict", None),
        (None, "/v1/projects/p/locations/l/endpoints/1:predict", None),
    ] {
        let found = route(provider, "POST", "gw", path).expect(path);
        assert_eq!(found.model.as_deref(), model, "{path}");
    }
}

#[test]
fn the_path_names_the_model() {
    for (provider, path, model) in [
        (
            Family::Gemini,
            "/v1beta/models/gemini-2.5-flash:generateContent",
            Some("gemini-2.5-flash"),
        ),
        (
            Family::Gemini,
            "/v1beta/models/gemini-2.5-flash%3aembedContent",
            Some("gemini-2.5-flash"),
        ),
        (
            Family::Vertex,
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-4-5%4020251101:rawPredict",
            Some("claude-opus-4-5@20251101"),
        ),
        (Family::Vertex, "/v1/projects/p/locations/l/endpoints/42:generateContent", None),
        (
            Family::AzureOpenAi,
            "/openai/deployments/prod/chat/completions?api-version=1",
            Some("prod"),
        ),
        (Family::AzureOpenAi, "/openai/v1/responses", None),
    ] {
        let found = route(Some(provider), "POST", "gw", path).expect("a route");
        assert_eq!(found.model.as_deref(), model, "{path}");
    }
}

#[test]
fn a_generation_that_is_asked_for_again_is_told_again() {
    for (provider, method, path, reports_again) in [
        (Family::Gemini, "GET", "/v1beta/interactions/v1_1?stream=true", true),
        (Family::Gemini, "POST", "/v1beta/interactions", true),
        (Family::Gemini, "POST", "/v1beta/interactions/v1_1/cancel", true),
        (Family::AzureOpenAi, "GET", "/openai/v1/responses/resp_1", true),
        (Family::Gemini, "POST", "/v1beta/models/m:generateContent", false),
        (Family::Vllm, "POST", CHAT, false),
    ] {
        let found = route(Some(provider), method, "gw", path).expect("a route");
        assert_eq!(found.reports_again, reports_again, "{method} {path}");
    }
}

#[test]
fn counts_are_whole_numbers_however_they_are_written() {
    for (input, told, is_odd) in [
        ("12", Some(12), false),
        ("12.0", Some(12), false),
        ("1.2e1", Some(12), false),
        ("12.5", Some(13), true),
        ("\"12\"", Some(12), true),
        ("-12", None, true),
        ("\"\"", None, true),
        ("true", None, true),
        ("[12]", None, true),
        ("{}", None, true),
        ("123456789012345678901234567890", None, true),
        ("null", None, false),
    ] {
        let body = format!(
            "{{ \"usage\" :\r\n\t{{\"prompt_tokens\": {input} , \"completion_tokens\":3}}\n}}"
        );
        let (found, _) = read(Family::OpenAi, CHAT, "application/json", &body);
        assert_eq!((found.usage.input, found.usage.output), (told, Some(3)), "{input}");
        assert_eq!(found.is_inconsistent, is_odd, "{input}");
        let completeness = match told {
            Some(_) => Completeness::Complete,
            None => Completeness::Partial,
        };
        assert_eq!(found.completeness(true), Some(completeness), "{input}");
    }
}

#[test]
fn usage_in_what_the_model_wrote_is_text() {
    let body = r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"content":
        {"usage":{"prompt_tokens":900,"completion_tokens":900}}}}],
        "usage":{"prompt_tokens":12,"completion_tokens":3},
        "metadata":{"usage":{"prompt_tokens":800}}}"#;
    for provider in [Family::OpenAi, Family::Mistral, Family::OpenAiCompatible] {
        assert_eq!(usage(provider, CHAT, "application/json", body), both(12, 3));
    }
    let body = r#"{"message":{"content":"{\"eval_count\":9}"},"eval_count":3,"prompt_eval_count":12,"done":true}"#;
    assert_eq!(usage(Family::Ollama, "/api/chat", "application/json", body), both(12, 3));
}

#[test]
fn usage_that_is_told_again_is_counted_once() {
    let chunk = r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3}}"#;
    let body = format!("data: {chunk}\n\ndata: {chunk}\n\ndata: [DONE]\n\n");
    let (told, _) = read(Family::OpenAi, CHAT, "text/event-stream", &body);
    assert_eq!((told.usage, told.completeness(true)), (both(12, 3), Some(Completeness::Complete)));
}

// Legacy completions with vLLM's `continuous_usage_stats`.
#[test]
fn counts_so_far_are_no_final_ones() {
    let chunk = |made: u64, finish: &str| {
        format!(
            "data: {{\"object\":\"text_completion\",\"choices\":[{{\"index\":0,\"text\":\"a\",\
             \"finish_reason\":{finish}}}],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{made}}}}}\n\n"
        )
    };
    let path = "/v1/completions";
    let cut = chunk(1, "null") + &chunk(2, "null");
    let (told, _) = read(Family::Vllm, path, "text/event-stream", &cut);
    assert_eq!((told.usage, told.completeness(true)), (both(5, 2), Some(Completeness::Partial)));
    let (told, _) = read(Family::Vllm, path, "text/event-stream", &(cut + &chunk(3, "\"stop\"")));
    assert_eq!((told.usage, told.completeness(true)), (both(5, 3), Some(Completeness::Complete)));
}

#[test]
fn a_last_event_without_its_blank_line_was_sent() {
    let body = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}";
    for end in ["", "\n", "\n\n", "\r\n\r\n"] {
        let body = format!("{body}{end}");
        assert_eq!(usage(Family::OpenAi, CHAT, "text/event-stream", &body), both(5, 2), "{end:?}");
    }
    // The number that the cut is in may go on.
    let cut = body.trim_end_matches('}');
    let (told, _) = read(Family::OpenAi, CHAT, "text/event-stream", cut);
    let input = Usage { input: Some(5), ..Usage::default() };
    assert_eq!((told.usage, told.completeness(true)), (input, Some(Completeness::Partial)));
}

#[test]
fn a_body_that_holds_no_document_cannot_be_read() {
    for (body, is_readable) in [
        ("", true),
        ("{}", true),
        ("[]", true),
        (" [{\"usage\":", true),
        ("{\"usage\":{\"prompt", true),
        ("upstream connect error", false),
        ("<html>", false),
        ("\"text\"", false),
        ("404", false),
        ("{\"usage\"]", false),
    ] {
        let (told, found) = read(Family::OpenAi, CHAT, "application/json", body);
        assert_eq!((told.usage, found), (Usage::default(), is_readable), "{body:?}");
    }
}

// 250 texts may be embedded by one call.
#[test]
fn each_text_that_was_embedded_counts() {
    let prediction =
        r#"{"embeddings":{"values":[0.1,0.2],"statistics":{"truncated":false,"token_count":3.0}}}"#;
    let body = format!("{{\"predictions\":[{}]}}", vec![prediction; 250].join(","));
    let path = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict";
    let route = route(Some(Family::Vertex), "POST", "gw", path).expect("a route");
    let headers = [("content-type".to_owned(), b"application/json".to_vec())];
    let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
    reader.feed(body.as_bytes());
    let told = reader.end().0.usage;
    assert_eq!((told.input, told.output), (Some(750), None));
}

#[test]
fn reasoning_that_is_counted_beside_the_output_is_added_once() {
    let chunk = r#"data: {"choices":[],"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
data: "completion_tokens_details":{"reasoning_tokens":94}}}

"#;
    let told = usage(Family::OpenAiCompatible, CHAT, "text/event-stream", &chunk.repeat(3));
    assert_eq!(
        (told.output, told.reasoning, told.provider_total),
        (Some(103), Some(94), Some(135))
    );
    // Some tell them by the total only.
    let body = r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":150}}"#;
    let path = "/v1beta/openai/chat/completions";
    let told = usage(Family::Gemini, path, "application/json", body);
    assert_eq!((told.input, told.output, told.reasoning), (Some(12), Some(138), None));
    for provider in [Family::OpenAi, Family::AzureOpenAi, Family::OpenAiCompatible] {
        let told = usage(provider, CHAT, "application/json", body);
        assert_eq!((told.input, told.output), (Some(12), Some(138)), "{provider:?}");
    }
}

#[test]
fn what_tools_gave_to_the_model_was_read_by_it() {
    let body = r#"{"object":"conversation.response","conversation_id":"conv_1","outputs":[{"model":"mistral-medium-2505"}],
        "usage":{"prompt_tokens":188,"completion_tokens":55,"total_tokens":7355,"connector_tokens":7112}}"#;
    let (told, _) = read(Family::Mistral, "/v1/conversations", "application/json", body);
    let wanted = Usage { provider_total: Some(7355), ..both(7300, 55) };
    assert_eq!((told.usage, told.model.as_deref()), (wanted, Some("mistral-medium-2505")));
}

#[test]
fn an_embedding_has_no_output() {
    let body = r#"{"object":"list","data":[],"model":"voyage-3","usage":{"total_tokens":10}}"#;
    for path in ["/v1/embeddings", "/v1/rerank"] {
        let told = usage(Family::OpenAiCompatible, path, "application/json", body);
        assert_eq!((told.input, told.output), (Some(10), None), "{path}");
    }
}

#[test]
fn the_tier_is_read_wherever_it_is_told() {
    for (provider, path, body, tier) in [
        (Family::OpenAi, CHAT, r#"{"service_tier":"flex"}"#, ServiceTier::Flex),
        (Family::Mistral, CHAT, r#"{"usage":{"service_tier":"priority"}}"#, ServiceTier::Priority),
        (
            Family::Vertex,
            "/v1/publishers/google/models/m:generateContent",
            r#"{"usageMetadata":{"trafficType":"ON_DEMAND_PRIORITY"}}"#,
            ServiceTier::Priority,
        ),
        (
            Family::Vertex,
            "/v1/publishers/google/models/m:generateContent",
            r#"{"usageMetadata":{"trafficType":"PROVISIONED_THROUGHPUT"}}"#,
            ServiceTier::new("provisioned_throughput"),
        ),
    ] {
        let (told, _) = read(provider, path, "application/json", body);
        assert_eq!(told.service_tier, Some(tier), "{body}");
    }
    let path = "/v1beta/models/m:generateContent";
    let route = route(Some(Family::Gemini), "POST", "gw", path).expect("a route");
    let headers = [("x-gemini-service-tier".to_owned(), b"flex".to_vec())];
    let told = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers))).end().0;
    assert_eq!(told.service_tier, Some(ServiceTier::Flex));
}

/// What a request says on a path of a provider, the same however it is cut.
fn requested(provider: Family, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Requested {
    let asks = route(Some(provider), "POST", "gw", path).expect("a route").format.asks;
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    let headers: Vec<_> = headers.iter().map(owned).collect();
    let mut told = cuts(body).into_iter().map(|cut| {
        let mut reader = LlmRequestBody::new(BodyHead::read(Headers(&headers)), asks, false);
        cut.iter().for_each(|chunk| reader.feed(chunk));
        reader.end();
        reader.requested()
    });
    let first = told.next().expect("a cut");
    assert!(told.all(|again| again == first), "{body:?}");
    first
}

const CONTENT: &str = "/v1beta/models/m:generateContent";
const CONVERSE: &str = "/model/m/converse";

#[test]
fn a_request_names_the_model_the_tier_and_how_the_response_shall_come() {
    use ServiceTier::{Flex, Priority, Standard};
    for (provider, path, body, model, tier, is_streamed, is_background) in [
        (Family::OpenAi, CHAT, r#"{"model":"m","stream":true}"#, Some("m"), None, true, false),
        (Family::OpenAi, CHAT, r#"{"background":true,"model":"m"}"#, Some("m"), None, false, true),
        (
            Family::OpenAi,
            CHAT,
            r#"{"service_tier":"auto","stream":false}"#,
            None,
            Some(Standard),
            false,
            false,
        ),
        (
            Family::Gemini,
            CONTENT,
            r#"{"serviceTier":"SERVICE_TIER_FLEX"}"#,
            None,
            Some(Flex),
            false,
            false,
        ),
        (
            Family::Bedrock,
            CONVERSE,
            r#"{"serviceTier":{"type":"priority"}}"#,
            None,
            Some(Priority),
            false,
            false,
        ),
        (
            Family::OpenAi,
            CHAT,
            r#"{"messages":[{"model":"no","stream":true}]}"#,
            None,
            None,
            false,
            false,
        ),
        // What the members of another format say.
        (
            Family::OpenAi,
            CHAT,
            r#"{"model":"m","model_id":"n","modelId":"n","servingMode":{"modelId":"n"},
                "service_tier":"priority","serviceTier":"flex"}"#,
            Some("m"),
            Some(Priority),
            false,
            false,
        ),
        (
            Family::Bedrock,
            "/async-invoke",
            r#"{"modelId":"m","model":"n"}"#,
            Some("m"),
            None,
            false,
            false,
        ),
    ] {
        let told = requested(provider, path, &[], body.as_bytes());
        assert_eq!(told.model.as_deref(), model, "{body}");
        assert_eq!(told.service_tier, tier, "{body}");
        assert_eq!((told.is_streamed, told.is_background), (is_streamed, is_background), "{body}");
        assert!(!told.is_unclear, "{body}");
    }
}

#[test]
fn what_another_reader_may_see_in_a_request_is_unclear() {
    let utf16: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-16")];
    let brotli: &[(&str, &str)] = &[("content-encoding", "br")];
    let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    for (headers, body, model, is_unclear) in [
        (&[][..], r#"{"model":"m"}"#, Some("m"), false),
        (&[], r#"{"model":"m","model":"m"}"#, Some("m"), false),
        (&[], r#"{"model":null,"model":"m"}"#, Some("m"), false),
        (&[], r#"{"model":"m","model":"n"}"#, None, true),
        (&[], r#"{"model":"m","model":"n","model":"m"}"#, None, true),
        (&[], r#"{"model":"m","model":null}"#, None, true),
        (&[], r#"{"model":"m","Model":"n"}"#, None, true),
        (&[], r#"{"MODEL":"n"}"#, None, true),
        (&[], r#"{"model":"m","service_tier":"flex","service_tier":"priority"}"#, Some("m"), true),
        (&[], r#"{"model":"m","enable_thinking":true,"thinking":{"type":"on"}}"#, Some("m"), false),
        (&[], r#"{"model":"m"} {}"#, Some("m"), true),
        (&[], r#"{"model":"m""#, Some("m"), true),
        (&[], "model=m", None, true),
        (&[], "", None, false),
        (brotli, "\u{b}\u{1}", None, true),
        (brotli, "", None, false),
        (utf16, r#"{"model":"m"}"#, Some("m"), true),
        // What curl says of JSON, if nobody says otherwise.
        (form, r#"{"model":"m"}"#, Some("m"), false),
    ] {
        let told = requested(Family::OpenAi, CHAT, headers, body.as_bytes());
        assert_eq!((told.model.as_deref(), told.is_unclear), (model, is_unclear), "{body}");
        let is_tier_told = body.contains("priority");
        assert_eq!(
            told.service_tier,
            is_tier_told.then(|| ServiceTier::new("unreadable")),
            "{body}"
        );
    }
}

#[test]
fn a_number_of_videos_that_cannot_be_read_is_not_one() {
    let told = |count: &str| {
        let body = format!(r#"{{"parameters":{{"durationSeconds":8,"sampleCount":{count}}}}}"#);
        let path = "/v1beta/models/veo-3:predictLongRunning";
        let told = requested(Family::Gemini, path, &[], body.as_bytes());
        let mut units = Units::default();
        told.add_to(&mut units);
        units.of(Unit::OutputVideoSeconds).map(|seconds| seconds.to_string())
    };
    for (count, seconds) in [
        ("4", Some("32")),
        ("\"4\"", Some("32")),
        ("4.0", Some("32")),
        ("null", Some("8")),
        ("0", Some("8")),
        ("\"many\"", None),
        ("4.5", None),
        ("-4", None),
        ("[4]", None),
    ] {
        assert_eq!(told(count).as_deref(), seconds, "{count}");
    }
}

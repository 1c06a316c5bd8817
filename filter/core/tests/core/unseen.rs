//! Requests to a product with `llm` that start no exchange: what is free passes, and what may make a
//! generation is counted, told, and refused if the product says so.

use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::host::Envoy;
use crate::support::test;

const UPGRADE: &[(&str, &str)] = &[("connection", "Upgrade"), ("upgrade", "websocket")];
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];

fn config(product_type: &str, unseen: &str) -> String {
    json!({ "products": [{ "id": "models", "type": product_type,
        "match": { "host": "api.openai.com", "path_prefix": "/" },
        "llm": { "provider": "openai", "unseen": unseen } }] })
    .to_string()
}

/// What becomes of a request.
fn begin(
    envoy: &mut Envoy,
    stream: u32,
    method: &str,
    path: &str,
    more: &[(&str, &str)],
) -> HeadAction {
    let mut head = vec![(":method", method), (":path", path), (":authority", "api.openai.com")];
    head.extend(more);
    let headers: Vec<_> =
        head.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
    let Envoy { host, worker, now, .. } = envoy;
    worker.request_head(host, stream, Headers(&headers), *now)
}

#[test]
fn what_may_be_generated_unseen_is_counted_or_refused() {
    for (method, path, more, is_unseen) in [
        ("POST", "/v1/audio/speech", &[][..], false),
        ("POST", "/v1/ocr", &[], false),
        ("POST", "/v1/realtime/calls", &[], true),
        ("POST", "/v1/batches", &[], true),
        ("POST", "/v1/messages/batches", &[], true),
        ("PUT", "/v1/anything", &[], true),
        ("GET", "/v1/anything", UPGRADE, true),
        ("GET", "/v1/anything", &[("upgrade", "h2c")], true),
        ("POST", "/google.cloud.aiplatform.v1.PredictionService/Predict", GRPC, true),
        ("POST", "/files", GRPC, true),
        ("POST", "/model/m/invoke-with-bidirectional-stream", &[], true),
        ("GET", "/v1/models", &[], false),
        ("POST", "/v1/files", &[], false),
        ("POST", "/v1/messages/count_tokens", &[], false),
        ("POST", "/v1/responses/input_tokens", &[], false),
        ("POST", "/v1/moderations", &[], false),
        ("POST", "/v1/threads/t/messages", &[], false),
        ("POST", "/v1/chat/completions/chatcmpl-1", &[], false),
        ("POST", "/v1/conversations/conv_1/items", &[], false),
        ("POST", "/v1/uploads/u/parts", &[], false),
        ("POST", "/v1/assistants/a", &[], false),
        ("DELETE", "/v1/responses/resp_1", &[], false),
        // What costs money although no tokens are told.
        ("POST", "/v1beta/cachedContents", &[], true),
        ("POST", "/guardrail/g/version/1/apply", &[], true),
        ("POST", "/v1/guardrails/apply-guardrail", &[], true),
        ("POST", "/v1/containers", &[], true),
        ("POST", "/v1/fine_tuning/jobs", &[], true),
        ("POST", "/v1/vector_stores/vs/search", &[], true),
        // What only looks free in one reading, or by one of its words.
        ("POST", "/files/../v1/jobs/run", &[], true),
        ("POST", "/files/..%2fv1/jobs/run", &[], true),
        ("POST", "/v1/jobs/run/..%2f..%2f..%2fv1%2ffiles", &[], true),
        ("POST", "/v1/jobs/run%2f..%2f..%2ffiles", &[], true),
        ("POST", "/v1/threads/t/jobs", &[], true),
        ("POST", "/v1/chat/completions", &[], false),
    ] {
        for (product_type, unseen, counted) in [
            ("AI_AGENT", "pass", true),
            ("AI_AGENT", "reject", true),
            // A call of an API is an event whatever it makes.
            ("AGENTIC_API", "pass", false),
            ("AGENTIC_API", "reject", true),
        ] {
            let name = format!("{product_type} {unseen} {method} {path}");
            let mut envoy = Envoy::new(&config(product_type, unseen));
            let action = begin(&mut envoy, 1, method, path, more);
            let count = envoy.host.counters.get(&Counter::LlmRequestsUnseen).copied();
            assert_eq!(count.unwrap_or(0), u64::from(is_unseen && counted), "{name}");
            let HeadAction::Answer(reply) = action else {
                assert!(!is_unseen || unseen == "pass", "{name} goes on");
                continue;
            };
            assert!(is_unseen && unseen == "reject", "{name} is refused");
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(
                (reply.status, &body["error"]["code"]),
                (403, &json!("NOT_METERED")),
                "{name}"
            );
        }
    }
}

#[test]
fn what_one_provider_makes_free_another_sells() {
    for (provider, path, is_unseen) in [
        ("openai", "/v1/moderations", false),
        ("mistral", "/v1/moderations", true),
        ("openai", "/v1/conversations", false),
        ("azure_openai", "/openai/v1/conversations", false),
        ("openai_compatible", "/v1/conversations", true),
        ("gemini", "/v1beta/models/m:countTokens", false),
        ("bedrock", "/model/m/count-tokens", false),
        ("vllm", "/tokenize", false),
        ("ollama", "/api/show", false),
    ] {
        let config = config("AI_AGENT", "pass").replace("\"openai\"", &format!("\"{provider}\""));
        let mut envoy = Envoy::new(&config);
        begin(&mut envoy, 1, "POST", path, &[]);
        let count = envoy.host.counters.get(&Counter::LlmRequestsUnseen).copied();
        assert_eq!(count.unwrap_or(0), u64::from(is_unseen), "{provider} {path}");
    }
}

#[test]
fn each_form_of_a_path_is_told_once() {
    for unseen in ["pass", "reject"] {
        let mut envoy = Envoy::new(&config("AI_AGENT", unseen));
        for number in 0..200 {
            begin(&mut envoy, number, "POST", &format!("/v1/jobs/job_{number}/run"), &[]);
        }
        let line =
            format!("agent-meter unseen product=models path=/v1/jobs/{{}}/run action={unseen}");
        assert_eq!(envoy.host.warned, [line]);
        // Words without end are no forms: beyond a number of them only the counter rises.
        for number in 0..200_u32 {
            let letter = |place: u32| char::from(b'a' + u8::try_from(number / place % 20).unwrap());
            let path = format!("/v1/{}{}", letter(20), letter(1));
            begin(&mut envoy, 200 + number, "POST", &path, &[]);
        }
        assert_eq!(envoy.host.warned.len(), 64);
        assert_eq!(envoy.host.counters.get(&Counter::LlmRequestsUnseen), Some(&400));
    }
}

#[test]
fn a_websocket_is_refused_where_the_product_says_so() {
    let config =
        config("AI_AGENT", "pass").replace("\"unseen\"", "\"websocket\":\"reject\",\"unseen\"");
    for (path, upgrade) in [
        ("/v1/responses", "websocket"),
        ("/v1/realtime?model=gpt-realtime", "WebSocket"),
        ("/v1/anything", "h2c, websocket"),
    ] {
        let mut envoy = Envoy::new(&config);
        let HeadAction::Answer(reply) = begin(&mut envoy, 1, "GET", path, &[("upgrade", upgrade)])
        else {
            panic!("{path} goes on");
        };
        assert_eq!(reply.status, 426, "{path}");
        assert!(reply.body.contains("UPGRADE_NOT_ALLOWED"), "{}", reply.body);
        assert_eq!(envoy.host.counters.get(&Counter::WebSocketsRefused), Some(&1));
    }
}

//! What a request says of its price: where the path names the model, where the body does, and where
//! it is not certain what the server reads.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use serde_json::json;

use crate::generations::{JSON, Mesh, Worker};
use crate::support::{rate, test};

fn config() -> String {
    let tokens = |price: &str| json!({ "input": price, "output": price });
    let image = |price: &str| json!({ "units": { "output_images": price } });
    json!({
        "rate_cards": [{ "version": "1", "rates": [
            rate("bedrock", "anthropic.claude-opus-4", tokens("15")),
            rate("bedrock", "amazon.nova-micro-v1:0", tokens("0.035")),
            rate("openai", "dear", image("0.2")),
            rate("openai", "cheap", image("0.01")),
            rate("azure_openai", "dear", image("0.2")),
            rate("azure_openai", "cheap", image("0.01")),
        ]}],
        "products": [{ "id": "models", "type": "AI_AGENT", "match": { "path_prefix": "/" },
            "llm": {}, "pricing": { "tokens": { "pass_through": true } } }],
    })
    .to_string()
}

const CONVERSED: &str = r#"{"stopReason":"end_turn","usage":{"inputTokens":1000,"outputTokens":1000,"totalTokens":2000}}"#;
const IMAGE: &str = r#"{"data":[{"url":"a"}]}"#;

#[test]
fn the_client_does_not_choose_the_model_that_prices_it() {
    const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
    const AZURE: &str = "shop.openai.azure.com";
    const OPENAI: &str = "api.openai.com";
    let opus = "/model/anthropic.claude-opus-4/converse";
    let deployed = "/openai/deployments/dear/images/generations";
    let images = "/v1/images/generations";
    // The cost is not known, and the price is that of the dearest.
    let unclear = json!([null, null, true, "0.2"]);
    for (host, path, body, answer, expected) in [
        (
            BEDROCK,
            opus,
            r#"{"modelId":"amazon.nova-micro-v1:0","messages":[]}"#,
            CONVERSED,
            json!(["anthropic.claude-opus-4", "0.03", null]),
        ),
        (
            BEDROCK,
            opus,
            r#"{"model":"amazon.nova-micro-v1:0"}"#,
            CONVERSED,
            json!(["anthropic.claude-opus-4", "0.03", null]),
        ),
        (AZURE, deployed, r#"{"model":"cheap"}"#, IMAGE, json!(["dear", "0.2", null])),
        (OPENAI, images, r#"{"model":"dear"}"#, IMAGE, json!(["dear", "0.2", null])),
        (
            OPENAI,
            images,
            r#"{"model":"dear","model_id":"cheap","modelId":"cheap"}"#,
            IMAGE,
            json!(["dear", "0.2", null]),
        ),
        (OPENAI, images, r#"{"model":"dear","model":"cheap"}"#, IMAGE, unclear.clone()),
        (OPENAI, images, r#"{"Model":"dear","model":"cheap"}"#, IMAGE, unclear.clone()),
        (OPENAI, images, r#"{"model":"cheap","MODEL":"dear"}"#, IMAGE, unclear),
        // What the path names is certain; what else the body says is not.
        (
            AZURE,
            deployed,
            r#"{"model":"dear","model":"cheap"}"#,
            IMAGE,
            json!(["dear", "0.2", true]),
        ),
    ] {
        let mut mesh = Mesh::new(&config());
        let ask =
            [(":method", "POST"), (":path", path), (":authority", host), ("content-type", JSON)];
        let stream = mesh.send(Worker::First, &ask, body);
        let head = [(":status", "200"), ("content-type", JSON)];
        mesh.answer(Worker::First, stream, &head, answer, StreamEnd::Complete);
        let (tokens, _) = mesh.events();
        assert_eq!(tokens.len(), 1, "{path} {body}");
        let event = &tokens[0];
        let members = ["model_requested", "total_provider_cost", "inconsistent", "price"];
        let told = members.map(|member| event[member].clone());
        let mut expected = expected.as_array().expect("members").clone();
        // Where the cost is known, it is the price.
        if expected.len() == 3 {
            expected.push(expected[1].clone());
        }
        assert_eq!(told.as_slice(), expected, "{path} {body}: {event}");
        let unparsed = mesh.envoy.host.counters.get(&Counter::RequestUnparsed).copied();
        let is_unclear = expected[2] == true;
        assert_eq!(unparsed.unwrap_or(0), u64::from(is_unclear), "{path} {body}");
        let inconsistent = mesh.envoy.host.counters.get(&Counter::UsageInconsistent).copied();
        assert_eq!(inconsistent.unwrap_or(0), u64::from(is_unclear), "{path} {body}");
    }
}

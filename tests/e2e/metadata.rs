//! Compares what Envoy's own `ai_protocol_manager` extracts from a response with what this filter
//! reads itself.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::generations::{apis, llm_rig};
use crate::llm::{by_agent, counts, generations, plugin, post, product, reported};

const FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// Envoy's filter between ours and the router, so that responses pass it first.
pub(crate) fn with_ai_protocol_manager() -> Vec<(String, Value)> {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    });
    let manager = json!({
        "name": "envoy.filters.http.ai_protocol_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager",
            "response_handling": { "token_usage": { "include_unconfigured_routes": true } },
        },
    });
    vec![(format!("{FILTERS}/1"), manager), (format!("{FILTERS}/-"), router)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_extracts_is_what_the_filter_reads_itself() -> anyhow::Result<()> {
    let products = [
        product("envoy.test", &json!({ "envoy_metadata": true })),
        product("own.test", &json!({ "envoy_metadata": false })),
    ];
    let rig = llm_rig(plugin(&products), with_ai_protocol_manager()).await?;
    // Envoy's filter knows neither Gemini's array nor the APIs of Bedrock and Ollama.
    let known = apis().into_iter().filter(|(path, ..)| {
        let is_array = path.ends_with(":streamGenerateContent");
        !is_array && !path.contains("/model/") && !path.contains("/api/chat")
    });
    let mut asked = Vec::new();
    for (path, body, ..) in known {
        let number = 1000 + asked.len();
        let tokens = format!("in={number},out=800,cached=500,written=100,reasoning=200");
        for host in ["envoy", "own"] {
            let agent = format!("{host} {number}");
            let headers = [("x-tokens", tokens.as_str())];
            let body = body.to_string();
            let request = post(&format!("{host}.test"), &agent, path, &headers, body.as_bytes());
            let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
            ensure!(answer.status() == 200, "{answer:?}");
        }
        asked.push((path, u64::try_from(number)?));
    }
    assert_eq!(asked.len(), 8);
    let found = generations(&rig, 2 * asked.len()).await?;
    let found = by_agent(found.iter())?;
    let account = rig.stack()?.llm().context("an endpoint")?.generations();
    let of = |host: &str, number: u64| {
        found.get(&format!("{host} {number}")).context("an event of each").copied()
    };
    for (path, number) in asked {
        let (envoy, own) = (of("envoy", number)?, of("own", number)?);
        let report = account
            .iter()
            .find_map(|generation| generation.reported.filter(|it| it.input == number));
        assert_eq!(Some(counts(own)), report.map(reported), "{path}: {own}");
        assert_eq!(own["usage_source"], "body", "{path}: {own}");
        assert_eq!(envoy["usage_source"], "envoy_metadata", "{path}: {envoy}");
        for member in ["tokens", "model", "provider", "completeness", "total_provider_cost"] {
            assert_eq!(envoy[member], own[member], "{member} of {path}");
        }
        assert_eq!(own["completeness"], "COMPLETE", "{path}: {own}");
    }
    assert_eq!(rig.metric("usage_disagreement").await?, 0);
    rig.finish().await
}

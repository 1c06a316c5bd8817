//! Azure OpenAI and Azure AI Foundry (data plane v1 and 2024-10-21, read 2026-11). The bodies, and
//! what their counts include, are OpenAI's, or Anthropic's under `/anthropic`.
//!
//! The path names the deployment, `/openai/deployments/{deployment}/chat/completions`; the body
//! names its model.

use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::provider::{openai, openai_compatible};
use crate::wire::target::percent_decoded;

pub(super) const SPEC: Spec = Spec {
    domains: &[
        "openai.azure.com",
        "openai.azure.us",
        "services.ai.azure.com",
        "cognitiveservices.azure.com",
    ],
    is_path,
    batch: openai::batch,
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["azure", "azure_text"],
    litellm_prefix: "azure/",
    models_dev: &["azure"],
    genai_prices: &["azure"],
};

/// The endpoint of a request to a path like Azure's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    let endpoint = openai_compatible::endpoint_with(&openai::CHAT, method, segments)?;
    let mut pairs = segments.windows(2);
    let deployment = pairs.find_map(|pair| match pair {
        ["deployments", deployment] => Some(percent_decoded(deployment)),
        _ => None,
    });
    Some(Endpoint { model: deployment, ..endpoint })
}

fn is_path(segments: &[&str]) -> bool {
    matches!(
        segments,
        [.., "deployments", _, "completions" | "embeddings"]
            | [.., "deployments", _, _, "completions" | "generations" | "edits"]
            | [.., "deployments", _, "audio", _]
    )
}

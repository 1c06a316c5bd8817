//! Azure OpenAI and Azure AI Foundry (data plane v1 and 2024-10-21, read 2026-11). The bodies are OpenAI's, or
//! Anthropic's under `/anthropic`, and so is what their counts include.
//!
//! The path names the deployment, `/openai/deployments/{deployment}/chat/completions`; the body names its model.

use crate::protocol::llm::generation::{Route, percent_decoded};
use crate::protocol::llm::provider::{Provider, openai, openai_compatible};

/// What a request to a path like Azure's asks for.
pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    let route =
        openai_compatible::route_with(Provider::AzureOpenAi, &openai::CHAT, method, segments)?;
    let mut pairs = segments.windows(2);
    let deployment = pairs.find_map(|pair| match pair {
        ["deployments", deployment] => Some(percent_decoded(deployment)),
        _ => None,
    });
    Some(Route { model: deployment, ..route })
}

//! Servers that are compatible with OpenAI (read 2026-11): OpenRouter, Groq, xAI, Moonshot,
//! LiteLLM, SGLang, llama.cpp and any other; and the endpoints that all providers offer beside
//! their own formats.
//!
//! These servers count as OpenAI does: `prompt_tokens` includes cached tokens, under whatever name
//! a server reports them. `completion_tokens` includes reasoning. xAI and similar servers count
//! reasoning beside it: there `total_tokens` exceeds the sum of both by exactly the reasoning.
//! Embeddings and scores have no output, so a total alone is their input.

use crate::protocol::document::{Document, Field, Paths};
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::provider::{anthropic, openai};
use crate::protocol::llm::stream_error::StreamError;

/// No host or path selects this provider: it applies to a path like OpenAI's if the provider is
/// unknown.
pub(super) const SPEC: Spec = Spec::new(endpoint);

pub(super) const PRICE_LISTS: PriceLists = PriceLists::NONE;

/// Other places where servers report their counts.
const ELSEWHERE: &Paths = &[
    // DeepSeek's models behind other hosts.
    ("usage.prompt_cache_hit_tokens", Field::CacheRead),
    // Moonshot.
    ("usage.cached_tokens", Field::CacheRead),
    ("choices[].usage.prompt_tokens", Field::Input),
    ("choices[].usage.completion_tokens", Field::Output),
    ("choices[].usage.total_tokens", Field::Total),
    ("choices[].usage.cached_tokens", Field::CacheRead),
    // Mistral's models behind other hosts.
    ("usage.num_cached_tokens", Field::CacheRead),
    ("usage.service_tier", Field::Tier),
    // LiteLLM.
    ("usage.cache_read_input_tokens", Field::CacheRead),
    ("usage.cache_creation_input_tokens", Field::CacheWrite),
    // SGLang.
    ("usage.reasoning_tokens", Field::Reasoning),
    // Groq, without `include_usage`.
    ("x_groq.usage.prompt_tokens", Field::Input),
    ("x_groq.usage.completion_tokens", Field::Output),
    ("x_groq.usage.total_tokens", Field::Total),
    ("x_groq.usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
    ("x_groq.usage.completion_tokens_details.reasoning_tokens", Field::Reasoning),
];

/// Chat Completions and legacy Completions.
pub(super) const CHAT: Format = Format {
    paths: &[USAGE, COMPLETION, ELSEWHERE],
    fold: fold_chat,
    head: None,
    error: StreamError::OpenAi,
};

/// Embeddings, reranks and scores.
pub(super) const EMBED: Format = Format {
    paths: &[USAGE, COMPLETION, ELSEWHERE],
    fold: fold_embedding,
    head: None,
    error: StreamError::OpenAi,
};

/// The endpoint of a request to a server that is compatible with OpenAI.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    endpoint_with(&CHAT, method, segments)
}

/// The same, with the provider's own format for Chat Completions.
pub(super) fn endpoint_with(
    chat: &'static Format,
    method: &str,
    segments: &[&str],
) -> Option<Endpoint> {
    match (method, segments) {
        ("POST", [.., "embeddings" | "rerank"]) => Some(Endpoint::of(&EMBED)),
        ("POST", [.., "v1", "messages"]) => anthropic::endpoint(method, segments),
        _ => openai::endpoint_with(chat, method, segments),
    }
}

fn fold_chat(generation: &mut Generation, document: &Document) {
    openai::fold_chat(generation, document);
    let usage = &mut generation.usage;
    if let (Some(input), Some(output), Some(reasoning), Some(total)) =
        (usage.input, usage.output, usage.reasoning, usage.provider_total)
        && reasoning > 0
        && total == input.saturating_add(output).saturating_add(reasoning)
    {
        usage.output = Some(output.saturating_add(reasoning));
    }
}

fn fold_embedding(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let mut reported = openai::inclusive(document);
    reported.input = reported.input.or(reported.provider_total);
    if !reported.is_unknown() {
        generation.report(reported);
        generation.stage = Stage::Final;
    }
}

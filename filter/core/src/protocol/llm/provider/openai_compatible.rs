//! Servers that are compatible with OpenAI (read 2026-11): OpenRouter, Groq, xAI, Moonshot,
//! LiteLLM, SGLang, llama.cpp and any other; and the endpoints that all providers offer beside
//! their own formats.
//!
//! These servers have OpenAI's shape: `total_tokens` tells whether `prompt_tokens` includes cached
//! tokens, under whatever name a server reports them, and `completion_tokens` reasoning
//! (`within_or_beside.rs`). Embeddings and scores have no output, so a total alone is their input.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::provider::{anthropic, openai};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::llm::units;
use crate::protocol::paths::{Field, Paths};

/// No host or path selects this provider: it applies to a path like OpenAI's if the provider is
/// unknown.
pub(super) const SPEC: Spec = Spec { batch, ..Spec::new(endpoint) };

fn batch(method: &str, segments: &[&str]) -> Option<&'static Batch> {
    openai::batch(method, segments).or_else(|| anthropic::batch(method, segments))
}

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
    ("usage.prompt_tokens_details.cache_creation_tokens", Field::CacheWrite),
    (
        "usage.prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens",
        Field::CacheWrite5m,
    ),
    (
        "usage.prompt_tokens_details.cache_creation_token_details.ephemeral_30m_input_tokens",
        Field::CacheWriteOther,
    ),
    (
        "usage.prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
        Field::CacheWrite1h,
    ),
    ("usage.prompt_tokens_details.cache_creation_token_details.*", Field::CacheWriteOther),
    // DashScope.
    ("usage.prompt_tokens_details.cache_creation_input_tokens", Field::CacheWrite),
    ("usage.prompt_tokens_details.cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("usage.prompt_tokens_details.cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("usage.prompt_tokens_details.cache_creation.*", Field::CacheWriteOther),
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
    paths: &[USAGE, COMPLETION, ELSEWHERE, units::OPENAI_SHAPED],
    fold: openai::fold_chat,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

/// Embeddings, also Voyage's of pictures and documents, reranks and scores.
pub(super) const EMBED: Format = Format {
    paths: &[USAGE, COMPLETION, ELSEWHERE, units::OPENAI_SHAPED],
    fold: fold_embedding,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
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
        ("POST", [.., "embeddings" | "multimodalembeddings" | "contextualizedembeddings"])
        | ("POST", [.., "rerank" | "reranking"]) => Some(Endpoint::of(&EMBED)),
        ("POST", [.., "v1", "messages"]) => anthropic::endpoint(method, segments),
        _ => openai::endpoint_with(chat, method, segments),
    }
}

fn fold_embedding(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let mut reported = openai::counts(document);
    reported.input = reported.input.or(reported.provider_total);
    generation.may_lack_tokens = true;
    if !reported.is_unknown() || !generation.units.is_empty() {
        openai::report(generation, reported);
        generation.stage = Stage::Final;
    }
}

//! vLLM (0.11 and later, read 2026-11): OpenAI's Chat Completions, Completions, Embeddings and Responses, Anthropic's
//! Messages, and its own `/pooling`, `/score`, `/rerank` and `/classify`.
//!
//! The counts are OpenAI's: `prompt_tokens` holds cached tokens, which are told only if the server was asked to
//! (`--enable-prompt-tokens-details`). With `continuous_usage_stats` each chunk of a stream tells the counts so far,
//! of which the last stand.

use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::provider::openai_compatible;

pub(super) const SPEC: Spec = Spec::new(endpoint);

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["vllm", "hosted_vllm"],
    litellm_prefix: "hosted_vllm/",
    models_dev: &[],
    genai_prices: &[],
};

/// What a request to a path like vLLM's asks for.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        ("POST", [.., "pooling" | "score" | "classify"]) => {
            Some(Endpoint { format: &openai_compatible::EMBED, model: None, is_told_again: false })
        }
        _ => openai_compatible::endpoint(method, segments),
    }
}

//! vLLM (0.11 and later, read 2026-11): OpenAI's Chat Completions, Completions, Embeddings and
//! Responses, Anthropic's Messages, and its own `/pooling`, `/score`, `/rerank` and `/classify`.
//!
//! vLLM counts as OpenAI does: `prompt_tokens` includes cached tokens. The server reports cached
//! tokens only if it was started with `--enable-prompt-tokens-details`. With
//! `continuous_usage_stats` each chunk of a stream reports the counts so far; the last report is
//! valid.

use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::provider::openai_compatible;

pub(super) const SPEC: Spec = Spec::new(endpoint);

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["vllm", "hosted_vllm"],
    litellm_prefix: "hosted_vllm/",
    models_dev: &[],
    genai_prices: &[],
};

/// The endpoint of a request to a path like vLLM's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        ("POST", [.., "pooling" | "score" | "classify"]) => {
            Some(Endpoint { format: &openai_compatible::EMBED, model: None, reports_again: false })
        }
        _ => openai_compatible::endpoint(method, segments),
    }
}

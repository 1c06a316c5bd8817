//! DeepSeek: chat and completions (API of 2026-11), and Anthropic's Messages under `/anthropic`.
//!
//! `prompt_tokens` is the sum of `prompt_cache_hit_tokens`, read from the cache, and
//! `prompt_cache_miss_tokens`; `completion_tokens` includes reasoning. While a request waits,
//! DeepSeek sends empty lines (or comments, in a stream) to keep the connection alive.

use crate::protocol::llm::asks;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::Format;
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::provider::{openai, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const SPEC: Spec = Spec { domains: &["api.deepseek.com"], ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["deepseek"],
    litellm_prefix: "deepseek/",
    models_dev: &["deepseek"],
    genai_prices: &["deepseek"],
};

const CHAT: Format = Format {
    paths: &[USAGE, COMPLETION, &[("usage.prompt_cache_hit_tokens", Field::CacheRead)]],
    fold: openai::fold_chat,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

/// The endpoint of a request to a path like DeepSeek's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    openai_compatible::endpoint_with(&CHAT, method, segments)
}

//! DeepSeek: chat and completions (API of 2026-11), and Anthropic's Messages under `/anthropic`.
//!
//! `prompt_tokens` is the sum of `prompt_cache_hit_tokens`, read from the cache, and `prompt_cache_miss_tokens`;
//! `completion_tokens` holds reasoning. While a request waits, empty lines (or comments, in a stream) keep the
//! connection alive.

use super::generation::{Format, Route};
use super::openai::{self, COMPLETION, USAGE};
use super::openai_compatible;
use super::stream_error::StreamError;
use crate::observe::document::Field;
use crate::usage::Provider;

const CHAT: Format = Format {
    paths: &[USAGE, COMPLETION, &[("usage.prompt_cache_hit_tokens", Field::CacheRead)]],
    fold: openai::fold_chat,
    head: None,
    error: StreamError::OpenAi,
};

/// What a request to a path like DeepSeek's asks for.
pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    openai_compatible::route_with(Provider::DeepSeek, &CHAT, method, segments)
}

//! Ollama: `/api/chat`, `/api/generate` and `/api/embed` (0.14, read 2026-11), as one JSON text or a JSON text a line,
//! and what it offers like OpenAI and Anthropic under `/v1`.
//!
//! `prompt_eval_count` is what was read and `eval_count` what was made, reasoning included; `prompt_eval_cached_count`
//! is a part of the first. Only the last line of a stream, with `done`, tells them. Older versions leave out
//! `prompt_eval_count` where the whole prompt was in the cache: then the input is unknown, and so is a part of the usage.

use crate::domain::usage::Usage;
use crate::protocol::document::{Document, Field};
use crate::protocol::llm::generation::{Format, Generation, Route, Stage};
use crate::protocol::llm::provider::{Provider, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;

const NATIVE: Format = Format {
    paths: &[&[
        ("model", Field::Model),
        ("prompt_eval_count", Field::Input),
        ("prompt_eval_cached_count", Field::CacheRead),
        ("eval_count", Field::Output),
        ("done", Field::Finish),
        ("response", Field::OutputText),
        ("thinking", Field::OutputText),
        ("message.content", Field::OutputText),
        ("message.thinking", Field::OutputText),
    ]],
    fold,
    head: None,
    error: StreamError::Ollama,
};

/// What a request to a path like Ollama's asks for.
pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    let provider = Provider::Ollama;
    match (method, segments) {
        ("POST", [.., "api", "chat" | "generate" | "embed" | "embeddings"]) => {
            Some(Route { provider, format: &NATIVE, model: None, is_told_again: false })
        }
        _ => openai_compatible::route(provider, method, segments),
    }
}

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.tell(Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        ..Usage::default()
    });
    let Usage { input, output, .. } = generation.usage;
    // An embedding is told at once, without `done`, and has no output.
    let is_embedding = !document.tells(Field::Finish);
    if input.is_some() && (is_embedding || (document.is_true(Field::Finish) && output.is_some())) {
        generation.stage = Stage::Final;
    }
}

//! Ollama: `/api/chat`, `/api/generate` and `/api/embed` (0.14, read 2026-11), as one JSON text or
//! as JSON lines, and its APIs under `/v1` that are compatible with OpenAI and Anthropic.
//!
//! `prompt_eval_count` is the input and `eval_count` the output, including reasoning;
//! `prompt_eval_cached_count` is a part of the input. In a stream only the last line, with `done`,
//! reports them. Older versions leave out `prompt_eval_count` if the whole prompt was in the cache:
//! then the input is unknown, and so is a part of the usage.

use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai_compatible;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

/// The port that Ollama listens on.
const PORT: &str = "11434";

pub(super) const SPEC: Spec = Spec {
    domains: &["ollama.com"],
    is_host: |_, port| port == PORT,
    is_path: |segments| {
        matches!(segments, [.., "api", "chat" | "generate" | "embed" | "embeddings"])
    },
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["ollama"],
    litellm_prefix: "ollama/",
    models_dev: &[],
    genai_prices: &[],
};

pub(super) const NATIVE: Format = Format {
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
    asks: asks::MODEL,
};

/// The endpoint of a request to a path like Ollama's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        ("POST", [.., "api", "chat" | "generate" | "embed" | "embeddings"]) => {
            Some(Endpoint::of(&NATIVE))
        }
        _ => openai_compatible::endpoint(method, segments),
    }
}

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.report(Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        ..Usage::default()
    });
    let Usage { input, output, .. } = generation.usage;
    // Ollama sends an embedding at once, without `done`. An embedding has no output.
    let is_embedding = !document.has(Field::Finish);
    if input.is_some() && (is_embedding || (document.is_true(Field::Finish) && output.is_some())) {
        generation.stage = Stage::Final;
    }
}

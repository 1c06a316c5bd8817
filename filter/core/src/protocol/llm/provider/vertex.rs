//! Vertex AI (API v1, read 2026-11): Gemini's bodies, Anthropic's Messages (`:rawPredict`, `:streamRawPredict`), those
//! of other publishers and of the endpoint that speaks like OpenAI, and text embeddings (`:predict`).
//!
//! The counts are as in the files of their formats. A text embedding tells `statistics.token_count` of each text, which
//! are added up; there is no output.

use crate::protocol::document::{Document, Field};
use crate::protocol::llm::generation::{Format, Generation, Route, Stage, split_verb};
use crate::protocol::llm::provider::{Provider, anthropic, gemini, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;

const PROVIDER: Provider = Provider::Vertex;

/// What stands for a model in the call that counts tokens.
const COUNT_TOKENS: &str = "count-tokens";

const PREDICT: Format = Format {
    paths: &[&[("predictions[].embeddings.statistics.token_count", Field::ItemCount)]],
    fold: fold_prediction,
    head: None,
    error: StreamError::Google,
};

/// What a request to a path like Vertex AI's asks for.
pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    publisher_route(method, segments)
        .or_else(|| gemini::content_route(PROVIDER, method, segments))
        .or_else(|| openai_compatible::route_with(PROVIDER, &gemini::CHAT, method, segments))
}

fn publisher_route(method: &str, segments: &[&str]) -> Option<Route> {
    let ("POST", [.., "publishers", publisher, "models", call]) = (method, segments) else {
        return None;
    };
    let (model, verb) = split_verb(call)?;
    let format = match (verb.as_str(), *publisher) {
        ("rawPredict" | "streamRawPredict", "anthropic") => &anthropic::MESSAGES,
        ("rawPredict" | "streamRawPredict", _) => &openai_compatible::CHAT,
        // Images and videos are made by `predict` too, and are not counted in tokens.
        ("predict", "google") if model.contains("embedding") => &PREDICT,
        _ => return None,
    };
    let is_generation = model != COUNT_TOKENS;
    let route = Route { provider: PROVIDER, format, model: Some(model), is_told_again: false };
    is_generation.then_some(route)
}

fn fold_prediction(generation: &mut Generation, document: &Document) {
    generation.usage.input = document.sum("predictions", &[""]);
    if generation.usage.input.is_some() {
        generation.stage = Stage::Final;
    }
}

//! Vertex AI (API v1, read 2026-11): Gemini's bodies, Anthropic's Messages (`:rawPredict`,
//! `:streamRawPredict`), the bodies of other publishers and of the OpenAI-compatible endpoint, and
//! text embeddings (`:predict`).
//!
//! The files of these formats explain the counts. A text embedding reports `statistics.token_count`
//! for each text; the filter adds them up. An embedding has no output.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec, is_at, split_verb};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::media::UNCOUNTED;
use crate::protocol::llm::provider::{anthropic, gemini, openai, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const SPEC: Spec =
    Spec { domains: &["aiplatform.googleapis.com"], is_host, is_path, ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["vertex_ai", "vertex_ai-*"],
    litellm_prefix: "vertex_ai/",
    models_dev: &["google-vertex", "google-vertex-anthropic"],
    genai_prices: &["google"],
};

/// Stands in the place of the model in the call that counts tokens.
const COUNT_TOKENS: &str = "count-tokens";

pub(super) const PREDICT: Format = Format {
    paths: &[&[("predictions[].embeddings.statistics.token_count", Field::ItemCount)]],
    fold: fold_prediction,
    head: None,
    error: StreamError::Google,
    asks: asks::GEMINI,
};

/// The endpoint of a request to a path like Vertex AI's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    publisher_endpoint(method, segments)
        .or_else(|| gemini::content_endpoint(method, segments))
        .or_else(|| openai_compatible::endpoint_with(&openai::CHAT, method, segments))
}

fn publisher_endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    let (publisher, call) = match (method, segments) {
        ("POST", [.., "publishers", publisher, "models", call]) => (*publisher, *call),
        // A model of the project's own, whose number is not the name of a model.
        ("POST", [.., "locations", _, "endpoints", call]) => {
            let (_, verb) = split_verb(call)?;
            let is_raw = matches!(verb.as_str(), "rawPredict" | "streamRawPredict");
            return is_raw.then_some(Endpoint::of(&openai_compatible::CHAT));
        }
        _ => return None,
    };
    let (model, verb) = split_verb(call)?;
    let format = match (verb.as_str(), publisher) {
        ("rawPredict" | "streamRawPredict", "anthropic") => &anthropic::MESSAGES,
        ("rawPredict" | "streamRawPredict", _) => &openai_compatible::CHAT,
        ("predict", "google") if model.contains("embedding") => &PREDICT,
        // Images, videos and music, which Vertex AI does not count in tokens.
        ("predict" | "predictLongRunning", _) => &UNCOUNTED,
        _ => return None,
    };
    let is_generation = model != COUNT_TOKENS;
    let route = Endpoint { format, model: Some(model), reports_again: false };
    is_generation.then_some(route)
}

fn fold_prediction(generation: &mut Generation, document: &Document) {
    generation.usage.input = document.sum("predictions", &[""]);
    if generation.usage.input.is_some() {
        generation.stage = Stage::Final;
    }
}

/// Regions stand before the name, as in `europe-west4-aiplatform`, or behind it, as in
/// `aiplatform.eu.rep`.
fn is_host(name: &str, _port: &str) -> bool {
    name.ends_with("-aiplatform.googleapis.com")
        || (name.starts_with("aiplatform.") && is_at(name, "rep.googleapis.com"))
}

fn is_path(segments: &[&str]) -> bool {
    match segments {
        [.., "projects", _, "locations", _, "endpoints", "openapi", "chat", "completions"]
        | [.., "publishers", _, "models", _]
        | [.., "projects", _, "locations", _, "interactions"]
        | [.., "projects", _, "locations", _, "interactions", _] => true,
        [.., "projects", _, "locations", _, "endpoints", call] => split_verb(call).is_some(),
        _ => false,
    }
}

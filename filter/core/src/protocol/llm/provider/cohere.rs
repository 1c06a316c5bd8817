//! Cohere: chat (v1 and v2, plain and streamed), generate, embed and rerank (API read 2026-11), and
//! its OpenAI-compatible API under `/compatibility`. Streams of v1 are JSON lines, those of v2
//! server-sent events.
//!
//! Cohere reports two counts: `billed_units`, and `tokens`, which also includes the template and
//! whatever else Cohere adds to a prompt without billing it. The filter reads the billed units, so
//! that the cost agrees with the invoice, and `tokens` only if there are no billed units.
//! `cached_tokens` is a part of the input. Reasoning is a part of the output, which Cohere does not
//! report separately. Cohere bills a rerank by the search and reports no tokens for it.

use crate::domain::usage::{Usage, sum};
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai_compatible;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const SPEC: Spec = Spec {
    domains: &["api.cohere.com", "api.cohere.ai"],
    is_path: |segments| {
        matches!(segments, [.., "v1" | "v2", "chat" | "embed"] | [.., "v1", "generate"])
    },
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["cohere", "cohere_chat"],
    litellm_prefix: "cohere/",
    models_dev: &["cohere"],
    genai_prices: &["cohere"],
};

pub(super) const NATIVE: Format = Format {
    paths: &[&[
        ("id", Field::Id),
        ("generation_id", Field::Id),
        ("text", Field::OutputText),
        ("delta.message.content.text", Field::OutputText),
        ("delta.message.content.thinking", Field::OutputText),
        ("delta.message.tool_plan", Field::OutputText),
        ("delta.message.tool_calls.function.arguments", Field::OutputText),
        ("response.generation_id", Field::Id),
        ("usage.tokens.input_tokens", Field::Input),
        ("usage.tokens.output_tokens", Field::Output),
        ("usage.billed_units.input_tokens", Field::BilledInput),
        ("usage.billed_units.output_tokens", Field::BilledOutput),
        ("usage.billed_units.search_units", Field::SearchUnits),
        ("usage.billed_units.*", Field::Unnamed),
        ("usage.cached_tokens", Field::CacheRead),
        ("delta.usage.tokens.input_tokens", Field::Input),
        ("delta.usage.tokens.output_tokens", Field::Output),
        ("delta.usage.billed_units.input_tokens", Field::BilledInput),
        ("delta.usage.billed_units.output_tokens", Field::BilledOutput),
        ("delta.usage.billed_units.search_units", Field::SearchUnits),
        ("delta.usage.billed_units.*", Field::Unnamed),
        ("delta.usage.cached_tokens", Field::CacheRead),
        ("meta.tokens.input_tokens", Field::Input),
        ("meta.tokens.output_tokens", Field::Output),
        ("meta.billed_units.input_tokens", Field::BilledInput),
        ("meta.billed_units.output_tokens", Field::BilledOutput),
        ("meta.billed_units.search_units", Field::SearchUnits),
        ("meta.billed_units.*", Field::Unnamed),
        ("meta.billed_units.images", Field::InputImages),
        // Tokens of pictures stand beside the input; those of the text are the input.
        ("meta.billed_units.image_tokens", Field::InputImage),
        ("meta.billed_units.text_tokens", Field::Unbilled),
        ("meta.billed_units.pages", Field::Pages),
        ("meta.cached_tokens", Field::CacheRead),
        ("response.meta.tokens.input_tokens", Field::Input),
        ("response.meta.tokens.output_tokens", Field::Output),
        ("response.meta.billed_units.input_tokens", Field::BilledInput),
        ("response.meta.billed_units.output_tokens", Field::BilledOutput),
        ("response.meta.billed_units.search_units", Field::SearchUnits),
        ("response.meta.billed_units.*", Field::Unnamed),
        ("response.meta.cached_tokens", Field::CacheRead),
    ]],
    fold,
    head: None,
    error: StreamError::Cohere,
    asks: asks::MODEL,
};

/// Embeddings, of pictures too, and reranks.
const EMBED: Format = Format { fold: fold_embedding, ..NATIVE };

/// The endpoint of a request to a path like Cohere's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        ("POST", [.., "chat" | "generate"]) => Some(Endpoint::of(&NATIVE)),
        ("POST", [.., "embed" | "rerank"]) => Some(Endpoint::of(&EMBED)),
        _ => openai_compatible::endpoint(method, segments),
    }
}

fn fold_embedding(generation: &mut Generation, document: &Document) {
    generation.may_lack_tokens = true;
    fold(generation, document);
}

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let text = document.count(Field::BilledInput).or(document.count(Field::Input));
    let input_image = document.count(Field::InputImage);
    let reported = Usage {
        input: sum(&[text, input_image]),
        input_image,
        output: document.count(Field::BilledOutput).or(document.count(Field::Output)),
        cache_read: document.count(Field::CacheRead),
        ..Usage::default()
    };
    // The last event of a stream reports the counts.
    if !reported.is_unknown() || !generation.units.is_empty() {
        generation.report(reported);
        generation.stage = Stage::Final;
    }
}

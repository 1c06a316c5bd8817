//! Mistral: chat, fill-in-the-middle, agents, embeddings, transcriptions and conversations (API v1,
//! read 2026-11).
//!
//! `prompt_tokens` includes cached tokens; `completion_tokens` includes reasoning, which Mistral
//! does not report separately. Conversations count `connector_tokens`, what built-in tools gave to
//! the model, apart: `total_tokens` is the sum of the three. Mistral reports input audio in
//! seconds, which are not tokens.

use crate::domain::usage::sum;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::provider::{openai, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::{Field, Paths};

pub(super) const SPEC: Spec = Spec {
    domains: &["api.mistral.ai", "codestral.mistral.ai"],
    is_path: |segments| matches!(segments, [.., "fim", "completions"]),
    tells_usage_unasked: true,
    batch: openai::batch,
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["mistral"],
    litellm_prefix: "mistral/",
    models_dev: &["mistral"],
    genai_prices: &["mistral"],
};

const MORE: &Paths = &[
    ("usage.prompt_audio_seconds", Field::InputAudioSeconds),
    ("usage.connectors.web_search", Field::WebSearches),
    ("usage.connectors.web_search_premium", Field::PremiumSearches),
    ("usage.connectors.code_interpreter", Field::CodeSessions),
    ("usage.connectors.document_library", Field::FileSearches),
    ("usage.connectors.image_generation", Field::OutputImages),
    ("usage.connectors.*", Field::Unnamed),
    ("usage.service_tier", Field::Tier),
    ("usage.num_cached_tokens", Field::CacheRead),
    ("usage.prompt_token_details.cached_tokens", Field::CacheRead),
];

const CHAT: Format = Format {
    paths: &[USAGE, COMPLETION, MORE],
    fold: openai::fold_chat,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

/// The body, and the events of a stream; the last event reports the usage. Transcriptions have the
/// same form.
pub(super) const CONVERSATION: Format = Format {
    paths: &[
        USAGE,
        MORE,
        &[
            ("type", Field::Kind),
            ("conversation_id", Field::Extra),
            ("model", Field::Model),
            ("outputs[].model", Field::Model),
            ("usage.connector_tokens", Field::ToolPrompt),
            ("content", Field::OutputText),
            ("text", Field::OutputText),
            ("arguments", Field::OutputText),
        ],
    ],
    fold: fold_conversation,
    head: None,
    error: StreamError::MistralConversation,
    asks: asks::MODEL,
};

/// The endpoint of a request to a path like Mistral's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        (
            "POST",
            [.., "conversations"]
            | [.., "conversations", _]
            | [.., "conversations", _, "restart"]
            | [.., "audio", "transcriptions"],
        ) => Some(Endpoint::of(&CONVERSATION)),
        _ => openai_compatible::endpoint_with(&CHAT, method, segments),
    }
}

fn fold_conversation(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let mut reported = openai::counts(document);
    reported.input = sum(&[reported.input, document.count(Field::ToolPrompt)]);
    if !reported.is_unknown() {
        openai::report(generation, reported);
        generation.stage = Stage::Final;
    }
}

//! OpenAI: Chat Completions, legacy Completions, Embeddings, Responses, Assistants runs, images and
//! transcriptions (API reference, read 2026-11).
//!
//! OpenAI's counts are inclusive: `prompt_tokens` and `input_tokens` include cache reads, cache
//! writes, audio and images; `completion_tokens` and `output_tokens` include reasoning, audio,
//! images and predictions, accepted or not. `total_tokens` is their sum. Responses report cache
//! writes for 30 minutes and for 12 hours separately: the filter counts the first under the short
//! lifetime and the second under the long one.

use crate::domain::usage::Usage;
use crate::protocol::document::{Document, Field, Paths};
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::stream_error::StreamError;

pub(super) const SPEC: Spec = Spec { domains: &["api.openai.com"], ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["openai", "text-completion-openai"],
    litellm_prefix: "openai/",
    models_dev: &["openai"],
    genai_prices: &["openai"],
};

/// Usage in Chat Completions.
pub(super) const USAGE: &Paths = &[
    ("usage.prompt_tokens", Field::Input),
    ("usage.completion_tokens", Field::Output),
    ("usage.total_tokens", Field::Total),
    ("usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
    ("usage.prompt_tokens_details.cache_write_tokens", Field::CacheWrite),
    ("usage.prompt_tokens_details.audio_tokens", Field::InputAudio),
    ("usage.prompt_tokens_details.image_tokens", Field::InputImage),
    ("usage.completion_tokens_details.reasoning_tokens", Field::Reasoning),
    ("usage.completion_tokens_details.audio_tokens", Field::OutputAudio),
    ("usage.completion_tokens_details.image_tokens", Field::OutputImage),
];

/// The other members of Chat Completions and their chunks, legacy Completions and Embeddings.
pub(super) const COMPLETION: &Paths = &[
    ("object", Field::Kind),
    ("model", Field::Model),
    ("id", Field::Id),
    ("service_tier", Field::Tier),
    ("choices[].index", Field::Extra),
    ("choices[].finish_reason", Field::Finish),
    ("choices[].text", Field::OutputText),
    ("choices[].delta.content", Field::OutputText),
    ("choices[].delta.refusal", Field::OutputText),
    ("choices[].delta.reasoning_content", Field::OutputText),
    ("choices[].delta.tool_calls[].function.arguments", Field::OutputText),
];

/// Chat Completions, legacy Completions and Embeddings.
pub(super) const CHAT: Format =
    Format { paths: &[USAGE, COMPLETION], fold: fold_chat, head: None, error: StreamError::OpenAi };

const MEDIA: Format = Format {
    paths: &[&[
        ("model", Field::Model),
        ("type", Field::Kind),
        ("usage.input_tokens", Field::Input),
        ("usage.output_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
        ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
        ("usage.input_tokens_details.image_tokens", Field::InputImage),
        ("usage.input_token_details.audio_tokens", Field::InputAudio),
        ("usage.output_tokens_details.image_tokens", Field::OutputImage),
        ("usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
    ]],
    fold: fold_media,
    head: None,
    error: StreamError::OpenAiEvent,
};

const RESPONSES: Format = Format {
    paths: &[&[
        ("type", Field::Kind),
        ("delta", Field::OutputText),
        ("id", Field::Id),
        ("model", Field::Model),
        ("status", Field::Status),
        ("service_tier", Field::Tier),
        ("created_at", Field::CreatedAt),
        ("usage.input_tokens", Field::Input),
        ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
        ("usage.input_tokens_details.cache_write_tokens", Field::CacheWrite),
        (
            "usage.input_tokens_details.cache_write_tokens_details.ttl_30m_tokens",
            Field::CacheWrite5m,
        ),
        (
            "usage.input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
            Field::CacheWrite1h,
        ),
        ("usage.output_tokens", Field::Output),
        ("usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
        ("usage.total_tokens", Field::Total),
        ("response.id", Field::Id),
        ("response.model", Field::Model),
        ("response.status", Field::Status),
        ("response.service_tier", Field::Tier),
        ("response.created_at", Field::CreatedAt),
        ("response.usage.input_tokens", Field::Input),
        ("response.usage.input_tokens_details.cached_tokens", Field::CacheRead),
        ("response.usage.input_tokens_details.cache_write_tokens", Field::CacheWrite),
        (
            "response.usage.input_tokens_details.cache_write_tokens_details.ttl_30m_tokens",
            Field::CacheWrite5m,
        ),
        (
            "response.usage.input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
            Field::CacheWrite1h,
        ),
        ("response.usage.output_tokens", Field::Output),
        ("response.usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
        ("response.usage.total_tokens", Field::Total),
    ]],
    fold: fold_responses,
    head: None,
    error: StreamError::OpenAiEvent,
};

const RUNS: Format = Format {
    paths: &[&[
        ("object", Field::Kind),
        ("id", Field::Id),
        ("model", Field::Model),
        ("status", Field::Status),
        ("created_at", Field::CreatedAt),
        ("usage.prompt_tokens", Field::Input),
        ("usage.prompt_token_details.cached_tokens", Field::CacheRead),
        ("usage.completion_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
    ]],
    fold: fold_run,
    head: None,
    error: StreamError::OpenAiEvent,
};

/// The endpoint of a request to a path like OpenAI's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    endpoint_with(&CHAT, method, segments)
}

/// The same for another provider, with its format for Chat Completions.
pub(super) fn endpoint_with(
    chat: &'static Format,
    method: &str,
    segments: &[&str],
) -> Option<Endpoint> {
    let once = |format| Endpoint::of(format);
    let again = |format| Endpoint { format, model: None, reports_again: true };
    match (method, segments) {
        ("POST", [.., "completions" | "embeddings"]) => Some(once(chat)),
        ("POST", [.., "images", "generations" | "edits"])
        | ("POST", [.., "audio", "transcriptions" | "translations"]) => Some(once(&MEDIA)),
        ("POST", [.., "responses"] | [.., "responses", _, "cancel"])
        | ("GET", [.., "responses", _]) => Some(again(&RESPONSES)),
        ("POST", [.., "threads", "runs"] | [.., "threads", _, "runs"])
        | ("POST", [.., "runs", _, "submit_tool_outputs" | "cancel"])
        | ("GET", [.., "threads", _, "runs", _]) => Some(again(&RUNS)),
        _ => None,
    }
}

/// The name of a request that runs an agent. A request that continues or cancels a run has none,
/// because it is a part of that run.
pub(super) fn agent_run(method: &str, segments: &[&str]) -> Option<&'static str> {
    match (method, segments) {
        ("POST", [.., "responses"]) => Some("responses.create"),
        ("POST", [.., "threads", "runs"] | [.., "threads", _, "runs"]) => {
            Some("threads.runs.create")
        }
        _ => None,
    }
}

/// The thread in a path to its runs.
pub(super) fn thread<'a>(segments: &[&'a str]) -> Option<&'a str> {
    match segments {
        [.., "threads", thread, "runs"]
        | [.., "threads", thread, "runs", _]
        | [.., "threads", thread, "runs", _, _] => Some(thread),
        _ => None,
    }
}

/// The counts of a document whose counts are inclusive.
pub(super) fn inclusive(document: &Document) -> Usage {
    let cache_write_1h = document.count(Field::CacheWrite1h);
    let cache_write = document.count(Field::CacheWrite).filter(|_| cache_write_1h.is_none());
    Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        cache_write_5m: document.count(Field::CacheWrite5m).or(cache_write),
        cache_write_1h,
        input_audio: document.count(Field::InputAudio),
        input_image: document.count(Field::InputImage),
        reasoning: document.count(Field::Reasoning),
        output_audio: document.count(Field::OutputAudio),
        output_image: document.count(Field::OutputImage),
        provider_total: document.count(Field::Total),
        ..Usage::default()
    }
}

pub(super) fn fold_chat(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.has(Field::Finish);
    let reported = inclusive(document);
    if reported.is_unknown() {
        return;
    }
    generation.report(reported);
    // The chunk with the usage is the last one and has no choices. Some servers report counts in
    // each chunk: their counts are final only after a chunk with a finish reason.
    let is_chunk = document.is(Field::Kind, "chat.completion.chunk")
        || document.is(Field::Kind, "text_completion");
    let is_chunk_in_between = is_chunk && document.has(Field::Extra) && !generation.is_finished;
    if !is_chunk_in_between {
        generation.stage = Stage::Final;
    }
}

fn fold_media(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let reported = inclusive(document);
    if !reported.is_unknown() {
        generation.report(reported);
        generation.stage = Stage::Final;
    }
}

fn fold_responses(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.report(inclusive(document));
    let is_event = document.has(Field::Kind);
    match document.text(Field::Status).as_deref() {
        Some("completed" | "incomplete" | "failed" | "cancelled") => {
            generation.stage = Stage::Final;
        }
        Some("queued" | "in_progress") if !is_event => generation.stage = Stage::Unfinished,
        _ => {}
    }
}

fn fold_run(generation: &mut Generation, document: &Document) {
    // The steps of a run report usage too, which the usage of the run includes.
    if !document.is(Field::Kind, "thread.run") {
        return;
    }
    generation.tell_head(document);
    generation.report(inclusive(document));
    generation.stage = match document.text(Field::Status).as_deref() {
        Some("completed" | "incomplete" | "failed" | "cancelled" | "expired") => Stage::Final,
        _ => Stage::Unfinished,
    };
}

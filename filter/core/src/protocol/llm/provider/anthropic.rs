//! Anthropic Messages (API version 2023-06-01, read 2026-11), also as Vertex AI and Bedrock carry
//! them.
//!
//! `input_tokens` includes neither cache reads nor cache writes: the filter adds up the three.
//! `output_tokens` includes thinking, which some models report separately. In a stream
//! `message_start` reports the input and a first output, and `message_delta` the counts so far; the
//! last report is valid.

use crate::domain::usage::Usage;
use crate::protocol::document::{Document, Field, Paths};
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Stage, keep, sum};
use crate::protocol::llm::stream_error::StreamError;

pub(super) const SPEC: Spec = Spec {
    domains: &["api.anthropic.com"],
    is_path: |segments| matches!(segments, [.., "v1", "messages"]),
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["anthropic"],
    litellm_prefix: "anthropic/",
    models_dev: &["anthropic"],
    genai_prices: &["anthropic"],
};

pub(super) const PATHS: &Paths = &[
    ("type", Field::Kind),
    ("id", Field::Id),
    ("model", Field::Model),
    ("stop_reason", Field::Finish),
    ("usage.input_tokens", Field::Input),
    ("usage.output_tokens", Field::Output),
    ("usage.cache_read_input_tokens", Field::CacheRead),
    ("usage.cache_creation_input_tokens", Field::CacheWrite),
    ("usage.cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("usage.cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("usage.output_tokens_details.thinking_tokens", Field::Reasoning),
    ("usage.service_tier", Field::Tier),
    ("message.id", Field::Id),
    ("message.model", Field::Model),
    ("message.usage.input_tokens", Field::Input),
    ("message.usage.output_tokens", Field::Output),
    ("message.usage.cache_read_input_tokens", Field::CacheRead),
    ("message.usage.cache_creation_input_tokens", Field::CacheWrite),
    ("message.usage.cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("message.usage.cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("message.usage.output_tokens_details.thinking_tokens", Field::Reasoning),
    ("message.usage.service_tier", Field::Tier),
    ("delta.stop_reason", Field::Finish),
    ("delta.text", Field::OutputText),
    ("delta.thinking", Field::OutputText),
    ("delta.partial_json", Field::OutputText),
];

/// Messages, plain and streamed.
pub(super) const MESSAGES: Format =
    Format { paths: &[PATHS], fold, head: None, error: StreamError::Anthropic };

/// The endpoint of a request to a path like Anthropic's. Counting tokens is not a generation, nor
/// are the messages of one of OpenAI's threads.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        (_, [.., "threads", _, "messages"]) => None,
        ("POST", [.., "messages"]) => Some(Endpoint::of(&MESSAGES)),
        _ => None,
    }
}

pub(super) fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.has(Field::Finish);
    let parts = &mut generation.parts;
    keep(&mut parts.input, document.count(Field::Input));
    keep(&mut parts.cache_write, document.count(Field::CacheWrite));
    let by_lifetime = (document.count(Field::CacheWrite5m), document.count(Field::CacheWrite1h));
    let usage = &mut generation.usage;
    keep(&mut usage.output, document.count(Field::Output));
    keep(&mut usage.reasoning, document.count(Field::Reasoning));
    keep(&mut usage.cache_read, document.count(Field::CacheRead));
    match by_lifetime {
        // Writes without a lifetime last for 5 minutes, which is the API's default.
        (None, None) if usage.cache_write_1h.is_none() => {
            usage.cache_write_5m = generation.parts.cache_write;
        }
        (None, None) => {}
        (for_5m, for_1h) => {
            keep(&mut usage.cache_write_5m, for_5m);
            keep(&mut usage.cache_write_1h, for_1h);
        }
    }
    let Usage { cache_read, cache_write_5m, cache_write_1h, .. } = *usage;
    if generation.parts.input.is_some() {
        usage.input = sum(&[generation.parts.input, cache_read, cache_write_5m, cache_write_1h]);
    }
    let is_whole = document.is(Field::Kind, "message");
    let is_last = document.is(Field::Kind, "message_delta") && generation.is_finished;
    if (is_whole || is_last) && usage.output.is_some() {
        generation.stage = Stage::Final;
    }
}

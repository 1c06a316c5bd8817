//! DashScope (Alibaba Cloud Model Studio): its native generation of texts, multimodal generation and
//! embeddings (API v1, read 2026-11). Its path under `/compatible-mode` is OpenAI's.
//!
//! `input_tokens` includes cached tokens, and images and audio, `output_tokens` reasoning; the total
//! decides, as in all counts of this shape. Each event of a stream reports the counts so far, and
//! most repeat the whole text so far, so the text is not read. `finish_reason` is the text `null`
//! until the end. An embedding reports a total alone, which is its input.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const GENERATION: Format = Format {
    paths: &[&[
        ("request_id", Field::Id),
        ("usage.input_tokens", Field::Input),
        ("usage.output_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
        ("usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
        ("usage.prompt_tokens_details.cache_creation_input_tokens", Field::CacheWrite),
        (
            "usage.prompt_tokens_details.cache_creation.ephemeral_5m_input_tokens",
            Field::CacheWrite5m,
        ),
        ("usage.prompt_tokens_details.cache_creation.*", Field::CacheWriteOther),
        ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
        ("usage.input_tokens_details.image_tokens", Field::InputImage),
        ("usage.input_tokens_details.video_tokens", Field::InputVideo),
        ("usage.input_tokens_details.audio_tokens", Field::InputAudio),
        ("usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
        ("usage.output_tokens_details.audio_tokens", Field::OutputAudio),
        ("output.finish_reason", Field::Status),
        ("output.choices[].finish_reason", Field::Status),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let reason = document.text(Field::Status);
    generation.is_finished |= reason.is_some_and(|reason| reason != "null");
    let mut reported = openai::counts(document);
    let is_embedding = !generation.is_streamed && !document.is_cut();
    if is_embedding && reported.output.is_none() {
        reported.input = reported.input.or(reported.provider_total);
    }
    if reported.is_unknown() {
        return;
    }
    openai::report(generation, reported);
    if generation.is_finished || !generation.is_streamed {
        generation.stage = Stage::Final;
    }
}

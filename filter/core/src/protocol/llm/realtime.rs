//! What is said on a WebSocket of OpenAI's Realtime API (read 2026-11).
//!
//! A response is told by `response.created` and `response.done`, whose `usage` is inclusive:
//! `input_tokens` holds text, audio, images and what was read from the cache, of which
//! `cached_tokens_details` tells the audio and the images. The model is the session's. What users say
//! may be transcribed by a model of its own, with a usage of its own.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai::{counts, report};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::llm::units;
use crate::protocol::paths::Field;

pub(super) const REALTIME: Format = Format {
    paths: &[&[
        ("type", Field::Kind),
        ("response_id", Field::Lane),
        ("delta", Field::OutputText),
        ("session.model", Field::Model),
        ("session.audio.input.transcription.model", Field::Transcriber),
        ("session.input_audio_transcription.model", Field::Transcriber),
        ("usage.input_tokens", Field::Input),
        ("usage.input_token_details.audio_tokens", Field::InputAudio),
        ("usage.output_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
        // A transcription that is billed by its time.
        ("usage.seconds", Field::InputAudioSeconds),
        ("response.id", Field::Id),
        ("response.status", Field::Status),
        ("response.usage.input_tokens", Field::Input),
        ("response.usage.input_token_details.cached_tokens", Field::CacheRead),
        (
            "response.usage.input_token_details.cached_tokens_details.audio_tokens",
            Field::CacheReadAudio,
        ),
        (
            "response.usage.input_token_details.cached_tokens_details.image_tokens",
            Field::CacheReadImage,
        ),
        ("response.usage.input_token_details.audio_tokens", Field::InputAudio),
        ("response.usage.input_token_details.image_tokens", Field::InputImage),
        ("response.usage.output_tokens", Field::Output),
        ("response.usage.output_token_details.audio_tokens", Field::OutputAudio),
        ("response.usage.total_tokens", Field::Total),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

fn fold(generation: &mut Generation, document: &Document) {
    let kind = document.text(Field::Kind).unwrap_or_default();
    if let Some(id) = document.text(Field::Id) {
        generation.id = Some(id.into_owned());
    }
    // Audio comes encoded.
    if !kind.ends_with("audio.delta") {
        generation.text_bytes = generation.text_bytes.saturating_add(document.text_bytes());
    }
    units::tell(&mut generation.units, document);
    report(generation, counts(document));
    let is_transcription = kind.ends_with("transcription.completed");
    generation.may_lack_tokens |= is_transcription;
    if matches!(&*kind, "response.done") || is_transcription {
        generation.stage = Stage::Final;
    }
}

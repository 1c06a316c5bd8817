//! Endpoints that make speech, images, videos, pages or scores. Their responses may be no text, and
//! some report no tokens: what such a response does not report is not estimated in tokens.

use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;
use crate::wire::media_type::MediaType;

/// `/audio/speech` of OpenAI, Mistral and others (read 2026-11): the response is audio. With
/// `stream_format: sse` it is a stream, whose `speech.audio.done` reports the usage: input is text,
/// output is audio.
pub(super) const SPEECH: Format = Format {
    paths: &[&[
        ("model", Field::Model),
        ("usage.input_tokens", Field::Input),
        ("usage.output_tokens", Field::Output),
        ("usage.prompt_tokens", Field::Input),
        ("usage.completion_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
    ]],
    fold: fold_speech,
    head: Some(head_of_media),
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

const UNCOUNTED_PATHS: &Paths = &[
    ("id", Field::Id),
    ("model", Field::Model),
    ("usage_info.pages_processed", Field::Pages),
    ("seconds", Field::OutputVideoSeconds),
    ("size", Field::Size),
    // Imagen.
    ("predictions[].bytesBase64Encoded", Field::MadeImage),
];

/// What is paid by the image, second, page or request, and reports no tokens: `/videos` of OpenAI,
/// `/ocr` of Mistral, Imagen and Veo.
pub(super) const UNCOUNTED: Format = Format {
    paths: &[UNCOUNTED_PATHS],
    fold: fold_uncounted,
    head: Some(head_of_uncounted),
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

fn fold_speech(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let output = document.count(Field::Output);
    let reported = Usage {
        input: document.count(Field::Input),
        output,
        output_audio: output,
        provider_total: document.count(Field::Total),
        ..Usage::default()
    };
    if !reported.is_unknown() {
        generation.is_openai_shaped = true;
        generation.report(reported);
        generation.stage = Stage::Final;
    }
}

fn fold_uncounted(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.stage = Stage::Final;
}

fn head_of_media(generation: &mut Generation, headers: Headers<'_>) {
    let media_type = headers.get("content-type").map_or(MediaType::Other, MediaType::parse);
    generation.is_binary |= media_type == MediaType::Other;
}

fn head_of_uncounted(generation: &mut Generation, headers: Headers<'_>) {
    head_of_media(generation, headers);
    generation.is_without_tokens = true;
    generation.may_lack_tokens = true;
}

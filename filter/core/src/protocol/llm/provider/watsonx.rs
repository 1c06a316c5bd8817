//! IBM watsonx.ai: `/ml/v1/text/chat`, `/ml/v1/text/generation`, both also as streams, and embeddings
//! (API version 2024-03-14 and later, read 2026-11).
//!
//! Chat has OpenAI's counts. A generation reports them with each result, in a stream those so far;
//! its `stop_reason` is `not_finished` until the end. An embedding reports its input alone.

use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const TEXT: Format = Format {
    paths: &[
        USAGE,
        COMPLETION,
        &[
            ("model_id", Field::Model),
            ("input_token_count", Field::BilledInput),
            ("results[].input_token_count", Field::EachInput),
            ("results[].generated_token_count", Field::EachOutput),
            ("results[].stop_reason", Field::Status),
            ("results[].generated_text", Field::OutputText),
        ],
    ],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::WATSONX,
};

fn fold(generation: &mut Generation, document: &Document) {
    let input = document.count(Field::EachInput).or(document.count(Field::BilledInput));
    let output = document.count(Field::EachOutput);
    let reason = document.text(Field::Status);
    generation.is_finished |= reason.is_some_and(|reason| reason != "not_finished");
    if input.is_none() && output.is_none() {
        return openai::fold_chat(generation, document);
    }
    generation.tell_head(document);
    generation.report(Usage { input, output, ..Usage::default() });
    if generation.is_finished || !generation.is_streamed {
        generation.stage = Stage::Final;
    }
}

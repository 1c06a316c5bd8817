//! Replicate: predictions (HTTP API v1, read 2026-11). Who starts one polls it, unless the request
//! says `Prefer: wait`; its stream of output reports no counts.
//!
//! `metrics` of models that are billed by tokens has `input_token_count` and `output_token_count`.

use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const PREDICTION: Format = Format {
    paths: &[&[
        ("id", Field::Id),
        ("model", Field::Model),
        ("status", Field::Status),
        ("metrics.input_token_count", Field::Input),
        ("metrics.output_token_count", Field::Output),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let is_over = matches!(
        document.text(Field::Status).unwrap_or_default().as_ref(),
        "succeeded" | "failed" | "canceled" | "aborted"
    );
    generation.report(Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        ..Usage::default()
    });
    generation.stage = if is_over { Stage::Final } else { Stage::Unfinished };
}

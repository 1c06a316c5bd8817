//! Replicate: predictions (HTTP API v1, read 2026-11). Who starts one polls it, unless the request
//! says `Prefer: wait`; its stream of output reports no counts.
//!
//! `metrics` of models that are billed by tokens has `input_token_count` and `output_token_count`;
//! `predict_time` is the time of the machine, in seconds, by which most others are billed.

use crate::domain::units::Unit;
use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
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
        ("metrics.predict_time", Field::ComputeSeconds),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.report(Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        ..Usage::default()
    });
    // Who bills tokens does not bill the machine.
    if !generation.usage.is_unknown() {
        generation.units.remove(Unit::ComputeSeconds);
    }
    generation.is_without_tokens = !generation.units.is_empty();
    generation.may_lack_tokens = true;
    generation.stage = match document.text(Field::Status).as_deref() {
        Some("starting" | "processing" | "queued") => Stage::Unfinished,
        Some(_) => Stage::Final,
        None => generation.stage,
    };
}

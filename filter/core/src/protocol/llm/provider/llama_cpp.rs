//! llama.cpp's server: `/completion` and `/infill` (read 2026-11). Its paths under `/v1` are OpenAI's
//! and Anthropic's.
//!
//! `tokens_evaluated` is the whole prompt, of which `timings.cache_n` was in the cache;
//! `tokens_predicted` is the output. Each event of a stream reports the counts so far; the last one
//! has `stop`.

use crate::domain::usage::Usage;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const COMPLETION: Format = Format {
    paths: &[&[
        ("model", Field::Model),
        ("tokens_evaluated", Field::Input),
        ("tokens_predicted", Field::Output),
        ("timings.cache_n", Field::CacheRead),
        ("stop", Field::Finish),
        ("content", Field::OutputText),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.is_true(Field::Finish);
    generation.report(Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        ..Usage::default()
    });
    if generation.is_finished && !generation.usage.is_unknown() {
        generation.stage = Stage::Final;
    }
}

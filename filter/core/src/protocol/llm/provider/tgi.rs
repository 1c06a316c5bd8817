//! Text Generation Inference (3.3) and SGLang (0.5): `/generate` and `/generate_stream`, and whatever
//! runs one of them, or a server with OpenAI's bodies, behind a path of its own, as SageMaker does
//! (read 2026-11).
//!
//! Text Generation Inference reports its counts in `details`, which a plain response has only if it
//! was asked for, and in response headers, which a plain response always has. The last event of a
//! stream has `details`. SGLang reports the counts so far in `meta_info`, and cached tokens as a part
//! of the prompt.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage, raise};
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;
use crate::wire::http::Headers;

pub(super) const GENERATE: Format = Format {
    paths: &[
        USAGE,
        COMPLETION,
        &[
            ("details.input_length", Field::BilledInput),
            ("details.generated_tokens", Field::BilledOutput),
            ("details.finish_reason", Field::Status),
            ("generated_text", Field::OutputText),
            ("token.text", Field::OutputText),
            ("meta_info.id", Field::Id),
            ("meta_info.prompt_tokens", Field::BilledInput),
            ("meta_info.completion_tokens", Field::BilledOutput),
            ("meta_info.cached_tokens", Field::CacheRead),
            ("meta_info.finish_reason", Field::Status),
        ],
    ],
    fold,
    head: Some(head),
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

fn head(generation: &mut Generation, headers: Headers<'_>) {
    generation.usage.input = generation.header_count(headers, "x-prompt-tokens");
    generation.usage.output = generation.header_count(headers, "x-generated-tokens");
    if generation.usage.output.is_some() {
        generation.stage = Stage::Final;
    }
}

fn fold(generation: &mut Generation, document: &Document) {
    let (input, output) = (document.count(Field::BilledInput), document.count(Field::BilledOutput));
    generation.is_finished |= document.has(Field::Status);
    if input.is_none() && output.is_none() {
        return openai::fold_chat(generation, document);
    }
    generation.tell_head(document);
    let usage = &mut generation.usage;
    raise(&mut usage.input, input);
    raise(&mut usage.output, output);
    raise(&mut usage.cache_read, document.count(Field::CacheRead));
    if generation.is_finished {
        generation.stage = Stage::Final;
    }
}

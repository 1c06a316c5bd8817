//! Cloudflare Workers AI: `/ai/run/{model}` (API v4, read 2026-11). Its path under `/ai/v1` is
//! OpenAI's.
//!
//! A plain response has the model's answer in `result`, with `usage` of OpenAI's shape; a stream has
//! it at the top, and `usage` in the last event. Some models stream chunks of OpenAI's too, the last
//! of which may report counts of zero before that event.

use crate::protocol::llm::asks;
use crate::protocol::llm::generation::Format;
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::provider::openai::{COMPLETION, USAGE};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const RUN: Format = Format {
    paths: &[
        USAGE,
        COMPLETION,
        &[
            ("response", Field::OutputText),
            ("result.response", Field::OutputText),
            ("result.model", Field::Model),
            ("result.usage.prompt_tokens", Field::Input),
            ("result.usage.completion_tokens", Field::Output),
            ("result.usage.total_tokens", Field::Total),
            ("result.usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
            ("result.usage.completion_tokens_details.reasoning_tokens", Field::Reasoning),
        ],
    ],
    fold: openai::fold_chat,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

//! Perplexity's asynchronous chat: `/async/chat/completions` starts one, a `GET` below it asks for
//! it (read 2026-11). Everything else of Perplexity is OpenAI's.
//!
//! `response` is the answer of a chat, and null until `status` is `COMPLETED`.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const ASYNC_CHAT: Format = Format {
    paths: &[&[
        ("id", Field::Id),
        ("model", Field::Model),
        ("status", Field::Status),
        ("created_at", Field::CreatedAt),
        ("response.usage.prompt_tokens", Field::Input),
        ("response.usage.completion_tokens", Field::Output),
        ("response.usage.total_tokens", Field::Total),
        ("response.usage.reasoning_tokens", Field::Reasoning),
        ("response.usage.num_search_queries", Field::WebSearches),
        ("response.usage.citation_tokens", Field::CitationTokens),
        ("response.usage.search_context_size", Field::SearchContext),
        ("response.usage.cost.total_cost", Field::ReportedCost),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    openai::report(generation, openai::counts(document));
    generation.stage = match document.text(Field::Status).as_deref() {
        Some("CREATED" | "IN_PROGRESS") => Stage::Unfinished,
        Some(_) => Stage::Final,
        None => generation.stage,
    };
}

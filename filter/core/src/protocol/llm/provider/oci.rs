//! OCI Generative AI: `chat` and `embedText` of its inference API (20231130, the SDK's models read
//! 2026-11). Its path under `/openai` is OpenAI's.
//!
//! The counts have OpenAI's shape in camel case: `chatResponse.usage` of a plain response, `usage` of
//! an embedding and of the last event of a stream, which has it only if the request asks for it.

use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::protocol::llm::provider::openai;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::Field;

pub(super) const CHAT: Format = Format {
    paths: &[&[
        ("modelId", Field::Model),
        ("id", Field::Id),
        ("usage.promptTokens", Field::Input),
        ("usage.completionTokens", Field::Output),
        ("usage.totalTokens", Field::Total),
        ("usage.promptTokensDetails.cachedTokens", Field::CacheRead),
        ("usage.completionTokensDetails.reasoningTokens", Field::Reasoning),
        ("finishReason", Field::Finish),
        ("text", Field::OutputText),
        ("message.content[].text", Field::OutputText),
        ("chatResponse.usage.promptTokens", Field::Input),
        ("chatResponse.usage.completionTokens", Field::Output),
        ("chatResponse.usage.totalTokens", Field::Total),
        ("chatResponse.usage.promptTokensDetails.cachedTokens", Field::CacheRead),
        ("chatResponse.usage.completionTokensDetails.reasoningTokens", Field::Reasoning),
        ("chatResponse.serviceTier", Field::Tier),
        ("chatResponse.text", Field::OutputText),
    ]],
    fold,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::OCI,
};

fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.tells_the_end();
    let reported = openai::counts(document);
    if reported.is_unknown() {
        return;
    }
    openai::report(generation, reported);
    if generation.is_finished || !generation.is_streamed {
        generation.stage = Stage::Final;
    }
}

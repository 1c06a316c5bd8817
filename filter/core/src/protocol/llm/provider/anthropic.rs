//! Anthropic Messages (API version 2023-06-01, read 2026-11), also as Vertex AI and Bedrock carry
//! them.
//!
//! `input_tokens` includes neither cache reads nor cache writes: the filter adds up the three.
//! `usage.iterations` lists the runs of models that one request made: those of the model itself are
//! within the other counts, all others beside them.
//! `output_tokens` includes thinking, which some models report separately. In a stream
//! `message_start` reports the input and a first output, and `message_delta` the counts so far, of
//! which some servers leave out or zero those of the input: a count never falls.

use std::borrow::Cow;

use crate::domain::usage::FurtherRun;
use crate::protocol::document::{Document, Record};
use crate::protocol::llm::asks;
use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::cache_apart::Counts;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{Format, Generation, Place, Run, Stage, raise};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::{Field, Paths};

pub(super) const SPEC: Spec = Spec {
    domains: &["api.anthropic.com"],
    is_path: |segments| {
        matches!(segments, [.., "v1", "messages"] | [.., "v1", "messages", "batches", _, "results"])
    },
    batch,
    ..Spec::new(endpoint)
};

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["anthropic"],
    litellm_prefix: "anthropic/",
    models_dev: &["anthropic"],
    genai_prices: &["anthropic"],
};

pub(super) const PATHS: &Paths = &[
    ("type", Field::Kind),
    ("id", Field::Id),
    ("model", Field::Model),
    ("stop_reason", Field::Finish),
    ("usage.input_tokens", Field::Input),
    ("usage.output_tokens", Field::Output),
    ("usage.cache_read_input_tokens", Field::CacheRead),
    ("usage.cache_creation_input_tokens", Field::CacheWrite),
    ("usage.cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("usage.cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("usage.cache_creation.*", Field::CacheWriteOther),
    ("usage.output_tokens_details.thinking_tokens", Field::Reasoning),
    ("usage.server_tool_use.web_search_requests", Field::WebSearches),
    // What is fetched is paid by its tokens.
    ("usage.server_tool_use.web_fetch_requests", Field::Unbilled),
    ("usage.server_tool_use.*", Field::Unnamed),
    ("usage.service_tier", Field::Tier),
    ("usage.speed", Field::Speed),
    ("usage.inference_geo", Field::InferenceGeo),
    ("message.id", Field::Id),
    ("message.model", Field::Model),
    ("message.usage.input_tokens", Field::Input),
    ("message.usage.output_tokens", Field::Output),
    ("message.usage.cache_read_input_tokens", Field::CacheRead),
    ("message.usage.cache_creation_input_tokens", Field::CacheWrite),
    ("message.usage.cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("message.usage.cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("message.usage.cache_creation.*", Field::CacheWriteOther),
    ("message.usage.output_tokens_details.thinking_tokens", Field::Reasoning),
    ("message.usage.server_tool_use.web_search_requests", Field::WebSearches),
    ("message.usage.server_tool_use.web_fetch_requests", Field::Unbilled),
    ("message.usage.server_tool_use.*", Field::Unnamed),
    ("message.usage.service_tier", Field::Tier),
    ("message.usage.speed", Field::Speed),
    ("message.usage.inference_geo", Field::InferenceGeo),
    ("usage.iterations[]", Field::Record),
    ("usage.iterations[].type", Field::Kind),
    ("usage.iterations[].model", Field::Model),
    ("usage.iterations[].input_tokens", Field::Input),
    ("usage.iterations[].output_tokens", Field::Output),
    ("usage.iterations[].cache_read_input_tokens", Field::CacheRead),
    ("usage.iterations[].cache_creation_input_tokens", Field::CacheWrite),
    ("usage.iterations[].cache_creation.ephemeral_5m_input_tokens", Field::CacheWrite5m),
    ("usage.iterations[].cache_creation.ephemeral_1h_input_tokens", Field::CacheWrite1h),
    ("usage.iterations[].cache_creation.*", Field::CacheWriteOther),
    ("delta.stop_reason", Field::Finish),
    ("delta.text", Field::OutputText),
    ("delta.thinking", Field::OutputText),
    ("delta.partial_json", Field::OutputText),
];

/// Messages, plain and streamed.
pub(super) const MESSAGES: Format =
    Format { paths: &[PATHS], fold, head: None, error: StreamError::Anthropic, asks: asks::MODEL };

const RESULTS: Batch = Batch { format: &MESSAGES, bodies: &["result.message"] };

/// The results of a batch of messages.
pub(super) fn batch(method: &str, segments: &[&str]) -> Option<&'static Batch> {
    let is_fetched =
        matches!((method, segments), ("GET", [.., "messages", "batches", _, "results"]));
    is_fetched.then_some(&RESULTS)
}

/// The endpoint of a request to a path like Anthropic's. Counting tokens is not a generation, nor
/// are the messages of one of OpenAI's threads.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    match (method, segments) {
        (_, [.., "threads", _, "messages"]) => None,
        ("POST", [.., "messages"]) => Some(Endpoint::of(&MESSAGES)),
        _ => None,
    }
}

/// One of the iterations that a usage lists, cumulative in a stream. A `message`, and a
/// `fallback_message` by the model that answered in the place of another, are within the usage;
/// `compaction`, `advisor_message` and whatever may follow are beside it.
fn iteration(record: &Record) -> Run {
    let document = &record.document;
    let text = |field| document.text(field).map(Cow::into_owned);
    let purpose = text(Field::Kind).unwrap_or_default();
    let place = match purpose.as_str() {
        "message" => Place::Within,
        "fallback_message" => Place::Answering,
        _ => Place::Beside,
    };
    let usage = Counts::of(document).usage();
    Run { place, run: FurtherRun { purpose, model: text(Field::Model), usage } }
}

pub(super) fn fold(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.tells_the_end();
    if !document.records.is_empty() {
        generation.runs = document.records.iter().map(iteration).collect();
        generation.is_inconsistent |= document.has_more_records;
        // The lifetimes of a usage may be those of its first turn; each turn tells its own.
        let turns = generation.runs.iter().filter(|turn| matches!(turn.place, Place::Within));
        let long =
            turns.filter_map(|turn| turn.run.usage.cache_write_1h).reduce(u64::saturating_add);
        raise(&mut generation.parts.cache_write_1h, long);
    }
    if document.tells_tokens() || !document.records.is_empty() {
        // Writes without a lifetime last for 5 minutes, which is the API's default.
        Counts::of(document).report(generation);
        raise(&mut generation.usage.reasoning, document.count(Field::Reasoning));
    }
    let is_whole = document.is(Field::Kind, "message");
    let is_last = document.is(Field::Kind, "message_delta") && generation.is_finished;
    if (is_whole || is_last) && generation.usage.output.is_some() {
        generation.stage = Stage::Final;
    }
}

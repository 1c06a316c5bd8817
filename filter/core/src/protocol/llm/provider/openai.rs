//! OpenAI: Chat Completions, legacy Completions, Embeddings, Responses, Assistants runs, images,
//! transcriptions, speech and videos (API reference, read 2026-11).
//!
//! OpenAI's counts are inclusive: `prompt_tokens` and `input_tokens` include cache reads, cache
//! writes, audio and images; `completion_tokens` and `output_tokens` include reasoning, audio,
//! images and predictions, accepted or not. `total_tokens` is their sum. Responses report cache
//! writes for 30 minutes and for 12 hours separately: the filter counts the first under the short
//! lifetime and the second under the long one.

use std::borrow::Cow;

use crate::domain::units::Unit;
use crate::domain::usage::{FurtherRun, Usage, sum};
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec};
use crate::protocol::llm::generation::{
    Format, Generation, Place, Run, Stage, by_lifetime, long_writes,
};
use crate::protocol::llm::media::{SPEECH, UNCOUNTED};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::llm::units;
use crate::protocol::llm::within_or_beside;
use crate::protocol::paths::{Field, Paths};

pub(super) const SPEC: Spec = Spec { domains: &["api.openai.com"], batch, ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["openai", "text-completion-openai"],
    litellm_prefix: "openai/",
    models_dev: &["openai"],
    genai_prices: &["openai"],
};

/// The model of the image tool where its settings name none: the API's default.
const IMAGE_MODEL: &str = "gpt-image-1";

/// Usage in Chat Completions.
pub(super) const USAGE: &Paths = &[
    ("usage.prompt_tokens", Field::Input),
    ("usage.completion_tokens", Field::Output),
    ("usage.total_tokens", Field::Total),
    ("usage.prompt_tokens_details.cached_tokens", Field::CacheRead),
    ("usage.prompt_tokens_details.cache_write_tokens", Field::CacheWrite),
    ("usage.prompt_tokens_details.audio_tokens", Field::InputAudio),
    ("usage.prompt_tokens_details.image_tokens", Field::InputImage),
    ("usage.prompt_tokens_details.video_tokens", Field::InputVideo),
    ("usage.completion_tokens_details.reasoning_tokens", Field::Reasoning),
    ("usage.completion_tokens_details.audio_tokens", Field::OutputAudio),
    ("usage.completion_tokens_details.image_tokens", Field::OutputImage),
    // Vertex AI.
    ("usage.extra_properties.google.traffic_type", Field::Tier),
];

/// The other members of Chat Completions and their chunks, legacy Completions and Embeddings.
pub(super) const COMPLETION: &Paths = &[
    ("object", Field::Kind),
    ("model", Field::Model),
    ("id", Field::Id),
    ("service_tier", Field::Tier),
    ("choices[].index", Field::Extra),
    ("choices[].delta", Field::Extra),
    ("choices[].finish_reason", Field::Finish),
    ("choices[].text", Field::OutputText),
    ("choices[].delta.content", Field::OutputText),
    ("choices[].delta.refusal", Field::OutputText),
    ("choices[].delta.reasoning_content", Field::OutputText),
    ("choices[].delta.tool_calls[].function.arguments", Field::OutputText),
];

/// Chat Completions, legacy Completions and Embeddings.
pub(super) const CHAT: Format = Format {
    paths: &[USAGE, COMPLETION, units::OPENAI_SHAPED],
    fold: fold_chat,
    head: None,
    error: StreamError::OpenAi,
    asks: asks::MODEL,
};

const MEDIA_USAGE: &Paths = &[
    ("model", Field::Model),
    ("type", Field::Kind),
    ("usage.input_tokens", Field::Input),
    ("usage.output_tokens", Field::Output),
    ("usage.total_tokens", Field::Total),
    ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
    ("usage.input_tokens_details.image_tokens", Field::InputImage),
    ("usage.input_tokens_details.cached_tokens_details.image_tokens", Field::CacheReadImage),
    ("usage.input_token_details.audio_tokens", Field::InputAudio),
    ("usage.output_tokens_details.image_tokens", Field::OutputImage),
    ("usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
    ("usage.output_tokens_details", Field::Extra),
    // Transcriptions by the second; `verbose_json` has the duration at its top.
    ("usage.seconds", Field::InputAudioSeconds),
    ("duration", Field::InputAudioSeconds),
    ("usage.cost", Field::ReportedCost),
    // Images, and a video.
    ("data[]", Field::MadeImage),
    ("size", Field::Size),
    ("quality", Field::Quality),
    ("seconds", Field::OutputVideoSeconds),
    ("svg_usage", Field::Record),
    ("svg_usage.model", Field::Model),
    ("svg_usage.input_tokens", Field::Input),
    ("svg_usage.output_tokens", Field::Output),
    ("svg_usage.reasoning_tokens", Field::Reasoning),
    ("svg_usage.total_tokens", Field::Total),
];

pub(super) const MEDIA: Format = Format {
    paths: &[MEDIA_USAGE],
    fold: fold_media,
    head: None,
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

pub(super) const IMAGES: Format = Format { fold: fold_images, ..MEDIA };

const RESPONSES_PATHS: &Paths = &[
    ("type", Field::Kind),
    ("delta", Field::OutputText),
    ("id", Field::Id),
    ("model", Field::Model),
    ("status", Field::Status),
    ("service_tier", Field::Tier),
    ("created_at", Field::CreatedAt),
    ("usage.input_tokens", Field::Input),
    ("usage.input_tokens_details.cached_tokens", Field::CacheRead),
    ("usage.input_tokens_details.cache_write_tokens", Field::CacheWrite),
    ("usage.input_tokens_details.cache_write_tokens_details.ttl_30m_tokens", Field::CacheWrite5m),
    ("usage.input_tokens_details.cache_write_tokens_details.ttl_12h_tokens", Field::CacheWrite1h),
    ("usage.input_tokens_details.cache_write_tokens_details.*", Field::CacheWriteOther),
    ("usage.output_tokens", Field::Output),
    ("usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
    ("usage.total_tokens", Field::Total),
    ("tools[].type", Field::ItemKind),
    ("tools[].model", Field::ItemDetail),
    ("tool_usage.image_gen", Field::Record),
    ("tool_usage.image_gen.input_tokens", Field::Input),
    ("tool_usage.image_gen.output_tokens", Field::Output),
    ("tool_usage.image_gen.total_tokens", Field::Total),
    ("tool_usage.image_gen.cached_tokens", Field::CacheRead),
    ("tool_usage.image_gen.cached_tokens_details.cached_image_tokens", Field::CacheReadImage),
    ("tool_usage.image_gen.input_tokens_details.image_tokens", Field::InputImage),
    ("tool_usage.image_gen.output_tokens_details.image_tokens", Field::OutputImage),
    ("tool_usage.image_gen.output_tokens_details", Field::Extra),
    ("output[].svg_usage", Field::Record),
    ("output[].svg_usage.model", Field::Model),
    ("output[].svg_usage.input_tokens", Field::Input),
    ("output[].svg_usage.output_tokens", Field::Output),
    ("output[].svg_usage.reasoning_tokens", Field::Reasoning),
    ("output[].svg_usage.total_tokens", Field::Total),
    ("response.id", Field::Id),
    ("response.model", Field::Model),
    ("response.status", Field::Status),
    ("response.service_tier", Field::Tier),
    ("response.created_at", Field::CreatedAt),
    ("response.usage.input_tokens", Field::Input),
    ("response.usage.input_tokens_details.cached_tokens", Field::CacheRead),
    ("response.usage.input_tokens_details.cache_write_tokens", Field::CacheWrite),
    (
        "response.usage.input_tokens_details.cache_write_tokens_details.ttl_30m_tokens",
        Field::CacheWrite5m,
    ),
    (
        "response.usage.input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
        Field::CacheWrite1h,
    ),
    ("response.usage.input_tokens_details.cache_write_tokens_details.*", Field::CacheWriteOther),
    ("response.usage.output_tokens", Field::Output),
    ("response.usage.output_tokens_details.reasoning_tokens", Field::Reasoning),
    ("response.usage.total_tokens", Field::Total),
    ("response.tools[].type", Field::ItemKind),
    ("response.tools[].model", Field::ItemDetail),
    ("response.tool_usage.image_gen", Field::Record),
    ("response.tool_usage.image_gen.input_tokens", Field::Input),
    ("response.tool_usage.image_gen.output_tokens", Field::Output),
    ("response.tool_usage.image_gen.total_tokens", Field::Total),
    ("response.tool_usage.image_gen.cached_tokens", Field::CacheRead),
    (
        "response.tool_usage.image_gen.cached_tokens_details.cached_image_tokens",
        Field::CacheReadImage,
    ),
    ("response.tool_usage.image_gen.input_tokens_details.image_tokens", Field::InputImage),
    ("response.tool_usage.image_gen.output_tokens_details.image_tokens", Field::OutputImage),
    ("response.tool_usage.image_gen.output_tokens_details", Field::Extra),
    ("response.output[].svg_usage", Field::Record),
    ("response.output[].svg_usage.model", Field::Model),
    ("response.output[].svg_usage.input_tokens", Field::Input),
    ("response.output[].svg_usage.output_tokens", Field::Output),
    ("response.output[].svg_usage.reasoning_tokens", Field::Reasoning),
    ("response.output[].svg_usage.total_tokens", Field::Total),
];

pub(in crate::protocol::llm) const RESPONSES: Format = Format {
    paths: &[RESPONSES_PATHS, units::OPENAI_SHAPED, units::IN_RESPONSE],
    fold: fold_responses,
    head: None,
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

/// A compaction, whose usage is that of a response: it tells no state.
const COMPACTION: Format = Format { fold: fold_compaction, ..RESPONSES };

pub(super) const RUNS: Format = Format {
    paths: &[&[
        ("object", Field::Kind),
        ("id", Field::Id),
        ("model", Field::Model),
        ("status", Field::Status),
        ("created_at", Field::CreatedAt),
        ("usage.prompt_tokens", Field::Input),
        ("usage.prompt_token_details.cached_tokens", Field::CacheRead),
        ("usage.completion_tokens", Field::Output),
        ("usage.total_tokens", Field::Total),
    ]],
    fold: fold_run,
    head: None,
    error: StreamError::OpenAiEvent,
    asks: asks::MODEL,
};

/// The file of a batch's results, of any endpoint: each line has the body of a response.
const RESULTS: Batch = Batch {
    format: &Format {
        paths: &[
            USAGE,
            COMPLETION,
            RESPONSES_PATHS,
            units::OPENAI_SHAPED,
            units::IN_RESPONSE,
            // Pages of Mistral's.
            &[("usage_info.pages_processed", Field::Pages), ("error", Field::Error)],
        ],
        fold: fold_result,
        ..CHAT
    },
    bodies: &["response.body"],
};

/// The same for another provider's paths like OpenAI's. An `input` or any other file has no such
/// lines.
pub(super) fn batch(method: &str, segments: &[&str]) -> Option<&'static Batch> {
    matches!((method, segments), ("GET", [.., "files", _, "content"])).then_some(&RESULTS)
}

fn fold_result(generation: &mut Generation, document: &Document) {
    if document.is(Field::Kind, "response") {
        fold_responses(generation, document);
    } else {
        fold_chat(generation, document);
        // Images, pages and the like name no kind.
        generation.may_lack_tokens = !document.has(Field::Kind);
    }
}

/// The endpoint of a request to a path like OpenAI's.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    endpoint_with(&CHAT, method, segments)
}

/// The same for another provider, with its format for Chat Completions.
pub(super) fn endpoint_with(
    chat: &'static Format,
    method: &str,
    segments: &[&str],
) -> Option<Endpoint> {
    let once = |format| Endpoint::of(format);
    let again = |format| Endpoint { format, model: None, reports_again: true };
    match (method, segments) {
        ("POST", [.., "completions" | "embeddings"]) => Some(once(chat)),
        ("POST", [.., "images", "generations" | "edits" | "variations"]) => Some(once(&IMAGES)),
        ("POST", [.., "audio", "speech"]) => Some(once(&SPEECH)),
        ("POST", [.., "ocr" | "videos"])
        | ("POST", [.., "videos", "edits" | "extensions" | "generations"])
        | ("POST", [.., "videos", _, "remix"]) => Some(once(&UNCOUNTED)),
        ("POST", [.., "audio", "transcriptions" | "translations"]) => Some(once(&MEDIA)),
        ("POST", [.., "responses", "compact"]) => Some(once(&COMPACTION)),
        ("POST", [.., "responses"] | [.., "responses", _, "cancel"])
        | ("GET", [.., "responses", _]) => Some(again(&RESPONSES)),
        ("POST", [.., "threads", "runs"] | [.., "threads", _, "runs"])
        | ("POST", [.., "runs", _, "submit_tool_outputs" | "cancel"])
        | ("GET", [.., "threads", _, "runs", _]) => Some(again(&RUNS)),
        _ => None,
    }
}

/// The name of a request that runs an agent. A request that continues or cancels a run has none,
/// because it is a part of that run.
pub(super) fn agent_run(method: &str, segments: &[&str]) -> Option<&'static str> {
    match (method, segments) {
        ("POST", [.., "responses"]) => Some("responses.create"),
        ("POST", [.., "threads", "runs"] | [.., "threads", _, "runs"]) => {
            Some("threads.runs.create")
        }
        _ => None,
    }
}

/// The thread in a path to its runs.
pub(super) fn thread<'a>(segments: &[&'a str]) -> Option<&'a str> {
    match segments {
        [.., "threads", thread, "runs"]
        | [.., "threads", thread, "runs", _]
        | [.., "threads", thread, "runs", _, _] => Some(thread),
        _ => None,
    }
}

/// Reports the counts of a document of OpenAI's shape.
pub(super) fn report_counts(generation: &mut Generation, document: &Document) {
    report(generation, counts(document));
}

/// The same for counts that were changed.
pub(in crate::protocol::llm) fn report(generation: &mut Generation, reported: Usage) {
    generation.is_openai_shaped = true;
    generation.report(reported);
}

/// The counts of a document of OpenAI's shape, as they stand.
pub(in crate::protocol::llm) fn counts(document: &Document) -> Usage {
    if !document.tells_tokens() {
        return Usage::default();
    }
    let (cache_write_5m, cache_write_1h) = by_lifetime(
        document.count(Field::CacheWrite),
        document.count(Field::CacheWrite5m),
        long_writes(document),
    );
    let input_video = document.count(Field::InputVideo).filter(|tokens| *tokens > 0);
    Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        cache_write_5m,
        cache_write_1h,
        input_audio: document.count(Field::InputAudio),
        cache_read_audio: document.count(Field::CacheReadAudio),
        // Where video is told apart, it stands beside the images.
        input_image: sum(&[document.count(Field::InputImage), input_video]),
        cache_read_image: document.count(Field::CacheReadImage),
        input_video,
        reasoning: document.count(Field::Reasoning),
        output_audio: document.count(Field::OutputAudio),
        output_image: document.count(Field::OutputImage),
        provider_total: document.count(Field::Total),
        ..Usage::default()
    }
}

pub(super) fn fold_chat(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.tells_the_end();
    let reported = counts(document);
    if reported.is_unknown() {
        return;
    }
    report(generation, reported);
    // The chunk with the usage is the last one and has no choices. Some servers report counts in
    // each chunk: their counts are final only after a chunk with a finish reason.
    let is_chunk = generation.is_streamed
        || document.is(Field::Kind, "chat.completion.chunk")
        || document.is(Field::Kind, "text_completion");
    let is_chunk_in_between = is_chunk && document.has(Field::Extra) && !generation.is_finished;
    if !is_chunk_in_between {
        generation.stage = Stage::Final;
    }
}

fn fold_media(generation: &mut Generation, document: &Document) {
    report_media(generation, document, counts(document));
}

fn fold_images(generation: &mut Generation, document: &Document) {
    report_media(generation, document, of_images(document, counts(document)));
}

fn report_media(generation: &mut Generation, document: &Document, reported: Usage) {
    generation.tell_head(document);
    generation.may_lack_tokens = true;
    report_runs(generation, document);
    if reported.is_unknown() && generation.units.is_empty() {
        return;
    }
    if reported.total() > 0 {
        // Who bills the tokens of audio does not bill its seconds.
        generation.units.remove(Unit::InputAudioSeconds);
    }
    report(generation, reported);
    generation.stage = Stage::Final;
}

/// Reports what hosted tools have used, which is beside the usage of the response: `tool_usage` for
/// images, whose model only the tool's own settings name, and `svg_usage`. Images without tokens are
/// counted as images.
fn report_runs(generation: &mut Generation, document: &Document) {
    let mut runs = Vec::new();
    for record in &document.records {
        let mut usage = counts(&record.document);
        let mut model = record.document.text(Field::Model).map(Cow::into_owned);
        if record.of == "image_gen" {
            usage = of_images(&record.document, usage);
            model = Some(image_model(document));
            if usage.total() > 0 {
                generation.units.remove(Unit::OutputImages);
            }
        }
        let is_unread = usage.counts().all(|(_, count)| count.is_none());
        generation.is_inconsistent |= is_unread || within_or_beside::settle(&mut usage);
        let purpose = record.of.clone().into_owned();
        let run = FurtherRun { purpose, model, usage };
        runs.push(Run { place: Place::Beside, run });
    }
    if !runs.is_empty() {
        generation.runs = runs;
    }
    generation.is_inconsistent |= document.has_more_records;
}

/// The model of the image tool.
fn image_model(document: &Document) -> String {
    let name = |tool: &[u8]| {
        let name = tool.strip_prefix(b"image_generation:")?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    let named = document.items_of("tools").find_map(|(tool, _)| name(tool));
    named.unwrap_or_else(|| IMAGE_MODEL.to_owned())
}

/// What is generated as images, without saying more, is images.
fn of_images(document: &Document, reported: Usage) -> Usage {
    let is_told = document.has(Field::Extra) || reported.output_image.is_some();
    let output_image = if is_told { reported.output_image } else { reported.output };
    Usage { output_image, ..reported }
}

fn fold_responses(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    report_counts(generation, document);
    report_runs(generation, document);
    if document.is(Field::Kind, "response.output_item.done") {
        units::tell_tool_call(&mut generation.units, document);
    }
    let is_event = document.has(Field::Kind);
    generation.may_go_on = document.is(Field::Status, "incomplete");
    match document.text(Field::Status).as_deref() {
        Some("completed" | "incomplete" | "failed" | "cancelled") => {
            generation.stage = Stage::Final;
        }
        // The stream goes on, whatever an event says otherwise.
        Some(_) if is_event => {}
        Some("queued" | "in_progress") => generation.stage = Stage::Unfinished,
        Some(_) => generation.stage = Stage::Final,
        None => {}
    }
}

fn fold_compaction(generation: &mut Generation, document: &Document) {
    fold_responses(generation, document);
    if !generation.usage.is_unknown() {
        generation.stage = Stage::Final;
    }
}

fn fold_run(generation: &mut Generation, document: &Document) {
    // The steps of a run report usage too, which the usage of the run includes. A body that was cut
    // off may not have named its kind.
    if document.has(Field::Kind) && !document.is(Field::Kind, "thread.run") {
        return;
    }
    generation.tell_head(document);
    report_counts(generation, document);
    generation.may_go_on = document.is(Field::Status, "incomplete");
    generation.stage = match document.text(Field::Status).as_deref() {
        // The stream goes on: if it ends here, it was cut off.
        Some("queued" | "in_progress" | "cancelling") if generation.is_streamed => Stage::Open,
        // The client will ask again, or submit what the run waits for.
        Some("queued" | "in_progress" | "cancelling" | "requires_action") => Stage::Unfinished,
        Some(_) => Stage::Final,
        None => generation.stage,
    };
}

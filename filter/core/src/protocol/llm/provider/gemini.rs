//! Gemini: generateContent and streamGenerateContent (a JSON array, or events with `alt=sse`),
//! embedContent and batchEmbedContents, and the Interactions API (API v1beta, read 2026-11); Vertex
//! AI sends the same bodies.
//!
//! `promptTokenCount` includes cached tokens, but not `toolUsePromptTokenCount`, what tools gave to
//! the model; `candidatesTokenCount` does not include `thoughtsTokenCount`. `totalTokenCount` is
//! the sum of these four; where it is the sum without the thoughts, the candidates include them. The
//! details by modality are subsets of their count. Each chunk of a stream reports the counts so far.
//! The Interactions API reports the same under other names: `total_input_tokens` and
//! `total_tool_use_tokens`, `total_output_tokens` and `total_thought_tokens`. Behind OpenAI's paths
//! only the total includes the thoughts. Gemini leaves out a count of zero.

use crate::domain::price_factors::ServiceTier;
use crate::domain::usage::{Usage, sum};
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec, split_verb};
use crate::protocol::llm::generation::{Format, Generation, Stage, header_word, keep, raise};
use crate::protocol::llm::media::UNCOUNTED;
use crate::protocol::llm::provider::{openai, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;

pub(super) const SPEC: Spec =
    Spec { domains: &["generativelanguage.googleapis.com"], is_path, batch, ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["gemini"],
    litellm_prefix: "gemini/",
    models_dev: &["google"],
    genai_prices: &["google"],
};

const CONTENT: &Paths = &[
    ("responseId", Field::Id),
    ("modelVersion", Field::Model),
    ("usageMetadata.promptTokenCount", Field::Input),
    ("usageMetadata.toolUsePromptTokenCount", Field::ToolPrompt),
    ("usageMetadata.cachedContentTokenCount", Field::CacheRead),
    ("usageMetadata.candidatesTokenCount", Field::Output),
    ("usageMetadata.thoughtsTokenCount", Field::Reasoning),
    ("usageMetadata.totalTokenCount", Field::Total),
    ("usageMetadata.serviceTier", Field::Tier),
    ("usageMetadata.trafficType", Field::Tier),
    ("usageMetadata.promptTokensDetails[].modality", Field::ItemName),
    ("usageMetadata.promptTokensDetails[].tokenCount", Field::ItemCount),
    ("usageMetadata.toolUsePromptTokensDetails[].modality", Field::ItemName),
    ("usageMetadata.toolUsePromptTokensDetails[].tokenCount", Field::ItemCount),
    ("usageMetadata.cacheTokensDetails[].modality", Field::ItemName),
    ("usageMetadata.cacheTokensDetails[].tokenCount", Field::ItemCount),
    ("usageMetadata.candidatesTokensDetails[].modality", Field::ItemName),
    ("usageMetadata.candidatesTokensDetails[].tokenCount", Field::ItemCount),
    ("candidates[].groundingMetadata.webSearchQueries[]", Field::SearchQuery),
    ("candidates[].groundingMetadata.imageSearchQueries[]", Field::SearchQuery),
    ("candidates[].groundingMetadata.groundingChunks[].maps", Field::MapsSource),
    ("candidates[].finishReason", Field::Finish),
    ("promptFeedback.blockReason", Field::Finish),
    ("candidates[].content.parts[].text", Field::OutputText),
];

/// generateContent and streamGenerateContent.
pub(super) const GENERATE: Format = Format {
    paths: &[CONTENT],
    fold: fold_content,
    head: Some(head),
    error: StreamError::Google,
    asks: asks::GEMINI,
};

/// embedContent and batchEmbedContents.
pub(super) const EMBED: Format = Format {
    paths: &[&[
        ("usageMetadata.promptTokenCount", Field::Input),
        ("usageMetadata.totalTokenCount", Field::Total),
        ("usageMetadata.promptTokenDetails[].modality", Field::ItemName),
        ("usageMetadata.promptTokenDetails[].tokenCount", Field::ItemCount),
        ("usageMetadata.promptTokensDetails[].modality", Field::ItemName),
        ("usageMetadata.promptTokensDetails[].tokenCount", Field::ItemCount),
    ]],
    fold: fold_embedding,
    head: None,
    error: StreamError::Google,
    asks: asks::GEMINI,
};

/// Interactions: the body, and the events of a stream, whose `interaction` is the body.
pub(super) const INTERACTION: Format = Format {
    paths: &[&[
        ("event_type", Field::Kind),
        ("id", Field::Id),
        ("model", Field::Model),
        ("agent", Field::Model),
        ("status", Field::Status),
        ("service_tier", Field::Tier),
        ("usage.total_input_tokens", Field::Input),
        ("usage.total_tool_use_tokens", Field::ToolPrompt),
        ("usage.total_cached_tokens", Field::CacheRead),
        ("usage.total_output_tokens", Field::Output),
        ("usage.total_thought_tokens", Field::Reasoning),
        ("usage.total_tokens", Field::Total),
        ("usage.input_tokens_by_modality[].modality", Field::ItemName),
        ("usage.input_tokens_by_modality[].tokens", Field::ItemCount),
        ("usage.tool_use_tokens_by_modality[].modality", Field::ItemName),
        ("usage.tool_use_tokens_by_modality[].tokens", Field::ItemCount),
        ("usage.cached_tokens_by_modality[].modality", Field::ItemName),
        ("usage.cached_tokens_by_modality[].tokens", Field::ItemCount),
        ("usage.output_tokens_by_modality[].modality", Field::ItemName),
        ("usage.output_tokens_by_modality[].tokens", Field::ItemCount),
        ("usage.grounding_tool_count[].type", Field::ItemName),
        ("usage.grounding_tool_count[].count", Field::ItemCount),
        ("interaction.usage.grounding_tool_count[].type", Field::ItemName),
        ("interaction.usage.grounding_tool_count[].count", Field::ItemCount),
        ("interaction.id", Field::Id),
        ("interaction.model", Field::Model),
        ("interaction.agent", Field::Model),
        ("interaction.status", Field::Status),
        ("interaction.service_tier", Field::Tier),
        ("interaction.usage.total_input_tokens", Field::Input),
        ("interaction.usage.total_tool_use_tokens", Field::ToolPrompt),
        ("interaction.usage.total_cached_tokens", Field::CacheRead),
        ("interaction.usage.total_output_tokens", Field::Output),
        ("interaction.usage.total_thought_tokens", Field::Reasoning),
        ("interaction.usage.total_tokens", Field::Total),
        ("interaction.usage.input_tokens_by_modality[].modality", Field::ItemName),
        ("interaction.usage.input_tokens_by_modality[].tokens", Field::ItemCount),
        ("interaction.usage.tool_use_tokens_by_modality[].modality", Field::ItemName),
        ("interaction.usage.tool_use_tokens_by_modality[].tokens", Field::ItemCount),
        ("interaction.usage.cached_tokens_by_modality[].modality", Field::ItemName),
        ("interaction.usage.cached_tokens_by_modality[].tokens", Field::ItemCount),
        ("interaction.usage.output_tokens_by_modality[].modality", Field::ItemName),
        ("interaction.usage.output_tokens_by_modality[].tokens", Field::ItemCount),
        ("delta.text", Field::OutputText),
        ("delta.arguments", Field::OutputText),
    ]],
    fold: fold_interaction,
    head: Some(head),
    error: StreamError::GoogleInteraction,
    asks: asks::MODEL,
};

/// The file of a batch's results.
const RESULTS: Batch = Batch { format: &GENERATE, bodies: &["response"] };

/// A batch whose results are within the operation itself.
const INLINED: Batch = Batch {
    format: &GENERATE,
    bodies: &[
        "response.inlinedResponses.inlinedResponses[].response",
        "metadata.output.inlinedResponses.inlinedResponses[].response",
    ],
};

fn batch(method: &str, segments: &[&str]) -> Option<&'static Batch> {
    match (method, segments) {
        ("GET", [.., "batches", _]) => Some(&INLINED),
        ("GET", [.., "files", file]) if file.ends_with(":download") => Some(&RESULTS),
        _ => openai::batch(method, segments),
    }
}

/// The endpoint of a request to a path like Gemini's. Counting tokens is not a generation.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    content_endpoint(method, segments)
        .or_else(|| openai_compatible::endpoint_with(&openai::CHAT, method, segments))
}

/// The paths that Gemini and Vertex AI share.
pub(super) fn content_endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    let again = Some(Endpoint { format: &INTERACTION, model: None, reports_again: true });
    match (method, segments) {
        ("POST", [.., "interactions"] | [.., "interactions", _, "cancel"])
        | ("GET", [.., "interactions", _]) => again,
        // A tuned model of Vertex AI responds at an endpoint, whose number is not the name of a
        // model.
        ("POST", [.., collection, call]) => {
            let (model, verb) = split_verb(call)?;
            let format = match verb.as_str() {
                "generateContent" | "streamGenerateContent" => &GENERATE,
                "embedContent" | "batchEmbedContents" => &EMBED,
                // Imagen and Veo.
                "predict" | "predictLongRunning" => &UNCOUNTED,
                _ => return None,
            };
            let model = Some(model).filter(|_| *collection != "endpoints");
            Some(Endpoint { format, model, reports_again: false })
        }
        _ => None,
    }
}

/// Reads the tier from the header of the Gemini API.
fn head(generation: &mut Generation, headers: Headers<'_>) {
    let tier = header_word(headers, "x-gemini-service-tier").and_then(ServiceTier::told);
    keep(&mut generation.service_tier, tier);
}

/// Whose tokens an array of modalities counts.
#[derive(Clone, Copy)]
enum Side {
    Input,
    Cached,
    Output,
}

fn side(array: &str) -> Option<Side> {
    match array {
        "promptTokensDetails"
        | "promptTokenDetails"
        | "toolUsePromptTokensDetails"
        | "input_tokens_by_modality"
        | "tool_use_tokens_by_modality" => Some(Side::Input),
        "cacheTokensDetails" | "cached_tokens_by_modality" => Some(Side::Cached),
        "candidatesTokensDetails" | "output_tokens_by_modality" => Some(Side::Output),
        _ => None,
    }
}

/// Reads the counts by modality. Returns whether one is of a modality that is not known.
fn by_modality(usage: &mut Usage, document: &Document) -> bool {
    const OTHER: [&str; 4] = ["TEXT", "DOCUMENT", "MODALITY_UNSPECIFIED", ""];
    let mut has_unknown = false;
    for (array, name, count) in document.items() {
        let Some(side) = side(array) else { continue };
        let is = |modality: &str| name.eq_ignore_ascii_case(modality.as_bytes());
        let mut nowhere = None;
        // Video is priced as the images are, unless a rate tells it apart.
        let places = if is("AUDIO") {
            let place = match side {
                Side::Input => &mut usage.input_audio,
                Side::Cached => &mut usage.cache_read_audio,
                Side::Output => &mut usage.output_audio,
            };
            [place, &mut nowhere]
        } else if is("IMAGE") || is("VIDEO") {
            let (image, video) = match side {
                Side::Input => (&mut usage.input_image, &mut usage.input_video),
                Side::Cached => (&mut usage.cache_read_image, &mut nowhere),
                Side::Output => (&mut usage.output_image, &mut usage.output_video),
            };
            if is("VIDEO") { [image, video] } else { [image, &mut None] }
        } else {
            has_unknown |= count > 0 && !OTHER.into_iter().any(is);
            continue;
        };
        for place in places {
            *place = sum(&[*place, Some(count)]);
        }
    }
    has_unknown
}

fn fold_counts(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    let mut reported = Usage::default();
    generation.is_inconsistent |= by_modality(&mut reported, document);
    let parts = &mut generation.parts;
    raise(&mut parts.input, document.count(Field::Input));
    raise(&mut parts.tool_prompt, document.count(Field::ToolPrompt));
    raise(&mut parts.output, document.count(Field::Output));
    raise(&mut generation.usage.reasoning, document.count(Field::Reasoning));
    let input = sum(&[generation.parts.input, generation.parts.tool_prompt]);
    let (output, reasoning) = (generation.parts.output, generation.usage.reasoning);
    let total = document.count(Field::Total);
    // Some servers count the thoughts among the candidates: the total tells.
    let is_within = reasoning.is_some_and(|thoughts| thoughts > 0 && output >= Some(thoughts))
        && total.is_some()
        && total == sum(&[input, output]);
    let output = if is_within { output } else { sum(&[output, reasoning]) };
    let cache_read = document.count(Field::CacheRead);
    generation.report(Usage { input, output, cache_read, provider_total: total, ..reported });
}

fn fold_content(generation: &mut Generation, document: &Document) {
    fold_counts(generation, document);
    generation.is_finished |= document.tells_the_end();
    if generation.is_finished && !generation.usage.is_unknown() {
        generation.stage = Stage::Final;
    }
}

fn fold_embedding(generation: &mut Generation, document: &Document) {
    fold_counts(generation, document);
    if !generation.usage.is_unknown() {
        generation.stage = Stage::Final;
    }
}

fn fold_interaction(generation: &mut Generation, document: &Document) {
    fold_counts(generation, document);
    let is_event = document.has(Field::Kind);
    match document.text(Field::Status).as_deref() {
        Some("in_progress" | "queued") if !is_event => generation.stage = Stage::Unfinished,
        Some("in_progress" | "queued") | None => {}
        // An event that reports only the new state comes before the event with the usage.
        Some(_) if is_event && generation.usage.is_unknown() => {}
        Some(_) => generation.stage = Stage::Final,
    }
}

/// Vertex AI has the same paths behind its publishers and locations.
fn is_path(segments: &[&str]) -> bool {
    match segments {
        [.., "publishers", _, "models", _] => false,
        [.., "models" | "tunedModels", call] => split_verb(call).is_some(),
        [.., "v1beta", "openai", "chat", "completions"]
        | [.., "v1beta", "interactions"]
        | [.., "v1beta", "interactions", _] => true,
        _ => false,
    }
}

//! Amazon Bedrock: Converse and InvokeModel, plain and streamed, and its endpoints that are
//! compatible with OpenAI and Anthropic (botocore's `bedrock-runtime/2023-09-30` and the user
//! guide's "Prompt caching", read 2026-11).
//!
//! Every count of Bedrock's own excludes the cache from the input: `inputTokens` of Converse and
//! Nova, the response header `x-amzn-bedrock-input-token-count` and `inputTokenCount` of
//! `amazon-bedrock-invocationMetrics`. Bedrock reports cache reads and writes beside the input, so
//! the filter adds up the three; `totalTokens` includes them all. The output includes reasoning,
//! which Bedrock does not report separately.
//!
//! InvokeModel returns the body of the model's vendor. The filter recognises a body by its members
//! and not by the model's id, which may be an ARN that does not name a vendor. Bodies are like
//! Anthropic's, like OpenAI's (AI21, Mistral, DeepSeek, Qwen, gpt-oss), or like Nova's, Titan's,
//! Llama's or Cohere's, whose members have names of their own. Titan, Llama and Cohere have no
//! cache. Counts that the body lacks are in the headers or, in a stream, in the metrics of the last
//! event. All of them describe one generation: the body overrides the headers, and the metrics,
//! which arrive last and are what Amazon bills, override the events before them.

use crate::domain::price_factors::{Modifier, ServiceTier};
use crate::domain::units::Unit;
use crate::protocol::document::Document;
use crate::protocol::llm::asks;
use crate::protocol::llm::cache_apart::Counts;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec, is_at};
use crate::protocol::llm::generation::{Format, Generation, Stage, header_word, keep, raise};
use crate::protocol::llm::media::UNCOUNTED;
use crate::protocol::llm::provider::{anthropic, openai, openai_compatible};
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;
use crate::wire::target::percent_decoded;

pub(super) const SPEC: Spec = Spec { is_host, is_path, ..Spec::new(endpoint) };

pub(super) const PRICE_LISTS: PriceLists = PriceLists {
    litellm: &["bedrock", "bedrock_converse"],
    litellm_prefix: "bedrock/",
    models_dev: &["amazon-bedrock"],
    genai_prices: &["aws"],
};

pub(super) const CONVERSE: Format = Format {
    paths: &[&[
        ("usage.inputTokens", Field::Input),
        ("usage.outputTokens", Field::Output),
        ("usage.totalTokens", Field::Total),
        ("usage.cacheReadInputTokens", Field::CacheRead),
        ("usage.cacheWriteInputTokens", Field::CacheWrite),
        ("usage.cacheDetails[].ttl", Field::ItemName),
        ("usage.cacheDetails[].inputTokens", Field::ItemCount),
        ("serviceTier.type", Field::Tier),
        ("performanceConfig.latency", Field::Latency),
        // From a prompt router, which chooses the model.
        ("trace.promptRouter.invokedModelId", Field::Model),
        ("stopReason", Field::Finish),
        ("delta.text", Field::OutputText),
        ("delta.reasoningContent.text", Field::OutputText),
        ("delta.toolUse.input", Field::OutputText),
    ]],
    fold: fold_own,
    head: None,
    error: StreamError::Bedrock,
    asks: asks::BEDROCK,
};

/// What Bedrock adds to the last event of a stream, whoever the model's vendor is.
const METRICS: &Paths = &[
    ("amazon-bedrock-invocationMetrics.inputTokenCount", Field::BilledInput),
    ("amazon-bedrock-invocationMetrics.outputTokenCount", Field::BilledOutput),
    ("amazon-bedrock-invocationMetrics.cacheReadInputTokenCount", Field::CacheRead),
    ("amazon-bedrock-invocationMetrics.cacheWriteInputTokenCount", Field::CacheWrite),
];

const NOVA: &Paths = &[
    ("usage.inputTokens", Field::Input),
    ("usage.outputTokens", Field::Output),
    ("usage.totalTokens", Field::Total),
    ("usage.cacheReadInputTokenCount", Field::CacheRead),
    ("usage.cacheWriteInputTokenCount", Field::CacheWrite),
    ("stopReason", Field::Finish),
    ("metadata.usage.inputTokens", Field::Input),
    ("metadata.usage.outputTokens", Field::Output),
    ("metadata.usage.totalTokens", Field::Total),
    ("metadata.usage.cacheReadInputTokenCount", Field::CacheRead),
    ("metadata.usage.cacheWriteInputTokenCount", Field::CacheWrite),
    ("messageStop.stopReason", Field::Finish),
    ("contentBlockDelta.delta.text", Field::OutputText),
    ("contentBlockDelta.delta.toolUse.input", Field::OutputText),
];

/// Text and embeddings. An embedding comes in one document, so its presence means that it is
/// finished.
const TITAN: &Paths = &[
    ("inputTextTokenCount", Field::Input),
    ("results[].tokenCount", Field::EachOutput),
    ("results[].completionReason", Field::Finish),
    ("totalOutputTextTokenCount", Field::Output),
    ("completionReason", Field::Finish),
    ("outputText", Field::OutputText),
    ("embedding", Field::Finish),
    // Images of Titan, Nova and Stability.
    ("images[]", Field::MadeImage),
    ("embeddingsByType", Field::Finish),
];

/// What a guardrail adds that took the place of the model's answer. It writes no reason why the
/// generation ended.
const GUARDRAIL: &Paths = &[("amazon-bedrock-guardrailAction", Field::Status)];

/// In a stream `generation_token_count` grows from event to event.
const LLAMA: &Paths = &[
    ("prompt_token_count", Field::Input),
    ("generation_token_count", Field::Output),
    ("stop_reason", Field::Finish),
    ("generation", Field::OutputText),
];

const COHERE: &Paths = &[
    ("meta.billed_units.input_tokens", Field::Input),
    ("meta.billed_units.output_tokens", Field::Output),
    ("response.meta.billed_units.input_tokens", Field::Input),
    ("response.meta.billed_units.output_tokens", Field::Output),
    ("generation_id", Field::Id),
    ("finish_reason", Field::Finish),
    ("text", Field::OutputText),
];

/// Older bodies of Mistral and Anthropic, which do not report counts.
const TEXT: &Paths = &[("outputs[].text", Field::OutputText), ("completion", Field::OutputText)];

pub(super) const INVOKE: Format = Format {
    paths: &[
        METRICS,
        GUARDRAIL,
        anthropic::PATHS,
        openai::USAGE,
        openai::COMPLETION,
        NOVA,
        TITAN,
        LLAMA,
        COHERE,
        TEXT,
    ],
    fold: fold_invoke,
    head: Some(head_of_invoke),
    error: StreamError::Bedrock,
    asks: asks::BEDROCK,
};

/// Videos and the like, which Bedrock writes to a bucket.
const ASYNC_INVOKE: Format = Format { asks: asks::BEDROCK, ..UNCOUNTED };

/// The endpoint of a request to a path of Bedrock's runtime. Counting tokens and applying a
/// guardrail are not generations.
pub(super) fn endpoint(method: &str, segments: &[&str]) -> Option<Endpoint> {
    if let Some((id, verb)) = split_model(segments) {
        let format = match (method, verb) {
            ("POST", "converse" | "converse-stream") => &CONVERSE,
            ("POST", "invoke" | "invoke-with-response-stream") => &INVOKE,
            _ => return None,
        };
        let model = Some(percent_decoded(&id.join("/")));
        return Some(Endpoint { format, model, reports_again: false });
    }
    match (method, segments) {
        ("POST", [.., "async-invoke"]) => Some(Endpoint::of(&ASYNC_INVOKE)),
        _ => openai_compatible::endpoint(method, segments),
    }
}

/// Whether only Bedrock has paths like this one.
fn is_path(segments: &[&str]) -> bool {
    const VERBS: &[&str] =
        &["converse", "converse-stream", "invoke", "invoke-with-response-stream", "count-tokens"];
    split_model(segments).is_some_and(|(_, verb)| VERBS.contains(&verb))
}

/// The model's id and the verb of `/model/{id}/{verb}`. An ARN contains a slash, which a proxy may
/// have decoded on the way.
fn split_model<'a, 'b>(segments: &'a [&'b str]) -> Option<(&'a [&'b str], &'b str)> {
    let at = segments.iter().position(|segment| *segment == "model")?;
    let (verb, id) = segments.get(at.saturating_add(1)..)?.split_last()?;
    (!id.is_empty()).then_some((id, *verb))
}

/// The counts in the model's own members.
fn counts(document: &Document) -> Counts {
    let counts = Counts::of(document);
    let written_for = |is_meant: fn(&[u8]) -> bool| {
        let meant = document.items_of("cacheDetails").filter(|(ttl, _)| is_meant(ttl));
        meant.map(|(_, count)| count).reduce(u64::saturating_add)
    };
    Counts {
        output: counts.output.max(document.count(Field::EachOutput)),
        cache_write_5m: written_for(|ttl| ttl == b"5m"),
        // A time that is not known is the longer one.
        cache_write_1h: written_for(|ttl| ttl != b"5m"),
        ..counts
    }
}

/// Whether it tells of tokens that were written to a cache for a time that is not known.
fn has_other_lifetime(document: &Document) -> bool {
    let is_other = |(ttl, count): (&[u8], u64)| !matches!(ttl, b"5m" | b"1h") && count > 0;
    document.items_of("cacheDetails").any(is_other)
}

fn tell_metrics(generation: &mut Generation, document: &Document) {
    let reported = Counts {
        input: document.count(Field::BilledInput),
        output: document.count(Field::BilledOutput),
        cache_read: document.count(Field::CacheRead),
        cache_write: document.count(Field::CacheWrite),
        ..Counts::default()
    };
    if !reported.is_unknown() {
        reported.report_billed(generation);
        generation.stage = Stage::Final;
    }
}

fn fold_own(generation: &mut Generation, document: &Document) {
    generation.tell_head(document);
    generation.is_finished |= document.tells_the_end();
    let reported = counts(document);
    generation.is_inconsistent |= has_other_lifetime(document);
    if generation.units.of(Unit::OutputImages).is_some() {
        generation.may_lack_tokens = true;
        generation.stage = Stage::Final;
    }
    if reported.is_unknown() {
        return;
    }
    let is_intervened = document.is(Field::Status, "INTERVENED");
    generation.is_finished |= is_intervened && reported.output.is_some();
    reported.report(generation);
    raise(&mut generation.usage.provider_total, document.count(Field::Total));
    if generation.is_finished {
        generation.stage = Stage::Final;
    }
}

fn fold_invoke(generation: &mut Generation, document: &Document) {
    let kind = document.text(Field::Kind).unwrap_or_default();
    let is_like_openai = document.has(Field::Extra)
        || kind.starts_with("chat.completion")
        || kind.starts_with("text_completion");
    if is_like_openai {
        openai::fold_chat(generation, document);
        // These counts are inclusive, and say more than the metrics.
        if generation.stage != Stage::Final {
            tell_metrics(generation, document);
        }
    } else if kind.starts_with("message") {
        anthropic::fold(generation, document);
        tell_metrics(generation, document);
    } else {
        fold_own(generation, document);
        tell_metrics(generation, document);
    }
}

fn head_of_invoke(generation: &mut Generation, headers: Headers<'_>) {
    let reported = Counts {
        input: generation.header_count(headers, "x-amzn-bedrock-input-token-count"),
        output: generation.header_count(headers, "x-amzn-bedrock-output-token-count"),
        cache_read: generation.header_count(headers, "x-amzn-bedrock-cache-read-input-token-count"),
        cache_write: generation
            .header_count(headers, "x-amzn-bedrock-cache-write-input-token-count"),
        ..Counts::default()
    };
    if !reported.is_unknown() {
        reported.report(generation);
        generation.stage = Stage::Final;
    }
    let tier = header_word(headers, "x-amzn-bedrock-service-tier").and_then(ServiceTier::told);
    keep(&mut generation.service_tier, tier);
    if let Some(latency) = header_word(headers, "x-amzn-bedrock-performanceconfig-latency") {
        generation.modifiers.tell(Modifier::Latency, latency);
    }
}

fn is_host(name: &str, _port: &str) -> bool {
    const SERVICES: &[&str] = &["bedrock-runtime", "bedrock-runtime-fips", "bedrock-mantle"];
    let is_amazon = ["amazonaws.com", "amazonaws.com.cn", "api.aws"];
    is_amazon.into_iter().any(|domain| is_at(name, domain))
        && name.split('.').any(|label| SERVICES.contains(&label))
}

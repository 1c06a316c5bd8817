//! Reads what providers bill beside tokens, and what they say that a generation cost.
//!
//! Where a number stands is in the provider's file. What it means is here, one line for each.

use std::collections::BTreeSet;

use rust_decimal::Decimal;

use crate::domain::price_factors::Word;
use crate::domain::units::{Look, Unit, UnitName, Units};
use crate::protocol::document::{Document, UNNAMED};
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;

/// The numbers that a response tells. What it tells again is cumulative.
const TOLD: &[(Field, Unit)] = &[
    (Field::WebSearches, Unit::WebSearches),
    (Field::SearchQuery, Unit::WebSearches),
    (Field::FileSearches, Unit::FileSearches),
    (Field::SearchSources, Unit::SearchSources),
    (Field::CodeSessions, Unit::CodeSessions),
    (Field::CitationTokens, Unit::CitationTokens),
    (Field::SearchUnits, Unit::SearchUnits),
    (Field::Pages, Unit::Pages),
    (Field::AnnotatedPages, Unit::AnnotatedPages),
    (Field::InputImages, Unit::InputImages),
    (Field::OutputImages, Unit::OutputImages),
    (Field::MadeImage, Unit::OutputImages),
    (Field::InputAudioSeconds, Unit::InputAudioSeconds),
    (Field::OutputVideoSeconds, Unit::OutputVideoSeconds),
    (Field::ComputeSeconds, Unit::ComputeSeconds),
];

/// Where servers of OpenAI's shape tell what they bill beside tokens, and the cost.
pub(super) const OPENAI_SHAPED: &Paths = &[
    // Perplexity.
    ("usage.num_search_queries", Field::WebSearches),
    ("usage.citation_tokens", Field::CitationTokens),
    ("usage.search_context_size", Field::SearchContext),
    ("usage.cost.total_cost", Field::ReportedCost),
    ("usage.tool_calls_details.search_web.invocation", Field::WebSearches),
    ("usage.tool_calls_details.*", Field::Unnamed),
    // OpenRouter.
    ("usage.server_tool_use.web_search_requests", Field::WebSearches),
    ("usage.server_tool_use.*", Field::Unnamed),
    ("usage.cost", Field::ReportedCost),
    ("usage.is_byok", Field::IsOwnKey),
    ("usage.cost_details.upstream_inference_cost", Field::UpstreamCost),
    // xAI.
    ("usage.num_sources_used", Field::SearchSources),
    ("usage.cost_in_usd_ticks", Field::ReportedCostTicks),
    ("usage.server_side_tool_usage_details.web_search_calls", Field::WebSearches),
    ("usage.server_side_tool_usage_details.code_interpreter_calls", Field::CodeSessions),
    ("usage.server_side_tool_usage_details.file_search_calls", Field::FileSearches),
    ("usage.server_side_tool_usage_details.mcp_calls", Field::Unbilled),
    ("usage.server_side_tool_usage_details.*", Field::Unnamed),
    // Rerankers, in Cohere's shape.
    ("meta.billed_units.search_units", Field::SearchUnits),
    // Mistral.
    ("usage.prompt_audio_seconds", Field::InputAudioSeconds),
];

/// The same within the events of the Responses API.
pub(super) const IN_RESPONSE: &Paths = &[
    ("response.usage.cost", Field::ReportedCost),
    ("response.usage.cost.total_cost", Field::ReportedCost),
    ("response.usage.tool_calls_details.search_web.invocation", Field::WebSearches),
    ("response.usage.tool_calls_details.*", Field::Unnamed),
    ("response.usage.num_sources_used", Field::SearchSources),
    ("response.usage.cost_in_usd_ticks", Field::ReportedCostTicks),
    ("response.usage.is_byok", Field::IsOwnKey),
    ("response.usage.cost_details.upstream_inference_cost", Field::UpstreamCost),
    ("response.usage.server_tool_use.web_search_requests", Field::WebSearches),
    ("response.usage.server_tool_use.*", Field::Unnamed),
    ("response.usage.server_side_tool_usage_details.web_search_calls", Field::WebSearches),
    ("response.usage.server_side_tool_usage_details.code_interpreter_calls", Field::CodeSessions),
    ("response.usage.server_side_tool_usage_details.file_search_calls", Field::FileSearches),
    ("response.usage.server_side_tool_usage_details.mcp_calls", Field::Unbilled),
    ("response.usage.server_side_tool_usage_details.*", Field::Unnamed),
    ("response.output[].type", Field::ItemKind),
    ("response.output[].action.type", Field::ItemDetail),
    ("response.output[].container_id", Field::ItemDetail),
    ("response.output[].environment.container_id", Field::ItemDetail),
    ("response.tool_usage.web_search.num_requests", Field::BilledSearches),
    ("response.tool_usage.*", Field::Unnamed),
    ("item.type", Field::ToolCall),
    ("item.action.type", Field::ToolAction),
    ("item.environment.container_id", Field::ToolAction),
    ("output[].type", Field::ItemKind),
    ("output[].action.type", Field::ItemDetail),
    ("output[].container_id", Field::ItemDetail),
    ("output[].environment.container_id", Field::ItemDetail),
    ("tool_usage.web_search.num_requests", Field::BilledSearches),
    ("tool_usage.*", Field::Unnamed),
];

/// Takes over the units of a document.
pub(super) fn tell(units: &mut Units, document: &Document) {
    if document.tells_units() {
        tell_members(units, document);
    }
    tell_items(units, document);
    // Not all searches are billed: what the provider bills takes the place of their number.
    if let Some(searches) = document.quantity(Field::BilledSearches) {
        units.remove(Unit::WebSearches);
        units.raise(Unit::WebSearches, searches);
    }
}

fn tell_members(units: &mut Units, document: &Document) {
    for (field, unit) in TOLD {
        if let Some(quantity) = document.quantity(*field) {
            units.raise(*unit, quantity);
        }
    }
    if let Some(searches) = document.quantity(Field::PremiumSearches) {
        let variant = Some(Word::new("premium"));
        units.raise(UnitName { unit: Unit::WebSearches, variant }, searches);
    }
    if document.has(Field::MapsSource) {
        units.raise(Unit::MapsQueries, Decimal::ONE);
    }
    let text = |field| document.text(field).unwrap_or_default();
    let context = text(Field::SearchContext);
    if !context.is_empty() {
        let variant = Some(Word::new(&context));
        units.raise(UnitName { unit: Unit::Requests, variant }, Decimal::ONE);
    }
}

/// The words of images and videos in a document.
pub(super) fn look(document: &Document) -> Look {
    let text = |field| document.text(field).unwrap_or_default().into_owned();
    Look { quality: text(Field::Quality), size: text(Field::Size) }
}

/// As what a hosted tool's call is billed; `None` if it is free, if it is paid by its tokens or its
/// own counts, or if it is no call. What a call that nobody knows costs is not known either.
fn billed_as(kind: &str, detail: &str) -> Option<UnitName> {
    let unit = match (kind, detail) {
        // To open a page, or to look for a text in it, is no search.
        ("web_search_call", "open_page" | "find_in_page" | "find") => return None,
        ("web_search_call", _) => Unit::WebSearches,
        ("file_search_call", _) => Unit::FileSearches,
        ("code_interpreter_call", _) => Unit::CodeSessions,
        ("image_generation_call", _) => Unit::OutputImages,
        // A client's own shell has no container.
        ("shell_call", "") => return None,
        ("shell_call", _) => Unit::CodeSessions,
        (
            "function_call" | "custom_tool_call" | "computer_call" | "local_shell_call"
            | "apply_patch_call" | "mcp_call" | "tool_search_call",
            _,
        ) => return None,
        (kind, _) if kind.ends_with("_call") => return Some(other(kind)),
        _ => return None,
    };
    Some(unit.into())
}

/// What is billed under a name that the filter does not know.
fn other(name: &str) -> UnitName {
    let variant = Some(Word::new(name)).filter(|word| !word.as_str().is_empty());
    UnitName { unit: Unit::Other, variant }
}

/// Counts what a document lists under names: calls of hosted tools among the outputs of a response
/// (Responses API), those that Gemini's Interactions count themselves, and what no path names. Calls
/// that run code share their container.
fn tell_items(units: &mut Units, document: &Document) {
    let mut told = Units::default();
    let mut containers = BTreeSet::new();
    for (array, name, count) in document.items() {
        let name = || String::from_utf8_lossy(name);
        match array {
            "output" => {
                let name = name();
                let (kind, detail) = name.split_once(':').unwrap_or((&name, ""));
                match billed_as(kind, detail) {
                    Some(UnitName { unit: Unit::CodeSessions, .. }) => {
                        containers.insert(detail.to_owned());
                    }
                    Some(name) => told.add(name, Decimal::from(count)),
                    None => {}
                }
            }
            "grounding_tool_count" => {
                let name = match &*name() {
                    "google_search" => Unit::WebSearches.into(),
                    "google_maps" => Unit::MapsQueries.into(),
                    "retrieval" => Unit::FileSearches.into(),
                    name => other(name),
                };
                told.add(name, Decimal::from(count));
            }
            UNNAMED => told.add(other(&name()), Decimal::from(count)),
            _ => {}
        }
    }
    told.add(Unit::CodeSessions, Decimal::from(containers.len()));
    units.raise_all(&told);
}

/// Counts the call of a hosted tool that one event of a stream reports: the response itself may never
/// come.
pub(super) fn tell_tool_call(calls: &mut Units, document: &Document) {
    let kind = document.text(Field::ToolCall).unwrap_or_default();
    let action = document.text(Field::ToolAction).unwrap_or_default();
    match billed_as(&kind, &action) {
        Some(name) if name.unit == Unit::CodeSessions => calls.raise(name, Decimal::ONE),
        Some(name) => calls.add(name, Decimal::ONE),
        None => {}
    }
}

/// What the provider says that the generation cost, in US dollars. Who pays another provider with a
/// key of its own pays both, and without the other one's price the cost is not known.
pub(super) fn reported_cost(document: &Document) -> Option<Decimal> {
    let ticks = document.quantity(Field::ReportedCostTicks);
    let of_ticks = ticks.and_then(|ticks| ticks.checked_mul(Decimal::new(1, 10)));
    let cost = document.quantity(Field::ReportedCost).or(of_ticks)?;
    let is_own_key = document.has(Field::IsOwnKey) && !document.is_false(Field::IsOwnKey);
    let upstream = if is_own_key { document.quantity(Field::UpstreamCost)? } else { Decimal::ZERO };
    bounded(cost.checked_add(upstream)?)
}

/// The cost in a header of LiteLLM's proxy.
pub(super) fn reported_cost_in(headers: Headers<'_>) -> Option<Decimal> {
    let text = core::str::from_utf8(headers.get("x-litellm-response-cost")?).ok()?.trim();
    let cost = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()?;
    bounded(cost)
}

/// A cost with as many places as a cost may have; `None` if it is below zero or beyond all costs.
fn bounded(cost: Decimal) -> Option<Decimal> {
    let cost = cost.round_dp_with_strategy(18, rust_decimal::RoundingStrategy::AwayFromZero);
    let is_cost = !cost.is_sign_negative() && cost < Decimal::from(1_000_000_000_u64);
    is_cost.then(|| cost.normalize())
}

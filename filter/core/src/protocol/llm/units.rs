//! Reads what providers bill beside tokens, and what they say that a generation cost.
//!
//! Where a number stands is in the provider's file. What it means is here, one line for each.

use rust_decimal::Decimal;

use crate::domain::price_factors::Word;
use crate::domain::units::{Unit, UnitName, Units};
use crate::protocol::document::Document;
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
    // OpenRouter.
    ("usage.server_tool_use.web_search_requests", Field::WebSearches),
    ("usage.cost", Field::ReportedCost),
    ("usage.is_byok", Field::IsOwnKey),
    ("usage.cost_details.upstream_inference_cost", Field::UpstreamCost),
    // xAI.
    ("usage.num_sources_used", Field::SearchSources),
    ("usage.cost_in_usd_ticks", Field::ReportedCostTicks),
    ("usage.server_side_tool_usage_details.web_search_calls", Field::WebSearches),
    ("usage.server_side_tool_usage_details.code_interpreter_calls", Field::CodeSessions),
    ("usage.server_side_tool_usage_details.file_search_calls", Field::FileSearches),
    // Rerankers, in Cohere's shape.
    ("meta.billed_units.search_units", Field::SearchUnits),
    // Mistral.
    ("usage.prompt_audio_seconds", Field::InputAudioSeconds),
];

/// The same within the events of the Responses API.
pub(super) const IN_RESPONSE: &Paths = &[
    ("response.usage.cost", Field::ReportedCost),
    ("response.usage.num_sources_used", Field::SearchSources),
    ("response.usage.cost_in_usd_ticks", Field::ReportedCostTicks),
    ("response.output[].type", Field::ItemKind),
    ("response.output[].action.type", Field::ItemDetail),
    ("response.output[].container_id", Field::ItemDetail),
    ("item.type", Field::ToolCall),
    ("item.action.type", Field::ToolAction),
    ("output[].type", Field::ItemKind),
    ("output[].action.type", Field::ItemDetail),
    ("output[].container_id", Field::ItemDetail),
];

/// Takes over the units of a document.
pub(super) fn tell(units: &mut Units, document: &Document) {
    if !document.is_about_units() {
        return;
    }
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
    let (quality, size) = (text(Field::Quality), text(Field::Size));
    units.qualify(Unit::OutputImages, &[&quality, &size]);
    units.qualify(Unit::OutputVideoSeconds, &[&size]);
    tell_tool_calls(units, document);
}

/// Counts the calls of hosted tools: those that Gemini's Interactions count themselves, and those
/// among the outputs of a response (Responses API). Opening a page and looking for a text in it is no
/// search. Calls of the code interpreter share their container.
fn tell_tool_calls(units: &mut Units, document: &Document) {
    let count = |is_meant: fn(&[u8]) -> bool| {
        let meant = document.items_of("output").filter(|(name, _)| is_meant(name));
        meant.map(|(_, count)| count).fold(0, u64::saturating_add)
    };
    let searches = count(|name| matches!(name, b"web_search_call" | b"web_search_call:search"));
    let files = count(|name| name == b"file_search_call");
    let containers =
        document.items_of("output").filter(|(name, _)| name.starts_with(b"code_interpreter_call"));
    let of_grounding = |kind: &[u8]| {
        let meant = document.items_of("grounding_tool_count").find(|(name, _)| *name == kind);
        Decimal::from(meant.map_or(0, |(_, count)| count))
    };
    units.raise(Unit::WebSearches, of_grounding(b"google_search"));
    units.raise(Unit::MapsQueries, of_grounding(b"google_maps"));
    units.raise(Unit::FileSearches, of_grounding(b"retrieval"));
    units.raise(Unit::WebSearches, Decimal::from(searches));
    units.raise(Unit::FileSearches, Decimal::from(files));
    units.raise(Unit::CodeSessions, Decimal::from(containers.count()));
}

/// Counts the call of a hosted tool that one event of a stream reports: the response itself may never
/// come.
pub(super) fn tell_tool_call(calls: &mut Units, document: &Document) {
    let kind = document.text(Field::ToolCall).unwrap_or_default();
    let action = document.text(Field::ToolAction).unwrap_or_default();
    match (kind.as_ref(), action.as_ref()) {
        ("web_search_call", "" | "search") => calls.add(Unit::WebSearches, Decimal::ONE),
        ("file_search_call", _) => calls.add(Unit::FileSearches, Decimal::ONE),
        ("code_interpreter_call", _) => calls.raise(Unit::CodeSessions, Decimal::ONE),
        _ => {}
    }
}

/// What the provider says that the generation cost, in US dollars. Who pays another provider with a
/// key of its own pays both.
pub(super) fn reported_cost(document: &Document) -> Option<Decimal> {
    if !document.is_about_units() {
        return None;
    }
    let ticks = document.quantity(Field::ReportedCostTicks);
    let of_ticks = ticks.and_then(|ticks| ticks.checked_mul(Decimal::new(1, 10)));
    let cost = document.quantity(Field::ReportedCost).or(of_ticks)?;
    let upstream = document.quantity(Field::UpstreamCost);
    let upstream = upstream.filter(|_| document.is_true(Field::IsOwnKey));
    bounded(cost.checked_add(upstream.unwrap_or_default())?)
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

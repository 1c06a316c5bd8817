//! The members of LiteLLM's list that are no prices, so that all others are named if a card does
//! not have them, whatever they are called.

use serde_json::Value;
use serde_json::value::RawValue;

use super::hours::OFF_PEAK;
use super::tokens::{Name, TIERED_PRICING};
use super::{ALIAS_OF, LOCATIONS, SPECIFIC, units};
use crate::prices::builder::Builder;
use crate::prices::list::{Object, price};

/// What their names begin with.
const PREFIXES: [&str; 4] = ["supports_", "supported_", "max_", "token_count_"];

/// Further names.
const NAMES: [&str; 14] = [
    ALIAS_OF,
    OFF_PEAK,
    SPECIFIC,
    TIERED_PRICING,
    "litellm_provider",
    "mode",
    "source",
    "metadata",
    "rpm",
    "tpm",
    "output_vector_size",
    "prompt_cache_min_tokens",
    "rules",
    "tool_use_system_prompt_tokens",
];

/// Names what has a number and is no price that was read.
pub(super) fn name_others(listed: &str, model: &Object, builder: &mut Builder<'_>) {
    for (name, value) in model.iter() {
        let is_known = NAMES.contains(&name)
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || Name::parse(name).is_some()
            || units::is_read(name)
            || LOCATIONS.iter().any(|(known, _)| *known == name);
        if !is_known && has_number(value) && !is_old_name(name, model) {
            builder.leave_out_price(name, reason(name), listed);
        }
    }
}

/// Whether any number other than zero stands in a value.
fn has_number(value: &RawValue) -> bool {
    fn has(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64() != Some(0.0),
            // The list has some prices as texts.
            Value::String(text) => text.parse::<f64>().is_ok_and(|number| number != 0.0),
            Value::Array(values) => values.iter().any(has),
            Value::Object(members) => members.values().any(has),
            Value::Null | Value::Bool(_) => false,
        }
    }
    serde_json::from_str(value.get()).is_ok_and(|value| has(&value))
}

/// True if another member has the same price.
fn is_old_name(name: &str, model: &Object) -> bool {
    let amount = |name: &str| model.get(name).and_then(|value| price(value, 0).ok()).flatten();
    name == "input_cost_per_token_cache_hit"
        && amount(name) == amount("cache_read_input_token_cost")
}

/// Why a card does not have a price.
fn reason(name: &str) -> &'static str {
    let reasons = [
        ("uplift_multiplier", "by the region; the standard price is taken"),
        ("_free_requests", "free requests; each is charged"),
        ("dbu", "the same price in units of Databricks"),
        ("explicit_cache", "by the kind of caching; the other price is taken"),
        ("_decisions", "of requests for decisions only"),
        ("_interval", "by the interval between frames"),
        ("_query", "for a query"),
        ("_second", "for a second"),
        ("_pixel", "for a pixel, without a size"),
        ("_character", "for a character"),
        ("_credit", "for a credit"),
        ("_message", "for a message"),
        ("1k_", "for a thousand"),
        ("_image_token", "no kind of tokens in a card"),
        ("per_image", "for an image"),
        ("token", "no kind of tokens or service tier in a card"),
    ];
    let found = reasons.iter().find(|(part, _)| name.contains(part));
    found.map_or("no member that the import knows", |(_, reason)| reason)
}

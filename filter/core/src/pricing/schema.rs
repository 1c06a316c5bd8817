//! The JSON Schema of rates, whose readers are written by hand: an object has rates by the kinds of
//! tokens beside its own members.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::base::schema::{map, object, text};
use crate::base::text::Price;
use crate::domain::units::Unit;
use crate::domain::usage::TokenKind;
use crate::pricing::instant::Instant;
use crate::pricing::multipliers::{Factors, Multipliers, PlaceFactors};
use crate::pricing::rate::{CONTEXT_TIER, ContextTier, RATE, Rate, TABLE, Table};
use crate::pricing::rate_card::{Card, RateCard};
use crate::pricing::unit_rates::UnitRates;
use crate::pricing::when::When;

/// A provider's word in lower case.
const WORD: &str = "[a-z0-9._:-]{0,31}";

/// What a member of an entry, a service tier or a context tier is, and its schema.
fn member(name: &'static str, generator: &mut SchemaGenerator) -> (&'static str, Schema) {
    match name {
        "provider" => (
            "Who sells the model; `*` is anyone, and `openai_compatible` every provider with this format that has no rate of its own.",
            text("", r"^(\*|[a-z0-9_.-]{1,31})$", &["openai", "*"]),
        ),
        "model" => (
            "The model's name, or a pattern in which `*` stands for any text.",
            generator.subschema_for::<String>(),
        ),
        "aliases" => {
            ("Further names and patterns of the model.", generator.subschema_for::<Vec<String>>())
        }
        "effective_from" => (
            "The rate is for generations that start from here on.",
            generator.subschema_for::<Instant>(),
        ),
        "effective_to" => (
            "The rate is for generations that start before this.",
            generator.subschema_for::<Instant>(),
        ),
        "context_tiers" => (
            "Rates of requests with more than so many input tokens, in ascending order.",
            generator.subschema_for::<Vec<ContextTier>>(),
        ),
        "service_tiers" => {
            let tiers = generator.subschema_for::<Table>();
            let about = "Rates by service tier, as events name it; a kind that a tier does not name keeps its standard rate.";
            (about, map(about, &format!("^(?!standard$){WORD}$"), tiers))
        }
        "multipliers" => (
            "Factors of all rates, by the words of a generation's modifiers.",
            generator.subschema_for::<Multipliers>(),
        ),
        "units" => {
            ("Prices of what is billed beside tokens.", generator.subschema_for::<UnitRates>())
        }
        "when" => {
            ("Conditions of the rate, all of which must hold.", generator.subschema_for::<When>())
        }
        "above_input_tokens" => (
            "The tier is for requests with more input tokens than this.",
            generator.subschema_for::<u64>(),
        ),
        _ => ("", Schema::from(true)),
    }
}

/// The schema of an object with these members, and with a rate for each kind of tokens.
fn rates(
    description: &str,
    required: &[&str],
    names: &'static [&'static str],
    generator: &mut SchemaGenerator,
) -> Schema {
    let price = generator.subschema_for::<Price>();
    let kinds = TokenKind::ALL.map(|kind| (kind.name(), kind.description(), price.clone()));
    let own = names.iter().map(|name| {
        let (description, schema) = member(name, generator);
        (*name, description, schema)
    });
    object(description, required, own.chain(kinds).collect::<Vec<_>>())
}

impl JsonSchema for RateCard {
    fn schema_name() -> Cow<'static, str> {
        "RateCard".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Card::json_schema(generator)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let about = "The rates of a model at a provider: prices of a million tokens by their kinds, and of units.";
        rates(about, &["provider", "model"], RATE, generator)
    }
}

impl JsonSchema for Table {
    fn schema_name() -> Cow<'static, str> {
        "TierRates".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let about = "The rates of a service tier; a kind of tokens that it does not name keeps its standard rate.";
        rates(about, &[], TABLE, generator)
    }
}

impl JsonSchema for ContextTier {
    fn schema_name() -> Cow<'static, str> {
        "ContextTier".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let about = "The rates of requests with more than so many input tokens, for all tokens of the request.";
        rates(about, CONTEXT_TIER, CONTEXT_TIER, generator)
    }
}

impl JsonSchema for UnitRates {
    fn schema_name() -> Cow<'static, str> {
        "UnitRates".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let units = Unit::ALL.map(Unit::name).join("|");
        let about = "Prices of one of a unit that is billed beside tokens, by its name; a variant may follow, as in `output_images:hd`.";
        let names = format!("^({units})(:[a-z0-9._:-]{{1,31}})?$");
        let mut schema = map(about, &names, generator.subschema_for::<Price>());
        schema.insert("examples".to_owned(), serde_json::json!([{ "web_searches": "0.01" }]));
        schema
    }
}

impl JsonSchema for Factors {
    fn schema_name() -> Cow<'static, str> {
        "Factors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        map("Factors by a provider's words.", "", generator.subschema_for::<Price>())
    }
}

impl JsonSchema for PlaceFactors {
    fn schema_name() -> Cow<'static, str> {
        "LocationFactors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let about = "Factors by location, or by a pattern in which `*` stands for any text.";
        map(about, "", generator.subschema_for::<Price>())
    }
}

//! Reads the data of `token_consumption`: one response of a large language model, its tokens and
//! what they cost.

use rust_decimal::Decimal;

use crate::event::call::joined;
use crate::event::identity::{Identity, identity};
use crate::event::members::Members;
use crate::event::tokens::Tokens;
use crate::event::units::Units;
use crate::money;

const ATTRIBUTIONS: [&str; 4] = ["trace", "inferred", "result", "none"];
const USAGE_SOURCES: [&str; 4] = ["body", "response_headers", "envoy_metadata", "mcp_result"];
const COMPLETENESS: [&str; 4] = ["COMPLETE", "PARTIAL", "FAILED", "MISSING"];
const UNPRICED_REASONS: [&str; 8] = [
    "no_rate",
    "no_rate_for_kind",
    "no_rate_for_tier",
    "no_rate_for_modifier",
    "no_rate_for_unit",
    "no_reported_cost",
    "unknown_usage",
    "money_overflow",
];

/// One generation, as far as the ledger has columns for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Whose it is.
    pub identity: Identity,
    /// Unique with the event's source.
    pub generation_id: String,
    /// The id of the generation whose event, with those of its further runs, this one takes the
    /// place of.
    pub supersedes: Option<String>,
    /// The `call_id` and the tool of the call that it was made for; `None` if it belongs to its
    /// session alone.
    pub call: Option<(String, String)>,
    /// How the filter found the call: `trace`, `inferred`, `result` or `none`.
    pub attribution: &'static str,
    /// Who runs the model, such as `openai`.
    pub provider: String,
    /// The model, as answered.
    pub model: String,
    /// `standard`, or the provider's own word, such as `priority`.
    pub service_tier: String,
    /// `COMPLETE`, `PARTIAL`, `FAILED` or `MISSING`.
    pub completeness: &'static str,
    /// True if the filter estimated token counts that the provider did not report.
    pub estimated: bool,
    /// Its tokens.
    pub tokens: Tokens,
    /// What it used beside tokens.
    pub units: Units,
    /// True if it used something beside tokens of which the rate card has no price.
    pub has_unpriced_units: bool,
    /// True if its counts contradict each other.
    pub is_inconsistent: bool,
    /// What the provider itself says that it cost, in US dollars.
    pub reported_cost: Option<Decimal>,
    /// What it cost the operator.
    pub rate: Rated,
    /// What the customer is charged for its tokens, in `currency`.
    pub price: Decimal,
    /// ISO 4217.
    pub currency: String,
}

/// What a generation cost the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rated {
    /// The cost is known.
    Priced {
        /// In the currency of the generation.
        cost: Decimal,
        /// The version of the rate card that gave the rates.
        rate_card: String,
    },
    /// The cost is not known.
    Unpriced {
        /// One of [`UNPRICED_REASONS`].
        reason: &'static str,
    },
}

impl Generation {
    /// True if its tokens are unknown, and what it used beside them is not all that there is.
    pub fn is_unknown(&self) -> bool {
        is_unknown(&self.tokens, &self.units, self.completeness)
    }
}

fn is_unknown(tokens: &Tokens, units: &Units, completeness: &str) -> bool {
    tokens.is_unknown() && (units.is_empty() || completeness != "COMPLETE")
}

impl Rated {
    /// The cost; `None` if it is not known.
    pub fn cost(&self) -> Option<Decimal> {
        match self {
            Rated::Priced { cost, .. } => Some(*cost),
            Rated::Unpriced { .. } => None,
        }
    }
}

/// Reads one generation; an error begins with the path of the member.
pub(crate) fn generation(data: &Members<'_>) -> Result<Generation, String> {
    joined(data)?;
    let identity = identity(data)?;
    data.exactly("metric_id", "ai_tokens")?;
    data.one_of("usage_source", &USAGE_SOURCES)?;
    data.count("http_status")?;
    data.count("duration_ms")?;
    data.flag("streamed")?;
    for member in ["model_requested", "purpose", "location", "rate_card_age"] {
        if data.has(member) {
            data.name(member)?;
        }
    }
    if data.has("modifiers") {
        let modifiers = data.members("modifiers")?;
        for modifier in modifiers.object.keys() {
            modifiers.name(modifier)?;
        }
    }
    let tokens = Tokens::read(&data.members("tokens")?)?;
    let units = data.optional("units", Members::members)?;
    let units = units.map(|units| Units::read(&units)).transpose()?.unwrap_or_default();
    let completeness = data.one_of("completeness", &COMPLETENESS)?;
    if data.flag("priced")?
        && is_unknown(&tokens, &units, completeness)
        && data.text("rate_card")? != "reported"
    {
        let expected = "false when neither input nor output is known, nor units alone are billed";
        return Err(data.wrong("priced", expected));
    }
    let is_inconsistent = data.optional("inconsistent", Members::flag)?.unwrap_or(false);
    let unpriced_units = data.optional("unpriced_units", Members::names)?;
    let has_unpriced_units = unpriced_units.is_some_and(|names| !names.is_empty());
    let reported_cost = data.optional("reported_cost", Members::money)?;
    let quantity = tokens.input.unwrap_or(0).checked_add(tokens.output.unwrap_or(0));
    if Some(data.count("quantity")?) != quantity {
        return Err(data.wrong("quantity", "the sum of tokens.input and tokens.output"));
    }
    let attribution = data.one_of("attribution", &ATTRIBUTIONS)?;
    let call = if attribution == "none" {
        for member in ["call_id", "tool_name"] {
            if data.has(member) {
                return Err(data.wrong(member, "absent when attribution is none"));
            }
        }
        None
    } else {
        Some((data.name("call_id")?, data.text("tool_name")?))
    };
    Ok(Generation {
        identity,
        generation_id: data.name("generation_id")?,
        supersedes: data.has("supersedes").then(|| data.name("supersedes")).transpose()?,
        call,
        attribution,
        provider: data.name("provider")?,
        model: data.name("model")?,
        service_tier: data.name("service_tier")?,
        completeness,
        estimated: data.flag("estimated")?,
        tokens,
        units,
        has_unpriced_units,
        is_inconsistent,
        reported_cost,
        rate: rate(data)?,
        price: data.money("price")?,
        currency: data.currency("currency")?,
    })
}

fn rate(data: &Members<'_>) -> Result<Rated, String> {
    let mut sum = Decimal::ZERO;
    let lines = data.list("cost_lines")?;
    for line in &lines {
        match line.name("kind")?.as_str() {
            "reported_cost" => {}
            _ if line.has("quantity") => {
                line.money("quantity")?;
                line.money("rate")?;
            }
            _ => {
                line.count("tokens")?;
                line.money("rate_per_million")?;
            }
        }
        let cost = line.money("cost")?;
        sum = money::add(sum, cost)
            .map_err(|_| line.wrong("cost", "small enough to be added to the lines before it"))?;
    }
    if data.flag("priced")? {
        if data.has("unpriced_reason") {
            return Err(data.wrong("unpriced_reason", "absent when priced is true"));
        }
        let cost = data.money("total_provider_cost")?;
        if cost != sum {
            let expected = format!("the sum of the cost lines, {sum}");
            return Err(data.wrong("total_provider_cost", &expected));
        }
        return Ok(Rated::Priced { cost, rate_card: data.name("rate_card")? });
    }
    if !lines.is_empty() {
        return Err(data.wrong("cost_lines", "[] when priced is false"));
    }
    // Of an unknown cost nothing may be claimed, not even that it is zero.
    if !data.get("total_provider_cost")?.is_null() {
        return Err(data.wrong("total_provider_cost", "null when priced is false"));
    }
    Ok(Rated::Unpriced { reason: data.one_of("unpriced_reason", &UNPRICED_REASONS)? })
}

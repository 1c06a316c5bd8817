//! Reads the data of `token_consumption`: one response of a large language model, its tokens and
//! what they cost. Like `mod.rs` it is written from `filter/EVENTS.md` alone.

use rust_decimal::Decimal;

use crate::event::identity::{Identity, identity};
use crate::event::members::Members;
use crate::money;

/// How a generation came to its tool call; `none`: it belongs to its session alone.
const ATTRIBUTIONS: [&str; 4] = ["trace", "inferred", "result", "none"];
const TIERS: [&str; 4] = ["standard", "batch", "flex", "priority"];
const USAGE_SOURCES: [&str; 4] = ["body", "response_headers", "envoy_metadata", "mcp_result"];
const COMPLETENESS: [&str; 4] = ["COMPLETE", "PARTIAL", "FAILED", "MISSING"];
const UNPRICED_REASONS: [&str; 4] =
    ["no_rate", "no_rate_for_kind", "unknown_usage", "money_overflow"];

/// The kinds of tokens; `input` and `output` hold all others but the provider's own total.
const KINDS: [&str; 12] = [
    "input",
    "output",
    "reasoning",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "cache_read_audio",
    "output_audio",
    "output_image",
    "provider_total",
];

/// One generation, as far as the ledger has columns for it.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) identity: Identity,
    pub(crate) generation_id: String,
    /// The `call_id` and the tool of the call that it was made for.
    pub(crate) call: Option<(String, String)>,
    pub(crate) attribution: &'static str,
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) service_tier: &'static str,
    pub(crate) completeness: &'static str,
    pub(crate) estimated: bool,
    pub(crate) tokens: Tokens,
    pub(crate) rate: Rated,
    pub(crate) price: Decimal,
    pub(crate) currency: String,
}

/// Token counts; `None` is unknown, which is not zero.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) input: Option<i64>,
    pub(crate) output: Option<i64>,
    pub(crate) reasoning: Option<i64>,
    pub(crate) cache_read: Option<i64>,
    /// Of all durations.
    pub(crate) cache_write: Option<i64>,
}

impl Tokens {
    pub(crate) fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }
}

/// What the generation cost the operator.
#[derive(Debug)]
pub(crate) enum Rated {
    Priced { cost: Decimal, rate_card: String },
    Unpriced { reason: &'static str },
}

impl Rated {
    /// The cost; `None` where it is not known.
    pub(crate) fn cost(&self) -> Option<Decimal> {
        match self {
            Rated::Priced { cost, .. } => Some(*cost),
            Rated::Unpriced { .. } => None,
        }
    }
}

pub(crate) fn generation(data: &Members<'_>) -> Result<Generation, String> {
    let identity = identity(data)?;
    data.exactly("metric_id", "ai_tokens")?;
    data.one_of("usage_source", &USAGE_SOURCES)?;
    data.count("http_status")?;
    data.count("duration_ms")?;
    data.flag("streamed")?;
    if data.has("model_requested") {
        data.name("model_requested")?;
    }
    let tokens = tokens(data)?;
    if tokens.is_unknown() && data.flag("priced")? {
        return Err(data.wrong("priced", "false when neither input nor output is known"));
    }
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
        call,
        attribution,
        provider: data.name("provider")?,
        model: data.name("model")?,
        service_tier: data.one_of("service_tier", &TIERS)?,
        completeness: data.one_of("completeness", &COMPLETENESS)?,
        estimated: data.flag("estimated")?,
        tokens,
        rate: rate(data)?,
        price: data.money("price")?,
        currency: data.currency("currency")?,
    })
}

fn tokens(data: &Members<'_>) -> Result<Tokens, String> {
    let tokens = data.members("tokens")?;
    let count = |kind: &str| tokens.has(kind).then(|| tokens.count(kind)).transpose();
    for kind in KINDS {
        count(kind)?;
    }
    let cache_write = match (count("cache_write_5m")?, count("cache_write_1h")?) {
        (Some(short), Some(long)) => {
            let sum = short.checked_add(long);
            Some(sum.ok_or_else(|| tokens.wrong("cache_write_1h", "countable"))?)
        }
        (short, long) => short.or(long),
    };
    Ok(Tokens {
        input: count("input")?,
        output: count("output")?,
        reasoning: count("reasoning")?,
        cache_read: count("cache_read")?,
        cache_write,
    })
}

fn rate(data: &Members<'_>) -> Result<Rated, String> {
    let mut sum = Decimal::ZERO;
    let lines = data.list("cost_lines")?;
    for line in &lines {
        line.name("kind")?;
        line.count("tokens")?;
        line.money("rate_per_million")?;
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

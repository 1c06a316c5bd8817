//! `agent-meter prices explain`: which rate of which card applies to a model, why, and what an
//! example costs.

use std::collections::BTreeSet;
use std::fmt;

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::domain::price_factors::PriceFactors;
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::units::{UnitName, Units};
use agent_meter_core::domain::usage::Usage;
use agent_meter_core::pricing::card_age::CardAge;
use agent_meter_core::pricing::rate_card::{Found, Lookup, lookup, price_consumed};
use agent_meter_core::pricing::{Circumstances, Consumed, Priced, RateCard};
use agent_meter_core::protocol::llm::provider::Provider;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The model's name.
    pub model: String,
    /// The seller; without one, every seller of the cards that has a rate.
    pub provider: Option<Seller>,
    /// When it runs, in milliseconds since 1970.
    pub at_millis: u64,
    /// What moves the price.
    pub factors: PriceFactors,
    /// The tokens of the example.
    pub usage: Usage,
    /// The units of the example.
    pub units: Vec<(UnitName, Decimal)>,
}

/// The answer for one seller.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The seller.
    pub provider: String,
    /// The names that were tried, in this order.
    pub names_tried: Vec<String>,
    /// The rate that applies; none if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Applied>,
    /// What the example costs; none if it has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    /// Why the example has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpriced_reason: Option<String>,
    /// The parts of the cost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<ExampleLine>,
    /// Units of the example without a price.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unpriced_units: Vec<String>,
    /// The context tier in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_input_tokens: Option<u64>,
}

/// A rate that applies.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// The version of its card.
    pub rate_card: String,
    /// The price list that the card was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How old its prices are.
    pub rate_card_age: CardAge,
    /// The place in the card.
    pub place: String,
    /// The name or pattern that fits.
    pub name: String,
    /// How: `exact name` or `pattern`.
    pub fit: &'static str,
    /// Whose rate it is.
    pub seller: &'static str,
    /// The rate, as the card has it.
    pub rate: Value,
}

/// A part of the example's cost.
#[derive(Clone, Debug, Serialize)]
pub struct ExampleLine {
    /// The kind of tokens, or the unit.
    pub kind: String,
    /// How many.
    pub quantity: String,
    /// Of a million tokens, or of one unit.
    pub rate: String,
    /// The cost.
    pub cost: String,
}

/// Answers by these cards, in their order, each as it stands in the configuration.
///
/// # Errors
///
/// Names what is no rate card, and a model without a seller.
pub fn explain(cards: &[Value], question: &Question) -> anyhow::Result<Vec<Explanation>> {
    let mut read = Vec::new();
    for card in cards {
        let parsed: RateCard = serde_json::from_value(card.clone())?;
        parsed.validate("").map_err(|refused| anyhow::anyhow!("{refused}"))?;
        read.push(parsed);
    }
    let at = Circumstances::at(Timestamp(question.at_millis), question.factors);
    let seek =
        |seller: Seller| lookup(&read.iter(), Provider::named(seller), &question.model, "", at);
    let sellers: Vec<Seller> = match question.provider {
        Some(seller) => vec![seller],
        None => {
            let rates = read.iter().flat_map(|card| card.rates());
            let named: BTreeSet<Seller> = rates.filter_map(|rate| rate.provider()).collect();
            let has_rate = |seller: &Seller| {
                let rate = seek(*seller).found.and_then(|found| found.rate());
                rate.is_some_and(|rate| rate.provider() == Some(*seller))
            };
            named.into_iter().filter(has_rate).collect()
        }
    };
    ensure!(
        !sellers.is_empty(),
        "no seller of the card has a rate for {:?}; --provider tells how it is sought",
        question.model
    );
    let explained = sellers.into_iter().map(|seller| {
        let sought = seek(seller);
        answer(cards, &read, seller, sought, question).context("a rate")
    });
    explained.collect()
}

fn answer(
    cards: &[Value],
    read: &[RateCard],
    seller: Seller,
    sought: Lookup<'_>,
    question: &Question,
) -> anyhow::Result<Explanation> {
    let Lookup { tried, found } = sought;
    let mut units = Units::default();
    for (name, quantity) in &question.units {
        units.raise(*name, *quantity);
    }
    let consumed = Consumed { usage: &question.usage, units: Some(&units) };
    let at = Timestamp(question.at_millis);
    let circumstances = Circumstances::at(at, question.factors);
    let names = [question.model.as_str(), ""];
    let provider = Provider::named(seller);
    let priced = price_consumed(&read.iter(), provider, names, circumstances, consumed);
    let priced = priced.map(|(priced, _)| priced);
    let rate = match found {
        Some(found) => Some(applied(cards, read, found, at)?),
        None => None,
    };
    let (priced, unpriced_reason) = match priced {
        Ok(priced) => (Some(priced), None),
        Err(reason) => (None, Some(format!("{}: {reason}", reason.name()))),
    };
    let lines = priced.iter().flat_map(lines).collect();
    let told = priced.as_ref();
    Ok(Explanation {
        provider: seller.name().to_owned(),
        names_tried: tried,
        rate,
        total: told.map(|priced| priced.total.to_string()),
        unpriced_reason,
        lines,
        unpriced_units: told
            .into_iter()
            .flat_map(|priced| &priced.unpriced_units)
            .map(ToString::to_string)
            .collect(),
        above_input_tokens: told.and_then(|priced| priced.above_input_tokens),
    })
}

fn lines(priced: &Priced) -> Vec<ExampleLine> {
    let of_tokens = priced.lines.iter().map(|line| ExampleLine {
        kind: line.kind.name().to_owned(),
        quantity: line.tokens.to_string(),
        rate: line.rate.to_string(),
        cost: line.cost.to_string(),
    });
    let of_units = priced.unit_lines.iter().map(|line| ExampleLine {
        kind: line.name.to_string(),
        quantity: line.quantity.to_string(),
        rate: line.rate.to_string(),
        cost: line.cost.to_string(),
    });
    of_tokens.chain(of_units).collect()
}

fn applied(
    cards: &[Value],
    read: &[RateCard],
    found: Found<'_>,
    at: Timestamp,
) -> anyhow::Result<Applied> {
    let card = read.iter().position(|card| std::ptr::eq(card, found.card));
    let card = cards.get(card.context("expected the card")?).context("expected the card")?;
    let place = found.place();
    let rate = card.get("rates").and_then(|rates| rates.get(place));
    let rate = rate.context("expected the rate")?;
    let seller = match rate.get("provider").and_then(Value::as_str) {
        Some("*") => "any provider",
        Some("openai_compatible") => "all that speak as OpenAI does",
        _ => "the provider's own",
    };
    let is_pattern = found.name().contains('*');
    Ok(Applied {
        rate_card: found.card.version().to_owned(),
        source: found.card.source().map(str::to_owned),
        rate_card_age: found.card.age(at),
        place: format!("rates[{place}]"),
        name: found.name().to_owned(),
        fit: if is_pattern { "pattern" } else { "exact name" },
        seller,
        rate: rate.clone(),
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "provider      {}", self.provider)?;
        writeln!(f, "names tried   {}", self.names_tried.join(", "))?;
        let Some(applied) = &self.rate else {
            writeln!(f, "rate          none")?;
            let reason = self.unpriced_reason.as_deref().unwrap_or_default();
            return write!(f, "no price      {reason}");
        };
        let Applied { rate_card, source, rate_card_age, place, name, fit, seller, rate } = applied;
        writeln!(f, "rate          {place} of card {rate_card:?}: {fit} {name:?}, {seller}")?;
        let source = source.as_deref().map(|source| format!(", from {source}"));
        writeln!(f, "prices        {}{}", rate_card_age.name(), source.unwrap_or_default())?;
        for (member, value) in rate.as_object().into_iter().flatten() {
            if !matches!(member.as_str(), "provider" | "model" | "aliases") {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                writeln!(f, "              {member}: {value}")?;
            }
        }
        if let Some(above) = self.above_input_tokens {
            writeln!(f, "context tier  above {above} input tokens")?;
        }
        for ExampleLine { kind, quantity, rate, cost } in &self.lines {
            writeln!(f, "example       {quantity} {kind} at {rate}: {cost}")?;
        }
        for unit in &self.unpriced_units {
            writeln!(f, "no price of   {unit}")?;
        }
        match (&self.total, &self.unpriced_reason) {
            (Some(total), _) => write!(f, "total         {total}"),
            (None, reason) => {
                write!(f, "no price      {}", reason.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_meter_core::domain::price_factors::ServiceTier;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_names_the_rate_and_what_leads_to_it() {
        let card = json!({ "version": "1", "date": "1970-01-01", "source": "a list", "rates": [
            { "provider": "openai", "model": "gpt-4o*", "input": "2.5", "output": "10" },
            { "provider": "vertex", "model": "gemini-2.5-pro", "input": "1.25", "output": "10",
              "context_tiers": [{ "above_input_tokens": 200_000, "input": "2.5", "output": "15" }],
              "service_tiers": { "batch": { "input": "0.6" } }, "units": { "web_searches": "0.014" },
              "multipliers": { "location": { "europe-*": "1.1" } } },
        ] });
        let ask = |model: &str, provider: Option<&str>, change: fn(&mut Question)| {
            let mut question = Question {
                model: model.to_owned(),
                provider: provider.and_then(Seller::new),
                usage: Usage { input: Some(1_000_000), output: Some(0), ..Usage::default() },
                ..Question::default()
            };
            change(&mut question);
            let answers = explain(std::slice::from_ref(&card), &question);
            answers.map(|answers| answers.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let found = ask("publishers/google/models/gemini-2.5-pro", None, |question| {
            question.units.push((UnitName::parse("web_searches").expect("a unit"), 2.into()));
        });
        let [found] = &found.expect("an answer")[..] else { panic!("expected one answer") };
        for line in [
            "provider      vertex",
            "names tried   publishers/google/models/gemini-2.5-pro, gemini-2.5-pro",
            "rate          rates[1] of card \"1\": exact name \"gemini-2.5-pro\", the provider's own",
            "prices        within_7_days, from a list",
            "context tier  above 200000 input tokens",
            "example       1000000 input at 2.5: 2.5",
            "example       2 web_searches at 0.014: 0.028",
            "total         2.528",
        ] {
            assert!(found.lines().any(|found| found == line), "{line}\n{found}");
        }
        let found = ask("gpt-4o-mini", Some("openai"), |question| {
            question.factors.service_tier = ServiceTier::Priority;
        });
        let found = found.expect("an answer").join("\n");
        assert!(found.contains("pattern \"gpt-4o*\", the provider's own"), "{found}");
        assert!(found.contains("no price      no_rate_for_tier"), "{found}");
        let found = ask("gpt-9", Some("openai"), |_| ()).expect("an answer").join("\n");
        assert!(found.contains("rate          none"), "{found}");
        assert!(ask("gpt-9", None, |_| ()).is_err());
    }
}

//! `agent-meter prices check`: what changed between a rate card and a newer price list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, bail};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;

/// How a price changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the newer one has it.
    Added,
    /// Only the older one has it.
    Removed,
    /// The newer one is higher.
    Dearer,
    /// The newer one is lower.
    Cheaper,
}

/// A price that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// The seller.
    pub provider: String,
    /// A model's name or pattern, and when its rate applies if that is not always.
    pub model: String,
    /// The price's place in the rate, such as `service_tiers.batch.input`; none if it is the whole
    /// model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How.
    pub change: Change,
    /// The older price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Decimal>,
    /// The newer price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Decimal>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Dearer => "dearer",
            Change::Cheaper => "cheaper",
        };
        write!(f, "{change:<8} {} {}", self.provider, self.model)?;
        if let Some(kind) = &self.kind {
            write!(f, " {kind}")?;
        }
        match (self.before, self.after) {
            (Some(before), Some(after)) => write!(f, ": {before} -> {after}"),
            (Some(price), None) | (None, Some(price)) => write!(f, ": {price}"),
            (None, None) => Ok(()),
        }
    }
}

type Prices = BTreeMap<String, Decimal>;

/// What differs between two cards in the form of the configuration, sorted; of the newer one, only
/// the sellers of the older one count.
///
/// # Errors
///
/// Names what is no rate card.
pub fn differences(older: &Value, newer: &Value) -> anyhow::Result<Vec<Difference>> {
    let older = models(older).context("the card")?;
    let newer = models(newer).context("the list")?;
    let sellers: BTreeSet<&String> = older.keys().map(|(seller, _)| seller).collect();
    let mut found = Vec::new();
    let all: BTreeSet<&(String, String)> = older.keys().chain(newer.keys()).collect();
    for key in all.into_iter().filter(|(seller, _)| sellers.contains(seller)) {
        let (provider, model) = key.clone();
        let difference = |kind: Option<&String>, change, before, after| Difference {
            provider: provider.clone(),
            model: model.clone(),
            kind: kind.cloned(),
            change,
            before,
            after,
        };
        match (older.get(key), newer.get(key)) {
            (Some(before), Some(after)) => {
                let kinds: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for kind in kinds {
                    let (before, after) = (before.get(kind).copied(), after.get(kind).copied());
                    let change = match (before, after) {
                        (Some(before), Some(after)) if before == after => continue,
                        (Some(before), Some(after)) if before < after => Change::Dearer,
                        (Some(_), Some(_)) => Change::Cheaper,
                        (None, _) => Change::Added,
                        (_, None) => Change::Removed,
                    };
                    found.push(difference(Some(kind), change, before, after));
                }
            }
            (None, _) => found.push(difference(None, Change::Added, None, None)),
            (_, None) => found.push(difference(None, Change::Removed, None, None)),
        }
    }
    Ok(found)
}

/// The prices of a card by seller and model.
fn models(card: &Value) -> anyhow::Result<BTreeMap<(String, String), Prices>> {
    let rates = card.get("rates").and_then(Value::as_array).context("expected `rates`")?;
    let mut found: BTreeMap<(String, String), Prices> = BTreeMap::new();
    for rate in rates {
        let members = rate.as_object().context("expected a rate, found no object")?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let seller = text("provider").context("expected `provider`")?;
        let mut period = String::new();
        for name in ["effective_from", "effective_to", "when"] {
            if let Some(value) = members.get(name) {
                period += &format!(" {name}={}", plain(value));
            }
        }
        let mut prices = Prices::new();
        for (name, value) in members {
            let is_price = !matches!(
                name.as_str(),
                "provider" | "model" | "aliases" | "effective_from" | "effective_to" | "when"
            );
            if is_price {
                flatten(name, value, &mut prices)?;
            }
        }
        let aliases = members.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let model = text("model").context("expected `model`")?;
        for name in std::iter::once(model).chain(aliases.filter_map(Value::as_str)) {
            let key = (seller.to_owned(), format!("{name}{period}"));
            found.entry(key).or_insert_with(|| prices.clone());
        }
    }
    Ok(found)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Takes each price of a value under its path.
fn flatten(path: &str, value: &Value, prices: &mut Prices) -> anyhow::Result<()> {
    match value {
        Value::String(text) => {
            let price = text.parse().with_context(|| format!("{path}: expected a price"))?;
            prices.insert(path.to_owned(), price);
        }
        Value::Object(members) => {
            for (name, value) in members {
                flatten(&format!("{path}.{name}"), value, prices)?;
            }
        }
        Value::Array(tiers) => {
            for tier in tiers {
                let mut members = tier.as_object().cloned().unwrap_or_default();
                let above = members.remove("above_input_tokens").unwrap_or_default();
                flatten(&format!("{path}.{above}"), &Value::Object(members), prices)?;
            }
        }
        _ => bail!("{path}: expected a price, found {value}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_price_that_changed_is_named() {
        let older = json!({ "version": "1", "rates": [
            { "provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"],
              "input": "2.5", "output": "10", "units": { "web_searches": "0.01" },
              "service_tiers": { "batch": { "input": "1.25" } },
              "context_tiers": [{ "above_input_tokens": 200_000, "input": "5" }] },
            { "provider": "openai", "model": "gone", "input": "1" },
            { "provider": "openai", "model": "by-day", "effective_from": "2026-01-01", "input": "1" },
        ] });
        let newer = json!({ "version": "2", "rates": [
            { "provider": "openai", "model": "gpt-4o", "input": "2.50", "output": "12",
              "cache_read": "1.25", "service_tiers": { "batch": { "input": "1" } },
              "context_tiers": [{ "above_input_tokens": 200_000, "input": "6" }] },
            { "provider": "openai", "model": "new", "input": "1" },
            { "provider": "openai", "model": "by-day", "effective_from": "2026-01-01", "input": "1" },
            { "provider": "groq", "model": "not of the card", "input": "1" },
        ] });
        let found = differences(&older, &newer).expect("cards");
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "removed  openai gone",
                "added    openai gpt-4o cache_read: 1.25",
                "dearer   openai gpt-4o context_tiers.200000.input: 5 -> 6",
                "dearer   openai gpt-4o output: 10 -> 12",
                "cheaper  openai gpt-4o service_tiers.batch.input: 1.25 -> 1",
                "removed  openai gpt-4o units.web_searches: 0.01",
                "removed  openai gpt-4o-2024-08-06",
                "added    openai new",
            ]
        );
        assert_eq!(differences(&older, &older).expect("cards"), []);
    }

    #[test]
    fn what_is_no_card_is_refused() {
        for card in [
            json!({}),
            json!({ "rates": [1] }),
            json!({ "rates": [{ "model": "m", "input": "1" }] }),
            json!({ "rates": [{ "provider": "p", "input": "1" }] }),
            json!({ "rates": [{ "provider": "p", "model": "m", "input": 1 }] }),
            json!({ "rates": [{ "provider": "p", "model": "m", "input": "dear" }] }),
        ] {
            assert!(differences(&card, &card).is_err(), "{card}");
        }
    }
}

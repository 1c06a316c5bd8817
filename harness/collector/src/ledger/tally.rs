//! Counts what the collector received since it started, as Prometheus metrics.
//! Only the currency is a label from traffic, so that traffic cannot make metrics without end.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use rust_decimal::Decimal;

use crate::event::Body;
use crate::event::generation::Rated;
use crate::money;

/// Counts and amounts by the values of their labels.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// By outcome and type.
    events: BTreeMap<(&'static str, &'static str), u64>,
    /// By whether the cost is known.
    generations: BTreeMap<&'static str, u64>,
    /// By kind.
    tokens: BTreeMap<&'static str, u64>,
    /// By currency, and `tool` or `none`: whether it belongs to a call.
    provider_cost: BTreeMap<(String, &'static str), Decimal>,
    /// By currency, and `calls` or `tokens`.
    revenue: BTreeMap<(String, &'static str), Decimal>,
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: &'static str, event_type: &'static str) {
        *self.events.entry((outcome, event_type)).or_default() += 1;
    }

    /// Counts an event that the ledger just stored.
    pub(crate) fn accept(&mut self, body: &Body) {
        match body {
            Body::Call(call) => add(&mut self.revenue, (&call.currency, "calls"), call.price),
            Body::Generation(generation) => {
                let price = match &generation.rate {
                    Rated::Priced { cost, .. } => {
                        let attributed = if generation.call.is_some() { "tool" } else { "none" };
                        let key = (generation.currency.as_str(), attributed);
                        add(&mut self.provider_cost, key, *cost);
                        "known"
                    }
                    Rated::Unpriced { .. } if generation.is_unknown() => "unknown_usage",
                    Rated::Unpriced { .. } => "no_rate",
                };
                *self.generations.entry(price).or_default() += 1;
                for (kind, count) in generation.tokens.known().counts() {
                    let sum = self.tokens.entry(kind).or_default();
                    *sum = sum.saturating_add(count);
                }
                add(&mut self.revenue, (&generation.currency, "tokens"), generation.price);
            }
            // Their totals repeat those of the calls and generations.
            Body::GuardTotals(_) | Body::LevelChange(_) => {}
            Body::Session(_) | Body::Unknown => {}
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        for (key, count) in other.events {
            *self.events.entry(key).or_default() += count;
        }
        for (key, count) in other.generations {
            *self.generations.entry(key).or_default() += count;
        }
        for (key, count) in other.tokens {
            let sum = self.tokens.entry(key).or_default();
            *sum = sum.saturating_add(count);
        }
        for ((currency, label), amount) in other.provider_cost {
            add(&mut self.provider_cost, (&currency, label), amount);
        }
        for ((currency, label), amount) in other.revenue {
            add(&mut self.revenue, (&currency, label), amount);
        }
    }
}

/// A sum that no longer fits starts again, which Prometheus takes for a restart.
fn add(
    sums: &mut BTreeMap<(String, &'static str), Decimal>,
    (currency, label): (&str, &'static str),
    amount: Decimal,
) {
    let sum = sums.entry((currency.to_owned(), label)).or_default();
    *sum = money::add(*sum, amount).unwrap_or(amount);
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help = "Events received since the collector started, by what became of them.";
        let events = self.events.iter().map(|((outcome, kind), count)| {
            (format!("outcome=\"{outcome}\",type=\"{kind}\""), count)
        });
        family(f, "events", help, events)?;
        let help =
            "Generations received since the collector started, by whether their cost is known.";
        let generations =
            self.generations.iter().map(|(cost, count)| (format!("cost=\"{cost}\""), count));
        family(f, "generations", help, generations)?;
        let help =
            "Tokens of the generations; all kinds but input and output are part of these two.";
        let tokens = self.tokens.iter().map(|(kind, count)| (format!("kind=\"{kind}\""), count));
        family(f, "tokens", help, tokens)?;
        let help = "What the generations cost the operator, by whether it belongs to a tool call.";
        let cost = self.provider_cost.iter().map(|((currency, attributed), amount)| {
            (format!("currency=\"{currency}\",attributed_to=\"{attributed}\""), amount)
        });
        family(f, "provider_cost", help, cost)?;
        let help = "What customers are charged, by what for.";
        let revenue = self.revenue.iter().map(|((currency, charged), amount)| {
            (format!("currency=\"{currency}\",charged_for=\"{charged}\""), amount)
        });
        family(f, "revenue", help, revenue)
    }
}

fn family(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (String, impl Display)>,
) -> fmt::Result {
    let name = format!("agent_meter_collector_{name}_total");
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} counter")?;
    for (labels, value) in samples {
        writeln!(f, "{name}{{{labels}}} {value}")?;
    }
    Ok(())
}

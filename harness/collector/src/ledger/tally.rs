//! Counts what the collector received since it started, as Prometheus metrics.
//! Only the currency is a label from traffic, so that traffic cannot make metrics without end.
//!
//! All but the events are counted as the ledger's sums are: a generation that another supersedes
//! counts no more. A counter must not fall, so what was counted of it is deducted from what comes
//! next, which is mostly the generation that supersedes it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use rust_decimal::Decimal;

use crate::event::generation::Generation;
use crate::event::tokens::TokenTotals;
use crate::event::{self, Body, Event};
use crate::money;
use crate::sql::{self, Row};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// By outcome and type.
    Events,
    /// By whether the cost is known.
    Generations,
    /// By kind.
    Tokens,
    /// By currency, and `tool` or `none`: whether it belongs to a call.
    ProviderCost,
    /// By currency, and `calls` or `tokens`.
    Revenue,
}

impl Family {
    /// Each with its name and what it says of itself.
    const ALL: [(Self, &str, &str); 5] = [
        (
            Self::Events,
            "events",
            "Events received since the collector started, by what became of them.",
        ),
        (
            Self::Generations,
            "generations",
            "Generations received since the collector started, without superseded ones, by whether their cost is known.",
        ),
        (
            Self::Tokens,
            "tokens",
            "Tokens of these generations; all kinds but input and output are part of these two.",
        ),
        (
            Self::ProviderCost,
            "provider_cost",
            "What these generations cost the operator, by whether it belongs to a tool call.",
        ),
        (
            Self::Revenue,
            "revenue",
            "What customers are charged for calls and these generations, by what for.",
        ),
    ];
}

/// The labels of a sum. Their order is the one in which they are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Events { outcome: &'static str, event_type: &'static str },
    Generations { cost: &'static str },
    Tokens { kind: &'static str },
    ProviderCost { currency: String, attributed_to: &'static str },
    Revenue { currency: String, charged_for: &'static str },
}

impl Key {
    fn family(&self) -> Family {
        match self {
            Key::Events { .. } => Family::Events,
            Key::Generations { .. } => Family::Generations,
            Key::Tokens { .. } => Family::Tokens,
            Key::ProviderCost { .. } => Family::ProviderCost,
            Key::Revenue { .. } => Family::Revenue,
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Events { outcome, event_type } => {
                write!(f, "outcome=\"{outcome}\",type=\"{event_type}\"")
            }
            Key::Generations { cost } => write!(f, "cost=\"{cost}\""),
            Key::Tokens { kind } => write!(f, "kind=\"{kind}\""),
            Key::ProviderCost { currency, attributed_to } => {
                write!(f, "currency=\"{currency}\",attributed_to=\"{attributed_to}\"")
            }
            Key::Revenue { currency, charged_for } => {
                write!(f, "currency=\"{currency}\",charged_for=\"{charged_for}\"")
            }
        }
    }
}

/// Counts and amounts, by their labels.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally(BTreeMap<Key, Sum>);

/// What became of an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is stored, and these generations count no more by it.
    Accepted { superseded: Vec<Counted> },
    /// It is kept apart.
    Quarantined,
    /// It was stored before.
    Duplicate,
    /// It is not stored.
    Rejected,
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Quarantined => "quarantined",
            Outcome::Duplicate => "duplicate",
            Outcome::Rejected => "rejected",
        }
    }
}

/// A sum that never falls.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    total: Decimal,
    /// Of it counts no more: deducted from what is added next.
    owed: Decimal,
}

impl Sum {
    /// A sum that no longer fits starts again, which Prometheus takes for a restart.
    fn add(&mut self, amount: Decimal) {
        let deducted = self.owed.min(amount);
        self.owed = money::subtract(self.owed, deducted).unwrap_or_default();
        let amount = money::subtract(amount, deducted).unwrap_or_default();
        self.total = money::add(self.total, amount).unwrap_or(amount);
    }

    fn take_back(&mut self, amount: Decimal) {
        self.owed = money::add(self.owed, amount).unwrap_or(self.owed);
    }
}

/// What is counted of a generation.
#[derive(Debug)]
pub(crate) struct Counted {
    currency: String,
    is_of_call: bool,
    is_priced: bool,
    is_unknown: bool,
    tokens: TokenTotals,
    cost: Decimal,
    price: Decimal,
}

impl Counted {
    fn of(generation: &Generation) -> Self {
        let cost = generation.rate.cost();
        Self {
            currency: generation.currency.clone(),
            is_of_call: generation.call.is_some(),
            is_priced: cost.is_some(),
            is_unknown: generation.is_unknown(),
            tokens: generation.tokens.known(),
            cost: cost.unwrap_or_default(),
            price: generation.price,
        }
    }

    /// How many columns [`Counted::columns`] are.
    pub(crate) const WIDTH: usize = 6 + TokenTotals::KINDS.len();

    /// The columns of a query of generations, grouped by position, to be read with
    /// [`Counted::of_row`].
    pub(crate) fn columns() -> String {
        let tokens = TokenTotals::columns();
        format!(
            "currency, call_id IS NOT NULL, provider_cost IS NOT NULL, is_unknown,
             coalesce(provider_cost, '0'), price, {tokens}"
        )
    }

    pub(crate) fn of_row(row: &Row<'_>) -> sql::Result<Self> {
        Ok(Self {
            currency: row.get(0)?,
            is_of_call: row.get(1)?,
            is_priced: row.get(2)?,
            is_unknown: row.get(3)?,
            cost: row.get(4)?,
            price: row.get(5)?,
            tokens: TokenTotals::of_row(row)?,
        })
    }

    /// Each sum that it is in, with what it adds to it.
    fn amounts(&self) -> Vec<(Key, Decimal)> {
        let cost = match (self.is_priced, self.is_unknown) {
            (true, _) => "known",
            (false, true) => "unknown_usage",
            (false, false) => "no_rate",
        };
        let mut amounts = vec![(Key::Generations { cost }, Decimal::ONE)];
        for (kind, count) in self.tokens.counts() {
            amounts.push((Key::Tokens { kind }, count.into()));
        }
        if self.is_priced {
            let attributed_to = if self.is_of_call { "tool" } else { "none" };
            let currency = self.currency.clone();
            amounts.push((Key::ProviderCost { currency, attributed_to }, self.cost));
        }
        amounts.push((revenue(&self.currency, "tokens"), self.price));
        amounts
    }
}

fn revenue(currency: &str, charged_for: &'static str) -> Key {
    Key::Revenue { currency: currency.to_owned(), charged_for }
}

impl Tally {
    /// Counts what became of an event; `None` if it could not be read. What counts no more by it is
    /// taken back.
    pub(crate) fn take(&mut self, event: Option<&Event<'_>>, outcome: &Outcome) {
        let event_type = event.map_or("invalid", |event| event::short_type(&event.event_type));
        self.sum(Key::Events { outcome: outcome.name(), event_type }).add(Decimal::ONE);
        if let (Some(event), Outcome::Accepted { superseded }) = (event, outcome) {
            self.accept(&event.body, superseded);
        }
    }

    fn accept(&mut self, body: &Body, superseded: &[Counted]) {
        for (key, amount) in superseded.iter().flat_map(Counted::amounts) {
            self.sum(key).take_back(amount);
        }
        match body {
            Body::Call(call) => self.sum(revenue(&call.currency, "calls")).add(call.price),
            Body::Generation(generation) => {
                for (key, amount) in Counted::of(generation).amounts() {
                    self.sum(key).add(amount);
                }
            }
            // Their totals repeat those of the calls and generations.
            Body::GuardTotals(_) | Body::LevelChange(_) => {}
            Body::Session(_) | Body::Heartbeat(_) | Body::Unknown => {}
            Body::Correction(_) | Body::Billed(_) | Body::TopUp(_) => {}
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        for (key, Sum { total, owed }) in other.0 {
            let sum = self.sum(key);
            sum.take_back(owed);
            sum.add(total);
        }
    }

    /// What was never rejected: without a zero before it, the first one is no increase.
    fn write_zeros(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event_type in event::short_types().chain(["other", "invalid"]) {
            let key = Key::Events { outcome: "rejected", event_type };
            if !self.0.contains_key(&key) {
                writeln!(f, "{name}{{{key}}} 0")?;
            }
        }
        Ok(())
    }

    fn sum(&mut self, key: Key) -> &mut Sum {
        self.0.entry(key).or_default()
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, name, help) in Family::ALL {
            let name = format!("agent_meter_collector_{name}_total");
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} counter")?;
            if family == Family::Events {
                self.write_zeros(&name, f)?;
            }
            for (key, Sum { total, .. }) in self.0.iter().filter(|(key, _)| key.family() == family)
            {
                writeln!(f, "{name}{{{key}}} {total}")?;
            }
        }
        Ok(())
    }
}

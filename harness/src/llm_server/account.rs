//! The endpoint's own account: the tokens that it reported, and their cost by its own constants. It
//! shares neither code nor rates with the filter, so that a test can compare the two.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

/// Tokens as a response reports them; cache and reasoning are part of input and output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Tokens that the model read.
    pub input: u64,
    /// Tokens that the model generated.
    pub output: u64,
    /// The part of `output` that is reasoning.
    pub reasoning: u64,
    /// The part of `input` that the model read from the cache.
    pub cache_read: u64,
    /// The part of `input` that the model wrote to the cache.
    pub cache_write: u64,
}

/// What the endpoint has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Requests of all kinds to a model, refused ones included.
    pub requests: u64,
    /// One entry for each provider and model, sorted.
    pub entries: Vec<Entry>,
}

/// The responses and tokens of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The provider whose API the client used.
    pub provider: &'static str,
    /// The model that answered.
    pub model: String,
    /// Responses that the endpoint began.
    pub generations: u64,
    /// Responses that reported no tokens: the client did not ask for them, or the response was cut
    /// off before.
    pub unreported: u64,
    /// The tokens that the endpoint reported.
    #[serde(flatten)]
    pub tokens: Tokens,
    /// In USD; `None` for a model without a rate.
    #[serde(serialize_with = "as_text")]
    pub cost: Option<Decimal>,
}

fn as_text<S: Serializer>(cost: &Option<Decimal>, to: S) -> Result<S::Ok, S::Error> {
    match cost {
        Some(cost) => to.collect_str(&cost.normalize()),
        None => to.serialize_none(),
    }
}

impl Account {
    /// The cost of all models that have a rate, in USD.
    pub fn cost(&self) -> Decimal {
        self.entries.iter().filter_map(|entry| entry.cost).sum::<Decimal>().normalize()
    }
}

/// USD for a million tokens: read, read from the cache, written to the cache, generated.
struct Rate {
    input: &'static str,
    cache_read: &'static str,
    cache_write: &'static str,
    output: &'static str,
}

/// Rates by provider and by the model that answers.
const RATES: [(&str, &str, Rate); 6] = [
    ("openai", "gpt-4o-2024-08-06", rate("2.5", "1.25", "2.5", "10")),
    ("openai", "gpt-4o-mini-2024-07-18", rate("0.15", "0.075", "0.15", "0.6")),
    ("anthropic", "claude-sonnet-4-20250514", rate("3", "0.3", "3.75", "15")),
    ("gemini", "gemini-2.5-flash", rate("0.3", "0.03", "0.3", "2.5")),
    ("bedrock", "anthropic.claude-sonnet-4-20250514-v1:0", rate("3", "0.3", "3.75", "15")),
    ("ollama", "llama3.2", rate("0", "0", "0", "0")),
];

const fn rate(
    input: &'static str,
    cache_read: &'static str,
    cache_write: &'static str,
    output: &'static str,
) -> Rate {
    Rate { input, cache_read, cache_write, output }
}

fn cost(provider: &str, model: &str, tokens: Tokens) -> Option<Decimal> {
    let known = RATES.iter().find(|(by, name, _)| (*by, *name) == (provider, model));
    let rate = &known?.2;
    let plain = tokens.input.checked_sub(tokens.cache_read)?.checked_sub(tokens.cache_write)?;
    let kinds = [
        (plain, rate.input),
        (tokens.cache_read, rate.cache_read),
        (tokens.cache_write, rate.cache_write),
        (tokens.output, rate.output),
    ];
    kinds.into_iter().try_fold(Decimal::ZERO, |sum, (count, rate)| {
        let rate = Decimal::from_str_exact(rate).ok()? / Decimal::from(1_000_000);
        Some(sum + Decimal::from(count) * rate)
    })
}

/// The record of requests and responses from which [`Account`] is made.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) requests: u64,
    /// The `traceparent` of the latest requests, in the order of the requests.
    pub(super) traceparents: Vec<String>,
    generations: Vec<Generation>,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The provider whose API the client used.
    pub provider: &'static str,
    /// The model that answered.
    pub model: String,
    /// The `traceparent` of its request.
    pub traceparent: Option<String>,
    /// The latest report; each report includes the earlier ones.
    pub reported: Option<Tokens>,
}

impl Generation {
    /// Its cost in USD; `None` without a report or a rate.
    pub fn cost(&self) -> Option<Decimal> {
        cost(self.provider, &self.model, self.reported?)
    }
}

impl Books {
    /// Begins a response; returns its number, which no other response has.
    pub(super) fn begin(
        &mut self,
        provider: &'static str,
        model: &str,
        traceparent: Option<String>,
    ) -> usize {
        let model = model.to_owned();
        self.generations.push(Generation { provider, model, traceparent, reported: None });
        self.generations.len() - 1
    }

    pub(super) fn report(&mut self, generation: usize, tokens: Tokens) {
        if let Some(generation) = self.generations.get_mut(generation) {
            generation.reported = Some(tokens);
        }
    }

    pub(super) fn generations(&self) -> &[Generation] {
        &self.generations
    }

    pub(super) fn account(&self) -> Account {
        let mut entries: BTreeMap<(&'static str, &str), Entry> = BTreeMap::new();
        for Generation { provider, model, reported, .. } in &self.generations {
            let entry = entries.entry((provider, model)).or_insert_with(|| Entry {
                provider,
                model: model.clone(),
                generations: 0,
                unreported: 0,
                tokens: Tokens::default(),
                cost: None,
            });
            entry.generations += 1;
            let Some(tokens) = reported else {
                entry.unreported += 1;
                continue;
            };
            let sum = &mut entry.tokens;
            sum.input += tokens.input;
            sum.output += tokens.output;
            sum.reasoning += tokens.reasoning;
            sum.cache_read += tokens.cache_read;
            sum.cache_write += tokens.cache_write;
        }
        let mut entries: Vec<Entry> = entries.into_values().collect();
        for entry in &mut entries {
            entry.cost = cost(entry.provider, &entry.model, entry.tokens);
        }
        Account { requests: self.requests, entries }
    }
}

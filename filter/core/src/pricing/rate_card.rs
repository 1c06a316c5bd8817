//! A rate card. Finds the rate of a model by exact names first, then by patterns in the card's
//! order.

use core::cmp::Reverse;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::base::invalid::{ConfigError, error};
use crate::base::limits::RATES_MAX;
use crate::base::pattern::{is_fit, is_pattern};
use crate::base::time::Timestamp;
use crate::domain::price_factors::{Modifiers, PriceFactors, ServiceTier};
use crate::domain::units::UnitName;
use crate::fact::generation::GenerationEnded;
use crate::pricing::card_age::CardAge;
use crate::pricing::circumstances::Circumstances;
use crate::pricing::cost::{Consumed, Priced, cost_of_units, cost_with};
use crate::pricing::instant::Instant;
use crate::pricing::model_name::{NAMES_MAX, names};
use crate::pricing::rate::Rate;
use crate::pricing::unit_rates::GeneralRate;
use crate::pricing::unpriced::Unpriced;
use crate::protocol::llm::provider::{Family, Provider};

/// A provider's price list, in the form of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Card")]
pub struct RateCard {
    version: Box<str>,
    source: Option<Box<str>>,
    date: Option<Timestamp>,
    currency: Box<str>,
    rates: Box<[Rate]>,
    /// Names without a `*`, sorted by name and then in the card's order.
    names: Box<[Name]>,
    /// Names with a `*`, in the card's order.
    patterns: Box<[Name]>,
}

/// A name of a rate: `at` is 0 for the model and 1 for its first alias.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Name {
    rate: u32,
    at: u32,
}

/// A provider's price list. The first card that names a model prices it.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Card {
    /// A name that is in the events of what the card prices.
    version: Box<str>,
    /// Where its prices are from, in free text.
    #[serde(default)]
    source: Option<Box<str>>,
    /// The day of which its prices are: events tell by it how old they were.
    #[serde(default)]
    date: Option<Instant>,
    /// ISO 4217 code of every rate here.
    #[serde(default = "us_dollar")]
    currency: Box<str>,
    /// The rates of models. Of those for a model whose conditions hold, the one with the most
    /// conditions goes first.
    rates: Box<[Rate]>,
}

fn us_dollar() -> Box<str> {
    "USD".into()
}

impl From<Card> for RateCard {
    fn from(card: Card) -> Self {
        let rates = &card.rates;
        let all = (0_u32..).zip(rates).flat_map(|(rate, entry)| {
            (0_u32..).zip(entry.names()).map(move |(at, text)| (Name { rate, at }, text))
        });
        let (patterns, mut names): (Vec<_>, Vec<_>) = all.partition(|(_, text)| is_pattern(text));
        // A stable sort, so that the rates of one name stay in the card's order.
        names.sort_by_key(|(_, text)| *text);
        let [names, patterns] =
            [names, patterns].map(|list| list.into_iter().map(|(name, _)| name).collect());
        let Card { version, source, date, currency, rates } = card;
        let date = date.map(|date| date.0);
        Self { version, source, date, currency, rates, names, patterns }
    }
}

impl RateCard {
    /// A free text that events carry, so that one can trace an amount to its card.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The price list that the card was made of, in free text; `None` if it does not tell.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// How old its prices are at this time.
    pub fn age(&self, now: Timestamp) -> CardAge {
        CardAge::at(self.date, now)
    }

    /// ISO 4217 code of every rate here.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The entries, in the card's order.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// The rate of a generation at this time, or in these circumstances.
    ///
    /// The card tries the model's name in the response first, then the name in the request, on
    /// Bedrock the other way round, because there the request names what has the price; an empty
    /// name is unknown. For each name it prefers an exact name of this provider, then one of
    /// `openai_compatible` if the provider speaks so, then one of any provider (`*`), then the first
    /// pattern that matches. Only if none of the names has a rate, it tries them without what
    /// providers and gateways put around them. If the two names have nothing in common, they may be
    /// those of two models: then the second is tried only after all forms of the first.
    pub fn find(
        &self,
        provider: impl Into<Provider>,
        answered: &str,
        requested: &str,
        at: impl Into<Circumstances>,
    ) -> Option<&Rate> {
        let cards = core::iter::once(self);
        find(&cards, &Sought::new(provider, answered, requested, at), &mut |_| ())?.rate()
    }

    /// The cost of a generation: [`Self::find`], then [`crate::pricing::cost`].
    pub fn price<'a>(
        &self,
        provider: impl Into<Provider>,
        answered: &str,
        requested: &str,
        at: Timestamp,
        factors: impl Into<PriceFactors>,
        consumed: impl Into<Consumed<'a>>,
    ) -> Result<Priced, Unpriced> {
        let at = Circumstances::at(at, factors.into());
        let cards = core::iter::once(self);
        price_consumed(&cards, provider, [answered, requested], at, consumed)
            .map(|(priced, _)| priced)
    }

    /// What a unit costs at this provider, whatever the model: the first pattern that matches and has
    /// the price of units only, such as `*` for searches.
    fn general_unit_rate(
        &self,
        name: UnitName,
        provider: Provider,
        model: &str,
        at: &Circumstances,
    ) -> Option<GeneralRate> {
        let fitting = self.patterns.iter().filter(|pattern| is_fit(self.text(**pattern), model));
        let fitting = fitting.filter_map(|pattern| self.rate(*pattern)).filter(|rate| {
            rate.rank(provider).is_some() && rate.is_of_units_only() && rate.applies(at)
        });
        fitting.filter_map(|rate| rate.general_rate(name, &at.factors)).next()
    }

    /// The name in the card that a model's name finds.
    fn find_name(&self, provider: Provider, model: &str, at: &Circumstances) -> Option<Name> {
        let first = self.names.partition_point(|name| self.text(*name) < model);
        let exact = self.names.iter().skip(first).take_while(|name| self.text(**name) == model);
        let exact = exact.filter_map(|name| Some((*name, self.rate(*name)?)));
        let exact = exact.filter(|(_, rate)| rate.applies(at));
        // The rate with the most conditions is the most exact one.
        let rank = |rate: &Rate| Some((rate.rank(provider)?, Reverse(rate.when.conditions())));
        let ranked = exact.filter_map(|(name, rate)| Some((rank(rate)?, name)));
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, name)| name);
        best.or_else(|| {
            let fitting = self.patterns.iter().filter(|name| is_fit(self.text(**name), model));
            let is_for = |rate: &Rate| {
                let is_of_tokens = !rate.is_of_units_only();
                rate.rank(provider).is_some() && is_of_tokens && rate.applies(at)
            };
            fitting.copied().find(|name| self.rate(*name).is_some_and(is_for))
        })
    }

    fn rate(&self, name: Name) -> Option<&Rate> {
        self.rates.get(usize::try_from(name.rate).ok()?)
    }

    fn text(&self, name: Name) -> &str {
        let text = || self.rate(name)?.names().nth(usize::try_from(name.at).ok()?);
        text().unwrap_or_default()
    }

    /// Refuses rates that the filter cannot charge by, and ambiguous ones; `path` is where the card
    /// stands.
    pub fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let below = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        if self.version.is_empty() {
            let reason = "expected a text that tells cards apart, found an empty string";
            return Err(error(&below("version"), reason));
        }
        if self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            let reason =
                format!("expected an ISO 4217 code such as \"USD\", found {:?}", self.currency);
            return Err(error(&below("currency"), &reason));
        }
        if self.rates.len() > RATES_MAX {
            let reason = format!("expected at most {RATES_MAX} rates, found {}", self.rates.len());
            return Err(error(&below("rates"), &reason));
        }
        for (at, rate) in self.rates.iter().enumerate() {
            rate.validate(&below(&format!("rates[{at}]")))?;
        }
        let is_same = |a: &Name, b: &Name| self.text(*a) == self.text(*b);
        for same in self.names.chunk_by(is_same) {
            self.validate_name(same, &below("rates"))?;
        }
        Ok(())
    }

    /// Refuses two rates of one name at one time.
    fn validate_name(&self, same: &[Name], path: &str) -> Result<(), ConfigError> {
        for (at, name) in same.iter().enumerate() {
            let Some(rate) = self.rate(*name) else { continue };
            let earlier = same.iter().take(at).find(|earlier| {
                self.rate(**earlier).is_some_and(|earlier| {
                    earlier.provider == rate.provider && earlier.is_overlapping(rate)
                })
            });
            if let Some(earlier) = earlier {
                let member = match name.at.checked_sub(1) {
                    None => "model".to_owned(),
                    Some(alias) => format!("aliases[{alias}]"),
                };
                let reason = format!(
                    "expected one rate of a model at a time, found {:?} again, which {path}[{}] names",
                    self.text(*name),
                    earlier.rate
                );
                return Err(error(&format!("{path}[{}].{member}", name.rate), &reason));
            }
        }
        Ok(())
    }
}

/// A generation whose rate is sought.
#[derive(Clone, Copy, Debug)]
struct Sought<'a> {
    provider: Provider,
    /// The model's names, best first; an empty one is unknown.
    told: [&'a str; 2],
    at: Circumstances,
}

impl<'a> Sought<'a> {
    fn new(
        provider: impl Into<Provider>,
        answered: &'a str,
        requested: &'a str,
        at: impl Into<Circumstances>,
    ) -> Self {
        let provider = provider.into();
        let mut told = [answered, requested];
        if provider.family == Family::Bedrock {
            told.reverse();
        }
        Self { provider, told, at: at.into() }
    }
}

/// Where a rate stands.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The card.
    pub card: &'a RateCard,
    name: Name,
}

impl<'a> Found<'a> {
    /// The rate.
    pub fn rate(&self) -> Option<&'a Rate> {
        self.card.rate(self.name)
    }

    /// The place of the rate among those of the card, from 0 on.
    pub fn place(&self) -> usize {
        usize::try_from(self.name.rate).unwrap_or(usize::MAX)
    }

    /// The name or pattern that fits.
    pub fn name(&self) -> &'a str {
        self.card.text(self.name)
    }
}

/// How the rate of a generation is sought.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    /// The names that were tried, in this order, each in the cards in their order; what has the
    /// rate is the last one.
    pub tried: Vec<String>,
    /// The rate; `None` if no card has one.
    pub found: Option<Found<'a>>,
}

/// Seeks the rate of a generation as [`price`] does, and tells how.
pub fn lookup<'a>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    provider: impl Into<Provider>,
    answered: &str,
    requested: &str,
    at: impl Into<Circumstances>,
) -> Lookup<'a> {
    let mut tried: Vec<String> = Vec::new();
    let mut try_name = |name: &str| {
        if tried.last().is_none_or(|last| last != name) {
            tried.push(name.to_owned());
        }
    };
    let found = find(cards, &Sought::new(provider, answered, requested, at), &mut try_name);
    Lookup { tried, found }
}

/// The rate of a generation: of the first card that has one of the names as they are told, else
/// without what stands around them.
fn find<'a>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    sought: &Sought<'_>,
    tried: &mut dyn FnMut(&str),
) -> Option<Found<'a>> {
    let Sought { provider, told, at } = sought;
    let [best, other] = told;
    // What is not the same model by another name stands in for it only if it has no rate at all.
    let is_same = names(best).any(|name| names(other).any(|other| other == name));
    let turns = if is_same { [[*best, *other], [""; 2]] } else { [[*best, ""], [*other, ""]] };
    turns.iter().find_map(|told| {
        (0..NAMES_MAX).find_map(|form| {
            cards.clone().find_map(|card| {
                let told = told.iter().filter(|model| !model.is_empty());
                told.filter_map(|model| names(model).nth(form)).find_map(|model| {
                    tried(model);
                    card.find_name(*provider, model, at).map(|name| Found { card, name })
                })
            })
        })
    })
}

/// The cost of a generation by the first of these cards that names its model as it is told, else by
/// the first that names it without what stands around it, and that card.
pub fn price<'a>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    generation: &GenerationEnded,
) -> Result<(Priced, &'a RateCard), Unpriced> {
    let answered = generation.model.as_deref().unwrap_or_default();
    let requested = generation.model_requested.as_deref().unwrap_or_default();
    let sought = Sought::new(generation.provider, answered, requested, generation);
    let units = Some(&generation.units).filter(|_| !generation.is_unknown());
    let consumed = Consumed { usage: &generation.usage, units };
    price_sought(cards, &sought, generation.model_name(), consumed)
}

/// The cost of what a model consumed in these circumstances, as [`price`] finds it. `names` are the
/// model's in the response and in the request; an empty one is unknown.
pub fn price_consumed<'a, 'b>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    provider: impl Into<Provider>,
    [answered, requested]: [&str; 2],
    at: Circumstances,
    consumed: impl Into<Consumed<'b>>,
) -> Result<(Priced, &'a RateCard), Unpriced> {
    let sought = Sought::new(provider, answered, requested, at);
    let model = if answered.is_empty() { requested } else { answered };
    price_sought(cards, &sought, model, consumed.into())
}

/// The cost of what was consumed, and the card. `model` is its name where no rate is found
/// by one. A unit of which the rate has no price has that of the first pattern of units that matches.
fn price_sought<'a>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    sought: &Sought<'_>,
    model: &str,
    consumed: Consumed<'_>,
) -> Result<(Priced, &'a RateCard), Unpriced> {
    let Sought { provider, at, .. } = sought;
    let general =
        |name| cards.clone().find_map(|card| card.general_unit_rate(name, *provider, model, at));
    let found = find(cards, sought, &mut |_| ());
    let found = found.and_then(|found| Some((found.card, found.rate()?)));
    match (found, cards.clone().next()) {
        (Some((card, rate)), _) => {
            cost_with(consumed, rate, &general, at.factors).map(|priced| (priced, card))
        }
        (None, Some(card)) if let Some(priced) = cost_of_units(consumed, &general) => {
            priced.map(|priced| (priced, card))
        }
        _ => Err(Unpriced::NoRate { provider: provider.seller, model: model.to_owned() }),
    }
}

/// What a generation without a rate for its tier or its modifiers, or without the cost that its
/// provider should report, costs at the list price, and one that asks for a model in doubt at the
/// dearest of the models; zero for any other generation without a cost. The client chooses the tier
/// and writes the request, so it must not get out of what it pays, and of guards, by choosing what
/// the card does not know, or what is not certain.
pub fn list_price<'a>(
    cards: &(impl Iterator<Item = &'a RateCard> + Clone),
    generation: &GenerationEnded,
    reason: &Unpriced,
) -> Decimal {
    use Unpriced::{NoRateForModifier, NoRateForTier, NoReportedCost};
    if let Some((model, others)) = generation.models_in_doubt.split_first() {
        let mut asked = generation.clone();
        asked.model_requested = Some(model.clone());
        asked.models_in_doubt = Vec::new();
        let total = |priced: (Priced, &RateCard)| Ok(priced.0.total);
        let own = price(cards, &asked)
            .and_then(total)
            .unwrap_or_else(|reason| list_price(cards, &asked, &reason));
        asked.model_requested = None;
        asked.models_in_doubt = others.to_vec();
        return own.max(list_price(cards, &asked, reason));
    }
    if !matches!(reason, NoRateForTier(_) | NoRateForModifier(..) | NoReportedCost) {
        return Decimal::ZERO;
    }
    let mut standard = generation.clone();
    (standard.service_tier, standard.modifiers) = (ServiceTier::Standard, Modifiers::default());
    price(cards, &standard).map(|(priced, _)| priced.total).unwrap_or_default()
}

//! The exact cost of a generation: which rate applies to which tokens. The card finds the rate.
//!
//! Every token is charged once. Each kind with a rate of its own is taken out of its whole (`input`
//! or `output`), and the rest is charged at the whole's rate. Both public calculators,
//! `genai-prices` and LiteLLM, do the same for each kind, including cache reads and writes. Cached
//! audio is part of two kinds, `cache_read` and `input_audio`, and so are cached images: with a rate
//! of its own it is taken out of both; without one it is charged as a cache read, and the audio rate
//! applies to the audio that was not cached. LiteLLM does the same; `genai-prices` refuses price
//! lists that leave it open. A provider that does not tell how much of the cache was audio or images
//! may tell more of the parts than of their whole: then they share at least the difference.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::domain::price_factors::PriceFactors;
use crate::domain::units::{Unit, UnitName, Units};
use crate::domain::usage::{CACHED_MEDIA, TokenKind, Usage};
use crate::pricing::rate::{InForce, Rate};
use crate::pricing::unit_rates::GeneralRate;
use crate::pricing::unpriced::Unpriced;

/// The cost of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The tokens of each kind that has any, and their cost. A token is in one line only.
    pub lines: Vec<Line>,
    /// The units beside tokens that have a rate, and their cost.
    pub unit_lines: Vec<UnitLine>,
    /// The units beside tokens that are told and have no rate. The total is too low for them.
    pub unpriced_units: Vec<UnitName>,
    /// The sum of the lines, exact, in the card's currency.
    pub total: Decimal,
    /// The threshold of the context tier in force; `None` below all thresholds.
    pub above_input_tokens: Option<u64>,
    /// True if a part was larger than its whole. The whole is charged, the part only as far as it
    /// fits.
    pub is_inconsistent: bool,
}

/// The tokens of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The kind.
    pub kind: TokenKind,
    /// Their number; never zero.
    pub tokens: u64,
    /// The price of a million tokens, in the card's currency.
    #[serde(with = "rust_decimal::serde::str")]
    pub rate: Decimal,
    /// `tokens` times `rate`, divided by a million: exact, with at most 18 decimal places.
    #[serde(with = "rust_decimal::serde::str")]
    pub cost: Decimal,
}

impl Line {
    /// What so many of its tokens cost.
    pub(crate) fn cost_of(&self, tokens: u64) -> Decimal {
        if tokens == self.tokens {
            return self.cost;
        }
        let units = exact_product(Decimal::from(tokens), self.rate, PLACES_PER_MILLION);
        units.and_then(money).unwrap_or(self.cost)
    }
}

/// Units of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitLine {
    /// The unit with its variant.
    pub name: UnitName,
    /// How many; never zero.
    pub quantity: Decimal,
    /// The price of one, in the card's currency.
    pub rate: Decimal,
    /// `quantity` times `rate`: exact, with at most 18 decimal places.
    pub cost: Decimal,
}

/// All that a generation consumed and a provider may bill.
#[derive(Clone, Copy, Debug)]
pub struct Consumed<'a> {
    /// The tokens.
    pub usage: &'a Usage,
    /// The units beside tokens.
    pub units: Option<&'a Units>,
}

impl<'a> From<&'a Usage> for Consumed<'a> {
    fn from(usage: &'a Usage) -> Self {
        Self { usage, units: None }
    }
}

/// The cost of what was consumed at this rate.
///
/// If only one of input and output is known, that one is charged. An unknown whole with known parts
/// counts as the sum of these parts. All input tokens of one run of the model together select the
/// context tier.
pub fn cost<'a>(
    consumed: impl Into<Consumed<'a>>,
    rate: &Rate,
    factors: impl Into<PriceFactors>,
) -> Result<Priced, Unpriced> {
    cost_with(consumed.into(), rate, &|_| None, factors.into())
}

/// The same; `general` has the price of a unit of which the rate has none, in any tier.
pub(super) fn cost_with(
    consumed: Consumed<'_>,
    rate: &Rate,
    general: &dyn Fn(UnitName) -> Option<GeneralRate>,
    factors: PriceFactors,
) -> Result<Priced, Unpriced> {
    let usage = consumed.usage;
    let context = usage.context_input.unwrap_or_else(|| whole(usage, TokenKind::Input));
    let in_force = rate.in_force(&factors, context)?;
    let rate_of = |name| in_force.unit_rate(name).or_else(|| general(name).map(|rate| rate.amount));
    let of_units = unit_lines(consumed, &rate_of)?;
    let is_paid = |kind| of_units.lines.iter().any(|line| line.name.unit.measures() == Some(kind));
    let mut tokens = Vec::new();
    let mut is_inconsistent = false;
    for kind in TokenKind::wholes().filter(|_| !usage.is_unknown()) {
        let (mut taken, is_split_inconsistent) = split(usage, &in_force, kind);
        if in_force.rate(kind).is_none() {
            leave_out_paid(&mut taken, usage, kind, &is_paid);
        }
        tokens.extend(taken);
        is_inconsistent |= is_split_inconsistent;
    }
    tokens.sort_unstable();
    let (lines, of_tokens) = lines_for(&tokens, &in_force)?;
    let total = of_tokens.checked_add(of_units.sum).and_then(money);
    of_units.priced(lines, total.ok_or(Unpriced::MoneyOverflow)?, usage).map(|priced| Priced {
        above_input_tokens: in_force.above_input_tokens,
        is_inconsistent,
        ..priced
    })
}

/// Leaves out of a whole without a rate what is paid by another measure: who bills by the image does
/// not bill the image's tokens, and who bills by the character bills none.
fn leave_out_paid(
    taken: &mut Vec<(TokenKind, u64)>,
    usage: &Usage,
    whole: TokenKind,
    is_paid: &dyn Fn(TokenKind) -> bool,
) {
    let is_taken = |kind| taken.iter().any(|(other, _)| *other == kind);
    let paid = if is_paid(whole) {
        u64::MAX
    } else {
        let parts = whole.parts().filter(|part| is_paid(*part) && !is_taken(*part));
        parts.map(|part| usage.part(part)).fold(0, u64::saturating_add)
    };
    for (_, tokens) in taken.iter_mut().filter(|(kind, _)| *kind == whole) {
        *tokens = tokens.saturating_sub(paid);
    }
    taken.retain(|(_, tokens)| *tokens > 0);
}

/// The cost of units that only `general` has a price of; `None` if there is none. No rate of the model
/// has the tier and the modifiers, so that of the unit must.
pub(super) fn cost_of_units(
    consumed: Consumed<'_>,
    general: &dyn Fn(UnitName) -> Option<GeneralRate>,
) -> Option<Result<Priced, Unpriced>> {
    if !consumed.usage.is_unknown() {
        return None;
    }
    let amount = |name| general(name).map(|rate| rate.amount);
    let of_units = match unit_lines(consumed, &amount) {
        Ok(of_units) if of_units.lines.is_empty() => return None,
        Ok(of_units) => of_units,
        Err(reason) => return Some(Err(reason)),
    };
    if let Some(lacks) = of_units.lines.iter().find_map(|line| general(line.name)?.lacks) {
        return Some(Err(lacks));
    }
    let total = money(of_units.sum).ok_or(Unpriced::MoneyOverflow);
    Some(total.and_then(|total| of_units.priced(Vec::new(), total, consumed.usage)))
}

/// Units with their cost.
#[derive(Default)]
struct OfUnits {
    lines: Vec<UnitLine>,
    unpriced: Vec<UnitName>,
    /// In units of the 18th decimal place.
    sum: u128,
}

impl OfUnits {
    fn priced(self, lines: Vec<Line>, total: Decimal, usage: &Usage) -> Result<Priced, Unpriced> {
        if lines.is_empty() && self.lines.is_empty() {
            match self.unpriced.first() {
                Some(unpriced) => return Err(Unpriced::NoRateForUnit(*unpriced)),
                None if usage.is_unknown() => return Err(Unpriced::UnknownUsage),
                None => {}
            }
        }
        Ok(Priced {
            lines,
            unit_lines: self.lines,
            unpriced_units: self.unpriced,
            total,
            above_input_tokens: None,
            is_inconsistent: false,
        })
    }
}

/// The cost of each unit. Each request is one request, told or not. A unit without a rate is no loss
/// if it is another measure of tokens of which there are some.
fn unit_lines(
    consumed: Consumed<'_>,
    rate_of: &dyn Fn(UnitName) -> Option<Decimal>,
) -> Result<OfUnits, Unpriced> {
    let mut of_units = OfUnits::default();
    let told = consumed.units.into_iter().flat_map(Units::iter);
    let mut told: Vec<_> = told.map(|told| (told.name, told.quantity)).collect();
    let request = UnitName::from(Unit::Requests);
    if told.iter().all(|(name, _)| name.unit != Unit::Requests) && rate_of(request).is_some() {
        told.push((request, Decimal::ONE));
    }
    for (told, quantity) in told {
        let (name, quantity) = match rate_of(Unit::SearchedRequests.into()) {
            Some(_) if told.unit == Unit::WebSearches => {
                (Unit::SearchedRequests.into(), Decimal::ONE)
            }
            _ => (told, quantity),
        };
        let Some(rate) = rate_of(name) else {
            let measured = name.unit.measures();
            if measured.is_none_or(|kind| consumed.usage.part(kind) == 0) {
                of_units.unpriced.push(name);
            }
            continue;
        };
        let units = exact_product(quantity, rate, PLACES).ok_or(Unpriced::MoneyOverflow)?;
        of_units.sum = of_units.sum.checked_add(units).ok_or(Unpriced::MoneyOverflow)?;
        let cost = money(units).ok_or(Unpriced::MoneyOverflow)?;
        of_units.lines.push(UnitLine { name, quantity, rate, cost });
    }
    Ok(of_units)
}

/// The parts of a whole together, those that stand in two parts once.
fn parts(usage: &Usage, whole: TokenKind) -> u64 {
    let parts = whole.parts().map(|kind| usage.part(kind)).fold(0, u64::saturating_add);
    let twice = CACHED_MEDIA.iter().filter(|(media, _)| media.whole() == whole);
    let twice = twice.filter_map(|(_, cached)| usage.get(*cached)).fold(0, u64::saturating_add);
    parts.saturating_sub(twice)
}

fn whole(usage: &Usage, kind: TokenKind) -> u64 {
    usage.get(kind).unwrap_or_else(|| parts(usage, kind))
}

/// Splits a whole by its rates. Returns whether a part was larger than its whole.
fn split(usage: &Usage, in_force: &InForce<'_>, kind: TokenKind) -> (Vec<(TokenKind, u64)>, bool) {
    let mut split = Split::of(in_force, whole(usage, kind));
    let mut cache_read = usage.part(TokenKind::CacheRead);
    let mut shared = parts(usage, kind).saturating_sub(split.left);
    let mut left_of_media = Vec::new();
    for (media, cached) in CACHED_MEDIA.into_iter().filter(|(media, _)| media.whole() == kind) {
        let tokens = usage.part(media);
        let told = usage.get(cached).unwrap_or(0);
        let untold = shared.min(tokens.saturating_sub(told)).min(cache_read.saturating_sub(told));
        shared = shared.saturating_sub(untold);
        let both = told.saturating_add(untold);
        let (text, fresh) = split.take_cached((cached, both), cache_read, tokens);
        cache_read = text;
        left_of_media.push((media, fresh));
    }
    for kind in kind.parts() {
        let fresh = left_of_media.iter().find(|(media, _)| *media == kind).map(|(_, left)| *left);
        let tokens = match kind {
            TokenKind::CacheRead => cache_read,
            _ => fresh.unwrap_or_else(|| usage.part(kind)),
        };
        split.take_with_video(usage, kind, tokens);
    }
    split.finish(kind)
}

/// A whole while [`Self::take`] takes parts out of it.
struct Split<'a> {
    in_force: &'a InForce<'a>,
    left: u64,
    /// How many tokens all remaining parts may have together, with a rate of their own or not.
    room: u64,
    taken: Vec<(TokenKind, u64)>,
    is_inconsistent: bool,
}

impl<'a> Split<'a> {
    fn of(in_force: &'a InForce<'a>, whole: u64) -> Self {
        Self { in_force, left: whole, room: whole, taken: Vec::new(), is_inconsistent: false }
    }

    /// Takes out a part if it has a rate of its own, and not more than is left.
    fn take(&mut self, kind: TokenKind, tokens: u64) {
        self.is_inconsistent |= tokens > self.room;
        self.room = self.room.saturating_sub(tokens);
        if self.in_force.rate(kind).is_some() {
            let fitting = tokens.min(self.left);
            self.left = self.left.saturating_sub(fitting);
            self.taken.push((kind, fitting));
        }
    }

    /// Takes out what was read from the cache of audio or images, if it has a rate of its own.
    /// Returns what remains of the two kinds that it is a part of: the tokens to charge as cache
    /// reads, and those to charge as audio or images.
    fn take_cached(
        &mut self,
        (cached, tokens): (TokenKind, u64),
        cache_read: u64,
        media: u64,
    ) -> (u64, u64) {
        let (of_cache, of_media) = (tokens.min(cache_read), tokens.min(media));
        self.is_inconsistent |= of_cache < tokens || of_media < tokens;
        let tokens = of_cache.min(of_media);
        let text = cache_read.saturating_sub(tokens);
        let fresh = media.saturating_sub(tokens);
        let has_rate = |kind| self.in_force.rate(kind).is_some();
        if has_rate(cached) {
            self.take(cached, tokens);
            (text, fresh)
        } else if has_rate(TokenKind::CacheRead) {
            (cache_read, fresh)
        } else {
            (text, media)
        }
    }

    /// Takes out a part, and of images first the video among them if it has a rate of its own.
    fn take_with_video(&mut self, usage: &Usage, kind: TokenKind, tokens: u64) {
        let video = match kind {
            TokenKind::InputImage => TokenKind::InputVideo,
            TokenKind::OutputImage => TokenKind::OutputVideo,
            _ => return self.take(kind, tokens),
        };
        let told = usage.get(video).unwrap_or(0);
        self.is_inconsistent |= told > usage.part(kind);
        let of_video = if self.in_force.rate(video).is_some() { told.min(tokens) } else { 0 };
        self.take(video, of_video);
        self.take(kind, tokens.saturating_sub(of_video));
    }

    fn finish(mut self, whole: TokenKind) -> (Vec<(TokenKind, u64)>, bool) {
        self.taken.push((whole, self.left));
        self.taken.retain(|(_, tokens)| *tokens > 0);
        (self.taken, self.is_inconsistent)
    }
}

/// Decimal places of a cost: 12 of a rate and 6 of a million.
const PLACES: u32 = 18;

/// The same for the price of a million, whose product is in units of the 12th place.
const PLACES_PER_MILLION: u32 = 12;

/// The lines, and their sum in units of the 18th decimal place.
fn lines_for(
    tokens: &[(TokenKind, u64)],
    in_force: &InForce<'_>,
) -> Result<(Vec<Line>, u128), Unpriced> {
    let mut lines = Vec::with_capacity(tokens.len());
    let mut sum = 0_u128;
    for &(kind, tokens) in tokens {
        let rate = in_force.rate(kind).ok_or(Unpriced::NoRateForKind(kind))?;
        let units = exact_product(Decimal::from(tokens), rate, PLACES_PER_MILLION);
        let units = units.ok_or(Unpriced::MoneyOverflow)?;
        sum = sum.checked_add(units).ok_or(Unpriced::MoneyOverflow)?;
        let cost = money(units).ok_or(Unpriced::MoneyOverflow)?;
        lines.push(Line { kind, tokens, rate, cost });
    }
    Ok((lines, sum))
}

/// `quantity` times `rate` in units of this decimal place.
///
/// Uses integers, because the product of decimals rounds where it does not fit.
fn exact_product(quantity: Decimal, rate: Decimal, places: u32) -> Option<u128> {
    let places = places.checked_sub(quantity.scale())?.checked_sub(rate.scale())?;
    let digits = |number: Decimal| u128::try_from(number.mantissa()).ok();
    let product = digits(quantity)?.checked_mul(digits(rate)?)?;
    product.checked_mul(10_u128.checked_pow(places)?)
}

/// The amount of so many units of the 18th decimal place, without trailing zeros.
fn money(mut units: u128) -> Option<Decimal> {
    let mut places = PLACES;
    while places > 0 && units.is_multiple_of(10) {
        units = units.checked_div(10)?;
        places = places.checked_sub(1)?;
    }
    Decimal::try_from_i128_with_scale(i128::try_from(units).ok()?, places).ok()
}

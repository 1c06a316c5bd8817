//! The exact cost of a generation: which rate applies to which tokens. The card finds the rate.
//!
//! Every token is charged once. Each kind with a rate of its own is taken out of its whole (`input`
//! or `output`), and the rest is charged at the whole's rate. Both public calculators,
//! `genai-prices` and LiteLLM, do the same for each kind, including cache reads and writes. Cached
//! audio is part of two kinds, `cache_read` and `input_audio`: with a rate of its own it is taken
//! out of both; without one it is charged as a cache read, and the audio rate applies to the audio
//! that was not cached. LiteLLM does the same; `genai-prices` refuses price lists that leave it
//! open.

use rust_decimal::Decimal;

use crate::domain::price_factors::PriceFactors;
use crate::domain::usage::{TokenKind, Usage};
use crate::pricing::rate::{InForce, Rate};
use crate::pricing::unpriced::Unpriced;

/// The cost of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The tokens of each kind that has any, and their cost. A token is in one line only.
    pub lines: Vec<Line>,
    /// The sum of the lines, exact, in the card's currency.
    pub total: Decimal,
    /// The threshold of the context tier in force; `None` below all thresholds.
    pub above_input_tokens: Option<u64>,
    /// True if a part was larger than its whole. The whole is charged, the part only as far as it
    /// fits.
    pub is_inconsistent: bool,
}

/// The tokens of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The kind.
    pub kind: TokenKind,
    /// Their number; never zero.
    pub tokens: u64,
    /// The price of a million tokens, in the card's currency.
    pub rate: Decimal,
    /// `tokens` times `rate`, divided by a million: exact, with at most 18 decimal places.
    pub cost: Decimal,
}

/// The cost of `usage` at this rate.
///
/// If only one of input and output is known, that one is charged. An unknown whole with known parts
/// counts as the sum of these parts. All input tokens of one run of the model together select the
/// context tier.
pub fn cost(
    usage: &Usage,
    rate: &Rate,
    factors: impl Into<PriceFactors>,
) -> Result<Priced, Unpriced> {
    if usage.is_unknown() {
        return Err(Unpriced::UnknownUsage);
    }
    let cached_audio = usage.cache_read_audio.unwrap_or(0);
    let cache_read = usage.cache_read.unwrap_or(cached_audio);
    let input_audio = usage.input_audio.unwrap_or(cached_audio);
    let part = |kind: TokenKind| match kind {
        TokenKind::CacheRead => cache_read,
        TokenKind::InputAudio => input_audio,
        _ => usage.get(kind).unwrap_or(0),
    };
    let whole = |kind: TokenKind| {
        let parts = || kind.parts().map(part).fold(0, u64::saturating_add);
        let twice = if kind == TokenKind::Input { cached_audio } else { 0 };
        usage.get(kind).unwrap_or_else(|| parts().saturating_sub(twice))
    };

    let context = usage.context_input.unwrap_or_else(|| whole(TokenKind::Input));
    let in_force = rate.in_force(&factors.into(), context)?;
    let mut tokens = Vec::new();
    let mut is_inconsistent = false;
    for kind in TokenKind::wholes() {
        let mut split = Split::of(&in_force, whole(kind));
        let (cached_text, fresh_audio) = if kind == TokenKind::Input {
            split.take_cached_audio(cached_audio, cache_read, input_audio)
        } else {
            (cache_read, input_audio)
        };
        for kind in kind.parts() {
            split.take(
                kind,
                match kind {
                    TokenKind::CacheRead => cached_text,
                    TokenKind::InputAudio => fresh_audio,
                    _ => part(kind),
                },
            );
        }
        let (taken, is_split_inconsistent) = split.finish(kind);
        tokens.extend(taken);
        is_inconsistent |= is_split_inconsistent;
    }
    tokens.sort_unstable();

    let (lines, total) = lines_for(&tokens, &in_force)?;
    let InForce { above_input_tokens, .. } = in_force;
    Ok(Priced { lines, total, above_input_tokens, is_inconsistent })
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

    /// Takes out cached audio if it has a rate of its own. Returns what remains of the two kinds
    /// that it is a part of: the tokens to charge as cache reads, and those to charge as audio.
    fn take_cached_audio(&mut self, cached_audio: u64, cache_read: u64, audio: u64) -> (u64, u64) {
        let (of_cache, of_audio) = (cached_audio.min(cache_read), cached_audio.min(audio));
        self.is_inconsistent |= of_cache < cached_audio || of_audio < cached_audio;
        let cached_audio = of_cache.min(of_audio);
        let cached_text = cache_read.saturating_sub(cached_audio);
        let fresh_audio = audio.saturating_sub(cached_audio);
        if self.in_force.rate(TokenKind::CacheReadAudio).is_some() {
            self.take(TokenKind::CacheReadAudio, cached_audio);
            (cached_text, fresh_audio)
        } else if self.in_force.rate(TokenKind::CacheRead).is_some() {
            (cache_read, fresh_audio)
        } else {
            (cached_text, audio)
        }
    }

    fn finish(mut self, whole: TokenKind) -> (Vec<(TokenKind, u64)>, bool) {
        self.taken.push((whole, self.left));
        self.taken.retain(|(_, tokens)| *tokens > 0);
        (self.taken, self.is_inconsistent)
    }
}

/// Decimal places of a cost: 12 of a rate and 6 of a million.
const PLACES: u32 = 18;

fn lines_for(
    tokens: &[(TokenKind, u64)],
    in_force: &InForce<'_>,
) -> Result<(Vec<Line>, Decimal), Unpriced> {
    let mut lines = Vec::with_capacity(tokens.len());
    let mut sum = 0_u128;
    for &(kind, tokens) in tokens {
        let rate = in_force.rate(kind).ok_or(Unpriced::NoRateForKind(kind))?;
        let units = product(tokens, rate).ok_or(Unpriced::MoneyOverflow)?;
        sum = sum.checked_add(units).ok_or(Unpriced::MoneyOverflow)?;
        let cost = money(units).ok_or(Unpriced::MoneyOverflow)?;
        lines.push(Line { kind, tokens, rate, cost });
    }
    Ok((lines, money(sum).ok_or(Unpriced::MoneyOverflow)?))
}

/// `tokens` times `rate`, divided by a million, in units of the 18th decimal place.
///
/// Uses integers, because the product of decimals rounds where it does not fit.
fn product(tokens: u64, rate: Decimal) -> Option<u128> {
    let places = PLACES.checked_sub(6)?.checked_sub(rate.scale())?;
    let digits = u128::try_from(rate.mantissa()).ok()?;
    digits.checked_mul(10_u128.checked_pow(places)?)?.checked_mul(u128::from(tokens))
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

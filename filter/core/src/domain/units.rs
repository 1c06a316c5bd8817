//! What providers bill beside tokens: searches, images, seconds, characters, pages and the like.
//!
//! A unit has a name, such as `output_images`, and may have a variant, such as `hd:1024x1024`: words of
//! the provider that move its price. Events and rate cards write both as `output_images:hd:1024x1024`.

use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use crate::base::limits::UNITS_MAX;
use crate::domain::price_factors::Word;
use crate::domain::usage::TokenKind;

/// Stands between a unit's name and its variant, and between the words of a variant.
const SEPARATOR: char = ':';

/// Decimal places of a quantity.
const PLACES: u32 = 6;

/// Above every quantity.
const QUANTITY_END: u64 = 1_000_000_000_000;

macro_rules! units {
    ($($(#[doc = $doc:literal])+ $unit:ident = $name:literal $(, another measure of $kind:ident)?;)+) => {
        /// A unit that providers bill beside tokens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Unit { $($(#[doc = $doc])+ $unit,)+ }

        impl Unit {
            /// Every unit.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$unit),+];

            /// The name in events and rate cards.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$unit => $name,)+ }
            }

            /// The tokens that it measures in another way and that may be told beside it: who bills
            /// the one does not bill the other.
            pub const fn measures(self) -> Option<TokenKind> {
                match self { $(Self::$unit => measures!($($kind)?),)+ }
            }
        }
    };
}

macro_rules! measures {
    () => {
        None
    };
    ($kind:ident) => {
        Some(TokenKind::$kind)
    };
}

units! {
    /// Searches of the web that a hosted tool made; of Gemini, queries of the grounding.
    WebSearches = "web_searches";
    /// Requests that searched the web, at providers that bill these and not each search. Only rates
    /// name it: what is told is the searches.
    SearchedRequests = "searched_requests";
    /// Queries to a map that ground an answer.
    MapsQueries = "maps_queries";
    /// Searches of stored files that a hosted tool made.
    FileSearches = "file_searches";
    /// Sources that a live search used.
    SearchSources = "search_sources";
    /// Containers in which a hosted tool ran code.
    CodeSessions = "code_sessions";
    /// Tokens of citations, which are beside the input.
    CitationTokens = "citation_tokens";
    /// Requests, where each has a price of its own. The variant is the size of the search's context.
    Requests = "requests";
    /// Searches as a reranker bills them.
    SearchUnits = "search_units";
    /// Pages that were read.
    Pages = "pages";
    /// Pages that were annotated as well.
    AnnotatedPages = "annotated_pages";
    /// Images that the model read.
    InputImages = "input_images", another measure of InputImage;
    /// Images that the model made. The variant is their quality, their size, or both.
    OutputImages = "output_images", another measure of OutputImage;
    /// Audio that the model heard, in seconds.
    InputAudioSeconds = "input_audio_seconds";
    /// Audio that the model made, in seconds.
    OutputAudioSeconds = "output_audio_seconds";
    /// Video that the model watched, in seconds.
    InputVideoSeconds = "input_video_seconds";
    /// Video that the model made, in seconds. The variant is its size.
    OutputVideoSeconds = "output_video_seconds";
    /// Characters that the model read: Unicode scalar values.
    InputCharacters = "input_characters", another measure of Input;
    /// Characters that the model wrote: Unicode scalar values.
    OutputCharacters = "output_characters", another measure of Output;
    /// Seconds for which a machine ran the model.
    ComputeSeconds = "compute_seconds";
    /// Tokens that a cache stores for an hour.
    CacheTokenHours = "cache_token_hours";
    /// Units of text that a guardrail checked. The variant is the policy.
    GuardrailUnits = "guardrail_units";
    /// What a provider tells among what it bills, under a name that the filter does not know. The
    /// variant is that name.
    Other = "other";
}

/// The words that move the price of images and videos; an empty one is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The quality.
    pub quality: String,
    /// The size.
    pub size: String,
}

impl Look {
    /// These words, and the other ones where there is none here.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let first = |own: &String, other: &String| {
            if own.is_empty() { other.clone() } else { own.clone() }
        };
        Self { quality: first(&self.quality, &other.quality), size: first(&self.size, &other.size) }
    }

    /// Gives them to the images and videos among these units.
    pub fn qualify(&self, units: &mut Units) {
        units.qualify(Unit::OutputImages, &[&self.quality, &self.size]);
        units.qualify(Unit::OutputVideoSeconds, &[&self.size]);
    }
}

/// A unit with its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName {
    /// The unit.
    pub unit: Unit,
    /// What moves its price, in the provider's words, separated by `:`.
    pub variant: Option<Word>,
}

impl UnitName {
    /// Reads a name as events and rate cards write it; `None` if it names no unit.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, variant) = match text.split_once(SEPARATOR) {
            Some((name, variant)) => (name, Some(variant)),
            None => (text, None),
        };
        let unit = Unit::ALL.into_iter().find(|unit| unit.name() == name)?;
        let word = variant.map(Word::new);
        let is_exact = word.as_ref().map(Word::as_str) == variant && variant != Some("");
        is_exact.then_some(Self { unit, variant: word })
    }

    /// The words of the variant.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let variant = self.variant.as_ref().map(Word::as_str).unwrap_or_default();
        variant.split(SEPARATOR).filter(|word| !word.is_empty())
    }
}

impl From<Unit> for UnitName {
    fn from(unit: Unit) -> Self {
        Self { unit, variant: None }
    }
}

impl core::fmt::Display for UnitName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.unit.name())?;
        match &self.variant {
            Some(variant) => write!(f, "{SEPARATOR}{}", variant.as_str()),
            None => Ok(()),
        }
    }
}

impl Serialize for UnitName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            let known = Unit::ALL.map(Unit::name).join("`, `");
            D::Error::custom(format!(
                "unknown unit `{text}`, expected one of `{known}`, which a variant such as `:hd` may follow"
            ))
        })
    }
}

/// So many of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quantity {
    /// Of what.
    pub name: UnitName,
    /// How many: above zero, with at most six decimal places.
    #[serde(with = "rust_decimal::serde::str")]
    pub quantity: Decimal,
}

/// The units of a generation, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Units {
    told: Vec<Quantity>,
    /// True if there were more names, or more of one, than the filter keeps.
    is_over_limit: bool,
}

impl Units {
    /// Whether none is told.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Whether there were more names, or more of one, than these hold.
    pub fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// Each unit that is told.
    pub fn iter(&self) -> impl Iterator<Item = &Quantity> {
        self.told.iter()
    }

    /// How many of a unit are told, whatever the variant.
    pub fn of(&self, unit: Unit) -> Option<Decimal> {
        let mut told = self.told.iter().filter(|told| told.name.unit == unit).peekable();
        told.peek()?;
        Some(told.fold(Decimal::ZERO, |sum, told| sum.saturating_add(told.quantity)))
    }

    /// Raises a quantity to the one that is told. What a provider tells again is cumulative.
    pub fn raise(&mut self, name: impl Into<UnitName>, quantity: Decimal) {
        self.put(name.into(), quantity, Decimal::max);
    }

    /// Raises each quantity to the one that is told there.
    pub fn raise_all(&mut self, told: &Self) {
        for Quantity { name, quantity } in told.iter() {
            self.raise(*name, *quantity);
        }
        self.is_over_limit |= told.is_over_limit;
    }

    /// Adds to a quantity.
    pub fn add(&mut self, name: impl Into<UnitName>, quantity: Decimal) {
        self.put(name.into(), quantity, Decimal::saturating_add);
    }

    /// Gives a unit that is told without a variant these words, as far as there are any.
    pub fn qualify(&mut self, unit: Unit, words: &[&str]) {
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            return;
        }
        let is_bare = |told: &&mut Quantity| told.name == UnitName::from(unit);
        if let Some(told) = self.told.iter_mut().find(is_bare) {
            told.name.variant = Some(Word::new(&words.join(":")));
        }
    }

    /// Forgets a unit.
    pub fn remove(&mut self, unit: Unit) {
        self.told.retain(|told| told.name.unit != unit);
    }

    fn put(&mut self, name: UnitName, quantity: Decimal, put: fn(Decimal, Decimal) -> Decimal) {
        let quantity =
            quantity.round_dp_with_strategy(PLACES, rust_decimal::RoundingStrategy::AwayFromZero);
        if quantity <= Decimal::ZERO || quantity.is_sign_negative() {
            return;
        }
        let limit = Decimal::from(QUANTITY_END);
        let told = self.told.iter_mut().find(|told| told.name == name);
        let quantity = told.as_ref().map_or(quantity, |told| put(told.quantity, quantity));
        self.is_over_limit |= quantity > limit;
        let quantity = quantity.min(limit).normalize();
        if let Some(told) = told {
            told.quantity = quantity;
        } else if self.told.len() < UNITS_MAX {
            self.told.push(Quantity { name, quantity });
        } else {
            self.is_over_limit = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_it_is_written() {
        for (text, is_known) in [
            ("web_searches", true),
            ("output_images:hd", true),
            ("output_images:hd:1024x1024", true),
            ("output_images:", false),
            ("output_images:HD", false),
            ("output_images:a b", false),
            ("output_image", false),
            ("", false),
        ] {
            let parsed = UnitName::parse(text);
            assert_eq!(parsed.is_some(), is_known, "{text}");
            if let Some(name) = parsed {
                assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn a_quantity_never_falls_and_stays_within_its_bounds() {
        let mut units = Units::default();
        units.raise(Unit::WebSearches, Decimal::from(3));
        units.raise(Unit::WebSearches, Decimal::ONE);
        units.raise(Unit::Pages, Decimal::ZERO);
        units.raise(Unit::Pages, Decimal::NEGATIVE_ONE);
        assert_eq!(units.of(Unit::WebSearches), Some(Decimal::from(3)));
        assert_eq!(units.of(Unit::Pages), None);
        assert!(!units.is_over_limit());
        units.add(Unit::WebSearches, Decimal::MAX);
        assert_eq!(units.of(Unit::WebSearches), Some(Decimal::from(QUANTITY_END)));
        assert!(units.is_over_limit());
        let second = "0.12345649".parse().unwrap();
        units.raise(Unit::InputAudioSeconds, second);
        assert_eq!(units.of(Unit::InputAudioSeconds).unwrap().to_string(), "0.123457");
    }

    #[test]
    fn more_names_than_the_filter_keeps_are_marked() {
        let mut units = Units::default();
        for number in 0..=UNITS_MAX {
            let variant = Some(Word::new(&number.to_string()));
            units.add(UnitName { unit: Unit::OutputImages, variant }, Decimal::ONE);
            assert_eq!(units.is_over_limit(), number == UNITS_MAX);
        }
        assert_eq!(units.of(Unit::OutputImages), Some(Decimal::from(UNITS_MAX)));
    }
}

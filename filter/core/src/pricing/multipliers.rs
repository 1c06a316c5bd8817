//! By what a rate is multiplied for the modifiers of a generation.

use core::fmt;
use core::marker::PhantomData;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::base::pattern::is_fit;
use crate::base::text::Price;
use crate::domain::price_factors::{Modifier, PriceFactors, Word};
use crate::pricing::unpriced::Unpriced;
use crate::pricing::when::When;

/// A factor for each word of each modifier that has a price.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Multipliers {
    /// By how fast the model runs: Anthropic's `speed`.
    speed: Factors,
    /// By where the model runs: Anthropic's `inference_geo`.
    inference_geo: Factors,
    /// By how soon the answer comes: Bedrock's `performanceConfig.latency`.
    latency: Factors,
    /// By location; one without a factor has the list price.
    location: PlaceFactors,
}

/// Patterns of locations with their factors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PlaceFactors(Vec<(Box<str>, Decimal)>);

/// Words with their factors. They are few, so a list is smallest and fastest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Factors(Vec<(Word, Decimal)>);

impl Multipliers {
    fn of(&self, modifier: Modifier) -> &Factors {
        match modifier {
            Modifier::Speed => &self.speed,
            Modifier::InferenceGeo => &self.inference_geo,
            Modifier::Latency => &self.latency,
        }
    }

    /// The product of the factors for what moves the price; an error if a modifier has none, and is
    /// none of the rate's conditions. A location without a factor has the list price.
    pub(super) fn product(&self, factors: &PriceFactors, when: &When) -> Result<Decimal, Unpriced> {
        let of_location = factors.location.and_then(|location| {
            let fitting = self.location.0.iter().filter(|(p, _)| is_fit(p, location.as_str()));
            // The longest pattern is the most exact one.
            fitting.max_by_key(|(pattern, _)| pattern.len())
        });
        let of_location = of_location.map_or(Decimal::ONE, |(_, factor)| *factor);
        let special = factors.modifiers.special();
        let mut special = special.filter(|(modifier, word)| when.word(*modifier) != Some(*word));
        special.try_fold(of_location, |product, (modifier, word)| {
            let factor = self.of(modifier).0.iter().find(|(named, _)| *named == word);
            let (_, factor) = factor.ok_or(Unpriced::NoRateForModifier(modifier, word))?;
            product.checked_mul(*factor).ok_or(Unpriced::MoneyOverflow)
        })
    }
}

impl<'de> Deserialize<'de> for Factors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FactorsReader(PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for PlaceFactors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FactorsReader(PhantomData)).map(Self)
    }
}

struct FactorsReader<K>(PhantomData<K>);

impl<'de, K: Deserialize<'de>> Visitor<'de> for FactorsReader<K> {
    type Value = Vec<(K, Decimal)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of a provider's words with factors such as \"1.1\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut factors = Vec::new();
        while let Some(word) = map.next_key()? {
            factors.push((word, map.next_value::<Price>()?.amount()));
        }
        Ok(factors)
    }
}

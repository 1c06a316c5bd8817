//! By what a rate is multiplied for the modifiers of a generation.

use core::fmt;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::base::text::Price;
use crate::domain::price_factors::{Modifier, Modifiers, Word};
use crate::pricing::unpriced::Unpriced;

/// A factor for each word of each modifier that has a price.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Multipliers {
    speed: Factors,
    inference_geo: Factors,
    latency: Factors,
}

/// Words with their factors. They are few, so a list is smallest and fastest.
#[derive(Clone, Debug, Default, PartialEq)]
struct Factors(Vec<(Word, Decimal)>);

impl Multipliers {
    fn of(&self, modifier: Modifier) -> &Factors {
        match modifier {
            Modifier::Speed => &self.speed,
            Modifier::InferenceGeo => &self.inference_geo,
            Modifier::Latency => &self.latency,
        }
    }

    /// The product of the factors for these modifiers; an error if one of them has none.
    pub(super) fn product(&self, modifiers: &Modifiers) -> Result<Decimal, Unpriced> {
        modifiers.special().try_fold(Decimal::ONE, |product, (modifier, word)| {
            let factor = self.of(modifier).0.iter().find(|(named, _)| *named == word);
            let (_, factor) = factor.ok_or(Unpriced::NoRateForModifier(modifier, word))?;
            product.checked_mul(*factor).ok_or(Unpriced::MoneyOverflow)
        })
    }
}

impl<'de> Deserialize<'de> for Factors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FactorsReader)
    }
}

struct FactorsReader;

impl<'de> Visitor<'de> for FactorsReader {
    type Value = Factors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of a provider's words with factors such as \"1.1\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Factors, A::Error> {
        let mut factors = Vec::new();
        while let Some(word) = map.next_key()? {
            factors.push((word, map.next_value::<Price>()?.amount()));
        }
        Ok(Factors(factors))
    }
}

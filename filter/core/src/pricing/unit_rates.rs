//! What a unit beside tokens costs: the rates of an entry or a tier.

use core::fmt;

use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::base::text::Price;
use crate::domain::price_factors::Word;
use crate::domain::units::UnitName;
use crate::pricing::unpriced::Unpriced;

/// The price of a unit at a provider, whatever the model.
#[derive(Clone, Debug)]
pub(super) struct GeneralRate {
    pub(super) amount: Decimal,
    /// What it does not name of that by which the price of the generation moves.
    pub(super) lacks: Option<Unpriced>,
}

/// Units, each with its rate for one of it. They are few, so a list is smallest and fastest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct UnitRates(Box<[(UnitName, Decimal)]>);

impl UnitRates {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rate of a unit: that of its variant, else the dearest of those for one word of it, else
    /// that of the unit without a variant.
    pub(super) fn rate(&self, name: UnitName) -> Option<Decimal> {
        let of = |variant: Option<Word>| {
            let wanted = UnitName { variant, ..name };
            self.0.iter().find(|(named, _)| *named == wanted).map(|(_, rate)| *rate)
        };
        of(name.variant)
            .or_else(|| name.words().filter_map(|word| of(Some(Word::new(word)))).max())
            .or_else(|| of(None))
    }
}

impl<'de> Deserialize<'de> for UnitRates {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(RatesReader)
    }
}

struct RatesReader;

impl<'de> Visitor<'de> for RatesReader {
    type Value = UnitRates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of units such as `web_searches` with the price of one")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UnitRates, A::Error> {
        let mut rates: Vec<(UnitName, Decimal)> = Vec::new();
        while let Some(name) = map.next_key::<UnitName>()? {
            if rates.iter().any(|(named, _)| *named == name) {
                return Err(A::Error::custom(format!("duplicate unit `{name}`")));
            }
            rates.push((name, map.next_value::<Price>()?.amount()));
        }
        Ok(UnitRates(rates.into_boxed_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_variant_has_the_rate() {
        let rates: UnitRates = serde_json::from_str(
            r#"{ "output_images": "1", "output_images:hd": "2", "output_images:large": "3",
                 "output_images:hd:large": "4", "output_video_seconds:1080p": "5" }"#,
        )
        .unwrap();
        for (name, rate) in [
            ("output_images", Some(1)),
            ("output_images:small", Some(1)),
            ("output_images:hd", Some(2)),
            ("output_images:hd:small", Some(2)),
            ("output_images:large:hd", Some(3)),
            ("output_images:hd:large", Some(4)),
            ("output_video_seconds", None),
            ("output_video_seconds:720p", None),
            ("output_video_seconds:1080p", Some(5)),
        ] {
            let found = rates.rate(UnitName::parse(name).unwrap());
            assert_eq!(found, rate.map(Decimal::from), "{name}");
        }
    }
}

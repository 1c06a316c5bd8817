//! Price lists are JSON: its objects in their order, and its numbers as text.

use std::fmt;

use anyhow::{Context, bail, ensure};
use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The places of a rate that the filter takes.
const PLACES_MAX: u32 = 12;

/// An object with its members in the order of the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// A member that is an object, a list or a text; `None` also if it is null.
    pub(super) fn read<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> anyhow::Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).with_context(|| name.to_owned())
    }
}

/// A value; `None` if it is null.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &RawValue) -> anyhow::Result<Option<T>> {
    Ok(serde_json::from_str(value.get())?)
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        from.deserialize_map(Members)
    }
}

/// A price, exactly as the list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Price {
    /// For a million tokens.
    PerMillion(Decimal),
    /// The filter takes no more than 12 places.
    TooManyPlaces,
}

/// A price for 10 to the power of `unit` tokens, as a number or a text; `None` if it is null.
pub(super) fn price(value: &RawValue, unit: u32) -> anyhow::Result<Option<Price>> {
    let text = value.get();
    if text == "null" {
        return Ok(None);
    }
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let number = unquoted.unwrap_or(text);
    let wrong = || format!("expected a price of zero or more, found {text}");
    Ok(Some(parse(number, unit).with_context(wrong)?))
}

/// A count such as `200000` or `256000.0`.
pub(super) fn count(value: &RawValue) -> anyhow::Result<u64> {
    let wrong = || format!("expected a number of tokens, found {}", value.get());
    let Price::PerMillion(count) = parse(value.get(), 6).with_context(wrong)? else {
        bail!(wrong());
    };
    ensure!(count.is_integer(), wrong());
    u64::try_from(count).with_context(wrong)
}

/// Shifts the point of a decimal with an optional exponent, for a million instead of 10 to the
/// power of `unit`.
fn parse(number: &str, unit: u32) -> anyhow::Result<Price> {
    let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(is_plain, "it is no plain number");
    let exponent: i64 = exponent.parse()?;
    let shift = exponent + 6 - i64::from(unit) - i64::try_from(fraction.len())?;
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(Price::PerMillion(Decimal::ZERO));
    }
    let shift = shift + i64::try_from(digits.len() - significant.len())?;
    let mut units: i128 = significant.parse()?;
    let places = match u32::try_from(-shift) {
        Ok(places) if places > PLACES_MAX => return Ok(Price::TooManyPlaces),
        Ok(places) => places,
        Err(_) => {
            let tenfold = 10_i128.checked_pow(u32::try_from(shift)?);
            let product = tenfold.and_then(|tenfold| units.checked_mul(tenfold));
            units = product.context("it is too large")?;
            0
        }
    };
    Ok(Price::PerMillion(Decimal::try_from_i128_with_scale(units, places)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_keeps_each_digit() {
        for (text, unit, expected) in [
            ("2.5e-06", 0, Some("2.5")),
            ("1e-05", 0, Some("10")),
            ("0.00000125", 0, Some("1.25")),
            ("5.4e-08", 0, Some("0.054")),
            ("1.23456789012e-06", 0, Some("1.23456789012")),
            ("0.0", 0, Some("0")),
            ("0", 6, Some("0")),
            ("3", 0, Some("3000000")),
            ("2.50", 6, Some("2.5")),
            ("0.1", 6, Some("0.1")),
            ("\"0.075\"", 6, Some("0.075")),
            ("1E+1", 6, Some("10")),
            ("123456789.123456789123", 6, Some("123456789.123456789123")),
            ("1.5000020000000002e-05", 0, Some("15.000020000000002")),
            ("1.4999999999999e-6", 0, Some("1.4999999999999")),
            ("-1", 6, None),
            ("\"\"", 6, None),
            ("true", 6, None),
            ("[1]", 6, None),
            ("1e40", 0, None),
        ] {
            let value = RawValue::from_string(text.to_owned()).expect("JSON");
            let found = price(&value, unit).map(|price| price.expect("a price"));
            match (found, expected) {
                (Ok(Price::PerMillion(found)), Some(expected)) => {
                    assert_eq!(found.to_string(), expected, "{text}");
                }
                (Ok(Price::TooManyPlaces), Some(expected)) => {
                    assert!(expected.split_once('.').expect("places").1.len() > 12, "{text}");
                }
                (Err(_), None) => {}
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}

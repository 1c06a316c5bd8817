//! Price lists are JSON: its objects in their order, and its numbers as text.

use std::fmt;

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The places of a rate that the filter takes.
pub(super) const PLACES_MAX: u32 = 12;

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

/// A price in decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Price {
    /// Of a million; the digits are the list's own.
    pub(super) amount: Decimal,
    /// True if the list has more places than the filter takes, so that it is rounded to these.
    pub(super) is_rounded: bool,
}

/// A price for 10 to the power of `unit` things, as a number or a text; `None` if it is null. The
/// price is that of a million of them.
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
    let Price { amount, is_rounded } = parse(value.get(), 6).with_context(wrong)?;
    ensure!(amount.is_integer() && !is_rounded, wrong());
    u64::try_from(amount).with_context(wrong)
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
        return Ok(Price { amount: Decimal::ZERO, is_rounded: false });
    }
    let shift = shift + i64::try_from(digits.len() - significant.len())?;
    let mut units: i128 = significant.parse()?;
    if let Ok(fraction) = u32::try_from(-shift) {
        let places = fraction.min(PLACES_MAX);
        if let Some(tenfold) = 10_i128.checked_pow(fraction - places) {
            units = (units + tenfold / 2) / tenfold;
        } else {
            units = 0;
        }
        // What costs something is never free.
        let amount = Decimal::try_from_i128_with_scale(units.max(1), places)?.normalize();
        return Ok(Price { amount, is_rounded: fraction > PLACES_MAX });
    }
    let tenfold = 10_i128.checked_pow(u32::try_from(shift)?);
    let product = tenfold.and_then(|tenfold| units.checked_mul(tenfold));
    units = product.context("it is too large")?;
    Ok(Price { amount: Decimal::try_from_i128_with_scale(units, 0)?, is_rounded: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_keeps_each_digit_that_the_filter_takes() {
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
            ("1.5000020000000002e-05", 0, Some("15.00002")),
            ("0.08333333333333334", 6, Some("0.083333333333")),
            ("3.00000000000000004e-5", 6, Some("0.00003")),
            ("1e-30", 6, Some("0.000000000001")),
            ("1.4999999999999e-6", 0, Some("1.5")),
            ("-1", 6, None),
            ("\"\"", 6, None),
            ("true", 6, None),
            ("[1]", 6, None),
            ("1e40", 0, None),
        ] {
            let value = RawValue::from_string(text.to_owned()).expect("JSON");
            let found = price(&value, unit).map(|price| price.expect("a price"));
            match (found, expected) {
                (Ok(found), Some(expected)) => {
                    assert_eq!(found.amount.to_string(), expected, "{text}");
                    let rounded = ["0000000002", "33334", "00004", "1e-30", "99999e"];
                    let is_rounded = rounded.iter().any(|part| text.contains(part));
                    assert_eq!(found.is_rounded, is_rounded, "{text}");
                }
                (Err(_), None) => {}
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}

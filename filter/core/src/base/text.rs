//! Values that the configuration writes as text: durations, prices, shares and rates.

use core::fmt;

use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::base::time::Millis;

/// A duration such as `"250ms"`, `"60s"`, `"5m"`, `"1h"` or `"1d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(Millis);

/// A decimal of zero or more, such as `"0.05"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price(Decimal);

const PLACES_MAX: u32 = 12;

const AMOUNT_END: u64 = 1_000_000_000_000;

impl Duration {
    /// A duration of `seconds`.
    pub(crate) const fn from_seconds(seconds: u64) -> Self {
        Self(Millis::from_seconds(seconds))
    }

    /// The duration in milliseconds.
    pub const fn millis(self) -> Millis {
        self.0
    }

    /// Reads such a text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at_checked(digits)?;
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let millis = count.parse::<u64>().ok()?.checked_mul(factor)?;
        // A year exceeds any useful timeout, and this bound keeps later sums far from overflow.
        (millis <= 366 * 86_400_000).then_some(Self(Millis(millis)))
    }
}

impl Price {
    /// The amount.
    pub const fn amount(self) -> Decimal {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        // No exponent, leading plus or space, so that the filter charges exactly what is written.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let starts_and_ends_with_digit = text.bytes().next().is_some_and(|b| b.is_ascii_digit())
            && text.bytes().last().is_some_and(|b| b.is_ascii_digit());
        if !is_plain || !starts_and_ends_with_digit {
            return None;
        }
        // Within these bounds, a sum of up to 10^4 times 10^12 calls keeps all of the decimal's 28
        // digits.
        let amount = Decimal::from_str_exact(text).ok()?.normalize();
        (amount.scale() <= PLACES_MAX && amount < Decimal::from(AMOUNT_END)).then_some(Self(amount))
    }
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
}

/// A share such as `"25%"` or `"0.25"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub Decimal);

impl Share {
    fn parse(text: &str) -> Option<Self> {
        let (number, is_percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.bytes().next().is_some_and(|b| b.is_ascii_digit())
            && digits.bytes().last().is_some_and(|b| b.is_ascii_digit());
        if !is_plain {
            return None;
        }
        let value = Decimal::from_str_exact(number).ok()?;
        let value = if is_percent { value.checked_div(Decimal::ONE_HUNDRED)? } else { value };
        (value.abs() <= Decimal::TEN && value.scale() <= 12).then(|| Self(value.normalize()))
    }
}

/// A rate such as `"5req/sec"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleRate {
    /// Requests that may arrive at once, and requests that pass in each `per`.
    pub requests: u32,
    /// The time in which `requests` pass.
    pub per: Millis,
}

impl ThrottleRate {
    fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once("req/")?;
        let per = match unit {
            "s" | "sec" | "second" => 1000,
            "m" | "min" | "minute" => 60_000,
            "h" | "hour" => 3_600_000,
            _ => return None,
        };
        let requests = count.trim().parse().ok()?;
        (1..=1_000_000).contains(&requests).then_some(Self { requests, per: Millis(per) })
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a share such as \"25%\" or \"0.25\", between -1000% and 1000%";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
}

impl<'de> Deserialize<'de> for ThrottleRate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a rate such as \"5req/sec\", \"300req/min\" or \"1000req/hour\"";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
}
#[cfg(feature = "schema")]
mod schema {
    use serde::{Serialize, Serializer};

    use super::{Duration, Price, Share, ThrottleRate};
    use crate::base::schema::text_schema;

    text_schema! {
        Duration,
        "A duration: a whole number and its unit, `ms`, `s`, `m`, `h` or `d`; at most 366 days.",
        "^[0-9]+(ms|s|m|h|d)$",
        ["250ms", "60s", "5m", "1h", "1d"]
    }
    text_schema! {
        Price,
        "An amount of money, a rate or a factor: a decimal string from 0 to below 1000000000000 with at most 12 places.",
        r"^0*[0-9]{1,12}(\.[0-9]+)?$",
        ["0.05", "2.50"]
    }
    text_schema! {
        Share,
        "A share, as a percentage or as a decimal, from -1000% to 1000%.",
        r"^-?[0-9]+(\.[0-9]+)?%?$",
        ["25%", "0.25"]
    }
    text_schema! {
        ThrottleRate,
        "A rate of requests, by second, minute or hour: from 1 to 1000000 of them.",
        r"^\s*\+?[0-9]+\s*req/(s|sec|second|m|min|minute|h|hour)$",
        ["5req/sec", "300req/min", "1000req/hour"]
    }

    impl Serialize for Duration {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
            let whole = |&(_, factor): &(&str, u64)| self.0.0.is_multiple_of(factor);
            let (unit, factor) = match self.0.0 {
                0 => ("s", 1000),
                _ => units.into_iter().find(whole).unwrap_or(("ms", 1)),
            };
            let count = self.0.0.checked_div(factor).unwrap_or_default();
            to.collect_str(&format_args!("{count}{unit}"))
        }
    }

    impl Serialize for Price {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(&self.0)
        }
    }

    impl Serialize for Share {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let percent = self.0.saturating_mul(rust_decimal::Decimal::ONE_HUNDRED).normalize();
            to.collect_str(&format_args!("{percent}%"))
        }
    }
}

/// Writes a name, a dot and a number, without the machinery of formats: each call has such an id.
pub(crate) fn numbered(name: &str, number: u64) -> String {
    let mut digits = [0_u8; 20];
    let (mut rest, mut count) = (number, 0_usize);
    for place in digits.iter_mut().rev() {
        *place = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or_default());
        rest /= 10;
        count = count.saturating_add(1);
        if rest == 0 {
            break;
        }
    }
    let start = digits.len().saturating_sub(count);
    let mut text = String::with_capacity(name.len().saturating_add(count).saturating_add(1));
    text.push_str(name);
    text.push('.');
    let digits = digits.get(start..).unwrap_or_default();
    text.extend(digits.iter().map(|digit| char::from(*digit)));
    text
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn a_number_is_written_as_a_format_would() {
        for number in [0, 7, 10, 99, 100, 4_294_967_295, u64::MAX] {
            assert_eq!(numbered("0.1", number), format!("0.1.{number}"));
        }
    }
}

//! Exact decimal money: reading, adding and writing.
//! No float. One event's amounts are exact or an error; a sum over many rows is exact as long as it
//! fits in 28 digits, then rounded to these, and at last stays at the largest amount: one row that is
//! wrong must not keep a report from the others.

mod exact;
pub(crate) mod known;
pub(crate) mod payable;

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) use self::exact::Exact;

/// A sum or product needs more than 28 significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("money: the amount does not fit in 28 digits")
    }
}

impl std::error::Error for Overflow {}

/// Reads digits with at most one point, such as `12` or `0.003`; `None` for a sign, an exponent,
/// anything else, or more digits than can be kept exactly.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    Decimal::from_str_exact(text).ok().map(|amount| amount.normalize())
}

/// `left + right`, exactly. `checked_add` alone is not enough: rather than fail, it drops digits
/// behind the point when the sum gets too long.
pub(crate) fn add(left: Decimal, right: Decimal) -> Result<Decimal, Overflow> {
    let (left, right) = (left.normalize(), right.normalize());
    let sum = left.checked_add(right).ok_or(Overflow)?;
    if sum.scale() < left.scale().max(right.scale()) {
        return Err(Overflow);
    }
    Ok(sum.normalize())
}

/// `left - right`, exactly.
pub(crate) fn subtract(left: Decimal, right: Decimal) -> Result<Decimal, Overflow> {
    add(left, -right)
}

/// The sum for a report: exact if it fits, else rounded to 28 digits, else the largest amount.
pub(crate) fn sum(left: Decimal, right: Decimal) -> Decimal {
    add(left, right).unwrap_or_else(|Overflow| {
        let is_negative = left.is_sign_negative() && right.is_sign_negative();
        let most = if is_negative { Decimal::MIN } else { Decimal::MAX };
        left.checked_add(right).map_or(most, |sum| sum.normalize())
    })
}

/// What one of `quantity` costs that cost `price` together; the price itself if it cannot be divided.
pub(crate) fn unit_price(price: Decimal, quantity: Decimal) -> Decimal {
    price.checked_div(quantity).unwrap_or(price).normalize()
}

/// The difference for a report, as [`sum`].
pub(crate) fn difference(left: Decimal, right: Decimal) -> Decimal {
    sum(left, -right)
}

/// For `#[serde(serialize_with)]`: a decimal string, never a JSON number.
pub(crate) fn as_text<S: Serializer>(amount: &Decimal, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&amount.normalize())
}

/// For `#[serde(deserialize_with)]`: an amount that may be below zero, as [`as_text`] writes it.
pub(crate) fn signed<'de, D: Deserializer<'de>>(from: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(from)?;
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, &*text), |rest| (true, rest));
    let amount = parse(digits).ok_or_else(|| serde::de::Error::custom("not money"))?;
    Ok(if is_negative { -amount } else { amount })
}

/// For `#[serde(with)]` on an amount that may be absent.
pub(crate) mod optional {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        amount: &Option<Decimal>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match amount {
            Some(amount) => as_text(amount, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Decimal>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| serde::de::Error::custom("not money"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimals_are_money() {
        for (text, expected) in [
            ("0", Some("0")),
            ("0.10", Some("0.1")),
            ("007", Some("7")),
            ("1000", Some("1000")),
            ("0.0000000000000000000000000001", Some("0.0000000000000000000000000001")),
            ("0.00000000000000000000000000001", None),
            ("79228162514264337593543950336", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1_000", None),
            ("1.", None),
            (".5", None),
            ("1.2.3", None),
            (" 1", None),
            ("", None),
        ] {
            assert_eq!(
                parse(text).map(|amount| amount.to_string()).as_deref(),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_sum_is_exact_or_an_error() {
        let most = "79228162514264337593543950335";
        for (left, right, expected) in [
            ("0.1", "0.2", Some("0.3")),
            ("0.5", "0.5", Some("1")),
            ("0", "0.001", Some("0.001")),
            (most, "0", Some(most)),
            (most, "1", None),
            (most, "0.1", None),
            ("1000000000000000000000000000", "0.0000000001", None),
        ] {
            let sum = add(parse(left).unwrap(), parse(right).unwrap()).ok();
            assert_eq!(sum.map(|sum| sum.to_string()).as_deref(), expected, "{left} + {right}");
        }
    }

    #[test]
    fn a_sum_for_a_report_is_rounded_or_the_largest_rather_than_nothing() {
        let most = "79228162514264337593543950335";
        for (left, right, expected) in [
            ("0.1", "0.2", "0.3"),
            (most, "1", most),
            (most, most, most),
            (most, "0.1", most),
            ("1000000000000000000000000000", "0.0000000001", "1000000000000000000000000000"),
            ("1000000000000", "0.0000000000000000000000000004", "1000000000000"),
        ] {
            let (left, right) = (parse(left).unwrap(), parse(right).unwrap());
            assert_eq!(sum(left, right).to_string(), expected, "{left} + {right}");
            assert_eq!(difference(-left, right).to_string(), format!("-{expected}"));
        }
    }
}

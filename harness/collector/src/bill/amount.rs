//! Amounts and counts of a bill: exact decimals, which may be below zero, and how they are written
//! in exports.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};

use rust_decimal::RoundingStrategy;
use serde::{Serialize, Serializer};

use crate::money::Exact;

/// Digits behind the point that an amount can have.
const PLACES_MAX: i64 = 28;
/// Digits before the point of the largest amount that is read.
const WHOLE_DIGITS_MAX: i64 = 24;
/// The longest number that is read, in bytes.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Places of a part of an amount that had to be divided. What the rounding leaves is in the other
/// part, so that the parts add up to the whole.
const SHARE_PLACES: u32 = 12;

/// An exact decimal: US dollars, or a quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(Exact);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(Exact::ZERO);

    /// Reads a decimal such as `12`, `-0.003` or `5.1e-05`, times ten to the power of `shift`.
    ///
    /// # Errors
    ///
    /// If it is no decimal, or has more digits than can be added exactly.
    pub(super) fn parse(text: &str, shift: i64) -> Result<Written, &'static str> {
        const NO_DECIMAL: &str = "must be a decimal number";
        if text.len() > TEXT_BYTES_MAX {
            return Err("must be a shorter number");
        }
        let (is_negative, plain) =
            text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_| NO_DECIMAL)?.into())
            }
            None => (plain, 0_i64),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(NO_DECIMAL),
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return Err(NO_DECIMAL);
        }
        let behind = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let places = behind.saturating_sub(exponent).saturating_sub(shift);
        let amount = of_digits(&format!("{whole}{fraction}"), places)?;
        let amount = if is_negative { -amount } else { amount };
        let places = u32::try_from(places.clamp(0, PLACES_MAX)).unwrap_or(0);
        Ok(Written { amount, places })
    }

    /// True if it is below zero.
    pub(super) fn is_negative(self) -> bool {
        self < Amount::ZERO
    }

    /// True if it is nothing.
    pub(super) fn is_zero(self) -> bool {
        self == Amount::ZERO
    }

    /// The same above zero.
    pub(super) fn abs(self) -> Amount {
        if self.is_negative() { -self } else { self }
    }

    /// As much of it as is within this much, on either side of zero.
    pub(super) fn within(self, bound: Amount) -> Amount {
        let bound = bound.abs();
        self.clamp(-bound, bound)
    }

    /// The part `of` of `whole`, to [`SHARE_PLACES`] places; `None` if it cannot be divided.
    pub(super) fn share(self, of: Amount, whole: Amount) -> Option<Amount> {
        self.scaled(of, whole, SHARE_PLACES)
    }

    /// What a million costs, for people: to six places.
    pub(super) fn per_million(self, quantity: Amount) -> Option<Amount> {
        self.scaled(Amount::from(1_000_000), quantity, 6)
    }

    fn scaled(self, of: Amount, whole: Amount, places: u32) -> Option<Amount> {
        let product = self.0.rounded().checked_mul(of.0.rounded())?;
        let share = product.checked_div(whole.0.rounded())?;
        let rounding = RoundingStrategy::MidpointAwayFromZero;
        Some(Amount(share.round_dp_with_strategy(places, rounding).into()))
    }

    /// Half of the last one of so many places, for each of so many lines.
    pub(super) fn half_of_last_place(places: u32, lines: u64) -> Amount {
        let places = usize::try_from(places.min(27)).unwrap_or(0);
        let half = Exact::parse(&format!("0.{}5", "0".repeat(places))).unwrap_or_default();
        let half = half.rounded().checked_mul(lines.into()).unwrap_or_default();
        Amount(half.into())
    }
}

/// An amount, and how many digits it was written with behind the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) amount: Amount,
    pub(super) places: u32,
}

/// Digits of which so many are behind the point; below zero, so many zeros follow.
fn of_digits(digits: &str, places: i64) -> Result<Amount, &'static str> {
    let significant = digits.trim_start_matches('0');
    let kept = significant.trim_end_matches('0');
    if kept.is_empty() {
        return Ok(Amount::ZERO);
    }
    let dropped = significant.len().saturating_sub(kept.len());
    let places = places.saturating_sub(i64::try_from(dropped).unwrap_or(i64::MAX));
    let length = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    if places > PLACES_MAX {
        return Err("must have at most 28 digits behind the point");
    }
    if length.saturating_sub(places) > WHOLE_DIGITS_MAX {
        return Err("must be a smaller number");
    }
    let text = if places <= 0 {
        format!("{kept}{}", "0".repeat(usize::try_from(-places).unwrap_or(0)))
    } else {
        let behind = usize::try_from(places).unwrap_or(0);
        let padded = format!("{kept:0>width$}", width = behind + 1);
        let (whole, fraction) = padded.split_at(padded.len() - behind);
        format!("{whole}.{fraction}")
    };
    Exact::parse(&text).map(Amount).ok_or("must be a smaller number")
}

impl From<Exact> for Amount {
    fn from(exact: Exact) -> Amount {
        Amount(exact)
    }
}

impl From<i64> for Amount {
    fn from(count: i64) -> Amount {
        Amount(count.into())
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(mut self, other: Amount) -> Amount {
        self.0.add(other.0);
        self
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.0.add(other.0);
    }
}

impl Neg for Amount {
    type Output = Amount;

    fn neg(self) -> Amount {
        Amount(-self.0)
    }
}

impl Sub for Amount {
    type Output = Amount;

    fn sub(self, other: Amount) -> Amount {
        self + -other
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::ZERO, Add::add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_exports_write_them_and_nothing_else() {
        for (text, shift, expected) in [
            ("0.06", 0, Ok("0.06")),
            ("12", 0, Ok("12")),
            ("-1.25", 0, Ok("-1.25")),
            ("123.45", -2, Ok("1.2345")),
            ("0E-6176", 0, Ok("0")),
            ("5.1e-05", 0, Ok("0.000051")),
            ("1E+3", 0, Ok("1000")),
            ("100", -2, Ok("1")),
            ("0.000004500000000000000000000000000000000", 0, Ok("0.0000045")),
            ("1234.567", 3, Ok("1234567")),
            ("", 0, Err("must be a decimal number")),
            ("-", 0, Err("must be a decimal number")),
            ("1,5", 0, Err("must be a decimal number")),
            ("1.", 0, Err("must be a decimal number")),
            (".5", 0, Err("must be a decimal number")),
            ("NaN", 0, Err("must be a decimal number")),
            ("1e", 0, Err("must be a decimal number")),
            ("$1", 0, Err("must be a decimal number")),
            (" 1", 0, Err("must be a decimal number")),
            ("1e-29", 0, Err("must have at most 28 digits behind the point")),
            ("1e25", 0, Err("must be a smaller number")),
            ("1e2147483647", 0, Err("must be a smaller number")),
        ] {
            let read = Amount::parse(text, shift).map(|written| written.amount.to_string());
            assert_eq!(read.as_deref().map_err(|error| *error), expected, "{text:?}");
        }
        assert_eq!(Amount::parse("0.0500", 0).map(|written| written.places), Ok(4));
        assert_eq!(Amount::half_of_last_place(2, 3).to_string(), "0.015");
    }
}

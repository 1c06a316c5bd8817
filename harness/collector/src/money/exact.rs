//! Sums of amounts that are always exact, so that what was added can be taken back, and so that the
//! order of the amounts does not matter.

use std::fmt;
use std::ops::Neg;
use std::str::FromStr;

use rust_decimal::Decimal;

/// Digits behind the point: as many as an amount can have.
const SCALE: u32 = 28;
/// One, in the unit of `fraction`.
const ONE: i128 = 10_i128.pow(SCALE);

/// A sum of amounts. It holds two thousand million of the largest amount before it stays at the
/// largest sum.
/// The order is that of the amounts: `fraction` is never below zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exact {
    whole: i128,
    /// In units of 10^-28, from 0 to below one.
    fraction: i128,
}

impl Exact {
    pub(crate) const ZERO: Exact = Exact { whole: 0, fraction: 0 };

    pub(crate) fn add(&mut self, other: Exact) {
        let fraction = self.fraction + other.fraction;
        let carried = i128::from(fraction >= ONE);
        self.whole = self.whole.saturating_add(other.whole).saturating_add(carried);
        self.fraction = fraction - carried * ONE;
    }

    /// Reads digits with at most one point and a `-`; `None` for anything else, or more than 28
    /// digits behind the point.
    pub(crate) fn parse(text: &str) -> Option<Exact> {
        let (is_negative, amount) = match text.strip_prefix('-') {
            Some(amount) => (true, amount),
            None => (false, text),
        };
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, "0"));
        let places = u32::try_from(fraction.len()).ok()?;
        let missing = 10_i128.pow(SCALE.checked_sub(places)?);
        let sum = Exact { whole: digits(whole)?, fraction: digits(fraction)? * missing };
        Some(if is_negative { -sum } else { sum })
    }

    /// The amount for a report: exact if it fits, else rounded to 28 digits, else the largest.
    pub(crate) fn rounded(self) -> Decimal {
        let most = if self.whole < 0 { Decimal::MIN } else { Decimal::MAX };
        Decimal::from_str(&self.to_string()).map_or(most, |amount| amount.normalize())
    }

    /// The count for a report: the largest number if it does not fit.
    pub(crate) fn rounded_count(self) -> i64 {
        let most = if self.whole < 0 { i64::MIN } else { i64::MAX };
        i64::try_from(self.whole).unwrap_or(most)
    }
}

/// `None` unless there are only digits, one to 38 of them.
fn digits(text: &str) -> Option<i128> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

impl Neg for Exact {
    type Output = Exact;

    fn neg(self) -> Exact {
        let whole = self.whole.saturating_neg();
        match self.fraction {
            0 => Exact { whole, fraction: 0 },
            fraction => Exact { whole: whole.saturating_sub(1), fraction: ONE - fraction },
        }
    }
}

impl From<Decimal> for Exact {
    fn from(amount: Decimal) -> Exact {
        let unit = 10_i128.pow(amount.scale().min(SCALE));
        let mantissa = amount.mantissa();
        Exact {
            whole: mantissa.div_euclid(unit),
            fraction: mantissa.rem_euclid(unit) * (ONE / unit),
        }
    }
}

impl From<i64> for Exact {
    fn from(count: i64) -> Exact {
        Exact { whole: count.into(), fraction: 0 }
    }
}

/// A decimal without trailing zeros.
impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_negative = self.whole < 0;
        let Exact { whole, fraction } = if is_negative { -*self } else { *self };
        let sign = if is_negative { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{fraction:028}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: &str = "79228162514264337593543950335";

    fn sum(amounts: &[&str]) -> Exact {
        let mut sum = Exact::ZERO;
        amounts.iter().for_each(|amount| sum.add(Exact::parse(amount).expect(amount)));
        sum
    }

    #[test]
    fn what_was_added_can_be_taken_back() {
        let tiny = "0.0000000000000000000000000001";
        for (amounts, expected) in [
            (vec![], "0"),
            (vec!["0.1", "0.2"], "0.3"),
            (vec!["0.5", "0.50"], "1"),
            (vec!["1", "-0.25"], "0.75"),
            (vec!["0.25", "-1"], "-0.75"),
            (vec!["-0.25", "-0.75"], "-1"),
            (vec![MOST, MOST, tiny], "158456325028528675187087900670.0000000000000000000000000001"),
            (
                vec![
                    MOST,
                    tiny,
                    MOST,
                    "-79228162514264337593543950335",
                    "-79228162514264337593543950335",
                ],
                tiny,
            ),
        ] {
            assert_eq!(sum(&amounts).to_string(), expected, "{amounts:?}");
            let negated = (-sum(&amounts)).to_string();
            assert_eq!(sum(&[expected, &negated]), Exact::ZERO, "{amounts:?}");
        }
    }

    #[test]
    fn an_amount_is_the_same_as_text_and_as_a_number() {
        for text in ["0", "12", "0.003", "-0.003", "-12.5", MOST, "7.9228162514264337593543950335"]
        {
            let amount = Decimal::from_str(text).expect(text);
            assert_eq!(Exact::from(amount).to_string(), text);
            assert_eq!(Exact::parse(text), Some(Exact::from(amount)), "{text}");
            assert_eq!(Exact::from(amount).rounded(), amount, "{text}");
        }
        for text in
            ["", "-", "1.", ".5", "+1", "1e3", "1.2.3", "--1", "0.00000000000000000000000000001"]
        {
            assert_eq!(Exact::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_sum_for_a_report_is_rounded_or_the_largest_rather_than_nothing() {
        let tiny = "0.0000000000000000000000000004";
        for (amounts, expected) in [
            (vec!["1000000000000", tiny], "1000000000000"),
            (vec![MOST, "0.1"], MOST),
            (vec![MOST, "1"], MOST),
            (vec!["-79228162514264337593543950335", "-1"], "-79228162514264337593543950335"),
        ] {
            assert_eq!(sum(&amounts).rounded().to_string(), expected, "{amounts:?}");
        }
        let most = Exact::from(i64::MAX);
        let mut sum = most;
        sum.add(most);
        assert_eq!((most.rounded_count(), sum.rounded_count()), (i64::MAX, i64::MAX));
    }
}

//! Numbers for people: money rounded to its currency with the exact amount behind it, thousands
//! separated, and percentages that stay readable. No float.

use std::fmt;

use maud::{Markup, html};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::money::known::CostKnown;
use crate::money::payable::{digits, payable, payable_text};

/// Percentages are told up to here.
const PERCENT_MAX: i64 = 999;

/// A count with its thousands separated.
pub(super) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// Digits, perhaps with a sign and a point, with the thousands separated.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("\u{2212}", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(a, b)| (a, Some(b)));
    let mut out = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// An amount as it is paid. One that is not zero is never told as such.
pub(super) fn rounded(amount: Decimal, currency: &str) -> String {
    if amount.is_zero() || !payable(amount, currency).is_zero() {
        return grouped(&payable_text(amount, currency));
    }
    let least = Decimal::new(1, digits(currency));
    if amount.is_sign_negative() { format!("> \u{2212}{least}") } else { format!("< {least}") }
}

/// How an amount stands to the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Exact,
    /// The true one is at least this.
    Least,
    /// The true one is at most this.
    Most,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Exact => "",
            Bound::Least => "\u{2265} ",
            Bound::Most => "\u{2264} ",
        })
    }
}

impl Bound {
    fn strategy(self) -> RoundingStrategy {
        match self {
            Bound::Exact => RoundingStrategy::MidpointAwayFromZero,
            Bound::Least => RoundingStrategy::ToNegativeInfinity,
            Bound::Most => RoundingStrategy::ToPositiveInfinity,
        }
    }

    /// An amount as it is shown: a bound is rounded to the side on which it holds.
    fn rounded(self, amount: Decimal, currency: &str) -> String {
        if self == Bound::Exact {
            return rounded(amount, currency);
        }
        let places = digits(currency);
        let mut amount = amount.round_dp_with_strategy(places, self.strategy());
        if amount.is_zero() {
            amount.set_sign_positive(true);
        }
        amount.rescale(places);
        grouped(&amount.to_string())
    }
}

/// An amount with the exact one behind it, where rounding leaves something out: on hover, and when
/// it has the focus, by a tap or the keyboard.
pub(super) fn money(amount: Decimal, currency: &str, bound: Bound) -> Markup {
    let shown = bound.rounded(amount, currency);
    let exact = format!("{bound}{} {currency}", grouped(&amount.normalize().to_string()));
    let is_exact = payable(amount, currency) == amount;
    html! {
        @if is_exact { span.amount { (bound) (shown) } }
        @else { span.amount.rounded tabindex="0" title=(exact) { (bound) (shown) } }
    }
}

/// The bounds of a cost and of what is left over it: exact, or the least and the most.
pub(super) fn bounds(known: CostKnown) -> [Bound; 2] {
    match known {
        CostKnown::Part => [Bound::Least, Bound::Most],
        CostKnown::All | CostKnown::None => [Bound::Exact; 2],
    }
}

/// A share of one as a percentage.
pub(super) fn percent(share: Decimal, bound: Bound) -> String {
    let Some(percent) = share.checked_mul(Decimal::ONE_HUNDRED) else {
        return beyond(share.is_sign_negative());
    };
    if percent.abs() > Decimal::from(PERCENT_MAX) {
        return beyond(percent.is_sign_negative());
    }
    let tenths = percent.round_dp_with_strategy(1, bound.strategy());
    format!("{bound}{} %", grouped(&tenths.normalize().to_string()))
}

fn beyond(is_negative: bool) -> String {
    if is_negative {
        format!("below \u{2212}{PERCENT_MAX} %")
    } else {
        format!("over {PERCENT_MAX} %")
    }
}

/// How much more it is than before, as a share; `None` where there was nothing, or less than that.
pub(super) fn change(now: Decimal, before: Decimal) -> Option<Decimal> {
    if before <= Decimal::ZERO {
        return None;
    }
    now.checked_sub(before)?.checked_div(before)
}

/// A duration in milliseconds.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", count(ms / 3_600_000), ms / 60_000 % 60),
    }
}

/// A time for people: `2026-11-28 13:25:04`. It is in UTC, as the page says.
pub(super) fn time(rfc3339: &str) -> String {
    rfc3339.get(..19).unwrap_or(rfc3339).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_to_their_currency_and_grouped_and_never_zero_by_rounding() {
        for (amount, currency, expected) in [
            ("0", "USD", "0.00"),
            ("1234567.891", "USD", "1,234,567.89"),
            ("-1234.5", "USD", "\u{2212}1,234.50"),
            ("0.001", "USD", "< 0.01"),
            ("-0.001", "USD", "> \u{2212}0.01"),
            ("0.4", "JPY", "< 1"),
            ("1000", "JPY", "1,000"),
            ("0.0001", "KWD", "< 0.001"),
        ] {
            assert_eq!(rounded(amount.parse().expect("a decimal"), currency), expected);
        }
        assert_eq!(count(1_000_000), "1,000,000");
        let exact = money("1.5".parse().expect("a decimal"), "USD", Bound::Exact).into_string();
        assert_eq!(exact, "<span class=\"amount\">1.50</span>");
        for (amount, bound, expected) in [
            ("1.505", Bound::Least, "title=\"≥ 1.505 USD\">≥ 1.50<"),
            ("1.501", Bound::Most, "title=\"≤ 1.501 USD\">≤ 1.51<"),
            ("-1.501", Bound::Most, ">≤ −1.50<"),
            ("0.008", Bound::Least, ">≥ 0.00<"),
            ("-0.001", Bound::Most, ">≤ 0.00<"),
        ] {
            let shown = money(amount.parse().expect("a decimal"), "USD", bound).into_string();
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn percentages_stay_readable() {
        for (share, expected) in [
            ("0.1234", "12.3 %"),
            ("-0.5", "\u{2212}50 %"),
            ("-1709.208333", "below \u{2212}999 %"),
            ("10", "over 999 %"),
            ("79228162514264337593543950335", "over 999 %"),
        ] {
            assert_eq!(percent(share.parse().expect("a decimal"), Bound::Exact), expected);
        }
        assert_eq!(change(Decimal::ONE, Decimal::ZERO), None);
        assert_eq!(change(Decimal::from(3), Decimal::from(2)), Some(Decimal::new(5, 1)));
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let told = [999, 1999, 61_000, 3_600_000].map(duration);
        assert_eq!(told, ["999 ms", "1.9 s", "1 min 1 s", "1 h 0 min"]);
    }
}

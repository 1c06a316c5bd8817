//! Amounts as they are paid: with as many digits behind the point as the currency has by ISO 4217,
//! such as 2 for USD, 0 for JPY and 3 for KWD, halves away from zero.
//!
//! Half up is what a reader of the invoice checks by hand and what tax rules expect. Half to even
//! would favour nobody over many amounts, but only one amount of an invoice is rounded, its total.

use iso_currency::Currency;
use rust_decimal::{Decimal, RoundingStrategy};

/// Digits behind the point. A code that is none of ISO 4217, and what has no minor units, such as
/// gold, is rounded as most currencies are.
pub(crate) fn digits(currency: &str) -> u32 {
    let known = Currency::from_code(currency).and_then(|currency| currency.exponent());
    known.unwrap_or(2).into()
}

/// An amount as it is paid.
pub(crate) fn payable(amount: Decimal, currency: &str) -> Decimal {
    amount.round_dp_with_strategy(digits(currency), RoundingStrategy::MidpointAwayFromZero)
}

/// The same with all its digits, such as `2.50`.
pub(crate) fn payable_text(amount: Decimal, currency: &str) -> String {
    let mut amount = payable(amount, currency);
    amount.rescale(digits(currency));
    amount.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_paid_in_minor_units_of_its_currency() {
        for (amount, currency, expected) in [
            ("2.5", "USD", "2.50"),
            ("2.524", "USD", "2.52"),
            ("2.525", "USD", "2.53"),
            ("2.515", "EUR", "2.52"),
            ("0.005", "USD", "0.01"),
            ("0.00499999999999999999999999", "USD", "0.00"),
            ("1234.5", "JPY", "1235"),
            ("1234.4999", "JPY", "1234"),
            ("0.0005", "KWD", "0.001"),
            ("7", "KWD", "7.000"),
            ("0.12345", "CLF", "0.1235"),
            ("1.005", "XYZ", "1.01"),
            ("0", "USD", "0.00"),
            ("79228162514264337593543950335", "USD", "79228162514264337593543950335"),
        ] {
            let amount = amount.parse().expect("a decimal");
            assert_eq!(payable_text(amount, currency), expected, "{amount} {currency}");
        }
    }
}

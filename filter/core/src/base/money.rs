//! Sums of money.

use rust_decimal::Decimal;

/// Takes from a sum, which does not fall below zero.
pub(crate) fn take_money(sum: &mut Decimal, amount: Decimal) {
    *sum = sum.saturating_sub(amount).max(Decimal::ZERO);
}

/// Adds to a sum. Returns `false`, and leaves the sum as it was, if the result exceeds a decimal.
pub(crate) fn add_money(sum: &mut Decimal, amount: Decimal) -> bool {
    match sum.checked_add(amount) {
        Some(new) => {
            *sum = new;
            true
        }
        None => false,
    }
}

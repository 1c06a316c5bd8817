//! ScopeTotals of money.

use rust_decimal::Decimal;

/// Adds to a sum; `false` if it no longer fits a decimal, and is left as it was.
pub(crate) fn add_money(sum: &mut Decimal, amount: Decimal) -> bool {
    match sum.checked_add(amount) {
        Some(new) => {
            *sum = new;
            true
        }
        None => false,
    }
}

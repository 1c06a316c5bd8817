//! Reads the numbers in documents, in whatever way they are written.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Reads a number of zero or more.
pub(super) fn number(text: &[u8]) -> Option<Decimal> {
    let text = core::str::from_utf8(text).ok()?.trim();
    let number = Decimal::from_str_exact(text).or_else(|_| text.parse());
    let number = number.or_else(|_| Decimal::from_scientific(text));
    number.ok().filter(|number| !number.is_sign_negative())
}

/// Reads a whole number of zero or more.
pub(super) fn whole_number(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    text.parse().ok().or_else(|| {
        let number = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text));
        number.ok().filter(Decimal::is_integer)?.to_u64()
    })
}

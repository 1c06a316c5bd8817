//! The values of a document's members: what they should be, and which of two counts.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::domain::price_factors::{ServiceTier, UNREADABLE};
use crate::protocol::paths::Field;
use crate::wire::json::Scalar;

/// The value of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    #[default]
    Absent,
    Null,
    /// A number or literal, as written.
    Bare(Vec<u8>),
    Text(Vec<u8>),
    /// An object or array.
    Container,
    /// So many members of a kind that is counted.
    Count(u64),
}

impl Value {
    /// The value of a scalar.
    pub(super) fn new(scalar: &Scalar<'_>) -> Self {
        match (scalar.is_string, scalar.text) {
            (true, text) => Self::Text(text.to_vec()),
            (false, b"null") => Self::Null,
            (false, text) => Self::Bare(text.to_vec()),
        }
    }

    /// The value, if it is written in digits alone, as all counts are that servers should send.
    fn digits(&self) -> Option<u64> {
        let (Self::Bare(text) | Self::Text(text)) = self else { return None };
        if text.is_empty() {
            return None;
        }
        text.iter().try_fold(0_u64, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number.checked_mul(10)?.checked_add(u64::from(digit))
        })
    }

    /// The value as a number of zero or more, which may be a string.
    pub(super) fn quantity(&self) -> Option<Decimal> {
        let text = match self {
            Self::Bare(text) | Self::Text(text) => core::str::from_utf8(text).ok()?.trim(),
            Self::Count(count) => return Some(Decimal::from(*count)),
            Self::Absent | Self::Null | Self::Container => return None,
        };
        if let Some(number) = self.digits() {
            return Some(Decimal::from(number));
        }
        let number = Decimal::from_str_exact(text).or_else(|_| text.parse());
        let number = number.or_else(|_| Decimal::from_scientific(text));
        number.ok().filter(|number| !number.is_sign_negative() || number.is_zero())
    }

    /// The same, rounded up.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Absent | Self::Null | Self::Container => None,
            Self::Count(count) => Some(*count),
            Self::Bare(_) | Self::Text(_) => {
                self.digits().or_else(|| self.quantity()?.ceil().to_u64())
            }
        }
    }

    /// Whether it is there, and not what a member of this meaning should be.
    pub(super) fn is_odd(&self, meaning: Field) -> bool {
        match self {
            Self::Absent | Self::Null | Self::Count(_) => false,
            _ if meaning == Field::CacheWriteOther => self.count().is_some_and(|count| count > 0),
            _ if meaning.is_tokens() || meaning == Field::ItemCount => {
                if matches!(self, Self::Bare(_)) && self.digits().is_some() {
                    return false;
                }
                let whole = self.quantity().filter(Decimal::is_integer);
                whole.and_then(|number| number.to_u64()).is_none() || matches!(self, Self::Text(_))
            }
            _ if meaning.is_quantity() => self.quantity().is_none(),
            Self::Text(text) => meaning.is_word() && core::str::from_utf8(text).is_err(),
            Self::Bare(_) | Self::Container => meaning.is_word(),
        }
    }
}

/// The value of a member that stands at several paths: what is told before what is not, and of two
/// numbers the greater.
pub(super) fn of_both(meaning: Field, earlier: Value, later: Value) -> Value {
    let is_number = meaning.is_tokens() || meaning.is_quantity();
    match (&earlier, &later) {
        (Value::Absent, _) => later,
        (_, Value::Null) => earlier,
        (_, _) if is_number && earlier.quantity() > later.quantity() => earlier,
        (Value::Text(one), Value::Text(other)) if meaning == Field::Tier => {
            Value::Text(special_tier(one, other).to_vec())
        }
        _ => later,
    }
}

/// The one of two tiers that says something and is not the list price. Of two such tiers none is
/// certain.
fn special_tier<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    let [of_one, of_other] =
        [one, other].map(|tier| ServiceTier::told(&String::from_utf8_lossy(tier)));
    match (of_one, of_other) {
        (None, _) => other,
        (_, None | Some(ServiceTier::Standard)) => one,
        (Some(ServiceTier::Standard), _) => other,
        _ if of_one == of_other => one,
        _ => UNREADABLE.as_bytes(),
    }
}

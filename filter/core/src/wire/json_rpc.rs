//! JSON-RPC 2.0.

use std::borrow::Cow;

use rust_decimal::Decimal;

/// A JSON-RPC id as it is in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// True if the id is a string; otherwise it is a number.
    pub is_string: bool,
    /// The unescaped string, or the number as written.
    pub text: Vec<u8>,
}

impl Id {
    /// True if both are the same id by type and value: `1` and `1.0` are the same, `1` and `"1"`
    /// are not.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_string == other.is_string
            && (self.text == other.text || (!self.is_string && self.is_same_number(other)))
    }

    /// True if both are the same apart from their type; some servers change the type.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.text == other.text || self.is_same_number(other)
    }

    fn is_same_number(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(one), Some(two)) => one == two,
            _ => false,
        }
    }

    /// Type and value in one form, which is equal for ids that are the same.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let kind = if self.is_string { b's' } else { b'n' };
        self.canonical_as(kind)
    }

    /// The form that the same value has as the other type: a number as a string, or the reverse.
    pub(crate) fn canonical_of_other_type(&self) -> Vec<u8> {
        let kind = if self.is_string { b'n' } else { b's' };
        self.canonical_as(kind)
    }

    fn canonical_as(&self, kind: u8) -> Vec<u8> {
        let is_text = (self.is_string && kind == b's') || self.is_plain_number();
        let value = match if is_text { None } else { self.number() } {
            Some(number) => Cow::Owned(number.normalize().to_string().into_bytes()),
            None => Cow::Borrowed(&self.text),
        };
        [&[kind], value.as_slice()].concat()
    }

    /// Whether the text is a number in its canonical form, as nearly all numbers are.
    fn is_plain_number(&self) -> bool {
        let is_short = (1..=18).contains(&self.text.len());
        let has_zero_first = self.text.len() > 1 && self.text.first() == Some(&b'0');
        is_short && !has_zero_first && self.text.iter().all(u8::is_ascii_digit)
    }

    fn number(&self) -> Option<Decimal> {
        let text = core::str::from_utf8(&self.text).ok()?;
        Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
    }
}

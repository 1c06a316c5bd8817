//! What the JSON scanner reports to a visitor, and what the visitor asks for.

use crate::base::fingerprint::Fingerprint;
use crate::base::time::len_u64;

/// What the visitor wants of the next value, depending on the type that it turns out to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Report a string, number or literal under this field number.
    pub(crate) scalar: Option<u8>,
    /// Follow an object under this node number.
    pub object: Option<u8>,
    /// Follow an array under this node number.
    pub array: Option<u8>,
    /// True if the visitor wants the text of a container that the scanner skips.
    pub(crate) shows_skipped: bool,
    /// True if the scanner need not look at what it does not keep of a string. It is then reported
    /// where it is cut, without a hash of the rest, and its length is that of what is kept.
    pub(crate) is_head_only: bool,
}

impl Want {
    /// Skip the value.
    pub const NOTHING: Self =
        Self { scalar: None, object: None, array: None, shows_skipped: false, is_head_only: false };

    /// Report a scalar.
    pub(crate) const fn scalar(field: u8) -> Self {
        Self { scalar: Some(field), ..Self::NOTHING }
    }

    /// Follow an object.
    pub const fn object(node: u8) -> Self {
        Self { object: Some(node), ..Self::NOTHING }
    }
}

/// A scalar value. The scanner keeps up to
/// [`VALUE_BYTES_MAX`](crate::base::limits::VALUE_BYTES_MAX) bytes of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar<'a> {
    /// True if the value is a string; otherwise it is a number or literal.
    pub is_string: bool,
    /// The unescaped string, or the number or literal as written.
    pub text: &'a [u8],
    /// True if the text was longer than what the scanner kept.
    pub(crate) is_truncated: bool,
    /// A hash of what the scanner did not keep.
    pub(crate) rest: Fingerprint,
    /// The length of the whole text in bytes, including what the scanner did not keep.
    pub bytes: u64,
    /// The Unicode scalar values of what the scanner did not keep.
    pub(super) rest_characters: u64,
}

/// The number of Unicode scalar values in a piece of UTF-8: each has one byte that does not continue
/// another.
pub(super) fn characters_of(piece: &[u8]) -> u64 {
    len_u64(piece.iter().filter(|byte| **byte & 0xC0 != 0x80).count())
}

impl Scalar<'_> {
    /// Whether the value is the literal `null`.
    pub(crate) fn is_null(&self) -> bool {
        !self.is_string && self.text == b"null"
    }

    /// The length of the whole text in Unicode scalar values.
    pub(crate) fn characters(&self) -> u64 {
        characters_of(self.text).saturating_add(self.rest_characters)
    }

    /// What stands for the whole text: two texts that differ anywhere differ here. Of a long one it
    /// is the beginning with a hash of the rest.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let mut text = self.text.to_vec();
        if self.is_truncated {
            text.extend(format!("#{:016x}", self.rest.value()).into_bytes());
        }
        text
    }
}

/// Chooses what the scanner reports.
pub trait Visitor {
    /// The scanner is about to read the top-level value.
    fn top(&mut self) -> Want;
    /// The scanner is about to read a member of the followed object `node`. If the text repeats a
    /// member, the scanner reports it again.
    fn member(&mut self, node: u8, key: &[u8]) -> Want;
    /// The scanner is about to read an element of the followed array `node`.
    fn element(&mut self, node: u8) -> Want;
    /// The scanner read a scalar that the visitor asked for under `field`.
    fn scalar(&mut self, field: u8, value: Scalar<'_>);
    /// The scanner opened a followed container.
    fn open(&mut self, node: u8);
    /// The scanner closed a followed container.
    fn close(&mut self, node: u8);
    /// The next bytes of a skipped container that the visitor wants to see, without its first
    /// bracket.
    fn skipped(&mut self, _text: &[u8]) {}
}

//! What a reader of JSON is shown, and what it asks for.

/// What the visitor wants of a value, depending on what it turns out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Report a string, number or literal under this name.
    pub scalar: Option<u8>,
    /// Follow an object under this name.
    pub object: Option<u8>,
    /// Follow an array under this name.
    pub array: Option<u8>,
    /// BodyInterest the text of a container that is skipped.
    pub shows_skipped: bool,
}

impl Want {
    /// Skip the value.
    pub const NOTHING: Self =
        Self { scalar: None, object: None, array: None, shows_skipped: false };

    /// Report a scalar.
    pub const fn scalar(field: u8) -> Self {
        Self { scalar: Some(field), ..Self::NOTHING }
    }

    /// Follow an object.
    pub const fn object(node: u8) -> Self {
        Self { object: Some(node), ..Self::NOTHING }
    }
}

/// A scalar value; text is kept up to [`VALUE_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar<'a> {
    /// A string, or else a number or literal as written.
    pub is_string: bool,
    /// The unescaped string, or the number or literal as it stands in the text.
    pub text: &'a [u8],
    /// The text was longer than what was kept.
    pub is_truncated: bool,
    /// The length of the whole text, kept or not, in bytes.
    pub bytes: u64,
}

/// Chooses what the scanner reports.
pub trait Visitor {
    /// The top-level value is about to be read.
    fn top(&mut self) -> Want;
    /// A member of the followed object `node` is about to be read. Members repeat if the text repeats them.
    fn member(&mut self, node: u8, key: &[u8]) -> Want;
    /// An element of the followed array `node` is about to be read.
    fn element(&mut self, node: u8) -> Want;
    /// A scalar that was asked for under `field`.
    fn scalar(&mut self, field: u8, value: Scalar<'_>);
    /// A followed container was opened.
    fn open(&mut self, node: u8);
    /// A followed container was closed.
    fn close(&mut self, node: u8);
    /// The next bytes of a container that is skipped and to be shown, without its first bracket.
    fn skipped(&mut self, _text: &[u8]) {}
}

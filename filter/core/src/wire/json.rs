//! An incremental scanner for JSON (RFC 8259) that reports to a [`Visitor`] the members that it
//! asks for, and skips the rest. It does not build values and does not validate: input that servers
//! accept beyond the grammar (NaN, lone surrogates, any depth, 30-digit integers, a byte order
//! mark) must not make it lose a call. It notices text from which a more lenient reader, of JSON5
//! for instance, may read another structure: see [`Scanner::is_lax`].
//!
//! To the next maintainer: the state is [`State`] plus the stack of followed containers. The
//! scanner skips all other containers by counting brackets, so depth costs nothing and there is no
//! recursion. [`Scanner::feed`] processes every byte; a state may leave a byte to the next state by
//! not advancing. A new state must work when the chunk ends in the middle of it: the tests split
//! every input at every byte.

use crate::base::fingerprint::Fingerprint;
use crate::base::limits::{KEY_BYTES_MAX, TRACKED_DEPTH_MAX, VALUE_BYTES_MAX};
use crate::base::time::len_u64;
use crate::wire::BYTE_ORDER_MARK;
pub use crate::wire::json_visitor::Visitor;
use crate::wire::json_visitor::characters_of;
pub(crate) use crate::wire::json_visitor::{Scalar, Want};

/// Bytes of most names and values that are kept.
const TEXT_BYTES_USUAL: usize = 64;

/// How far the scanner has read a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The top-level value has not ended.
    Open,
    /// The top-level value has ended.
    Complete,
    /// The text is not JSON, even to a tolerant reader.
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a value; the scanner skips white space and the byte order mark.
    #[default]
    Value,
    /// After `[`: a value or `]`.
    FirstElement,
    /// After `{` or a comma in an object: a key or `}`.
    Key,
    /// After a key: the colon.
    Colon,
    /// After a value in a followed container: a comma or the closing bracket.
    After,
    /// In a string that the scanner keeps: a key, or a scalar that the visitor asked for.
    Text(Escape),
    /// In a number or literal.
    Bare,
    /// In a value that the scanner skips.
    Skip {
        depth: u64,
        in_string: bool,
        is_escaped: bool,
    },
    Complete,
    Failed,
}

/// The position of the scanner in an escape sequence of a kept string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    Unicode { digits: u8, unit: u16 },
}

#[derive(Clone, Copy, Debug)]
struct Container {
    node: u8,
    is_object: bool,
}

/// Reads one JSON text, chunk by chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanner {
    state: State,
    stack: [Option<Container>; TRACKED_DEPTH_MAX],
    depth: usize,
    /// What the visitor wants of the value that comes next, or that the scanner is reading.
    want: Want,
    reads_key: bool,
    text: Vec<u8>,
    is_truncated: bool,
    /// A hash of what is not kept of the text.
    rest: Fingerprint,
    text_bytes: u64,
    /// Unicode scalar values of what is not kept of the text.
    rest_characters: u64,
    /// The first half of a surrogate pair.
    high_surrogate: Option<u16>,
    has_started: bool,
    mark_bytes_seen: u8,
    is_lax: bool,
}

impl Scanner {
    /// The progress of the text. A number at top level is `Open` until white space.
    pub(crate) fn progress(&self) -> Progress {
        match self.state {
            State::Complete => Progress::Complete,
            State::Failed => Progress::Failed,
            State::Value
            | State::FirstElement
            | State::Key
            | State::Colon
            | State::After
            | State::Text(_)
            | State::Bare
            | State::Skip { .. } => Progress::Open,
        }
    }

    /// Begins a new text and keeps the allocated memory.
    pub(crate) fn restart(&mut self) {
        let text = core::mem::take(&mut self.text);
        *self = Self { text, ..Self::default() };
        self.clear_text();
    }

    /// True if the scanner has seen anything other than white space and a byte order mark.
    pub(crate) fn has_started(&self) -> bool {
        self.has_started
    }

    /// The string that the scanner is in, if the visitor asked for it: its number, and how many
    /// bytes of it have come.
    pub(crate) fn open_text(&self) -> Option<(u8, u64)> {
        let is_value = matches!(self.state, State::Text(_)) && !self.reads_key;
        Some((self.want.scalar.filter(|_| is_value)?, self.text_bytes))
    }

    /// True if another reader may see another structure: the text has comments, single quotes or
    /// other characters that JSON has no use for there, unknown escapes in what the scanner keeps,
    /// or goes on after the top-level value.
    pub(crate) fn is_lax(&self) -> bool {
        self.is_lax
    }

    /// Reads the next bytes of the text; returns how many of them belong to it. The scanner ignores
    /// what follows the top-level value.
    pub(crate) fn feed(&mut self, chunk: &[u8], visitor: &mut impl Visitor) -> usize {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match self.state {
                State::Complete | State::Failed => {
                    self.is_lax |= !rest.iter().all(|byte| is_white_space(*byte));
                    break;
                }
                State::Skip { depth, in_string, is_escaped } => {
                    let behind = self.skip(rest, depth, in_string, is_escaped);
                    if self.want.shows_skipped {
                        let skipped = rest.len().saturating_sub(behind.len());
                        visitor.skipped(rest.get(..skipped).unwrap_or_default());
                    }
                    behind
                }
                State::Text(Escape::None) => self.plain_text(rest, visitor),
                State::Text(escape) => {
                    self.escaped_text(byte, escape);
                    tail
                }
                State::Bare => self.bare(rest, visitor),
                State::Value | State::FirstElement => {
                    self.value(byte, visitor);
                    tail
                }
                State::Key | State::Colon | State::After => {
                    self.structure(byte, visitor);
                    tail
                }
            };
        }
        chunk.len().saturating_sub(rest.len())
    }

    fn value(&mut self, byte: u8, visitor: &mut impl Visitor) {
        if byte.is_ascii_whitespace() {
            self.is_lax |= !is_white_space(byte);
            return;
        }
        if !self.has_started {
            let mark_at = usize::from(self.mark_bytes_seen);
            if BYTE_ORDER_MARK.get(mark_at) == Some(&byte) {
                self.mark_bytes_seen = self.mark_bytes_seen.saturating_add(1);
                return;
            }
            self.has_started = true;
            self.want = visitor.top();
        }
        if byte == b']' && self.state == State::FirstElement {
            self.close(false, visitor);
            return;
        }
        if let (true, Some(Container { node, is_object: false })) = (self.depth > 0, self.top()) {
            self.want = visitor.element(node);
        }
        match byte {
            b'{' => self.open(self.want.object, true, visitor),
            b'[' => self.open(self.want.array, false, visitor),
            b'"' if self.want.scalar.is_some() => self.start_text(false),
            b'"' => {
                self.state = State::Skip { depth: 0, in_string: true, is_escaped: false };
            }
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.clear_text();
                self.reads_key = false;
                self.keep(byte);
                self.state = State::Bare;
            }
            _ => self.state = State::Failed,
        }
    }

    fn open(&mut self, node: Option<u8>, is_object: bool, visitor: &mut impl Visitor) {
        match (node, self.stack.get_mut(self.depth)) {
            (Some(node), Some(place)) => {
                *place = Some(Container { node, is_object });
                self.depth = self.depth.saturating_add(1);
                self.state = if is_object { State::Key } else { State::FirstElement };
                visitor.open(node);
            }
            _ => self.state = State::Skip { depth: 1, in_string: false, is_escaped: false },
        }
    }

    fn close(&mut self, is_object: bool, visitor: &mut impl Visitor) {
        match self.top() {
            Some(container) if container.is_object == is_object => {
                self.depth = self.depth.saturating_sub(1);
                visitor.close(container.node);
                self.value_ended();
            }
            _ => self.state = State::Failed,
        }
    }

    fn structure(&mut self, byte: u8, visitor: &mut impl Visitor) {
        if byte.is_ascii_whitespace() {
            self.is_lax |= !is_white_space(byte);
            return;
        }
        match (self.state, byte) {
            (State::Key, b'"') => self.start_text(true),
            (State::Key | State::After, b'}') => self.close(true, visitor),
            (State::After, b']') => self.close(false, visitor),
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => match self.top() {
                Some(Container { is_object: true, .. }) => self.state = State::Key,
                Some(_) => self.state = State::Value,
                None => self.state = State::Failed,
            },
            _ => self.state = State::Failed,
        }
    }

    /// Skips the bytes of `rest` that belong to the skipped value; returns the remaining part.
    fn skip<'a>(
        &mut self,
        rest: &'a [u8],
        mut depth: u64,
        mut in_string: bool,
        mut is_escaped: bool,
    ) -> &'a [u8] {
        let mut rest = rest;
        while let Some((&byte, tail)) = rest.split_first() {
            if is_escaped {
                is_escaped = false;
                rest = tail;
            } else if in_string {
                match memchr::memchr2(b'"', b'\\', rest) {
                    None => rest = &[],
                    Some(at) => {
                        is_escaped = rest.get(at) == Some(&b'\\');
                        in_string = is_escaped;
                        rest = rest.get(at.saturating_add(1)..).unwrap_or_default();
                        if !in_string && depth == 0 {
                            self.value_ended();
                            return rest;
                        }
                    }
                }
            } else {
                rest = tail;
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth = depth.saturating_add(1),
                    b'}' | b']' => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            self.value_ended();
                            return rest;
                        }
                    }
                    byte => self.is_lax |= !is_plain(byte),
                }
            }
        }
        self.state = State::Skip { depth, in_string, is_escaped };
        rest
    }

    fn plain_text<'a>(&mut self, rest: &'a [u8], visitor: &mut impl Visitor) -> &'a [u8] {
        let end = memchr::memchr2(b'"', b'\\', rest);
        let (plain, tail) = rest.split_at(end.unwrap_or(rest.len()));
        if !plain.is_empty() {
            self.flush_surrogate();
            self.keep_all(plain);
            if self.is_truncated && self.is_head_only() {
                self.finish_scalar(true, visitor);
                self.state = State::Skip { depth: 0, in_string: true, is_escaped: false };
                return tail;
            }
        }
        let Some((&byte, tail)) = tail.split_first() else { return tail };
        if byte == b'\\' {
            self.state = State::Text(Escape::Backslash);
        } else {
            self.flush_surrogate();
            if self.reads_key {
                self.finish_key(visitor);
            } else {
                self.finish_scalar(true, visitor);
            }
        }
        tail
    }

    fn escaped_text(&mut self, byte: u8, escape: Escape) {
        self.state = State::Text(Escape::None);
        match escape {
            Escape::None => {}
            Escape::Backslash if byte == b'u' => {
                self.state = State::Text(Escape::Unicode { digits: 0, unit: 0 });
            }
            Escape::Backslash => {
                self.flush_surrogate();
                self.is_lax |=
                    !matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't');
                self.keep(match byte {
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                });
            }
            Escape::Unicode { digits, unit } => {
                let Some(value) = char::from(byte).to_digit(16).and_then(|v| u16::try_from(v).ok())
                else {
                    self.state = State::Failed;
                    return;
                };
                let unit = unit.wrapping_shl(4) | value;
                if digits < 3 {
                    let digits = digits.saturating_add(1);
                    self.state = State::Text(Escape::Unicode { digits, unit });
                } else {
                    self.keep_unit(unit);
                }
            }
        }
    }

    /// Keeps a UTF-16 code unit. It joins surrogate pairs; a lone surrogate becomes U+FFFD.
    fn keep_unit(&mut self, unit: u16) {
        let high = self.high_surrogate.take();
        let units = [high.unwrap_or(unit), unit];
        let units = if high.is_some() { &units[..] } else { &units[1..] };
        if (0xD800..0xDC00).contains(&unit) {
            if high.is_some() {
                self.keep_char(char::REPLACEMENT_CHARACTER);
            }
            self.high_surrogate = Some(unit);
            return;
        }
        for decoded in char::decode_utf16(units.iter().copied()) {
            self.keep_char(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }

    fn flush_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.keep_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn bare<'a>(&mut self, rest: &'a [u8], visitor: &mut impl Visitor) -> &'a [u8] {
        let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
        let end = rest.iter().position(is_end);
        let (text, tail) = rest.split_at(end.unwrap_or(rest.len()));
        self.is_lax |= !text.iter().all(|byte| is_plain(*byte));
        if self.want.scalar.is_some() {
            self.keep_all(text);
        }
        if end.is_some() {
            self.finish_scalar(false, visitor);
        }
        tail
    }

    fn start_text(&mut self, reads_key: bool) {
        self.clear_text();
        self.reads_key = reads_key;
        self.state = State::Text(Escape::None);
    }

    fn finish_key(&mut self, visitor: &mut impl Visitor) {
        self.state = State::Colon;
        // No known name is as long as what is kept: one that is cut is never taken for it, and may
        // still look like it to a reader that stops earlier.
        self.want = match self.top() {
            Some(container) => visitor.member(container.node, &self.text),
            None => Want::NOTHING,
        };
        if self.is_truncated {
            self.want = Want::NOTHING;
        }
    }

    fn finish_scalar(&mut self, is_string: bool, visitor: &mut impl Visitor) {
        if let Some(field) = self.want.scalar {
            let (text, is_truncated, bytes) = (&self.text, self.is_truncated, self.text_bytes);
            let (rest, rest_characters) = (self.rest, self.rest_characters);
            let value = Scalar { is_string, text, is_truncated, rest, bytes, rest_characters };
            visitor.scalar(field, value);
        }
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.state = if self.depth == 0 { State::Complete } else { State::After };
    }

    fn top(&self) -> Option<Container> {
        self.depth.checked_sub(1).and_then(|at| self.stack.get(at).copied().flatten())
    }

    fn clear_text(&mut self) {
        self.text.clear();
        // Grows once for all that is usual.
        self.text.reserve(TEXT_BYTES_USUAL);
        self.text_bytes = 0;
        self.rest_characters = 0;
        self.is_truncated = false;
        self.rest = Fingerprint::default();
        self.high_surrogate = None;
    }

    fn keep(&mut self, byte: u8) {
        self.keep_all(&[byte]);
    }

    fn keep_char(&mut self, character: char) {
        self.keep_all(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn keep_all(&mut self, bytes: &[u8]) {
        let bytes_max = if self.reads_key { KEY_BYTES_MAX } else { VALUE_BYTES_MAX };
        let room = bytes_max.saturating_sub(self.text.len());
        self.text_bytes = self.text_bytes.saturating_add(len_u64(bytes.len()));
        let Some((kept, rest)) = bytes.split_at_checked(room).filter(|_| bytes.len() > room) else {
            return self.text.extend_from_slice(bytes);
        };
        self.text.extend_from_slice(kept);
        self.is_truncated = true;
        if !self.is_head_only() {
            self.rest.feed(rest);
            self.rest_characters = self.rest_characters.saturating_add(characters_of(rest));
        }
    }

    fn is_head_only(&self) -> bool {
        self.want.is_head_only && !self.reads_key
    }
}

/// White space between the tokens of JSON.
const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What stands between strings and brackets: numbers and literals, also those that some writers add
/// (NaN, Infinity), commas, colons and white space.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.' | b',' | b':')
        || is_white_space(byte)
}

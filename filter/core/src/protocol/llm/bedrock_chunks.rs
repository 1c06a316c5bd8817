//! Unwraps the events of Bedrock's InvokeModel streams: an event of the type `chunk` holds an
//! object with a member `bytes`, which is an event of the model's vendor in base64. The unwrapper
//! decodes it as it arrives, in constant memory.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The type of the wrapped events. No other operation reports usage in events of this type.
pub(super) const EVENT_TYPE: &[u8] = b"chunk";

/// The member to unwrap.
const MEMBER: &[u8] = b"bytes";

/// Digits to decode at once: a multiple of 4, because 4 digits stand for 3 bytes.
const DIGITS_MAX: usize = 1024;

/// Bytes that these digits stand for.
const DECODED_BYTES_MAX: usize = DIGITS_MAX / 4 * 3;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between strings.
    #[default]
    Structure,
    Key,
    /// In the member to unwrap.
    Member,
    /// In another string.
    Text,
}

/// Unwraps one event after another.
#[derive(Debug, Default)]
pub(super) struct Unwrapper {
    state: State,
    is_escaped: bool,
    depth: u64,
    expects_key: bool,
    key: Vec<u8>,
    digits: Vec<u8>,
    is_broken: bool,
}

impl Unwrapper {
    /// Reads the next bytes of an event and calls `out` with the decoded content of the member.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut dyn FnMut(&[u8])) {
        let mut rest = piece;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.is_escaped {
                self.is_escaped = false;
                match self.state {
                    // The only escape that an encoder uses in base64.
                    State::Member if byte == b'/' => self.digits(b"/", out),
                    State::Member => self.is_broken = true,
                    State::Structure | State::Key | State::Text => {}
                }
                rest = tail;
            } else if self.state == State::Structure {
                self.structure(byte);
                rest = tail;
            } else {
                rest = self.string(rest, out);
            }
        }
    }

    /// Ends the event and begins the next. Returns whether the event was complete and could be
    /// decoded.
    pub(super) fn end(&mut self) -> bool {
        let is_whole = !self.is_broken && self.state == State::Structure && self.depth == 0;
        let mut digits = core::mem::take(&mut self.digits);
        digits.clear();
        *self = Self { digits, ..Self::default() };
        is_whole
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.expects_key = byte == b'{';
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.expects_key = true,
            b':' => self.expects_key = false,
            b'"' => {
                self.state = match (self.depth, self.expects_key) {
                    (1, true) => {
                        self.key.clear();
                        State::Key
                    }
                    (1, false) if self.key == MEMBER => State::Member,
                    _ => State::Text,
                };
            }
            _ => {}
        }
    }

    /// Reads a string up to an escape or its end; returns the rest.
    fn string<'a>(&mut self, rest: &'a [u8], out: &mut dyn FnMut(&[u8])) -> &'a [u8] {
        let end = memchr::memchr2(b'"', b'\\', rest);
        let (text, tail) = rest.split_at(end.unwrap_or(rest.len()));
        match self.state {
            State::Key => {
                // One byte more than the member's name, so that a longer key does not match it.
                let room = MEMBER.len().saturating_add(1).saturating_sub(self.key.len());
                self.key.extend_from_slice(text.get(..room).unwrap_or(text));
            }
            State::Member => self.digits(text, out),
            State::Structure | State::Text => {}
        }
        let Some((&byte, tail)) = tail.split_first() else { return tail };
        if byte == b'\\' {
            self.is_escaped = true;
        } else {
            if self.state == State::Member {
                self.decode(out);
                self.key.clear();
            }
            self.state = State::Structure;
        }
        tail
    }

    fn digits(&mut self, text: &[u8], out: &mut dyn FnMut(&[u8])) {
        let mut rest = text;
        while !rest.is_empty() {
            let room = DIGITS_MAX.saturating_sub(self.digits.len());
            let (piece, tail) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.digits.extend_from_slice(piece);
            if self.digits.len() == DIGITS_MAX {
                self.decode(out);
            }
            rest = tail;
        }
    }

    fn decode(&mut self, out: &mut dyn FnMut(&[u8])) {
        let mut decoded = [0; DECODED_BYTES_MAX];
        let bytes = BASE64.decode_slice(&self.digits, &mut decoded).ok();
        match bytes.and_then(|bytes| decoded.get(..bytes)) {
            Some(decoded) if !self.is_broken => out(decoded),
            _ => self.is_broken = true,
        }
        self.digits.clear();
    }
}

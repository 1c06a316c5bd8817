//! Distinguishes the arguments of one call from those of another as they pass, by a hash of their
//! JSON text without white space. The same members in another order are other arguments.

use core::hash::Hasher;
use std::hash::DefaultHasher;

/// A hash in progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArgumentsHash {
    /// SipHash with keys that do not change. The hash does not depend on where chunks end.
    hasher: DefaultHasher,
    in_string: bool,
    is_escaped: bool,
}

impl ArgumentsHash {
    /// Hashes the next bytes of the text.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((byte, tail)) = rest.split_first() {
            if self.is_escaped {
                self.is_escaped = false;
                self.hasher.write_u8(*byte);
                rest = tail;
            } else if self.in_string {
                let end = memchr::memchr2(b'"', b'\\', rest);
                let (text, behind) = rest.split_at(end.unwrap_or(rest.len()));
                self.write(text);
                rest = behind;
                if let Some((byte, tail)) = rest.split_first() {
                    self.hasher.write_u8(*byte);
                    self.is_escaped = *byte == b'\\';
                    self.in_string = self.is_escaped;
                    rest = tail;
                }
            } else {
                if !byte.is_ascii_whitespace() {
                    self.hasher.write_u8(*byte);
                    self.in_string = *byte == b'"';
                }
                rest = tail;
            }
        }
    }

    fn write(&mut self, text: &[u8]) {
        // Byte by byte: `Hasher` does not promise that a hash depends on the bytes alone and not on
        // the calls.
        for byte in text {
            self.hasher.write_u8(*byte);
        }
    }

    /// The hash of all bytes so far.
    pub(crate) fn finish(&self) -> u64 {
        self.hasher.finish()
    }
}

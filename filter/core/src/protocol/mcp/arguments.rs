//! Observation the arguments of one call from those of another, as they pass: by a hash of their JSON text without its white
//! space. The same members in another order are other arguments.

use core::hash::Hasher;
use std::hash::DefaultHasher;

/// A hash in the making.
#[derive(Clone, Debug, Default)]
pub struct ArgumentsHash {
    /// SipHash with keys that do not change; it reads bytes however they are cut.
    hasher: DefaultHasher,
    in_string: bool,
    is_escaped: bool,
}

impl ArgumentsHash {
    /// The next bytes of the text.
    pub fn feed(&mut self, bytes: &[u8]) {
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
        // Byte by byte, as nothing promises that a hash goes by the bytes alone and not by the calls.
        for byte in text {
            self.hasher.write_u8(*byte);
        }
    }

    /// The hash of what has come.
    pub fn finish(&self) -> u64 {
        self.hasher.finish()
    }
}

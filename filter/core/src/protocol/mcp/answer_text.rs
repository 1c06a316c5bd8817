//! Recognises an answer that a server sends twice, on two streams, by its text.

use crate::base::fingerprint::Fingerprint;

/// Bytes of a text that are looked at, without white space. Answers that differ do so here, in the
/// result or in its length.
const TEXT_BYTES_MAX: u16 = 4096;

/// A hash in progress of the first bytes of a JSON text, without white space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AnswerText {
    hash: Fingerprint,
    bytes: u16,
    is_list: bool,
}

impl AnswerText {
    /// Hashes the next bytes of the text.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let (mut hash, mut bytes) = (self.hash, self.bytes);
        for byte in piece {
            // Most bytes are beyond the blank, which is the last of them.
            if *byte <= b' ' && byte.is_ascii_whitespace() {
                continue;
            }
            if bytes >= TEXT_BYTES_MAX {
                break;
            }
            self.is_list |= bytes == 0 && *byte == b'[';
            bytes = bytes.saturating_add(1);
            hash.feed_byte(*byte);
        }
        (self.hash, self.bytes) = (hash, bytes);
    }

    /// The hash, which is never 0; 0 for a list, whose messages have no text of their own.
    pub(super) fn value(self) -> u64 {
        if self.is_list { 0 } else { self.hash.value().max(1) }
    }
}

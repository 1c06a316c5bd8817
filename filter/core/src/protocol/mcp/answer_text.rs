//! Recognises an answer that a server sends twice, on two streams, by its text.

use crate::base::fingerprint::Fingerprint;

/// Bytes of a text that are looked at, without white space. Answers that differ do so here, in the
/// result or in its length.
const TEXT_BYTES_MAX: u16 = 4096;

/// A hash in progress of the first bytes of a JSON text, without white space.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerText {
    hash: Fingerprint,
    /// Bytes that may still come.
    left: u16,
    is_list: bool,
}

impl Default for AnswerText {
    fn default() -> Self {
        Self { hash: Fingerprint::default(), left: TEXT_BYTES_MAX, is_list: false }
    }
}

impl AnswerText {
    /// Hashes the next bytes of the text.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        if self.left == TEXT_BYTES_MAX {
            let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
            self.is_list = first == Some(&b'[');
        }
        self.left = self.hash.feed_text(piece, self.left);
    }

    /// The hash, which is never 0; 0 for a list, whose messages have no text of their own.
    pub(super) fn value(self) -> u64 {
        if self.is_list { 0 } else { self.hash.value().max(1) }
    }
}

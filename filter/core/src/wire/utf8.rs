//! Whether a text that comes in pieces is UTF-8.

/// Checks one text, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8Check {
    /// The first bytes of a character that the last piece cut.
    cut: [u8; 4],
    cut_bytes: usize,
    is_invalid: bool,
}

impl Utf8Check {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while self.cut_bytes > 0 && !self.is_invalid {
            let Some((byte, tail)) = rest.split_first() else { return };
            rest = tail;
            if let Some(place) = self.cut.get_mut(self.cut_bytes) {
                *place = *byte;
            }
            self.cut_bytes = self.cut_bytes.saturating_add(1);
            let character = self.cut.get(..self.cut_bytes).unwrap_or_default();
            match core::str::from_utf8(character) {
                Ok(_) => self.cut_bytes = 0,
                Err(error) => self.is_invalid = error.error_len().is_some(),
            }
        }
        if self.is_invalid {
            return;
        }
        if let Err(error) = core::str::from_utf8(rest) {
            self.is_invalid = error.error_len().is_some();
            let cut = rest.get(error.valid_up_to()..).unwrap_or_default();
            for (place, byte) in self.cut.iter_mut().zip(cut) {
                *place = *byte;
            }
            self.cut_bytes = cut.len().min(self.cut.len());
        }
    }

    /// True if what has come so far cannot become UTF-8.
    pub(crate) fn is_invalid(&self) -> bool {
        self.is_invalid
    }

    /// True if the whole text is not UTF-8.
    pub(crate) fn is_invalid_at_end(&self) -> bool {
        self.is_invalid || self.cut_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8Check;

    #[test]
    fn a_text_is_checked_whole_and_at_each_split() {
        let texts: &[&[u8]] = &[
            b"plain",
            "\u{e4}\u{20ac}\u{1f600}".as_bytes(),
            b"a\xFFb",
            b"\xC3",
            b"\xE2\x82",
            b"\xE2\x28\xA1",
            b"\xC0\xAF",
            b"\xED\xA0\x80",
            b"\xF0\x9F\x98\x80\xF4\x90\x80\x80",
        ];
        for text in texts {
            let expected = core::str::from_utf8(text).is_err();
            for split in 0..=text.len() {
                let mut check = Utf8Check::default();
                check.feed(&text[..split]);
                check.feed(&text[split..]);
                assert_eq!(check.is_invalid_at_end(), expected, "{text:?} at {split}");
            }
            let mut check = Utf8Check::default();
            text.iter().for_each(|byte| check.feed(&[*byte]));
            assert_eq!(check.is_invalid_at_end(), expected, "{text:?} byte by byte");
        }
    }
}

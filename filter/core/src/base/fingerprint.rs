//! A hash of bytes that arrive in pieces: fast, of 64 bits, and the same wherever the pieces end. It
//! tells texts apart of which one client knows all; it protects nothing.

/// A hash in progress: FNV-1a of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Default for Fingerprint {
    fn default() -> Self {
        Self(OFFSET_BASIS)
    }
}

impl Fingerprint {
    /// Hashes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut hash = self.0;
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        self.0 = hash;
    }

    /// Hashes up to `left` of the next bytes, without white space. Returns how many are left then.
    pub(crate) fn feed_text(&mut self, bytes: &[u8], mut left: u16) -> u16 {
        let mut hash = self.0;
        let mut rest = bytes;
        // As many as surely fit are not counted one by one.
        while left > 0 && !rest.is_empty() {
            let (now, behind) = rest.split_at(rest.len().min(usize::from(left)));
            let mut blanks = 0_u16;
            for byte in now {
                // Most bytes are beyond the blank, which is the last of them.
                if *byte <= b' ' && byte.is_ascii_whitespace() {
                    blanks = blanks.wrapping_add(1);
                } else {
                    hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
                }
            }
            let taken = u16::try_from(now.len()).unwrap_or(u16::MAX).saturating_sub(blanks);
            left = left.saturating_sub(taken);
            rest = behind;
        }
        self.0 = hash;
        left
    }

    /// The hash of all bytes so far.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Fingerprint {
        let mut hash = Fingerprint::default();
        hash.feed(bytes);
        hash
    }

    #[test]
    fn the_hash_is_the_published_one_wherever_the_pieces_end() {
        assert_eq!(of(b"").value(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of(b"foobar").value(), 0x8594_4171_f739_67e8);
        for cut in 0..6 {
            let mut hash = Fingerprint::default();
            hash.feed(&b"foobar"[..cut]);
            hash.feed(&b"foobar"[cut..]);
            assert_eq!(hash, of(b"foobar"));
        }
    }

    #[test]
    fn a_text_is_hashed_as_far_as_it_counts_without_its_white_space() {
        let text = b" a b\n\tc d\re \x0b\x01f ";
        let plain: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        for most in 0..=plain.len() + 1 {
            for cut in 0..=text.len() {
                let mut hash = Fingerprint::default();
                let left = hash.feed_text(&text[..cut], u16::try_from(most).unwrap());
                let left = hash.feed_text(&text[cut..], left);
                let taken = most.min(plain.len());
                assert_eq!(hash, of(&plain[..taken]), "{most} {cut}");
                assert_eq!(usize::from(left), most - taken, "{most} {cut}");
            }
        }
    }
}

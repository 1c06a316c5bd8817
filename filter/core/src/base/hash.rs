//! Hashes and their hexadecimal digits.

use core::cell::RefCell;

use sha2::{Digest, Sha256};

use crate::base::time::len_u64;

/// Hashes that are remembered, and the most bytes of what was hashed.
const REMEMBERED: usize = 256;
const REMEMBERED_BYTES_MAX: usize = 384;

thread_local! {
    static MEMORY: RefCell<Vec<Remembered>> = const { RefCell::new(Vec::new()) };
}

/// What was hashed: each part with its length before it.
#[derive(Clone, Debug, Default)]
struct Remembered {
    parts: Vec<u8>,
    hash: [u8; 16],
}

/// [`hash`] of what comes again and again, such as the session of a request: it costs a tenth if it
/// was asked for before and nothing that lies at the same place came between.
pub(crate) fn hash_again(parts: &[&[u8]]) -> [u8; 16] {
    let bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    if bytes > REMEMBERED_BYTES_MAX {
        return hash(parts);
    }
    let found = MEMORY.try_with(|memory| {
        let mut memory = memory.try_borrow_mut().ok()?;
        if memory.is_empty() {
            memory.resize(REMEMBERED, Remembered::default());
        }
        let place = memory.get_mut(place_of(parts))?;
        if !place.is_of(parts) {
            place.parts.clear();
            for part in parts {
                place.parts.extend_from_slice(&len_u64(part.len()).to_be_bytes());
                place.parts.extend_from_slice(part);
            }
            place.hash = hash(parts);
        }
        Some(place.hash)
    });
    found.ok().flatten().unwrap_or_else(|| hash(parts))
}

impl Remembered {
    fn is_of(&self, parts: &[&[u8]]) -> bool {
        let mut rest = self.parts.as_slice();
        for part in parts {
            let Some((length, behind)) = rest.split_first_chunk() else { return false };
            let Some((own, behind)) = behind.split_at_checked(part.len()) else { return false };
            if u64::from_be_bytes(*length) != len_u64(part.len()) || !is_same(own, part) {
                return false;
            }
            rest = behind;
        }
        rest.is_empty() && !self.parts.is_empty()
    }
}

/// Compares eight bytes at a time: wasm32 has no instruction that compares memory, and the library's
/// loop takes one byte after the other.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // The last eight bytes may be compared twice in part.
    if let (Some(end), Some(other_end)) = (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        let (chunks, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
        return u64::from_le_bytes(*end) == u64::from_le_bytes(*other_end)
            && (one.len() <= 8
                || chunks.iter().zip(others).all(|(chunk, other)| {
                    u64::from_le_bytes(*chunk) == u64::from_le_bytes(*other)
                }));
    }
    if let ([start @ .., _, _, _, _], [other_start @ .., _, _, _, _]) = (one, other) {
        let (Some(end), Some(other_end)) = (one.last_chunk::<4>(), other.last_chunk::<4>()) else {
            return false;
        };
        return u32::from_le_bytes(*end) == u32::from_le_bytes(*other_end) && start == other_start;
    }
    one == other
}

/// Where a hash is remembered: by the lengths and the ends of the parts.
fn place_of(parts: &[&[u8]]) -> usize {
    let mixed = parts.iter().fold(0_u64, |mixed, part| {
        let end = part.last_chunk().map_or_else(
            || part.iter().fold(0, |end, byte| (end << 8) | u64::from(*byte)),
            |end| u64::from_be_bytes(*end),
        );
        (mixed ^ end ^ len_u64(part.len())).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    });
    usize::from(mixed.to_be_bytes()[0]) % REMEMBERED
}

/// The first 16 bytes of SHA-256 over the parts. Each part is preceded by its length, so that two
/// different lists cannot hash the same bytes.
pub fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let [first, _] = hash_halves(parts);
    first
}

/// Both halves of that hash. Whoever knows one of them cannot compute the other.
pub(crate) fn hash_halves(parts: &[&[u8]]) -> [[u8; 16]; 2] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(len_u64(part.len()).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut halves = [[0; 16]; 2];
    for (to, from) in halves.iter_mut().flatten().zip(digest.iter()) {
        *to = *from;
    }
    halves
}

/// The first 8 bytes of SHA-256 of a text: enough to tell texts of one log apart.
pub(crate) fn hash_text(text: &str) -> [u8; 8] {
    Sha256::digest(text.as_bytes()).first_chunk().copied().unwrap_or_default()
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| if value < 10 { b'0' | value } else { value.wrapping_add(b'a' - 10) };
    let mut digits = Vec::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        digits.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    // Digits are always text.
    String::from_utf8(digits).unwrap_or_default()
}

/// Reads sixteen bytes from 32 hexadecimal digits; `None` if the text is anything else.
pub(crate) fn unhex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::{REMEMBERED_BYTES_MAX, hash, hash_again, hex, is_same, unhex};

    #[test]
    fn what_is_remembered_is_the_hash_of_these_parts() {
        let long = [b'x'; REMEMBERED_BYTES_MAX + 1];
        let all: Vec<Vec<Vec<u8>>> = (0..2_000_u32)
            .map(|number| vec![b"session".to_vec(), number.to_be_bytes().to_vec()])
            .chain([vec![], vec![vec![]], vec![vec![], vec![]], vec![b"ab".to_vec()]])
            .chain([vec![b"a".to_vec(), b"b".to_vec()], vec![b"a".to_vec()], vec![long.to_vec()]])
            .collect();
        for _ in 0..2 {
            for parts in &all {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                assert_eq!(hash_again(&parts), hash(&parts), "{parts:?}");
                assert_eq!(hash_again(&parts), hash(&parts), "{parts:?}");
            }
        }
    }

    #[test]
    fn what_differs_in_one_byte_is_not_the_same() {
        let text: Vec<u8> = (0..40).collect();
        for length in 0..text.len() {
            let one = &text[..length];
            assert!(is_same(one, one) && !is_same(one, &text[..=length]));
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!is_same(one, &other), "{length} {at}");
            }
        }
    }

    #[test]
    fn digits_are_written_and_read() {
        let bytes = *b"\x00\x01\x0f\x10\x9a\xff6789012345";
        assert_eq!(hex(&bytes), "00010f109aff36373839303132333435");
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
    }
}

//! Hashes and their hexadecimal digits.

use sha2::{Digest, Sha256};

use crate::base::time::len_u64;

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
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads sixteen bytes from 32 hexadecimal digits; `None` if the text is anything else.
pub(crate) fn unhex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    Some(number.to_be_bytes())
}

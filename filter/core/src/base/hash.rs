//! Hashes and their hexadecimal digits.

use sha2::{Digest, Sha256};

use crate::base::time::len_u64;

/// The first 16 bytes of SHA-256 over the parts. Each part is preceded by its length, so that two
/// different lists cannot hash the same bytes.
pub fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(len_u64(part.len()).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    first
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

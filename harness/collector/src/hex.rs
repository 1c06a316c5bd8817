//! Hexadecimal digits of hashes and signatures.

pub(crate) use agent_meter_core::base::hash::hex;

/// Reads bytes from pairs of digits; `None` if the text is anything else.
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.chunks(2).map(byte).collect()
}

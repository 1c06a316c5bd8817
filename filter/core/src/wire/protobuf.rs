//! Reads protobuf fields (protobuf encoding, read 2026-11), except groups and 32-bit values.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// An integer.
    Varint(u64),
    /// Eight bytes, the lowest first.
    Fixed64([u8; 8]),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

/// The first field of a message: its number, its value, and the bytes after it. `None` if there is
/// no field, or one that cannot be read.
pub fn field(bytes: &[u8]) -> Option<(u64, Field<'_>, &[u8])> {
    let (tag, rest) = varint(bytes)?;
    let (value, rest) = match tag & 7 {
        0 => {
            let (value, rest) = varint(rest)?;
            (Field::Varint(value), rest)
        }
        1 => {
            let (value, rest) = rest.split_first_chunk::<8>()?;
            (Field::Fixed64(*value), rest)
        }
        2 => {
            let (length, rest) = varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Field::Bytes(value), rest)
        }
        _ => return None,
    };
    Some((tag >> 3, value, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    let mut rest = bytes;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte < 0x80 {
            return Some((value, rest));
        }
    }
    None
}

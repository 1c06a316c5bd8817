//! Tells text in Envoy's dynamic metadata from other values: a property gives a number and text as
//! bare bytes, so only the whole message (`envoy.config.core.v3.Metadata`) says which it is.

use crate::wire::protobuf::{Field, field};

/// Whether the value at `path` (a namespace, then members and indices) in a serialised `Metadata`
/// is text.
pub(crate) fn is_text(metadata: &[u8], path: &[&str]) -> bool {
    find(metadata, path).is_some()
}

fn find(metadata: &[u8], path: &[&str]) -> Option<()> {
    let (namespace, members) = path.split_first()?;
    // `Metadata` and `Struct` hold their entries in the same form, in field 1.
    let mut value = Field::Bytes(entry(metadata, namespace)?);
    let mut kind = STRUCT;
    for member in members {
        let Field::Bytes(container) = value else { return None };
        let inner = match kind {
            STRUCT => entry(container, member)?,
            LIST => item(container, member.parse().ok()?)?,
            _ => return None,
        };
        (kind, value) = content(inner)?;
    }
    (kind == TEXT).then_some(())
}

/// The numbers of the fields of `google.protobuf.Value` that hold bytes.
const TEXT: u64 = 3;
const STRUCT: u64 = 5;
const LIST: u64 = 6;

/// The value of the last entry of a map with this key: field 1, repeated, with the key in field 1
/// and the value in field 2.
fn entry<'a>(map: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut found = None;
    let mut rest = map;
    while !rest.is_empty() {
        let (number, content, behind) = field(rest)?;
        rest = behind;
        let (1, Field::Bytes(mut entry)) = (number, content) else { continue };
        let (mut has_key, mut value): (bool, &[u8]) = (key.is_empty(), &[]);
        while !entry.is_empty() {
            let (number, content, behind) = field(entry)?;
            entry = behind;
            match (number, content) {
                (1, Field::Bytes(bytes)) => has_key = bytes == key.as_bytes(),
                (2, Field::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if has_key {
            found = Some(value);
        }
    }
    found
}

/// An element of a `ListValue`: field 1, repeated.
fn item(list: &[u8], at: usize) -> Option<&[u8]> {
    let mut rest = list;
    let mut before = at;
    while !rest.is_empty() {
        let (1, Field::Bytes(value), behind) = field(rest)? else { return None };
        rest = behind;
        match before.checked_sub(1) {
            Some(left) => before = left,
            None => return Some(value),
        }
    }
    None
}

/// What a `Value` holds: the last of its fields, by number.
fn content(value: &[u8]) -> Option<(u64, Field<'_>)> {
    let mut found = None;
    let mut rest = value;
    while !rest.is_empty() {
        let (number, content, behind) = field(rest)?;
        rest = behind;
        found = Some((number, content));
    }
    found
}

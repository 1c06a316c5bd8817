//! Notices members that another parser may read as a member that decides: a repeated one, of which
//! some parsers take the first, and one whose name differs in case only, which Go's `encoding/json`,
//! .NET's web defaults and cJSON take for the same.

/// The members of one object, as far as they decide. It starts anew with each object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberCheck {
    seen: u32,
}

impl MemberCheck {
    /// Takes the next member's name. Returns true if it is certain which of the `known` members it
    /// is, or that it is none of them. Each known name comes with its place, below 32: names of one
    /// place stand for the same member.
    pub(crate) fn is_certain(&mut self, key: &[u8], known: &[(&str, u32)]) -> bool {
        for (name, place) in known {
            if key == name.as_bytes() {
                let bit = 1_u32.wrapping_shl(*place);
                let is_first = self.seen & bit == 0;
                self.seen |= bit;
                return is_first;
            }
        }
        // Nearly all names are this plain: nothing in them is cut off, and only case can differ.
        let is_plain = key.iter().all(u8::is_ascii_graphic);
        !known.iter().any(|(name, _)| match is_plain && name.is_ascii() {
            true => key.eq_ignore_ascii_case(name.as_bytes()),
            false => is_alike(key, name),
        })
    }
}

/// Whether a lenient program may take `text` for `name`: in another case, after white space, or
/// before a NUL, where strings end in C.
pub(crate) fn is_alike(text: &[u8], name: &str) -> bool {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = trimmed(valid_part(text));
    text.chars().map(folded).eq(name.chars().map(folded))
}

/// The text up to the first byte that is no UTF-8. What the scanner keeps may end in a character.
fn valid_part(text: &[u8]) -> &str {
    match core::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let valid = text.get(..error.valid_up_to()).unwrap_or_default();
            core::str::from_utf8(valid).unwrap_or_default()
        }
    }
}

/// Without what programs take for white space: Unicode's, and the byte order mark in JavaScript.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || character == '\u{FEFF}')
}

/// Folds a character as case-insensitive parsers do, simple case folding and Java's both ways.
const fn folded(character: char) -> char {
    match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::{MemberCheck, is_alike};

    const KNOWN: &[(&str, u32)] = &[("method", 0), ("params", 1), ("taskId", 2), ("task_id", 2)];

    #[test]
    fn a_member_is_certain_once_and_in_its_own_case() {
        let cases: &[(&[&str], &[bool])] = &[
            (&["method", "params", "other", "other"], &[true, true, true, true]),
            (&["method", "method"], &[true, false]),
            (&["taskId", "task_id"], &[true, false]),
            (&["Method", "method"], &[false, true]),
            (&["param\u{17F}"], &[false]),
            (&["TAS\u{212A}ID"], &[false]),
            (&["method\0x"], &[false]),
            (&[" method"], &[false]),
            (&["methods", "metho", ""], &[true, true, true]),
        ];
        for (keys, expected) in cases {
            let mut check = MemberCheck::default();
            let found: Vec<bool> =
                keys.iter().map(|key| check.is_certain(key.as_bytes(), KNOWN)).collect();
            assert_eq!(&found, expected, "{keys:?}");
        }
    }

    #[test]
    fn names_are_alike_as_lenient_parsers_see_them() {
        assert!(is_alike("TOOLS/CALL".as_bytes(), "tools/call"));
        assert!(is_alike("tools/call ".as_bytes(), "tools/call"));
        assert!(is_alike("\u{130}d".as_bytes(), "id"));
        assert!(is_alike("tools/call\u{2028} ".as_bytes(), "tools/call"));
        assert!(is_alike(&[b"id", "\u{2028}".repeat(30).as_bytes(), &[0xE2]].concat(), "id"));
        assert!(is_alike("\u{FEFF}id".as_bytes(), "id"));
        assert!(!is_alike("tools/list".as_bytes(), "tools/call"));
        assert!(!is_alike(&[0xFF, b'd'], "id"));
    }
}

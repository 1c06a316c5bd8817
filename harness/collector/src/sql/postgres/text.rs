//! Writes this program's SQL, and SQLite's types, as PostgreSQL wants them.

use std::borrow::Cow;

/// Replaces `?` by the next number and `?1` by `$1`, but not in text between quotes.
pub(super) fn with_numbered_parameters(sql: &str) -> String {
    let mut written = String::with_capacity(sql.len() + 16);
    let mut next = 1;
    let mut is_quoted = false;
    let mut characters = sql.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                is_quoted = !is_quoted;
                written.push(character);
            }
            '?' if !is_quoted => {
                written.push('$');
                if !characters.peek().is_some_and(char::is_ascii_digit) {
                    written.push_str(&next.to_string());
                    next += 1;
                }
            }
            _ => written.push(character),
        }
    }
    written
}

/// The text as PostgreSQL keeps it: all but the character 0, which it cannot.
pub(crate) fn kept_text(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::with_numbered_parameters;

    #[test]
    fn parameters_get_numbers() {
        for (sql, expected) in [
            ("SELECT ?, ?", "SELECT $1, $2"),
            ("SELECT ?2, ?1, ?12", "SELECT $2, $1, $12"),
            ("SELECT '?', ?", "SELECT '?', $1"),
            ("SELECT 'it''s ?' || ?", "SELECT 'it''s ?' || $1"),
        ] {
            assert_eq!(with_numbered_parameters(sql), expected);
        }
    }
}

//! Patterns in the configuration, where `*` stands for any text.

/// True if `name` contains a `*`.
pub fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

/// True if `pattern`, where `*` stands for any text, matches the whole of `text`.
///
/// Matches each part between two stars at its first occurrence after the previous part. The last
/// part must end the text.
pub fn is_fit(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts = tail.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_fit;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "anything", true),
            ("lookup_*", "lookup_", true),
            ("lookup_*", "lookup_customer", true),
            ("lookup_*", "a_lookup_b", false),
            ("*_write", "db_write", true),
            ("*_write", "db_write_all", false),
            ("db.*.write", "db.a.b.write", true),
            ("db.*.write", "db.write", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("a*b*c", "a_c_b_c", true),
            ("a*b*c", "a_c_b", false),
            ("exact", "exactly", false),
        ] {
            assert_eq!(is_fit(pattern, text), fits, "{pattern:?} on {text:?}");
        }
    }
}

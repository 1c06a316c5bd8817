//! References as RFC 3986 (January 2005) resolves them, section 5.2, as far as a path and a query.

/// Returns path and query of what `reference` names for who has read it at `base`, a path with its
/// query. Scheme, host and fragment are left out, and so is white space around the reference.
pub(crate) fn resolved(base: &[u8], reference: &[u8]) -> Vec<u8> {
    let reference = without_fragment(reference.trim_ascii());
    let (base_path, base_query) = path_and_query(without_fragment(base));
    let (rest, has_authority) = behind_authority(behind_scheme(reference));
    let (path, query) = path_and_query(rest);
    let path = match path {
        _ if has_authority => without_dots(path),
        b"" if query.is_empty() => return [base_path, base_query].concat(),
        b"" => base_path.to_vec(),
        [b'/', ..] => without_dots(path),
        _ => {
            let folder = base_path.iter().rposition(|byte| *byte == b'/');
            let folder = folder.and_then(|at| base_path.get(..=at)).unwrap_or(b"/");
            without_dots(&[folder, path].concat())
        }
    };
    let path = if path.is_empty() { b"/".to_vec() } else { path };
    [&path, query].concat()
}

fn without_fragment(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'#').next().unwrap_or_default()
}

/// Splits before the `?`.
fn path_and_query(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'?').unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, b""))
}

/// What follows the scheme, if there is one: a letter, then letters, digits, `+`, `-` and `.`.
fn behind_scheme(text: &[u8]) -> &[u8] {
    let Some(end) = text.iter().position(|byte| *byte == b':') else { return text };
    let Some((scheme, rest)) = text.split_at_checked(end) else { return text };
    let is_of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let is_scheme =
        scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_of_scheme);
    if is_scheme { rest.get(1..).unwrap_or_default() } else { text }
}

/// What follows the host, and whether there is one. Browsers take a `\` for a slash.
fn behind_authority(text: &[u8]) -> (&[u8], bool) {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    match text {
        [one, two, rest @ ..] if is_slash(one) && is_slash(two) => {
            let end = rest.iter().position(|byte| is_slash(byte) || *byte == b'?');
            (rest.get(end.unwrap_or(rest.len())..).unwrap_or_default(), true)
        }
        _ => (text, false),
    }
}

/// A path without the segments `.` and `..`, section 5.2.4.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." && kept.len() > 1 {
                    kept.pop();
                }
                if is_last {
                    kept.push(b"");
                }
            }
            _ => kept.push(segment),
        }
    }
    kept.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, rows: &[(&str, &str)]) {
        for (reference, want) in rows {
            let found = resolved(base.as_bytes(), reference.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), *want, "{reference} at {base}");
        }
    }

    #[test]
    fn the_examples_of_rfc_3986_are_resolved_as_it_says() {
        // Section 5.4, base `http://a/b/c/d;p?q`; without scheme, host and fragment.
        let rows = [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("//g", "/"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q"),
            ("g#s", "/b/c/g"),
            ("g?y#s", "/b/c/g?y"),
            (";x", "/b/c/;x"),
            ("g;x", "/b/c/g;x"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("./g/.", "/b/c/g/"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/../x", "/b/c/g?y/../x"),
        ];
        check("/b/c/d;p?q", &rows);
    }

    #[test]
    fn endpoints_as_servers_announce_them() {
        let rows = [
            ("?sid=1", "/mcp/sse?sid=1"),
            ("./messages?sid=1", "/mcp/messages?sid=1"),
            ("/messages?sid=1#x", "/messages?sid=1"),
            ("messages?sid=1", "/mcp/messages?sid=1"),
            ("../m", "/m"),
            ("//host:8080/p?a=b", "/p?a=b"),
            ("https://host/p", "/p"),
            ("HTTP://host?a", "/?a"),
            ("http://host", "/"),
            (" /m?u=http://x/y ", "/m?u=http://x/y"),
            ("\\\\host\\p", "\\p"),
        ];
        check("/mcp/sse?t=1", &rows);
        check("/sse", &[("messages", "/messages"), ("", "/sse"), ("..", "/")]);
    }
}

//! Whom a request is for: its host and its path, read once for everything that asks.
//!
//! Servers do not agree on what a path means: some decode it, some remove dot segments, some cut it
//! at a `;`. So an odd path has several readings, and a request belongs to what any of them names.

use std::borrow::Cow;

use crate::base::limits::ENDPOINT_BYTES_MAX;

/// Rounds of percent-decoding: a server behind another proxy decodes once more.
const DECODINGS_MAX: usize = 3;

/// Headers by which some servers replace the path.
pub(crate) const REWRITES: [&str; 3] = ["x-original-url", "x-rewrite-url", "x-override-url"];

/// Headers by which some servers replace the method.
pub(crate) const OVERRIDES: [&str; 3] =
    ["x-http-method-override", "x-http-method", "x-method-override"];

/// The host and the path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    host: &'a [u8],
    path: Cow<'a, str>,
    /// What else servers may take for the path; empty unless the path is odd.
    others: Vec<String>,
    query: &'a [u8],
}

/// An address to which clients send their messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The same for each spelling of it.
    pub(crate) key: Vec<u8>,
    /// Whether its query names a session, as those that only one client knows do.
    pub(crate) names_session: bool,
}

impl<'a> Target<'a> {
    /// Reads `:authority` and `:path`. Allocates nothing unless the path is odd.
    pub fn read(authority: &'a [u8], path_and_query: &'a [u8]) -> Self {
        let host = host_and_port(authority).0;
        let end = path_and_query.iter().position(|byte| matches!(byte, b'?' | b'#'));
        let (literal, query) =
            path_and_query.split_at(end.unwrap_or(path_and_query.len()).min(path_and_query.len()));
        match core::str::from_utf8(literal) {
            Ok(text) if is_plain(literal) => {
                Self { host, path: Cow::Borrowed(text), others: Vec::new(), query }
            }
            _ => Self::read_odd(host, literal, query),
        }
    }

    fn read_odd(host: &'a [u8], literal: &[u8], query: &'a [u8]) -> Self {
        let path = normal(literal);
        let mut others: Vec<String> = Vec::new();
        let others_of = [
            folded(literal),
            read_as(literal, Cut::Never, Dots::Removed),
            read_as(literal, Cut::Never, Dots::Left),
            read_as(path.as_bytes(), Cut::Never, Dots::Left),
            text(literal),
        ];
        for other in others_of {
            if other != path && !others.contains(&other) {
                others.push(other);
            }
        }
        Self { host, path: Cow::Owned(path), others, query }
    }

    /// The host: no port, no user, no dot at its end; in the client's case.
    pub(crate) fn host(&self) -> &'a [u8] {
        self.host
    }

    /// The path without query, in the normal form of RFC 3986: unreserved characters decoded, dot
    /// segments removed, slashes merged.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// All that servers may take for the path, the most likely first.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.path()).chain(self.others.iter().map(String::as_str))
    }

    /// The path with the query.
    pub(crate) fn path_and_query(&self) -> Vec<u8> {
        [self.path().as_bytes(), self.query].concat()
    }

    /// The query, with its question mark.
    pub(crate) fn query(&self) -> &'a [u8] {
        self.query
    }

    /// Names the address to which clients of HTTP+SSE (2024-11-05) send their messages, the same
    /// for each spelling of it: the path without case, and the session in the query if one is
    /// there, else the query.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let is_plain = self.others.is_empty();
        let path = if is_plain { self.path().to_owned() } else { folded(self.path().as_bytes()) };
        let mut key = trim_slash(&path).to_ascii_lowercase().into_bytes();
        let query = self.query.strip_prefix(b"?").unwrap_or(self.query);
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        let query = decoded(query, |_| true);
        let only_words = |bytes: &[u8]| -> Vec<u8> {
            let words = bytes.iter().filter(|byte| byte.is_ascii_alphanumeric());
            words.map(u8::to_ascii_lowercase).collect()
        };
        // Servers read one of several; a client that sends several has no session.
        let mut sessions = query.split(|byte| *byte == b'&').filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at_checked(at)?;
            (only_words(name) == b"sessionid").then(|| only_words(value))
        });
        key.push(b'?');
        let session = sessions.next();
        let names_session = session.is_some();
        key.extend(session.unwrap_or(query));
        key.truncate(ENDPOINT_BYTES_MAX);
        Endpoint { key, names_session }
    }
}

/// Whether a path is written as a configuration has to write it: decoded, with nothing in it that
/// some server takes away.
pub(crate) fn is_folded(path: &str) -> bool {
    folded(path.as_bytes()) == path
}

/// Whether every server reads a path in the same way.
fn is_plain(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    let mut before = b'/';
    for byte in rest {
        let is_odd = !byte.is_ascii_graphic() || matches!(byte, b'%' | b'\\' | b';' | b'?' | b'#');
        if is_odd || (*byte == b'/' && matches!(before, b'/' | b'.')) {
            return false;
        }
        before = *byte;
    }
    before != b'.'
}

/// A path without the slash at its end, which most servers do not heed.
pub(crate) fn trim_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The host without user and dot at its end, and the port or an empty text.
pub(crate) fn host_and_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let at = authority.iter().rposition(|byte| *byte == b'@');
    let authority = at.and_then(|at| authority.get(at.saturating_add(1)..)).unwrap_or(authority);
    // The colons of an IPv6 address are in brackets.
    let colon = authority.iter().rposition(|byte| matches!(byte, b':' | b']'));
    let colon = colon.filter(|at| authority.get(*at) == Some(&b':'));
    let (host, port) = match colon.and_then(|at| authority.split_at_checked(at)) {
        Some((host, port)) => (host, port.strip_prefix(b":").unwrap_or(port)),
        None => (authority, b"".as_slice()),
    };
    let end = host.iter().rposition(|byte| *byte != b'.').map_or(0, |at| at.saturating_add(1));
    (host.get(..end).unwrap_or(host), port)
}

/// Decodes percent-encoding once, and keeps what is not a valid escape.
pub(crate) fn percent_decoded(escaped: &str) -> String {
    text(&decoded(escaped.as_bytes(), |_| true))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The normal form of RFC 3986, section 6.2.2, with merged slashes.
fn normal(path: &[u8]) -> String {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let path = decoded(path, is_unreserved);
    text(&joined(path.split(|byte| *byte == b'/'), path.ends_with(b"/"), Dots::Removed))
}

/// Whether NUL, `?` and `#` end a path that has been decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    AtMark,
    Never,
}

/// What becomes of the segment `..`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    Removed,
    Left,
}

/// The form in which all that some server does to a path is done.
fn folded(path: &[u8]) -> String {
    read_as(path, Cut::AtMark, Dots::Removed)
}

/// The form in which everything is decoded, `\` is a slash, slashes are merged, and each segment
/// ends before its `;` and the dots and blanks at its end.
fn read_as(path: &[u8], cut: Cut, dots: Dots) -> String {
    let mut path = path.to_vec();
    for _ in 0..DECODINGS_MAX {
        path = decoded(&path, |_| true);
    }
    let end = path.iter().position(|byte| matches!(byte, b'\0' | b'?' | b'#'));
    path.truncate(end.filter(|_| cut == Cut::AtMark).unwrap_or(path.len()));
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let segments = path.split(is_slash).map(|segment| {
        let segment = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if segment == b".." {
            return segment;
        }
        let end = segment.iter().rposition(|byte| *byte != b'.' && !byte.is_ascii_whitespace());
        segment.get(..end.map_or(0, |at| at.saturating_add(1))).unwrap_or_default()
    });
    text(&joined(segments, path.last().is_some_and(is_slash), dots))
}

/// Joins segments with single slashes. `.` and empty segments go, and so does `..` with the one before
/// it, unless dots are left.
fn joined<'a>(segments: impl Iterator<Item = &'a [u8]>, is_folder: bool, dots: Dots) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in segments {
        match segment {
            b"" | b"." => {}
            b".." if dots == Dots::Removed => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut path = Vec::new();
    for segment in &kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if is_folder || kept.is_empty() {
        path.push(b'/');
    }
    path
}

/// Decodes the escapes of the bytes that `is_decoded` names, once; keeps what is no valid escape.
fn decoded(text: &[u8], is_decoded: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        let escape = if *byte == b'%' { tail.split_at_checked(2) } else { None };
        let number = escape.and_then(|(digits, behind)| {
            let digits = core::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let number = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
            is_decoded(number).then_some((number, behind))
        });
        let (byte, behind) = number.unwrap_or((*byte, tail));
        bytes.push(byte);
        rest = behind;
    }
    bytes
}

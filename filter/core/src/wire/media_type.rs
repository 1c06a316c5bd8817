//! The media type of a body, from its `content-type` header (RFC 9110, section 8.3.1).

use crate::wire::doubt::Doubt;
use crate::wire::encoding::ContentCoding;
use crate::wire::headers::Headers;

/// The body formats that the filter can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`, or any `+json` type.
    Json,
    /// `text/event-stream`.
    EventStream,
    /// `application/vnd.amazon.eventstream`.
    AmazonEventStream,
    /// `application/x-ndjson` and similar types: one JSON text for each line.
    JsonLines,
    /// Anything else, or no header.
    Other,
}

/// The media types of JSON lines; the third is Cohere's.
const JSON_LINES: &[&str] =
    &["application/x-ndjson", "application/jsonl", "application/stream+json"];

impl MediaType {
    /// Reads a header value. Types are case-insensitive; the parser ignores parameters.
    pub fn parse(value: &[u8]) -> Self {
        let essence = essence(value);
        if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::EventStream
        } else if essence.eq_ignore_ascii_case(b"application/vnd.amazon.eventstream") {
            Self::AmazonEventStream
        } else if JSON_LINES.iter().any(|name| essence.eq_ignore_ascii_case(name.as_bytes())) {
            Self::JsonLines
        } else if essence.eq_ignore_ascii_case(b"application/json")
            || essence
                .len()
                .checked_sub(5)
                .and_then(|at| essence.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(b"+json"))
        {
            Self::Json
        } else {
            Self::Other
        }
    }
}

/// Whether a body of this media type is text without a form.
pub(crate) fn is_plain_text(value: &[u8]) -> bool {
    essence(value).eq_ignore_ascii_case(b"text/plain")
}

/// A media type without its parameters.
fn essence(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a body of this media type is audio, an image or a video.
pub(crate) fn is_media(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b'/').next().unwrap_or_default().trim_ascii();
    let kinds: &[&[u8]] = &[b"audio", b"image", b"video"];
    kinds.iter().any(|known| kind.eq_ignore_ascii_case(known))
}

/// Why a request's head leaves it open how the server reads the body as JSON: by its coding, its
/// charset or its media type. `None` if it is certain; a body without a media type is JSON.
pub(crate) fn body_doubt(headers: Headers<'_>) -> Option<Doubt> {
    if ContentCoding::of(headers) == ContentCoding::Other {
        return Some(Doubt::Coding);
    }
    let mut types = headers.all("content-type");
    let value = types.next()?;
    // Of several types, and of a list, programs take one or the other.
    if types.any(|other| other != value) || value.contains(&b',') {
        return Some(Doubt::MediaType);
    }
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let essence = parts.next().unwrap_or_default();
    if !parts.all(is_certain_parameter) {
        return Some(Doubt::Charset);
    }
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let is_json = MediaType::parse(essence) == MediaType::Json
        || essence.is_empty()
        || is("text/json")
        || is("text/plain");
    (!is_json).then_some(Doubt::MediaType)
}

/// Whether a parameter of a media type does not change how a text is read. Any that may be taken
/// for `charset` has to name UTF-8, or ASCII, which is a part of it.
fn is_certain_parameter(parameter: &[u8]) -> bool {
    let mut halves = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
    let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let is_charset = name.to_ascii_lowercase().windows(7).any(|part| part == b"charset");
    let value =
        value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    let known: &[&[u8]] = &[b"utf-8", b"utf8", b"us-ascii", b"ascii"];
    !is_charset
        || (name.eq_ignore_ascii_case(b"charset")
            && known.iter().any(|known| value.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::body_doubt;
    use crate::wire::doubt::Doubt;
    use crate::wire::headers::Headers;

    #[test]
    fn what_the_head_leaves_open_about_a_body() {
        type Case = (&'static [(&'static str, &'static str)], Option<Doubt>);
        let cases: &[Case] = &[
            (&[], None),
            (&[("content-type", "application/json")], None),
            (&[("content-type", "Application/JSON; Charset=\"UTF-8\"")], None),
            (&[("content-type", "application/json;charset=utf8; boundary=x")], None),
            (&[("content-type", "text/plain;charset=us-ascii")], None),
            (&[("content-type", "application/vnd.api+json")], None),
            (&[("content-encoding", "gzip")], None),
            (&[("content-encoding", "identity"), ("content-encoding", "gzip")], None),
            (&[("content-encoding", " ")], None),
            (&[("content-encoding", "br")], Some(Doubt::Coding)),
            (&[("content-encoding", "gzip, gzip")], Some(Doubt::Coding)),
            (&[("content-encoding", "gzip"), ("content-encoding", "br")], Some(Doubt::Coding)),
            (&[("content-type", "application/json; charset=utf-16")], Some(Doubt::Charset)),
            (&[("content-type", "application/json; charset=utf-7")], Some(Doubt::Charset)),
            (&[("content-type", "application/json;charset=cp037")], Some(Doubt::Charset)),
            (&[("content-type", "application/json; charset")], Some(Doubt::Charset)),
            (&[("content-type", "application/json; charset*=utf-8''x")], Some(Doubt::Charset)),
            (
                &[("content-type", "application/json; charset=utf-8; charset=utf-16")],
                Some(Doubt::Charset),
            ),
            (
                &[("content-type", "application/json"), ("content-type", "text/plain")],
                Some(Doubt::MediaType),
            ),
            (
                &[("content-type", "application/json, text/x; charset=utf-7")],
                Some(Doubt::MediaType),
            ),
            (&[("content-type", "multipart/form-data; boundary=x")], Some(Doubt::MediaType)),
            (&[("content-type", "application/cbor")], Some(Doubt::MediaType)),
        ];
        for (headers, expected) in cases {
            let headers: Vec<(String, Vec<u8>)> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect();
            assert_eq!(body_doubt(Headers(&headers)), *expected, "{headers:?}");
        }
    }
}

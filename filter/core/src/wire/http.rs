//! The headers of a request or response, and responses that the filter makes itself.

use crate::wire::encoding::ContentCoding;
use crate::wire::media_type::MediaType;

/// A response that the filter makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: String,
}

/// The headers of a request or response, names in lower case; values may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(String, Vec<u8>)]);

impl<'a> Headers<'a> {
    /// The values of all headers with this name.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The value of the first header with this name.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// The head of a response, parsed once for everything that uses it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The HTTP status; 0 if it is missing or not a number.
    pub status: u16,
    /// The media type of the body.
    pub media_type: MediaType,
    /// The coding of the body.
    pub coding: ContentCoding,
    /// All headers, for those that only a product or a provider names.
    pub headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Reads the head of a response.
    pub fn read(headers: Headers<'a>) -> Self {
        let status = headers.get(":status").and_then(|text| core::str::from_utf8(text).ok());
        Self {
            status: status.and_then(|text| text.parse().ok()).unwrap_or(0),
            media_type: headers.get("content-type").map_or(MediaType::Other, MediaType::parse),
            coding: ContentCoding::parse(headers.get("content-encoding")),
            headers,
        }
    }

    /// True if the body is a stream of server-sent events without a content coding.
    pub(crate) fn is_plain_event_stream(&self) -> bool {
        self.media_type == MediaType::EventStream && self.coding == ContentCoding::Identity
    }
}

/// Decodes percent-encoding, and keeps what is not a valid escape.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let coded = (*byte == b'%').then(|| tail.split_at_checked(2)).flatten();
        let number = coded
            .filter(|(digits, _)| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|(digits, behind)| Some((core::str::from_utf8(digits).ok()?, behind)))
            .and_then(|(digits, behind)| Some((u8::from_str_radix(digits, 16).ok()?, behind)));
        let (byte, behind) = number.unwrap_or((*byte, tail));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

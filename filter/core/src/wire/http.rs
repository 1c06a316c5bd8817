//! The headers of a request or response, and responses that the filter makes itself.

use crate::wire::encoding::ContentCoding;
pub use crate::wire::headers::{HeaderBytes, HeaderList, Headers};
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
            coding: ContentCoding::of(headers),
            headers,
        }
    }

    /// True if the body is a stream of server-sent events without a content coding.
    pub(crate) fn is_plain_event_stream(&self) -> bool {
        self.media_type == MediaType::EventStream && self.coding == ContentCoding::Identity
    }
}

/// Whether a response with this status is a success.
pub(crate) const fn is_success(http_status: u16) -> bool {
    matches!(http_status, 200..300)
}

/// Whether a response with this status sends the client elsewhere.
pub(crate) const fn is_redirect(http_status: u16) -> bool {
    matches!(http_status, 300..400)
}

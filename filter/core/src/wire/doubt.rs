//! What the filter does not understand for certain of a request, so that the server may read the
//! request as something else.

/// Why the filter does not know for certain what a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The body has a content coding that the filter cannot decode, or several.
    Coding,
    /// The body's charset is not UTF-8.
    Charset,
    /// The body's media type is none that contains JSON.
    MediaType,
    /// The body cannot be decoded.
    Undecodable,
    /// The decoded body is larger than the filter decodes.
    TooLarge,
    /// The body is not UTF-8.
    NotUtf8,
    /// The body is not one complete JSON text, to a strict reader.
    NotJson,
    /// The body is JSON, but not a message of the protocol.
    NotAMessage,
    /// A member that decides is repeated, or another member's name differs from it in case only.
    Member,
    /// The method is not a string, or differs in case only from one that the filter counts.
    Method,
    /// A call has no id, or one that is neither a string nor a number.
    Id,
    /// The HTTP method is none that carries messages, yet the request has a body.
    HttpMethod,
    /// The name of a call's tool is missing, is no string, or is longer than the filter keeps.
    Name,
    /// The body contains more calls than the filter keeps.
    TooManyRequests,
}

impl Doubt {
    /// The HTTP status of a request that the filter refuses for it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Coding | Self::Charset | Self::MediaType => 415,
            Self::TooLarge | Self::TooManyRequests => 413,
            Self::Undecodable
            | Self::NotUtf8
            | Self::NotJson
            | Self::NotAMessage
            | Self::Member
            | Self::Method
            | Self::Id
            | Self::Name
            | Self::HttpMethod => 400,
        }
    }

    /// What the client reads when the filter refuses its request.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Coding => "the content coding of the body is not one that is metered",
            Self::Charset => "the charset of the body is not UTF-8",
            Self::MediaType => "the media type of the body is not JSON",
            Self::Undecodable => "the body does not have the content coding that its header names",
            Self::TooLarge => "the body is larger than what is metered",
            Self::NotUtf8 => "the body is not UTF-8",
            Self::NotJson => "the body is not one JSON text",
            Self::NotAMessage => "the body is not a message of the protocol",
            Self::Member => "the message repeats a member, or names it in another case",
            Self::Method => "the method of the message is not a plain name",
            Self::Id => "the call has no id that is a string or a number",
            Self::Name => "the call names no tool, or the name is longer than 256 bytes",
            Self::HttpMethod => "this HTTP method carries no message",
            Self::TooManyRequests => "the body contains more calls than are metered",
        }
    }

    /// Whether the filter knows the tool of a call nevertheless.
    pub const fn leaves_tool_certain(self) -> bool {
        matches!(self, Self::Id)
    }
}

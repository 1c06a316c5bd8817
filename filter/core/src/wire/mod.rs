//! From bytes to structure: readers for JSON, server-sent events and Amazon event streams that work
//! on the passing stream, in constant memory.

pub mod accept_encoding;
pub(crate) mod headers;
pub mod http;
pub(crate) mod http_date;
pub(crate) mod json_rpc;

pub mod amazon_event_stream;
pub(crate) mod boundary;
pub mod decode_budget;
pub mod doubt;
pub mod encoding;
pub mod json;
pub(crate) mod json_visitor;
pub mod media_type;
pub(crate) mod member_check;
pub(crate) mod multipart;
pub mod protobuf;
pub mod sse;
pub mod target;
pub(crate) mod uri;
pub(crate) mod utf8;
pub(crate) mod websocket;

/// U+FEFF in UTF-8, which may precede a text.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

//! Bytes to structure: JSON and server-sent events, read as they stream by, in constant memory.

pub mod encoding;
pub mod json;
pub mod media_type;
pub mod sse;

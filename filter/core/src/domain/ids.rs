//! Ids that join what different streams tell of one thing.

/// Names an open call: by the JSON-RPC id within what scopes it, or by its task.
pub type Link = [u8; 16];

/// The id of a trace; ids of 64 bits stand in the lower half.
pub type TraceId = [u8; 16];

//! Ids that join what the filter observes of one thing on different streams.

/// Names an open call: by its JSON-RPC id within a namespace, or by its task.
pub(crate) type Link = [u8; 16];

/// Names a configuration: the first bytes of a hash of its text. Zero stands for one that is not
/// known.
pub(crate) type ConfigId = u64;

/// The id of a trace. An id of 64 bits is in the lower half.
pub(crate) type TraceId = [u8; 16];

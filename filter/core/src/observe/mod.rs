//! Structure to meaning: what a message of a protocol says about calls.

pub mod mcp;

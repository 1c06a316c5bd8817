//! What bodies say, as far as metering goes.

pub mod request_body;
pub mod trace_context;

pub mod a2a;
pub mod document;
pub mod llm;
pub mod mcp;

//! What bodies say, as far as metering goes.

pub mod a2a;
pub mod arguments;
pub mod document;
pub mod llm;
pub mod mcp;
pub mod reported;

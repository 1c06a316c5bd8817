//! The Model Context Protocol: JSON-RPC messages, over Streamable HTTP or HTTP+SSE.

mod answer_text;
pub mod arguments;
mod doubts;
mod members;
pub mod message;
pub mod message_reader;
mod method;
pub mod outcome;
pub mod reported;
pub mod reported_usage;
pub mod response_body;

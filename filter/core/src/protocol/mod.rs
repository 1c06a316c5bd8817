//! Reads the bodies of each protocol, as far as metering needs them.

pub(crate) mod call_proof;
pub(crate) mod grpc;
pub(crate) mod payment;
pub mod request_body;
pub(crate) mod trace_context;

pub mod a2a;
pub mod document;
pub(crate) mod document_reader;
pub mod llm;
pub mod mcp;
mod member;
pub(crate) mod path_template;
pub(crate) mod path_tree;
pub mod paths;

//! The rig around the filter: real Envoy, real MCP servers and clients, an LLM endpoint, a bench.
//!
//! It runs and measures. The filter decides what is metered and at what price; the crate
//! `agent-meter-collector` keeps the ledger, and the rig uses nothing but its public face.

pub mod bench;
pub mod check;
pub mod demo;
pub mod envoy;
pub mod llm_server;
pub mod mcp_client;
pub mod mcp_server;
pub mod plugin;
pub mod run;
pub mod stack;
pub mod trace;
pub mod wait;
pub mod wasm;

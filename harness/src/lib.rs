//! The rig around the filter: real Envoy, real MCP servers and clients, an LLM endpoint, a
//! benchmark.
//!
//! It runs and measures. The filter decides what to meter and at what price. The crate
//! `agent-meter-collector` keeps the ledger; the rig uses only its public items.

pub mod bench;
pub mod check;
pub mod demo;
pub mod envoy;
pub mod health;
pub mod llm_server;
pub mod mcp_client;
pub mod mcp_server;
pub mod plugin;
pub mod run;
pub mod stack;
pub mod stdio;
pub mod suggest;
pub mod trace;
pub mod wait;
pub mod wasm;

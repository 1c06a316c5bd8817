//! The harness around the filter: real Envoy, a real MCP server and client, and the collector with its ledger.
//!
//! It measures and runs; what is metered, and at what price, the filter decides.

pub mod bench;
pub mod check;
pub mod collector;
pub mod demo;
pub mod envoy;
pub mod invoice;
pub mod llm_server;
pub mod mcp_client;
pub mod mcp_server;
pub mod plugin;
pub mod prices;
pub mod recover;
pub mod run;
pub mod stack;
pub mod trace;
pub mod wait;
pub mod wasm;

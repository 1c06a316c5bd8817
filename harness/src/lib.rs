//! The harness around the filter: real Envoy, a real MCP server and client, and the collector with its ledger.

pub mod collector;
pub mod invoice;

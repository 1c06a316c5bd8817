//! The core's tests, one binary: they run natively and, by `make test-wasm`, on wasm32 in node.

mod accountant;
mod config;
#[path = "../dice.rs"]
mod dice;
mod encoding;
mod exchange;
mod generations;
mod host;
mod joins;
mod rates;
mod scanner;
mod sse;
mod support;
mod wire_cases;

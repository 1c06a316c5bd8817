//! The Envoy module: callbacks come in, effects go out. It decides nothing; `agent-meter-core`
//! does.
//!
//! `root`, `stream` and `control` contain Envoy's callbacks. Only `host` names host calls, and `raw`
//! those for which the SDK's own form panics or copies too much.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic in the module takes down every stream of a worker"
)]
#![expect(missing_docs, reason = "the SDK's macro makes a public function without any")]

#[cfg(target_arch = "wasm32")]
mod alloc;
mod control;
#[cfg(feature = "crash-test")]
#[expect(
    clippy::disallowed_methods,
    reason = "what it does to shared data is no part of the filter"
)]
mod crash;
#[expect(clippy::disallowed_methods, reason = "it is the one file that calls the host")]
mod host;
mod raw;
mod root;
mod stream;
mod vm;

use proxy_wasm::types::LogLevel;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: alloc::Allocator = alloc::Allocator::new();

proxy_wasm::main! {{
    // Envoy decides which lines appear.
    proxy_wasm::set_log_level(LogLevel::Info);
    std::panic::set_hook(Box::new(|panic| log::error!("agent-meter panicked: {panic}")));
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}

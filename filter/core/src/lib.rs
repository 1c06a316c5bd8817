//! Everything that agent-meter decides, and nothing that touches a host: no clock, no randomness,
//! no input or output.
//!
//! The modules stand in the order of the floors: each imports only from those above it, and
//! `tests/tidy.rs` holds that. Data takes this road through them:
//!
//! ```text
//! bytes -> wire -> protocol -> admission -> exchange (asks guard) -> fact -> shared_data::journal
//!       -> accountant (pricing, session, guard's totals) -> sink -> outbox -> the proxy's callout
//! ```
//!
//! [`meter::Meter`] holds the state of one VM; `filter/proxy` connects it with Envoy.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::as_conversions,
    reason = "a panic in the module takes down every stream of a worker"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "tests may fail loudly"
    )
)]

pub mod accountant;
pub mod admission;
pub mod base;
pub mod config;
pub mod domain;
pub mod exchange;
pub mod fact;
pub mod guard;
pub mod host;
pub mod meter;
pub mod pricing;
pub mod protocol;
pub mod session;
pub mod shared_data;
pub mod sink;
pub mod wire;

//! Everything that agent-meter decides, and nothing that touches a host: no clock, no randomness, no input or output.
//!
//! The modules in the order in which data flows:
//!
//! ```text
//! bytes -> wire -> observe -> exchange -> fact -> journal -> accountant -> session, pricing -> event -> sink -> outbox
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

pub mod wire;

pub mod observe;

pub mod usage;

pub mod status;

pub mod accept_encoding;

pub mod head;

pub mod identity;

pub mod trace;

pub mod admission;

pub mod requests;

pub mod answers;

pub mod agent_requests;

pub mod agent_answers;

pub mod agent_step;

pub mod exchange;

pub mod session_key;

pub mod link;

pub mod fact;

pub mod journal;

pub mod durable;

pub mod accountant;

pub mod free_slots;

pub mod slots;

pub mod joins;

pub mod attribution;

pub mod told;

pub mod active_time;

pub mod session_tokens;

pub mod session;

pub mod pattern;

pub mod pricing;

pub mod rates;

pub mod guard;

pub mod event;

pub mod sink;

pub mod outbox;

pub mod meter;

pub mod config;

pub mod counter;

pub mod host;

pub mod limits;

pub mod units;

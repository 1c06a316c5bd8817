//! Hands stored events over to the systems that bill, archive and watch: the sinks.
//!
//! Each sink has a task of its own (`worker.rs`), which reads the ledger behind the position that
//! the sink has come to, makes records of the events (`prepare.rs`, and the formats in `sinks/`),
//! sends them in order (`line.rs`, `deliver.rs`), and writes down how far it has come
//! (`ledger/handover.rs`). What a receiver refuses is set aside and holds up nothing.
//!
//! To the next maintainer. A batch is sent until it is written down that the receiver has it, so it
//! may come twice, with the same ids and times; receivers know ids again for a while. When that while
//! is over, an event of which no answer says whether it was taken is not sent again by itself: it
//! might be billed twice. It is set aside as `uncertain`. What certainly did not arrive, as when
//! nothing listens there, may wait for ever.

mod billing;
pub(crate) mod config;
mod deliver;
mod json;
mod line;
pub(crate) mod metrics;
mod prepare;
mod sink;
mod sinks;
mod store;
mod usage;
mod worker;

pub use config::{Pace, Sinks};
pub(crate) use worker::Handovers;

/// The statement that makes the table of the sink `clickhouse`.
pub const CLICKHOUSE_SCHEMA: &str = sinks::clickhouse::SCHEMA;

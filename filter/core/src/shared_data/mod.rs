//! The state in the shared data of the Envoy process: journals, slots, and commits under a lease.

pub mod commit;
pub(crate) mod configurations;
pub(crate) mod drain;
pub(crate) mod fair_queue;
pub(crate) mod free_slots;
pub mod journal;
pub(crate) mod pauses;
pub(crate) mod recent;
pub(crate) mod shares;
pub mod slots;
pub(crate) mod vms;

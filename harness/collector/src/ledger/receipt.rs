//! The answer to one POST of events.

use serde::Serialize;

use crate::ledger::fleet::FleetTotals;

/// The outcome of one POST, and the body of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Events stored now, with those that are kept apart because they are not plausible.
    pub accepted: u64,
    /// Events that had been stored before with the same content.
    pub duplicates: u64,
    /// Events that were not stored.
    pub rejected: Vec<Rejected>,
    /// The totals of the other sources, for each scope that the valid events are about, whether the
    /// events are new or not. Left out if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<FleetTotals>,
}

/// One event that was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Its `id`; empty if it has none.
    pub id: String,
    /// What is wrong, beginning with the path of the member.
    pub reason: String,
}

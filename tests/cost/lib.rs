//! Runs the release module in a host of its own, and counts what each request costs: instructions
//! (Wasmtime's fuel), calls of the host, bytes that cross the border. Nothing is timed, so the
//! figures are the same on every machine.

mod abi;
mod configurations;
pub mod exchanges;
pub mod growth;
mod host;
pub mod plot;
pub mod profile;
pub mod vm;
pub mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one unit of a workload costs: a request, or a tick. Over all units that were run, so that
/// what happens at every hundredth request counts too; in hundredths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions of the module.
    pub fuel: u64,
    /// The most instructions in one callback: what keeps its thread from everything else.
    pub fuel_most: u64,
    /// Instructions by the callback in which they were executed.
    pub fuel_by_callback: BTreeMap<String, u64>,
    /// Calls of the host, by name, for 100 units.
    pub host_calls_per_100: BTreeMap<String, u64>,
    /// Bytes that the host copied into the module's memory or out of it.
    pub copied_bytes: u64,
    /// Calls by which the host asked the module for memory, for 100 units.
    pub host_allocations_per_100: u64,
}

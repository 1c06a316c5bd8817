//! The few calls with which the workers and the accountant reach the host. The module implements
//! them on Envoy; the simulator implements them on a model of Envoy with faults.

pub mod counter;
pub mod spill;

use crate::host::counter::{Counter, Gauge};
use crate::host::spill::Spill;

/// The version of a shared-data value that a write expects to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Replace any value, or create the key.
    Any,
    /// Create the key. The host refuses if the key exists, even with an empty value.
    Absent,
    /// Replace the value that was read with this version.
    Version(u32),
}

/// Another VM wrote the key since this VM read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// What the host provides: the shared data of the Envoy process, the properties of a stream, the
/// log and the stats.
pub trait Host {
    /// The value and its version, or `None` if the key was never written. A removed key has an
    /// empty value.
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Writes `value` if the key is in the expected state.
    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict>;

    /// A property of the current stream, such as `["connection", "uri_san_peer_certificate"]`, as
    /// bytes. `None` if the stream does not have it.
    fn property(&mut self, path: &[&str]) -> Option<Vec<u8>>;

    /// Writes [`Spill::lines`] to the log, where `agent-meter recover` finds them.
    fn spill(&mut self, spill: &Spill<'_>);

    /// Writes one line to the log that operators should read. It has no line breaks.
    fn warn(&mut self, line: &str);

    /// Adds to a counter.
    fn count(&mut self, counter: Counter, by: u64);

    /// Sets a gauge.
    fn gauge(&mut self, gauge: Gauge, value: u64);
}

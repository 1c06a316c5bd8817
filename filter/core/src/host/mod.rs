//! The few calls through which the workers and the accountant see the host.
//! The module implements them on Envoy; the simulator implements them on a model of Envoy with faults.

pub mod counter;

use crate::host::counter::{Counter, Gauge};

/// The version of a shared-data value that a write expects to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Replace whatever is there.
    Any,
    /// Create the key; refused if it exists, even with an empty value.
    Absent,
    /// Replace the value that was read with this number.
    Version(u32),
}

/// Another VM has written the key in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// Shared data of the Envoy process, what it knows of a stream, the log and the stats.
pub trait Host {
    /// The value and its version, or `None` if the key was never written. A removed key has an empty value.
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Writes `value` if the key is as expected.
    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict>;

    /// A property of the stream that is being looked at, such as `["connection", "uri_san_peer_certificate"]`; text as
    /// its bytes. `None` if there is none.
    fn property(&mut self, path: &[&str]) -> Option<Vec<u8>>;

    /// Writes one line to the log that `agent-meter recover` can read back; `body` is JSON without line breaks.
    fn spill(&mut self, reason: &str, kind: &str, body: &str);

    /// Adds to a counter.
    fn count(&mut self, counter: Counter, by: u64);

    /// Sets a gauge.
    fn gauge(&mut self, gauge: Gauge, value: u64);
}

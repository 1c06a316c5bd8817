//! The meter with its host: what the callbacks of one VM share.

use agent_meter_core::meter::Meter;

use crate::host::Envoy;

/// The meter with its host, shared by the root and the streams of one VM.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) meter: Meter,
    pub(crate) envoy: Envoy,
}

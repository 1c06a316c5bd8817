//! The meter and its host, which the callbacks of one VM share.

use agent_meter_core::meter::Meter;

use crate::host::Envoy;

#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) meter: Meter,
    pub(crate) envoy: Envoy,
}

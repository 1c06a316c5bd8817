//! What a VM sees of those beside it.

use std::collections::BTreeSet;

use crate::domain::ids::ConfigId;
use crate::shared_data::vms::Watch;

/// The other VMs, and the configurations of which the accountant has told.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) watch: Watch,
    pub(super) ticks: u32,
    pub(super) told: BTreeSet<ConfigId>,
}

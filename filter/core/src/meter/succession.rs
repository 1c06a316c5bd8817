//! Which VM accounts. The configuration in force is the latest of which a VM lives: its VMs take the
//! lease over at once, while those of the one before serve on, for as long as their listener drains.

use crate::accountant::Handover;
use crate::base::time::{Timestamp, len_u64};
use crate::domain::ids::ConfigId;
use crate::host::Host;
use crate::host::counter::{Counter, Gauge};
use crate::meter::{Meter, Role};
use crate::shared_data::commit::Candidate;

/// Ticks between two looks at which configurations live.
const LOOK_TICKS: u32 = 16;

impl Meter {
    /// Takes the accountant's lease if it is this VM's turn, or gives it to a VM of the configuration
    /// in force.
    pub(super) fn succeed(&mut self, host: &mut impl Host, announced: &[ConfigId], now: Timestamp) {
        let is_in_force = self.is_in_force(host, announced, 1, now);
        match &mut self.role {
            Role::Candidate(candidate) => {
                let may_take = is_in_force.then_some(self.serves_streams);
                if let Some(lease) = candidate.tick(host, &self.prefix, may_take) {
                    self.role = Role::Accountant(Box::new(self.accountant(host, lease, now)));
                }
            }
            Role::Accountant(_) if is_in_force => self.tell_others(host, now),
            Role::Accountant(_) => {
                host.count(Counter::LeaseHandedOver, 1);
                let candidate = Role::Candidate(Candidate::default());
                if let Role::Accountant(accountant) = core::mem::replace(&mut self.role, candidate)
                {
                    accountant.stop(host, now, Handover::ToSuccessor);
                }
            }
        }
    }

    /// Whether this VM's configuration is the latest of those announced of which a VM lives. `ticks`
    /// is 1 on a tick and else 0.
    pub(super) fn is_in_force(
        &mut self,
        host: &mut impl Host,
        announced: &[ConfigId],
        ticks: u32,
        now: Timestamp,
    ) -> bool {
        let own = self.config.id;
        // All of them, if the list has forgotten the own one.
        let mut later = announced.iter().rev().take_while(|id| **id != own).peekable();
        if later.peek().is_none() {
            return true;
        }
        let live = self.others.watch.live_configurations(host, &self.prefix, ticks, now);
        !later.any(|id| live.contains(id))
    }

    /// Tells of configurations that live beside the one in force: of two that an operator has put
    /// under one name, guards and delivery follow only one.
    fn tell_others(&mut self, host: &mut impl Host, now: Timestamp) {
        self.others.ticks = self.others.ticks.wrapping_add(1);
        if !self.others.ticks.is_multiple_of(LOOK_TICKS) {
            return;
        }
        let own = self.config.id;
        let mut live = self.others.watch.live_configurations(host, &self.prefix, 1, now);
        live.insert(own);
        host.gauge(Gauge::ConfigurationsLive, len_u64(live.len()));
        self.others.told.retain(|other| live.contains(other));
        for other in live {
            if other != own && self.others.told.insert(other) {
                let plugin = &self.vm.plugin;
                host.warn(&format!(
                    "agent-meter two configurations run under the name={plugin} in_force={own:016x} \
                     other={other:016x}: each call has the price of its own, but guards and delivery \
                     are those of the one in force; give each a name, unless the other drains"
                ));
            }
        }
    }
}

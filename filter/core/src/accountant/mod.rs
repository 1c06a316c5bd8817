//! The only writer of sessions, totals and outbox. The accountant folds facts into sessions and
//! events, and delivers the events.
//!
//! To the next maintainer: a tick reads, folds, commits, and only then sends. Until the commit
//! nothing has happened: if the VM dies or loses the lease, the next accountant reads the same
//! facts again and makes the same events. Only a spill line is written before the commit that drops
//! its event: a duplicate line can be recognised by its id, but a missing line is a loss.

pub(crate) mod corrections;
pub(crate) mod estimates;
pub mod joins;
pub mod outbox;
pub(crate) mod seen_generations;

mod answers;
mod attribution;
mod awaited;
mod configurations;
mod drain;
mod evidence;
mod fold;
pub(crate) mod generations;
mod guard_runs;
mod guard_state;
mod guards;
mod heartbeat;
mod linked;
mod meta;
mod pending_ends;
mod state;

use std::rc::Rc;

use crate::accountant::attribution::Attributions;
use crate::accountant::awaited::Awaited;
use crate::accountant::configurations::Configurations;
use crate::accountant::corrections::Provisional;
use crate::accountant::estimates::Estimates;
use crate::accountant::evidence::Evidence;
use crate::accountant::guard_state::Guards;
use crate::accountant::joins::JoinTable;
use crate::accountant::linked::LinkTable;
use crate::accountant::meta::Meta;
use crate::accountant::outbox::{Dispatch, Outbox};
use crate::accountant::pending_ends::PendingEnds;
use crate::accountant::seen_generations::SeenGenerations;
use crate::base::limits::CAUSE_READINGS;
use crate::base::time::{Timestamp, len_u64};
use crate::config::Config;
use crate::config::product::Product;
use crate::domain::ids::ConfigId;
use crate::host::counter::Counter;
use crate::host::spill::Spill;
use crate::host::{Conflict, Host};
use crate::session::CloseReason;
use crate::session::table::SessionTable;
use crate::shared_data::commit::Lease;
use crate::shared_data::configurations::announced;
use crate::shared_data::drain::{Drain, DrainOrder};
use crate::shared_data::journal::Reader;
use crate::sink::cloudevents;
use crate::sink::format::Sends;
use crate::sink::reply::Reply;
use crate::sink::stored_event::StoredEvent;

/// What to do with the remaining events when the accountant stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// Envoy continues with another configuration: leave the events to the next accountant.
    ToSuccessor,
    /// Envoy stops: close every session and write every event to the log.
    Nothing,
}

/// The state of the VM that holds the lease.
#[derive(Debug)]
pub(crate) struct Accountant {
    config: Rc<Config>,
    /// With those before, by which some calls are priced.
    configurations: Configurations,
    prefix: String,
    lease: Lease,
    meta: Meta,
    sessions: SessionTable,
    /// Sessions that end when all journals have been read once more: another worker's journal may
    /// still contain a call that ended before its session did, even the session's first call.
    ends: PendingEnds,
    joins: JoinTable,
    evidence: Evidence,
    attributions: Attributions,
    seen_generations: SeenGenerations,
    /// Results of batches, which are many at once.
    seen_results: SeenGenerations,
    estimates: Estimates,
    corrections: LinkTable<Provisional>,
    awaited: LinkTable<Awaited>,
    guards: Guards,
    outbox: Outbox,
    drain: Option<Drain>,
    journals: Reader,
    /// When the present reading of all journals began.
    reading_since: Timestamp,
    /// Stands for a product that the configuration no longer contains.
    unknown_product: Rc<Product>,
}

impl Accountant {
    /// Folds what is new, makes the events that are due, commits, and returns the requests to send;
    /// `announced` are the configurations by which it may have to price, `order` is the one to drain
    /// that holds.
    /// `Err` means that another VM has taken over: drop this accountant.
    pub(crate) fn tick(
        &mut self,
        host: &mut impl Host,
        announced: &[ConfigId],
        order: Option<DrainOrder>,
        now: Timestamp,
    ) -> Result<Vec<Dispatch>, Conflict> {
        let held = self.lease.check(host, &self.prefix)?;
        self.configurations.refresh(host, &self.prefix, announced);
        // Seal before new events arrive, so that they do not join an old batch and share its age.
        self.outbox.seal_due(&self.config.delivery, now);
        if self.guards.is_new() {
            // Apply what changes only because of a new configuration, before this tick adds
            // anything new.
            self.guard_tick(host, now);
        }
        let read_until = self.fold_new(host, now).read_until;
        if let Some(until) = read_until {
            // What happened later may not have been read.
            self.expire_joins(host, until);
            self.attributions.expire(until);
            self.bill_estimates(host, until);
            self.close_due(host, until);
            self.guard_all_read(host, now);
        }
        self.guard_tick(host, now);
        self.drain(host, order, read_until, now);
        self.heartbeat(host, now);
        self.outbox.seal_due(&self.config.delivery, now);
        let expired = self.outbox.take_expired(&self.config.delivery, now);
        self.spill(host, "retry_horizon", expired);
        let writes = self.take_writes();
        self.lease.commit(host, &self.prefix, held, writes)?;
        self.set_gauges(host);
        self.tell_drain(host);
        Ok(self.dispatch(host, now))
    }

    /// Applies the collector's reply and returns the requests to send next.
    pub(crate) fn reply(
        &mut self,
        host: &mut impl Host,
        part: u64,
        reply: Reply,
        now: Timestamp,
    ) -> Vec<Dispatch> {
        let reply = self.outbox.checked(part, reply);
        host.count(Counter::BatchesFailed, u64::from(!matches!(reply, Reply::Taken { .. })));
        host.count(Counter::BatchesWithoutReceipt, u64::from(reply == Reply::NoReceipt));
        if let Reply::Taken { verdicts, sessions_to_end, .. } = &reply {
            host.count(Counter::SessionsToEnd, len_u64(*sessions_to_end));
            self.apply_fleet_totals(host, verdicts);
        }
        let settled = self.outbox.reply(&self.config.delivery, part, reply, now);
        self.meta.acked = self.meta.acked.saturating_add(settled.acked);
        host.count(Counter::EventsRefused, len_u64(settled.refused.len()));
        self.spill(host, "refused", settled.refused);
        self.dispatch(host, now)
    }

    /// Stops the accountant and releases the lease, after leaving the state as `leave` says.
    pub(crate) fn stop(mut self, host: &mut impl Host, now: Timestamp, leave: Handover) {
        if leave == Handover::Nothing {
            let Ok(mut held) = self.lease.check(host, &self.prefix) else { return };
            let announced = announced(host, &self.prefix);
            self.configurations.refresh(host, &self.prefix, &announced);
            while !self.fold_new(host, now).is_drained {
                let writes = self.take_writes();
                if self.lease.commit(host, &self.prefix, held, writes).is_err() {
                    return;
                }
                match self.lease.check(host, &self.prefix) {
                    Ok(next) => held = next,
                    Err(Conflict) => return,
                }
            }
            // Fold again, for sessions that have just ended and for generations without a known
            // cause.
            for _ in 0..=CAUSE_READINGS {
                self.fold_new(host, now);
            }
            for slot in self.sessions.slots() {
                self.close(host, slot, CloseReason::Shutdown, now, now);
            }
            self.last_heartbeat(host, now);
            let events = self.outbox.take_all();
            self.spill(host, "shutdown", events);
            let writes = self.take_writes();
            if self.lease.commit(host, &self.prefix, held, writes).is_err() {
                return;
            }
            self.set_gauges(host);
        }
        self.lease.release(host, &self.prefix);
    }

    /// Adds a newly written event to the outbox, if the format sends it.
    fn push(&mut self, host: &mut impl Host, event: StoredEvent, now: Timestamp) {
        let sends = self.config.collector.format.format().sends(&event);
        if sends != Sends::Yes {
            count_left_out(host, sends);
            return;
        }
        let overflow = self.outbox.push(&self.config.delivery, event, now);
        self.spill(host, "outbox_full", overflow);
    }

    fn spill(&mut self, host: &mut impl Host, reason: &str, events: Vec<StoredEvent>) {
        self.meta.spilled = self.meta.spilled.saturating_add(len_u64(events.len()));
        for event in events {
            // A spill line is a CloudEvent in every format, because `agent-meter recover` reads
            // CloudEvents.
            let text = &cloudevents::event(&self.meta.source, &event);
            let secret = &self.config.collector.secret;
            host.spill(&Spill { reason, kind: "event", text, secret });
        }
    }

    fn dispatch(&mut self, host: &mut impl Host, now: Timestamp) -> Vec<Dispatch> {
        let Config { collector, delivery, .. } = &*self.config;
        let requests = self.outbox.dispatch(collector, delivery, &self.meta.source, now);
        host.count(Counter::BatchesSent, len_u64(requests.len()));
        requests
    }
}

/// Counts an event that the format does not send.
fn count_left_out(host: &mut impl Host, sends: Sends) {
    host.count(Counter::EventsLeftOut, 1);
    host.count(Counter::EventsWithheld, u64::from(sends == Sends::Withheld));
}

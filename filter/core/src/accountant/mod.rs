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
mod round;
mod state;
mod work;

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
use crate::accountant::round::Round;
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
use crate::shared_data::commit::{Held, Lease};
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
    round: Round,
    /// Stands for a product that the configuration no longer contains.
    unknown_product: Rc<Product>,
}

impl Accountant {
    /// Begins a round, does its first piece, makes the events that are due, commits, and returns the
    /// requests to send; `announced` are the configurations by which it may have to price, `order`
    /// is the one to drain that holds.
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
        self.begin_round(now);
        let read_until = self.work(host, now);
        self.guard_tick(host, now);
        self.drain(host, order, read_until, now);
        self.heartbeat(host, now);
        let expired = self.outbox.take_expired(&self.config.delivery, now);
        self.spill(host, "retry_horizon", expired);
        let requests = self.commit(host, held, now)?;
        self.set_gauges(host);
        Ok(requests)
    }

    /// Whether the last tick has left a part of its round.
    pub(crate) fn has_work(&self) -> bool {
        self.round.is_under_way()
    }

    /// Does the next piece of the round; otherwise as [`Accountant::tick`].
    pub(crate) fn go_on(
        &mut self,
        host: &mut impl Host,
        announced: &[ConfigId],
        order: Option<DrainOrder>,
        now: Timestamp,
    ) -> Result<Vec<Dispatch>, Conflict> {
        let held = self.lease.check(host, &self.prefix)?;
        self.configurations.refresh(host, &self.prefix, announced);
        let read_until = self.work(host, now);
        self.guard_levels(host, now);
        self.drain(host, order, read_until, now);
        self.commit(host, held, now)
    }

    /// Commits what has changed, and returns the requests to send.
    fn commit(
        &mut self,
        host: &mut impl Host,
        held: Held,
        now: Timestamp,
    ) -> Result<Vec<Dispatch>, Conflict> {
        self.outbox.seal_due(&self.config.delivery, now);
        let writes = self.take_writes();
        self.lease.commit(host, &self.prefix, held, writes)?;
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
            let announced = announced(host, &self.prefix);
            self.configurations.refresh(host, &self.prefix, &announced);
            if self.close_all(host, now).is_err() {
                return;
            }
            self.set_gauges(host);
        }
        self.lease.release(host, &self.prefix);
    }

    /// Reads everything, closes every session and writes every event to the log.
    fn close_all(&mut self, host: &mut impl Host, now: Timestamp) -> Result<(), Conflict> {
        // What was under way began before the last facts were written.
        self.whole_round(host, now)?;
        self.whole_round(host, now)?;
        while !self.round.is_drained {
            self.whole_round(host, now)?;
        }
        // Read again, for sessions that have just ended and for generations without a known cause.
        for _ in 0..=CAUSE_READINGS {
            self.whole_round(host, now)?;
        }
        let held = self.lease.check(host, &self.prefix)?;
        for slot in self.sessions.slots() {
            self.close(host, slot, CloseReason::Shutdown, now, now);
        }
        self.last_heartbeat(host, now);
        let events = self.outbox.take_all();
        self.spill(host, "shutdown", events);
        let writes = self.take_writes();
        self.lease.commit(host, &self.prefix, held, writes)
    }

    /// Carries on with the round that is under way, or with a new one, to its end.
    fn whole_round(&mut self, host: &mut impl Host, now: Timestamp) -> Result<(), Conflict> {
        self.begin_round(now);
        // All sessions end in a moment.
        self.round.leave_due();
        while self.round.is_under_way() {
            let held = self.lease.check(host, &self.prefix)?;
            self.work(host, now);
            let writes = self.take_writes();
            self.lease.commit(host, &self.prefix, held, writes)?;
        }
        Ok(())
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

//! The one writer of sessions, totals and outbox: folds facts into sessions and events, and delivers them.
//!
//! To the next maintainer: a tick reads, folds, commits and only then sends. Until the commit nothing has happened:
//! if the VM dies or the lease is lost, the next accountant reads the same facts again and makes the same events.
//! Only a spill line is written before the commit that drops its event: a line too many is recognised by its id,
//! a line too few is a loss.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Product, ProductType, SessionRules};
use crate::counter::{Counter, Gauge};
use crate::durable::{Lease, read_slot};
use crate::event::{Event, Stamp};
use crate::fact::{CallEnded, CallOpen, Evidence, Fact, SessionEnd, SessionRef, Tells};
use crate::host::{Conflict, Host};
use crate::joins::{HeldEvidence, Join, JoinTable};
use crate::journal::{Entry, Reader, cursor_key};
use crate::limits::{FACTS_PER_TICK_MAX, JOINS_MAX, OUTBOX_BATCHES_MAX, SESSION_ENDS_MAX};
use crate::outbox::{Batch, Dispatch, Outbox, Reply, StoredEvent};
use crate::pricing::Pricing;
use crate::session::{CloseReason, Due, Session, SessionState, SessionTable};
use crate::session_key::hash;
use crate::sink::cloudevents;
use crate::status::ExecutionStatus;
use crate::units::Timestamp;

/// What the accountant has to know besides sessions, batches and cursors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    source: String,
    next_sequence: u64,
    acked: u64,
    spilled: u64,
    sessions_high: u32,
    joins_high: u32,
    batches: (u64, u64),
}

fn meta_key(prefix: &str) -> String {
    format!("{prefix}m")
}

fn session_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}s{slot}")
}

fn join_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}q{slot}")
}

fn ends_key(prefix: &str) -> String {
    format!("{prefix}d")
}

fn evidence_key(prefix: &str) -> String {
    format!("{prefix}e")
}

fn batch_key(prefix: &str, number: u64) -> String {
    format!("{prefix}o{}", number % OUTBOX_BATCHES_MAX)
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The value of a slot, or `None` if there is none, or none that can be read, which is counted.
fn read_value<T: for<'a> Deserialize<'a>>(host: &mut impl Host, key: &str) -> Option<T> {
    let bytes = read_slot(host, key)?;
    let value = postcard::from_bytes(&bytes).ok();
    if value.is_none() {
        host.count(Counter::SlotsUnreadable, 1);
    }
    value
}

/// A session that the client or the server has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PendingEnd {
    session: SessionRef,
    reason: SessionEnd,
}

/// What to do with the events that are left when the accountant stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Envoy goes on with another configuration: leave them to the next accountant.
    ToSuccessor,
    /// Envoy stops: close every session and write every event to the log.
    Nothing,
}

/// The holder of the lease.
#[derive(Debug)]
pub struct Accountant {
    config: Rc<Config>,
    prefix: String,
    lease: Lease,
    meta: Meta,
    sessions: SessionTable,
    /// Sessions that end when all journals have been read once more: a call that ended before its session did may
    /// still be in another worker's journal, and even the session's first one.
    ends: Vec<PendingEnd>,
    are_ends_dirty: bool,
    joins: JoinTable,
    evidence: HeldEvidence,
    outbox: Outbox,
    journals: Reader,
    default_rules: SessionRules,
    default_pricing: Pricing,
}

impl Accountant {
    /// Takes over with a new lease: reads what the last accountant left. `source` names a new series of events if
    /// there was none.
    pub fn resume(
        host: &mut impl Host,
        config: Rc<Config>,
        prefix: String,
        lease: Lease,
        source: &str,
        seed: u64,
    ) -> Self {
        host.count(Counter::LeaseTaken, 1);
        let meta = read_value(host, &meta_key(&prefix)).unwrap_or_else(|| Meta {
            source: source.to_owned(),
            next_sequence: 1,
            acked: 0,
            spilled: 0,
            sessions_high: 0,
            joins_high: 0,
            batches: (0, 0),
        });
        let journals = Reader::resume(host, &prefix);
        let (first, next) = meta.batches;
        let outbox = Outbox::new(next, seed ^ lease.term());
        let mut accountant = Self {
            config,
            prefix,
            lease,
            sessions: SessionTable::default(),
            ends: Vec::new(),
            are_ends_dirty: false,
            joins: JoinTable::default(),
            evidence: HeldEvidence::default(),
            outbox,
            journals,
            default_rules: SessionRules::default(),
            default_pricing: Pricing::default(),
            meta,
        };
        for number in first..next {
            if let Some(batch) = read_value::<Batch>(host, &batch_key(&accountant.prefix, number)) {
                accountant.outbox.restore(number, batch);
            }
        }
        for slot in 0..accountant.meta.joins_high {
            let join = read_value(host, &join_key(&accountant.prefix, slot));
            accountant.joins.restore(slot, join);
        }
        let evidence = read_value(host, &evidence_key(&accountant.prefix));
        accountant.evidence = evidence.unwrap_or_default();
        accountant.ends = read_value(host, &ends_key(&accountant.prefix)).unwrap_or_default();
        for slot in 0..accountant.meta.sessions_high {
            let session = read_value::<Session>(host, &session_key(&accountant.prefix, slot));
            let product_id = session.as_ref().map(|s| s.session.product_id.clone());
            let product = product_id.and_then(|id| accountant.config.product(&id).cloned());
            let rules = product.as_ref().map_or(&accountant.default_rules, |p| &p.session);
            accountant.sessions.restore(slot, session, rules);
        }
        accountant
    }

    /// Folds what is new, makes what is due, commits, and gives the requests to send. `Err` means that another VM
    /// has taken over: throw this accountant away.
    pub fn tick(
        &mut self,
        host: &mut impl Host,
        now: Timestamp,
    ) -> Result<Vec<Dispatch>, Conflict> {
        let held = self.lease.check(host, &self.prefix)?;
        // Before new events come: they must not age with a batch that waits for them.
        self.outbox.seal_due(&self.config.delivery, now);
        let is_all_read = self.fold_new(host, now);
        if is_all_read {
            self.expire_joins(host, now);
            self.close_due(host, now);
        }
        self.outbox.seal_due(&self.config.delivery, now);
        let expired = self.outbox.take_expired(&self.config.delivery, now);
        self.spill(host, "retry_horizon", expired);
        let writes = self.take_writes();
        self.lease.commit(host, &self.prefix, held, writes)?;
        self.set_gauges(host);
        Ok(self.dispatch(host, now))
    }

    /// Takes in the collector's reply and gives the requests to send next.
    pub fn reply(
        &mut self,
        host: &mut impl Host,
        part: u64,
        reply: Reply,
        now: Timestamp,
    ) -> Vec<Dispatch> {
        if !matches!(reply, Reply::Taken { .. }) {
            host.count(Counter::BatchesFailed, 1);
        }
        let settled = self.outbox.reply(&self.config.delivery, part, reply, now);
        self.meta.acked = self.meta.acked.saturating_add(settled.acked);
        host.count(Counter::EventsRefused, count(settled.refused.len()));
        self.spill(host, "refused", settled.refused);
        self.dispatch(host, now)
    }

    /// Stops: gives the lease back, after having left the state as `leave` says.
    pub fn stop(mut self, host: &mut impl Host, now: Timestamp, leave: Leave) {
        if leave == Leave::Nothing {
            let Ok(mut held) = self.lease.check(host, &self.prefix) else { return };
            while !self.fold_new(host, now) {
                let writes = self.take_writes();
                if self.lease.commit(host, &self.prefix, held, writes).is_err() {
                    return;
                }
                match self.lease.check(host, &self.prefix) {
                    Ok(next) => held = next,
                    Err(Conflict) => return,
                }
            }
            // Once more, for sessions that have just been ended.
            self.fold_new(host, now);
            for slot in self.sessions.slots() {
                self.close(host, slot, CloseReason::Shutdown, now, now);
            }
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

    /// Whether everything was read that had been written.
    fn fold_new(&mut self, host: &mut impl Host, now: Timestamp) -> bool {
        let (entries, is_all_read) = self.journals.poll(host, &self.prefix, FACTS_PER_TICK_MAX);
        let ends = if is_all_read { core::mem::take(&mut self.ends) } else { Vec::new() };
        self.are_ends_dirty |= !ends.is_empty();
        for entry in entries {
            self.fold(host, &entry, now);
        }
        for PendingEnd { session, reason } in ends {
            let (product, _) = self.product(host, &session);
            let currency = self.pricing(product.as_ref()).currency.clone();
            match self.sessions.find(&session, &currency) {
                Some(slot) => self.close(host, slot, CloseReason::Ended(reason), now, now),
                // A session without calls, or one that is closed already.
                None => host.count(Counter::SessionEndUnused, 1),
            }
        }
        is_all_read
    }

    fn fold(&mut self, host: &mut impl Host, entry: &Entry, now: Timestamp) {
        match Fact::decode(&entry.bytes) {
            None => host.count(Counter::FactsUnreadable, 1),
            Some(Fact::Call(call)) => self.fold_call(host, &call, &entry.name, now),
            Some(Fact::Open(open)) => {
                let CallOpen { call, link, expires_at } = open;
                let join = Join { call_id: entry.name.clone(), call, link, expires_at };
                self.fold_open(host, join, now);
            }
            Some(Fact::Evidence(evidence)) => self.fold_evidence(host, evidence, now),
            Some(Fact::Running { session, started_at, at }) => {
                let slot = self.open(host, &session, started_at, now);
                self.touch(host, slot, at, now);
            }
            Some(Fact::SessionEnd { session, reason, .. }) => {
                if self.ends.len() >= SESSION_ENDS_MAX {
                    host.count(Counter::SessionEndUnused, 1);
                    return;
                }
                self.ends.push(PendingEnd { session, reason });
                self.are_ends_dirty = true;
            }
        }
    }

    fn fold_call(&mut self, host: &mut impl Host, call: &CallEnded, call_id: &str, now: Timestamp) {
        let slot = self.open(host, &call.session, call.started_at, now);
        self.touch(host, slot, call.ended_at, now);
        let (product, product_type) = self.product(host, &call.session);
        let default_pricing = self.default_pricing.clone();
        let pricing = product.as_ref().map_or(&default_pricing, |product| &product.pricing);
        let charge = pricing.charge(&call.tool, call.status);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let added = session.add(call, &charge);
        host.count(Counter::ToolsOverLimit, u64::from(added.is_tool_over_limit));
        host.count(Counter::MoneyOverflow, u64::from(added.is_money_over_limit));
        let session = session.clone();
        let event = Event::ToolInvocation {
            session: &session,
            product_type,
            call,
            call_id,
            charge: &charge,
        };
        self.make(host, &event, call.ended_at, now);
    }

    /// A call waits for what another stream tells of it, if nothing has been told yet.
    fn fold_open(&mut self, host: &mut impl Host, mut join: Join, now: Timestamp) {
        let slot = self.open(host, &join.call.session, join.call.started_at, now);
        self.touch(host, slot, join.call.ended_at, now);
        while let Some(evidence) = self.evidence.claim(&join.link, join.call.started_at) {
            match self.tell(host, join, &evidence, now) {
                Some(waiting) => join = waiting,
                None => return,
            }
        }
        if self.joins.len() >= JOINS_MAX
            && let Some(oldest) = self.joins.take_expired(Timestamp(u64::MAX))
        {
            host.count(Counter::JoinsOverLimit, 1);
            self.fold_call(host, &oldest.call, &oldest.call_id, now);
        }
        self.joins.insert(join);
    }

    fn fold_evidence(&mut self, host: &mut impl Host, evidence: Evidence, now: Timestamp) {
        let found = evidence.links.iter().find_map(|link| self.joins.take(link, evidence.at));
        match found {
            Some(join) => {
                if let Some(waiting) = self.tell(host, join, &evidence, now) {
                    // What tells of the task may have come before.
                    self.fold_open(host, waiting, now);
                }
            }
            None => {
                let product = self.config.products.iter().map(|p| p.call_timeout.millis()).max();
                let cancel_wait = product.unwrap_or_default();
                let dropped = self.evidence.hold(evidence, cancel_wait, now);
                host.count(Counter::EvidenceUnused, dropped);
            }
        }
    }

    /// Applies evidence to a call; gives the call back if it still waits.
    fn tell(
        &mut self,
        host: &mut impl Host,
        mut join: Join,
        evidence: &Evidence,
        now: Timestamp,
    ) -> Option<Join> {
        match evidence.tells {
            Tells::Ended { status, http_status, transport } => {
                let ended_at = evidence.at.max(join.call.started_at);
                let call =
                    CallEnded { status, http_status, transport, ended_at, ..join.call.clone() };
                self.fold_call(host, &call, &join.call_id, now);
                None
            }
            Tells::BecameTask(link) => {
                join.link = link;
                join.call.status = ExecutionStatus::Pending;
                Some(join)
            }
            Tells::Cancelled => {
                // An answer may still come, and then decides.
                join.call.status = ExecutionStatus::Cancelled;
                Some(join)
            }
        }
    }

    /// Ends the calls that have waited for too long.
    fn expire_joins(&mut self, host: &mut impl Host, now: Timestamp) {
        while let Some(mut join) = self.joins.take_expired(now) {
            if join.call.status == ExecutionStatus::Pending {
                join.call.status = ExecutionStatus::Unknown;
            }
            self.fold_call(host, &join.call, &join.call_id, now);
        }
        host.count(Counter::EvidenceUnused, self.evidence.drop_expired(now));
    }

    /// The slot of a session, which is created if it is new.
    fn open(
        &mut self,
        host: &mut impl Host,
        session: &SessionRef,
        started_at: Timestamp,
        now: Timestamp,
    ) -> u32 {
        let (product, product_type) = self.product(host, session);
        let currency = self.pricing(product.as_ref()).currency.clone();
        if let Some(slot) = self.sessions.find(session, &currency) {
            return slot;
        }
        if count(self.sessions.len()) >= u64::from(self.config.sessions_max)
            && let Some(oldest) = self.sessions.least_recent()
        {
            self.close(host, oldest, CloseReason::TableFull, now, now);
        }
        let id = hash(&[
            self.meta.source.as_bytes(),
            &session.key,
            &self.meta.next_sequence.to_be_bytes(),
        ]);
        let created = Session::new(session.clone(), currency, id, started_at);
        let state = SessionState::Created;
        self.make(
            host,
            &Event::SessionChanged { session: &created, product_type, state },
            started_at,
            now,
        );
        let rules = product.as_ref().map_or(&self.default_rules, |product| &product.session);
        self.sessions.insert(created, rules)
    }

    /// Notes a sign of life at `at`: a session becomes ACTIVE with its second call, and after having been IDLE.
    fn touch(&mut self, host: &mut impl Host, slot: u32, at: Timestamp, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.active_at = session.active_at.max(at);
        let is_further_call = session.totals.calls > 0;
        let becomes_active = match session.state {
            SessionState::Created => is_further_call,
            SessionState::Idle => true,
            SessionState::Active | SessionState::Closed => false,
        };
        if becomes_active {
            session.state = SessionState::Active;
            let session = session.clone();
            let (product, product_type) = self.product(host, &session.session);
            let rules = product.as_ref().map_or(&self.default_rules, |product| &product.session);
            self.sessions.reschedule(slot, rules);
            let state = SessionState::Active;
            self.make(
                host,
                &Event::SessionChanged { session: &session, product_type, state },
                at,
                now,
            );
        }
    }

    fn close_due(&mut self, host: &mut impl Host, now: Timestamp) {
        loop {
            let config = Rc::clone(&self.config);
            let default_rules = self.default_rules.clone();
            let rules_of = |session: &SessionRef| {
                config.product(&session.product_id).map_or(&default_rules, |p| &p.session)
            };
            match self.sessions.next_due(now, rules_of) {
                None => return,
                Some(Due::TimedOut(slot, at)) => {
                    self.close(host, slot, CloseReason::SessionTimeout, at, now);
                }
                Some(Due::Idle(slot, at)) => {
                    let Some(session) = self.sessions.get(slot).cloned() else { continue };
                    let (_, product_type) = self.product(host, &session.session);
                    let state = SessionState::Idle;
                    let event = Event::SessionChanged { session: &session, product_type, state };
                    self.make(host, &event, at, now);
                }
            }
        }
    }

    fn close(
        &mut self,
        host: &mut impl Host,
        slot: u32,
        reason: CloseReason,
        at: Timestamp,
        now: Timestamp,
    ) {
        let Some(session_key) = self.sessions.get(slot).map(|session| session.session.key) else {
            return;
        };
        while let Some(join) = self.joins.take_of_session(&session_key) {
            self.fold_call(host, &join.call, &join.call_id, now);
        }
        let Some(session) = self.sessions.remove(slot) else { return };
        let (_, product_type) = self.product(host, &session.session);
        let event = Event::SessionClosed { session: &session, product_type, reason };
        self.make(host, &event, at, now);
    }

    fn make(&mut self, host: &mut impl Host, event: &Event<'_>, time: Timestamp, now: Timestamp) {
        let sequence = self.meta.next_sequence;
        self.meta.next_sequence = sequence.saturating_add(1);
        let stamp = Stamp { source: &self.meta.source, sequence, time };
        let json = cloudevents::encode(&stamp, event);
        let stored = StoredEvent { sequence, json };
        let overflow = self.outbox.push(&self.config.delivery, stored, now);
        self.spill(host, "outbox_full", overflow);
    }

    fn spill(&mut self, host: &mut impl Host, reason: &str, events: Vec<StoredEvent>) {
        self.meta.spilled = self.meta.spilled.saturating_add(count(events.len()));
        for event in events {
            host.spill(reason, "event", &event.json);
        }
    }

    fn dispatch(&mut self, host: &mut impl Host, now: Timestamp) -> Vec<Dispatch> {
        let timeout = self.config.collector.timeout.millis();
        let requests = self.outbox.dispatch(&self.config.delivery, timeout, now);
        host.count(Counter::BatchesSent, count(requests.len()));
        requests
    }

    fn product(
        &self,
        host: &mut impl Host,
        session: &SessionRef,
    ) -> (Option<Rc<Product>>, ProductType) {
        match self.config.product(&session.product_id) {
            Some(product) => (Some(Rc::clone(product)), product.product_type),
            None => {
                host.count(Counter::ProductUnknown, 1);
                (None, ProductType::McpServer)
            }
        }
    }

    fn pricing<'a>(&'a self, product: Option<&'a Rc<Product>>) -> &'a Pricing {
        product.map_or(&self.default_pricing, |product| &product.pricing)
    }

    fn take_writes(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut writes = Vec::new();
        for (index, cursor) in self.journals.take_moved() {
            writes.push((cursor_key(&self.prefix, index), encoded(&cursor)));
        }
        for slot in self.sessions.take_dirty() {
            let value = self.sessions.get(slot).map(encoded).unwrap_or_default();
            writes.push((session_key(&self.prefix, slot), value));
        }
        for slot in self.joins.take_dirty() {
            let value = self.joins.get(slot).map(encoded).unwrap_or_default();
            writes.push((join_key(&self.prefix, slot), value));
        }
        if core::mem::take(&mut self.are_ends_dirty) {
            writes.push((ends_key(&self.prefix), encoded(&self.ends)));
        }
        if self.evidence.take_dirty() {
            writes.push((evidence_key(&self.prefix), encoded(&self.evidence)));
        }
        for (number, batch) in self.outbox.take_dirty() {
            let value = batch.map(encoded).unwrap_or_default();
            writes.push((batch_key(&self.prefix, number), value));
        }
        let batches = self.outbox.range();
        let sessions_high = self.sessions.high();
        let joins_high = self.joins.high();
        if !writes.is_empty() {
            self.meta.batches = batches;
            self.meta.sessions_high = sessions_high;
            self.meta.joins_high = joins_high;
            writes.push((meta_key(&self.prefix), encoded(&self.meta)));
        }
        writes
    }

    fn set_gauges(&self, host: &mut impl Host) {
        host.gauge(Gauge::EventsMade, self.meta.next_sequence.saturating_sub(1));
        host.gauge(Gauge::EventsAcked, self.meta.acked);
        host.gauge(Gauge::EventsSpilled, self.meta.spilled);
        host.gauge(Gauge::OutboxEvents, self.outbox.len());
        host.gauge(Gauge::SessionsLive, count(self.sessions.len()));
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

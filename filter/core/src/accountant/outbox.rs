//! Events that the collector has not acknowledged, in numbered batches, and when to send each
//! batch.
//!
//! To the next maintainer: a batch is filled, sealed, sent in one or more *parts*, and dropped when
//! every part is settled. Parts exist in memory only: after a crash the next accountant sends the
//! whole batch again, and the collector recognises the events. A failure pauses the whole sink, not
//! one batch: while the collector is down, one part at a time probes it, and events that come join
//! the last batch of which nothing was sent yet, so that an outage fills the outbox by what there is
//! to tell and not by how long it lasts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::limits::{
    BATCH_BYTES_MAX, OUTBOX_BATCHES_MAX, PAUSED_BATCH_EVENTS, PAUSED_BATCHES,
};
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::config::delivery::{Collector, Delivery};
use crate::sink::credential::Credential;
use crate::sink::format::{Format, Limits, Sends};
use crate::sink::reply::Reply;
use crate::sink::stored_event::StoredEvent;

/// Events that the accountant sends together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `None` stands for an event that is settled while others of the batch are not.
    events: Vec<Option<StoredEvent>>,
    /// When the first event was added.
    opened_at: Timestamp,
    is_sealed: bool,
    /// The sum of the events' sizes.
    #[serde(skip)]
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Waiting,
    InFlight { since: Timestamp },
}

/// A part of a batch that is sent as one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    batch: u64,
    from: usize,
    to: usize,
    state: PartState,
    was_sent: bool,
}

/// A request to the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The number of the part, which the caller must return with the reply.
    pub part: u64,
    /// The request's body.
    pub body: Vec<u8>,
    /// The header that shows who sends it, besides those of the format.
    pub credential: Option<Credential>,
}

/// What a reply has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The number of events that the collector has accepted.
    pub acked: u64,
    /// Events that the collector refused for good.
    pub refused: Vec<StoredEvent>,
}

/// All batches that are not settled.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    parts: BTreeMap<u64, Part>,
    next_part: u64,
    failures: u32,
    paused_until: Timestamp,
    dirty: BTreeSet<u64>,
    events: u64,
    bytes: u64,
    /// What one request may hold.
    request: Limits,
    /// Spreads the retries of many Envoys over time.
    jitter_seed: u64,
}

impl Outbox {
    /// Creates an empty outbox. `first_batch` is above every number used before. `term` is that of
    /// the lease: a VM that lost the lease and holds it again may still get replies to its earlier
    /// requests, and must not match them with new ones. `limits` are those of the format.
    pub(crate) fn new(
        first_batch: u64,
        term: u64,
        jitter_seed: u64,
        delivery: &Delivery,
        limits: Limits,
    ) -> Self {
        let next_part = term.wrapping_shl(32);
        let events = delivery.batch_events_max.min(limits.events);
        let request = Limits { events, bytes: BATCH_BYTES_MAX.min(limits.bytes) };
        Self {
            batches: BTreeMap::new(),
            next_batch: first_batch,
            parts: BTreeMap::new(),
            next_part,
            failures: 0,
            paused_until: Timestamp::default(),
            dirty: BTreeSet::new(),
            events: 0,
            bytes: 0,
            request,
            jitter_seed,
        }
    }

    /// Puts back a batch that was read from shared data. An open batch is sealed. Takes out the events
    /// that the format does not send, which another configuration left, and returns them.
    pub(crate) fn restore(
        &mut self,
        number: u64,
        batch: Batch,
        format: &dyn Format,
    ) -> Vec<StoredEvent> {
        self.next_batch = self.next_batch.max(number.saturating_add(1));
        let events = batch.events.into_iter().flatten();
        let (events, left_out): (Vec<_>, Vec<_>) =
            events.partition(|event| format.sends(event) == Sends::Yes);
        if !left_out.is_empty() {
            self.dirty.insert(number);
        }
        if events.is_empty() && !left_out.is_empty() {
            return left_out;
        }
        let events: Vec<_> = events.into_iter().map(Some).collect();
        self.events = self.events.saturating_add(len_u64(events.len()));
        let bytes = events.iter().flatten().map(StoredEvent::size).sum();
        let batch = Batch { events, is_sealed: true, bytes, ..batch };
        self.bytes = self.bytes.saturating_add(len_u64(bytes));
        self.batches.insert(number, batch);
        self.add_parts(number, true);
        left_out
    }

    /// The number of events that are not settled.
    pub(crate) fn len(&self) -> u64 {
        self.events
    }

    /// Whether the last request to the collector failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Returns the first batch number that may be in use, and the first that is not.
    pub(crate) fn range(&self) -> (u64, u64) {
        let first = self.batches.keys().next().copied().unwrap_or(self.next_batch);
        (first, self.next_batch)
    }

    /// Adds an event. If the outbox was full, drops the oldest batches and returns their events.
    pub(crate) fn push(
        &mut self,
        delivery: &Delivery,
        event: StoredEvent,
        now: Timestamp,
    ) -> Vec<StoredEvent> {
        let mut overflow = Vec::new();
        if self.is_failing() {
            self.open_last(delivery, now);
        }
        let open = self.batches.last_entry().filter(|last| !last.get().is_sealed);
        let number = if let Some(last) = open {
            *last.key()
        } else {
            let (first, next) = self.range();
            if next.saturating_sub(first) >= OUTBOX_BATCHES_MAX {
                overflow = self.drop_batch(first);
            }
            let batch = Batch { events: Vec::new(), opened_at: now, is_sealed: false, bytes: 0 };
            self.batches.insert(next, batch);
            self.next_batch = next.saturating_add(1);
            next
        };
        self.events = self.events.saturating_add(1);
        let size = event.size();
        self.bytes = self.bytes.saturating_add(len_u64(size));
        self.dirty.insert(number);
        if let Some(batch) = self.batches.get_mut(&number) {
            batch.bytes = batch.bytes.saturating_add(size);
            batch.events.push(Some(event));
        }
        if self.batches.get(&number).is_some_and(|batch| self.is_full(batch)) {
            self.seal(number);
        }
        while self.bytes > u64::from(delivery.outbox_bytes_max) && self.batches.len() > 1 {
            overflow.extend(self.drop_batch(self.range().0));
        }
        overflow
    }

    /// Whether a batch holds as much as it should now.
    fn is_full(&self, batch: &Batch) -> bool {
        let events_max = u64::from(self.request.events);
        let events_max =
            if self.is_failing() { events_max.max(PAUSED_BATCH_EVENTS) } else { events_max };
        len_u64(batch.events.len()) >= events_max || batch.bytes >= self.request.bytes
    }

    /// Whether a batch has waited long enough for further events. One that could not be sent before
    /// others anyway waits longer, but not so long that what joins it would share its age, and expire
    /// with it.
    fn is_due(&self, batch: &Batch, delivery: &Delivery, now: Timestamp) -> bool {
        let flush_interval = delivery.flush_interval.millis();
        let patience = if self.is_failing() && !self.parts.is_empty() {
            flush_interval.max(Millis(delivery.retry_horizon.millis().0 / PAUSED_BATCHES))
        } else {
            flush_interval
        };
        // If the clock was set back, the batch must not wait for ever.
        now.saturating_since(batch.opened_at) >= patience || now < batch.opened_at
    }

    /// Opens the last batch again, if it has room, is not old, and nothing of it was sent.
    fn open_last(&mut self, delivery: &Delivery, now: Timestamp) {
        let Some((&number, batch)) = self.batches.last_key_value() else { return };
        let mut parts = self.parts.values().filter(|part| part.batch == number);
        if batch.is_sealed
            && !self.is_full(batch)
            && !self.is_due(batch, delivery, now)
            && parts.all(|part| !part.was_sent)
        {
            self.parts.retain(|_, part| part.batch != number);
            if let Some(batch) = self.batches.get_mut(&number) {
                batch.is_sealed = false;
            }
        }
    }

    /// Seals the open batch if its first event has waited long enough.
    pub(crate) fn seal_due(&mut self, delivery: &Delivery, now: Timestamp) {
        let last = self.batches.last_key_value();
        let due = last.filter(|(_, batch)| !batch.is_sealed && self.is_due(batch, delivery, now));
        if let Some((&number, _)) = due {
            self.seal(number);
        }
    }

    /// Takes out the events that have waited longer than the retry horizon.
    pub(crate) fn take_expired(&mut self, delivery: &Delivery, now: Timestamp) -> Vec<StoredEvent> {
        let horizon = delivery.retry_horizon.millis();
        let mut expired = Vec::new();
        while let Some((&number, _)) = self
            .batches
            .first_key_value()
            .filter(|(_, batch)| now.saturating_since(batch.opened_at) > horizon)
        {
            expired.extend(self.drop_batch(number));
        }
        expired
    }

    /// Takes out all events.
    pub(crate) fn take_all(&mut self) -> Vec<StoredEvent> {
        let numbers: Vec<u64> = self.batches.keys().copied().collect();
        numbers.into_iter().flat_map(|number| self.drop_batch(number)).collect()
    }

    /// Returns the requests to send now, with events of `source`.
    pub(crate) fn dispatch(
        &mut self,
        collector: &Collector,
        delivery: &Delivery,
        source: &str,
        now: Timestamp,
    ) -> Vec<Dispatch> {
        self.give_up_silent(delivery, collector.timeout.millis(), now);
        let format = collector.format.format();
        let options = collector.options();
        let is_paused = now < self.paused_until
            // If the clock was set back, the pause must not last for ever.
            && self.paused_until.saturating_since(now) <= delivery.retry_max.millis().max(RETRY_AFTER_MAX);
        if is_paused {
            return Vec::new();
        }
        let in_flight_max = if self.failures > 0 { 1 } else { delivery.in_flight_max };
        let is_in_flight = |part: &&Part| part.state != PartState::Waiting;
        let in_flight = len_u64(self.parts.values().filter(is_in_flight).count());
        let room = u64::from(in_flight_max).saturating_sub(in_flight);
        let mut requests = Vec::new();
        for (&number, part) in &mut self.parts {
            if len_u64(requests.len()) >= room {
                break;
            }
            let Some(events) = self
                .batches
                .get(&part.batch)
                .and_then(|batch| batch.events.get(part.from..part.to))
            else {
                continue;
            };
            if part.state == PartState::Waiting {
                part.state = PartState::InFlight { since: now };
                part.was_sent = true;
                let events = events.iter().flatten();
                let body =
                    format.batch(&mut events.map(|event| format.event(options, source, event)));
                let credential = collector.credential(&body);
                requests.push(Dispatch { part: number, body, credential });
            }
        }
        requests
    }

    /// The reply, unless it is a receipt that does not account for every event of its part.
    pub(crate) fn checked(&self, number: u64, reply: Reply) -> Reply {
        let sent = self.parts.get(&number).map(|part| part.to.saturating_sub(part.from));
        match (&reply, sent) {
            (Reply::Taken { accounted: Some(accounted), .. }, Some(sent))
                if *accounted != len_u64(sent) =>
            {
                Reply::NoReceipt
            }
            _ => reply,
        }
    }

    /// Applies the collector's reply. A reply for a part that is unknown, or settled already,
    /// changes nothing.
    pub(crate) fn reply(
        &mut self,
        delivery: &Delivery,
        number: u64,
        reply: Reply,
        now: Timestamp,
    ) -> Settled {
        let mut settled = Settled::default();
        let Some(part) = self.parts.get_mut(&number) else { return settled };
        match reply {
            Reply::Taken { refused, .. } => {
                self.failures = 0;
                self.paused_until = Timestamp::default();
                for (place, event) in self.settle(number).into_iter().enumerate() {
                    if refused.may_be(place, event.sequence) {
                        settled.refused.push(event);
                    } else {
                        settled.acked = settled.acked.saturating_add(1);
                    }
                }
            }
            Reply::Refused if part.to.saturating_sub(part.from) > 1 => {
                let Part { batch, from, to, .. } = *part;
                let middle = from.midpoint(to);
                self.parts.remove(&number);
                for (from, to) in [(from, middle), (middle, to)] {
                    let state = PartState::Waiting;
                    self.insert_part(Part { batch, from, to, state, was_sent: true });
                }
            }
            Reply::Refused => settled.refused = self.settle(number),
            Reply::Failed { .. } | Reply::NoReceipt => {
                let asked = match reply {
                    Reply::Failed { retry_after } => retry_after,
                    _ => None,
                };
                part.state = PartState::Waiting;
                self.failures = self.failures.saturating_add(1);
                let wait = asked
                    .map(|wait| wait.min(RETRY_AFTER_MAX))
                    .unwrap_or_else(|| self.backoff(delivery, number));
                self.paused_until = now.plus(wait);
            }
        }
        settled
    }

    /// Returns the batches that have changed since this was last called; `None` for one that is
    /// gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<(u64, Option<&Batch>)> {
        let dirty = core::mem::take(&mut self.dirty);
        dirty.into_iter().map(|number| (number, self.batches.get(&number))).collect()
    }

    fn seal(&mut self, number: u64) {
        if let Some(batch) = self.batches.get_mut(&number) {
            batch.is_sealed = true;
            self.dirty.insert(number);
            self.add_parts(number, false);
        }
    }

    /// Divides a sealed batch into what one request may hold.
    fn add_parts(&mut self, batch: u64, was_sent: bool) {
        let Some(found) = self.batches.get(&batch) else { return };
        let events_max = usize::try_from(self.request.events).unwrap_or(usize::MAX).max(1);
        let mut ends = Vec::new();
        let (mut from, mut bytes) = (0_usize, 0_usize);
        for (at, event) in found.events.iter().enumerate() {
            let size = event.as_ref().map_or(0, StoredEvent::size);
            bytes = bytes.saturating_add(size);
            let is_full = at.saturating_sub(from) >= events_max || bytes > self.request.bytes;
            if at > from && is_full {
                ends.push((from, at));
                (from, bytes) = (at, size);
            }
        }
        ends.push((from, found.events.len()));
        for (from, to) in ends {
            let state = PartState::Waiting;
            self.insert_part(Part { batch, from, to, state, was_sent });
        }
    }

    fn insert_part(&mut self, part: Part) {
        self.parts.insert(self.next_part, part);
        self.next_part = self.next_part.saturating_add(1);
    }

    /// Removes a part, and its batch if the part was the last one. Returns the part's events.
    fn settle(&mut self, number: u64) -> Vec<StoredEvent> {
        let Some(part) = self.parts.remove(&number) else { return Vec::new() };
        let mut batch = self.batches.get_mut(&part.batch);
        let events = batch.as_mut().and_then(|batch| batch.events.get_mut(part.from..part.to));
        let events: Vec<StoredEvent> =
            events.unwrap_or_default().iter_mut().filter_map(Option::take).collect();
        self.events = self.events.saturating_sub(len_u64(events.len()));
        let bytes: usize = events.iter().map(StoredEvent::size).sum();
        if let Some(batch) = batch {
            batch.bytes = batch.bytes.saturating_sub(bytes);
        }
        self.bytes = self.bytes.saturating_sub(len_u64(bytes));
        self.dirty.insert(part.batch);
        if !self.parts.values().any(|other| other.batch == part.batch) {
            self.batches.remove(&part.batch);
        }
        events
    }

    /// Removes a batch with all its parts. Returns the events that were not settled.
    fn drop_batch(&mut self, batch: u64) -> Vec<StoredEvent> {
        let is_open = self.batches.get(&batch).is_some_and(|batch| !batch.is_sealed);
        if is_open {
            self.seal(batch);
        }
        let parts: Vec<u64> = self
            .parts
            .iter()
            .filter(|(_, p)| p.batch == batch)
            .map(|(&number, _)| number)
            .collect();
        parts.into_iter().flat_map(|number| self.settle(number)).collect()
    }

    /// Treats a part as failed if its reply is missing long after the host should have given one.
    fn give_up_silent(&mut self, delivery: &Delivery, timeout: Millis, now: Timestamp) {
        let patience = Millis(timeout.0.saturating_mul(2).saturating_add(30_000));
        let is_silent = |part: &Part| match part.state {
            PartState::InFlight { since } => now.saturating_since(since) > patience,
            PartState::Waiting => false,
        };
        let silent: Vec<u64> =
            self.parts.iter().filter(|(_, part)| is_silent(part)).map(|(&n, _)| n).collect();
        for number in silent {
            self.reply(delivery, number, Reply::Failed { retry_after: None }, now);
        }
    }

    /// Returns a wait that doubles with each failure in a row, up to `retry_max`, less up to a
    /// quarter.
    fn backoff(&self, delivery: &Delivery, salt: u64) -> Millis {
        let doublings = self.failures.saturating_sub(1).min(30);
        let initial = delivery.retry_initial.millis().0;
        let wait = initial.saturating_mul(1 << doublings).min(delivery.retry_max.millis().0);
        let spread = wait / 4;
        let mixed = (self.jitter_seed ^ salt ^ u64::from(self.failures).rotate_left(32))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let less = (mixed >> 33).checked_rem(spread.saturating_add(1)).unwrap_or(0);
        Millis(wait.saturating_sub(less))
    }
}

/// The longest wait that a collector can ask for.
const RETRY_AFTER_MAX: Millis = Millis(3_600_000);

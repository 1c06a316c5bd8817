//! The accountant's state in shared data: its keys, how a VM reads it when it takes over, and what
//! a commit writes.

use std::rc::Rc;

use serde::Deserialize;

use crate::accountant::attribution::Attributions;
use crate::accountant::configurations::Configurations;
use crate::accountant::estimates::Estimates;
use crate::accountant::evidence::{Evidence, UsedAnswers};
use crate::accountant::guard_state::{Guards, reservation_key, scope_key};
use crate::accountant::joins::JoinTable;
use crate::accountant::linked::LinkTable;
use crate::accountant::meta::Meta;
use crate::accountant::outbox::{Batch, Outbox};
use crate::accountant::pending_ends::PendingEnds;
use crate::accountant::round::Round;
use crate::accountant::seen_generations::SeenGenerations;
use crate::accountant::{Accountant, count_left_out};
use crate::base::encoded::encoded;
use crate::base::limits::{BATCH_PAGES, OUTBOX_BATCHES_MAX};
use crate::base::time::len_u64;
use crate::config::Config;
use crate::config::product::Product;
use crate::host::Host;
use crate::host::counter::{Counter, Gauge};
use crate::session::Session;
use crate::session::table::SessionTable;
use crate::shared_data::commit::{Lease, read_slot};
use crate::shared_data::configurations::announced;
use crate::shared_data::journal::{Reader, cursor_key};
use crate::shared_data::recent::Recent;

impl Accountant {
    /// Takes over with a new lease and reads the state that the last accountant left. If there is
    /// none, `source` names a new series of events.
    pub(crate) fn resume(
        host: &mut impl Host,
        config: Rc<Config>,
        prefix: String,
        lease: Lease,
        source: &str,
        seed: u64,
        piece: usize,
    ) -> Self {
        host.count(Counter::LeaseTaken, 1);
        let meta = read_value(host, &meta_key(&prefix)).unwrap_or_else(|| Meta::new(source));
        let journals = Reader::resume(host, &prefix);
        let (first, next) = meta.batches;
        let format = config.collector.format.format();
        let limits = format.limits();
        let seed = seed ^ lease.term();
        let outbox = Outbox::new(next, lease.term(), seed, &config.delivery, limits);
        let mut configurations = Configurations::new(Rc::clone(&config));
        let announced = announced(host, &prefix);
        configurations.refresh(host, &prefix, &announced);
        let mut accountant = Self {
            config,
            configurations,
            prefix,
            lease,
            sessions: SessionTable::default(),
            ends: PendingEnds::default(),
            joins: JoinTable::default(),
            evidence: Evidence::default(),
            attributions: Attributions::default(),
            seen_generations: SeenGenerations::default(),
            seen_results: SeenGenerations::default(),
            estimates: Estimates::default(),
            corrections: LinkTable::default(),
            awaited: LinkTable::default(),
            guards: Guards::default(),
            outbox,
            drain: None,
            journals,
            round: Round::new(piece),
            unknown_product: Rc::new(Product::unknown()),
            meta,
        };
        for number in first..next {
            if let Some(batch) = read_value::<Batch>(host, &batch_key(&accountant.prefix, number)) {
                let left_out = accountant.outbox.restore(number, batch, format);
                left_out.iter().for_each(|event| count_left_out(host, format.sends(event)));
            }
        }
        for slot in 0..accountant.meta.joins_high {
            let join = read_value(host, &join_key(&accountant.prefix, slot));
            accountant.joins.restore(slot, join);
        }
        for slot in 0..accountant.meta.calls_high {
            let call = read_value(host, &call_key(&accountant.prefix, slot));
            accountant.attributions.restore_call(slot, call);
        }
        for slot in 0..accountant.meta.generations_high {
            let generation = read_value(host, &generation_key(&accountant.prefix, slot));
            accountant.attributions.restore_generation(slot, generation);
        }
        let seen_at = accountant.meta.seen_at;
        let seen =
            Recent::restore(seen_at, |at| read_value(host, &seen_key(&accountant.prefix, at)));
        accountant.seen_generations = SeenGenerations::restore(seen);
        let estimates = read_value(host, &estimates_key(&accountant.prefix));
        accountant.estimates = estimates.unwrap_or_default();
        accountant.restore_corrections(host);
        accountant.restore_guards(host);
        accountant.evidence = read_evidence(host, &accountant.prefix, accountant.meta.used_at);
        let ends = read_value(host, &ends_key(&accountant.prefix));
        accountant.ends = PendingEnds::new(ends.unwrap_or_default());
        accountant.restore_sessions(host);
        accountant
    }

    fn restore_guards(&mut self, host: &mut impl Host) {
        for slot in 0..self.meta.scopes_high {
            let scope = read_value(host, &scope_key(&self.prefix, slot));
            self.guards.scopes.restore(slot, scope);
        }
        for slot in 0..self.meta.reservations_high {
            let hold = read_value(host, &reservation_key(&self.prefix, slot));
            self.guards.reservations.restore(slot, hold);
        }
        self.guards.resumed(&self.config);
    }

    fn restore_sessions(&mut self, host: &mut impl Host) {
        for slot in 0..self.meta.sessions_high {
            let session = read_value::<Session>(host, &session_key(&self.prefix, slot));
            let product = session.as_ref().and_then(|session| {
                let reference = &session.reference;
                self.configurations.product(reference, &reference.product_id)
            });
            let product = product.map_or(&self.unknown_product, |(_, product)| product);
            let rules = &product.session;
            self.sessions.restore(slot, session, rules);
        }
    }

    fn restore_corrections(&mut self, host: &mut impl Host) {
        for slot in 0..self.meta.corrections_high {
            let billed = read_value(host, &correction_key(&self.prefix, slot));
            self.corrections.restore(slot, billed);
        }
        for slot in 0..self.meta.awaited_high {
            let awaited = read_value(host, &awaited_key(&self.prefix, slot));
            self.awaited.restore(slot, awaited);
        }
        let results = Recent::of_pages(BATCH_PAGES, self.meta.results_at, |at| {
            // Most pages were never written.
            (at <= self.meta.results_at || self.meta.has_all_results)
                .then(|| read_value(host, &result_key(&self.prefix, at)))
                .flatten()
        });
        self.seen_results = SeenGenerations::restore(results);
    }

    pub(super) fn take_writes(&mut self) -> Vec<(String, Vec<u8>)> {
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
        let (prefix, attributions) = (&self.prefix, &mut self.attributions);
        writes.extend(attributions.calls.take_writes(|slot| call_key(prefix, slot)));
        writes.extend(attributions.generations.take_writes(|slot| generation_key(prefix, slot)));
        self.generation_writes(&mut writes);
        if let Some(ends) = self.ends.take_dirty() {
            writes.push((ends_key(&self.prefix), encoded(&ends)));
        }
        if self.evidence.take_dirty() {
            writes.push((evidence_key(&self.prefix), encoded(&self.evidence)));
        }
        for (at, page) in self.evidence.used.recent.take_dirty() {
            writes.push((used_key(&self.prefix, at), encoded(page)));
        }
        for (number, batch) in self.outbox.take_dirty() {
            let value = batch.map(encoded).unwrap_or_default();
            writes.push((batch_key(&self.prefix, number), value));
        }
        self.guard_writes(&mut writes);
        let batches = self.outbox.range();
        let sessions_high = self.sessions.high();
        let joins_high = self.joins.high();
        if !writes.is_empty() {
            self.meta.batches = batches;
            self.meta.sessions_high = sessions_high;
            self.meta.joins_high = joins_high;
            self.meta.calls_high = self.attributions.calls.high();
            self.meta.generations_high = self.attributions.generations.high();
            self.meta.corrections_high = self.corrections.slots.high();
            self.meta.awaited_high = self.awaited.slots.high();
            self.meta.results_at = self.seen_results.recent.at();
            self.meta.seen_at = self.seen_generations.recent.at();
            self.meta.used_at = self.evidence.used.recent.at();
            self.meta.scopes_high = self.guards.scopes.slots.high();
            self.meta.reservations_high = self.guards.reservations.slots.high();
            writes.push((meta_key(&self.prefix), encoded(&self.meta)));
        }
        writes
    }

    /// What is remembered of generations that were told, or will be.
    fn generation_writes(&mut self, writes: &mut Vec<(String, Vec<u8>)>) {
        let prefix = &self.prefix;
        for (at, page) in self.seen_generations.recent.take_dirty() {
            writes.push((seen_key(&self.prefix, at), encoded(page)));
        }
        for (at, page) in self.seen_results.recent.take_dirty() {
            // The pages behind the present one are those of the last round.
            self.meta.has_all_results |= at >= BATCH_PAGES.saturating_sub(1);
            writes.push((result_key(&self.prefix, at), encoded(page)));
        }
        if self.estimates.take_dirty() {
            writes.push((estimates_key(&self.prefix), encoded(&self.estimates)));
        }
        writes.extend(self.corrections.slots.take_writes(|slot| correction_key(prefix, slot)));
        writes.extend(self.awaited.slots.take_writes(|slot| awaited_key(prefix, slot)));
    }

    pub(super) fn set_gauges(&self, host: &mut impl Host) {
        host.gauge(Gauge::EventsMade, self.meta.next_sequence.saturating_sub(1));
        host.gauge(Gauge::EventsAcked, self.meta.acked);
        host.gauge(Gauge::EventsSpilled, self.meta.spilled);
        host.gauge(Gauge::OutboxEvents, self.outbox.len());
        host.gauge(Gauge::SessionsLive, len_u64(self.sessions.len()));
    }
}

fn read_evidence(host: &mut impl Host, prefix: &str, used_at: usize) -> Evidence {
    let evidence: Option<Evidence> = read_value(host, &evidence_key(prefix));
    let mut evidence = evidence.unwrap_or_default();
    let used = Recent::restore(used_at, |at| read_value(host, &used_key(prefix, at)));
    evidence.used = UsedAnswers::restore(used);
    evidence.look_again();
    evidence
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

fn call_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}t{slot}")
}

fn generation_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}u{slot}")
}

fn seen_key(prefix: &str, page: usize) -> String {
    format!("{prefix}w{page}")
}

fn estimates_key(prefix: &str) -> String {
    format!("{prefix}p")
}

fn result_key(prefix: &str, page: usize) -> String {
    format!("{prefix}i{page}")
}

fn correction_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}b{slot}")
}

fn awaited_key(prefix: &str, slot: u32) -> String {
    format!("{prefix}n{slot}")
}

fn ends_key(prefix: &str) -> String {
    format!("{prefix}d")
}

fn evidence_key(prefix: &str) -> String {
    format!("{prefix}e")
}

fn used_key(prefix: &str, page: usize) -> String {
    format!("{prefix}a{page}")
}

fn batch_key(prefix: &str, number: u64) -> String {
    format!("{prefix}o{}", number % OUTBOX_BATCHES_MAX)
}

/// Returns the value of a slot, or `None` if there is none or it cannot be read. Counts values that
/// cannot be read.
fn read_value<T: for<'a> Deserialize<'a>>(host: &mut impl Host, key: &str) -> Option<T> {
    let bytes = read_slot(host, key)?;
    let value = postcard::from_bytes(&bytes).ok();
    if value.is_none() {
        host.count(Counter::SlotsUnreadable, 1);
    }
    value
}

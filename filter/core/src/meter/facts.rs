//! How a worker writes facts to its journal, and what it does while the journal is full: facts wait
//! in memory. The customer with the most of them gives way: the worker adds up that customer's
//! calls, and refuses its new requests.

use std::rc::Rc;

use crate::base::limits::{OVERFLOW_FACTS_MAX, OVERFLOW_FACTS_PER_CUSTOMER_MAX};
use crate::base::time::{Timestamp, len_u64};
use crate::exchange::kind::Observed;
use crate::fact::Fact;
use crate::fact::call::CallOpen;
use crate::host::Host;
use crate::host::counter::Counter;
use crate::host::spill::Spill;
use crate::meter::Meter;
use crate::shared_data::journal::Writer;
use crate::shared_data::shares::holder_of;

impl Meter {
    /// Records what was observed on a stream.
    pub(super) fn record(&mut self, host: &mut impl Host, stream: u32, mut observed: Observed) {
        self.notes.add_to(&self.config, stream, &mut observed);
        count(host, &observed);
        for fact in observed.facts {
            self.record_fact(host, &fact);
        }
    }

    /// Records what a refused request was: its first calls at once, and those that are like them
    /// within a second as one.
    pub(super) fn record_refused(
        &mut self,
        host: &mut impl Host,
        observed: Observed,
        now: Timestamp,
    ) {
        count(host, &observed);
        for fact in observed.facts {
            let fact = match fact {
                Fact::Call(call) => match self.folds.add_further(&self.config, call, now) {
                    Some(first) => Fact::Call(first),
                    None => {
                        host.count(Counter::CallsFolded, 1);
                        continue;
                    }
                },
                other => other,
            };
            self.record_fact(host, &fact);
        }
    }

    pub(super) fn record_fact(&mut self, host: &mut impl Host, fact: &Fact) {
        let bytes = fact.encode();
        // Facts that wait go first, so that the end of a session does not overtake its calls.
        if self.overflow.is_empty() && self.append(host, &bytes) {
            return;
        }
        host.count(Counter::JournalFull, 1);
        let holder = fact.holder();
        if self.overflow.len() < OVERFLOW_FACTS_MAX {
            self.overflow.push(holder, bytes);
            return;
        }
        let most = self.overflow.most().filter(|(most, _)| self.overflow.of(&holder) < *most);
        let Some((_, giver)) = most else { return self.give_up(host, &bytes) };
        let given = self.overflow.pop(Some(&giver));
        self.overflow.push(holder, bytes);
        if let Some(given) = given {
            self.give_up(host, &given);
        }
    }

    /// Takes a fact for which there is no room: adds up calls, leaves out signs of life, and writes
    /// all others to the log, where they can be recovered.
    fn give_up(&mut self, host: &mut impl Host, fact: &[u8]) {
        let config = Rc::clone(&self.config);
        let call = match Fact::decode(fact) {
            Some(Fact::Call(call)) => call,
            Some(Fact::Open(CallOpen { call, .. })) => call.unanswered(),
            Some(
                Fact::CallStarted(_)
                | Fact::Running { .. }
                | Fact::Redirected { .. }
                | Fact::OtherOpen(_)
                | Fact::OtherAnswered { .. },
            ) => {
                return host.count(Counter::FactsLeftOut, 1);
            }
            _ => return self.spill_fact(host, fact),
        };
        let ended_at = call.ended_at;
        match self.folds.add(&config, call, ended_at) {
            None => host.count(Counter::CallsFolded, 1),
            Some(call) => self.spill_fact(host, &Fact::Call(call).encode()),
        }
    }

    /// Whether new requests of this customer must be refused, because the journal is full and this
    /// customer has the most facts that wait.
    pub(super) fn is_over_share(&self, customer: &str) -> bool {
        if self.overflow.is_empty() {
            return false;
        }
        let own = self.overflow.of(&holder_of(customer));
        let most = self.overflow.most().map_or(0, |(most, _)| most);
        own >= OVERFLOW_FACTS_PER_CUSTOMER_MAX && own >= most
    }

    pub(super) fn claim_journal(&mut self, host: &mut impl Host) {
        if self.journal.is_none() {
            self.journal = Writer::claim(host, &self.prefix).ok();
        }
    }

    fn append(&mut self, host: &mut impl Host, fact: &[u8]) -> bool {
        self.claim_journal(host);
        self.journal
            .as_mut()
            .is_some_and(|journal| journal.append(host, &self.prefix, fact).is_ok())
    }

    fn retry_overflow(&mut self, host: &mut impl Host) {
        while let Some(fact) = self.overflow.first() {
            if !self.append(host, &fact) {
                return;
            }
            self.overflow.pop(None);
        }
    }

    /// Writes what waits, and the sums of the seconds that are over.
    pub(super) fn write_waiting(&mut self, host: &mut impl Host, now: Timestamp) {
        self.retry_overflow(host);
        if self.overflow.is_empty() {
            for calls in self.folds.take_due(now, false) {
                self.record_fact(host, &Fact::Calls(Box::new(calls)));
            }
        }
    }

    /// Writes everything that waits, to the log if the journal takes no more.
    pub(super) fn write_last(&mut self, host: &mut impl Host, now: Timestamp) {
        self.retry_overflow(host);
        for calls in self.folds.take_due(now, true) {
            self.record_fact(host, &Fact::Calls(Box::new(calls)));
        }
        while let Some(fact) = self.overflow.pop(None) {
            self.spill_fact(host, &fact);
        }
        // Facts that were given up in between.
        for calls in self.folds.take_due(now, true) {
            self.spill_fact(host, &Fact::Calls(Box::new(calls)).encode());
        }
    }

    /// Writes to the log a fact that the accountant will never see, for `agent-meter recover`.
    fn spill_fact(&self, host: &mut impl Host, fact: &[u8]) {
        host.count(Counter::FactsSpilled, 1);
        let text = match Fact::decode(fact) {
            Some(fact) => serde_json::to_string(&fact).unwrap_or_default(),
            None => "null".to_owned(),
        };
        let secret = &self.config.collector.secret;
        host.spill(&Spill { reason: "journal_full", kind: "fact", text: &text, secret });
    }
}

/// Adds what an exchange has observed to the stats. Calls count here, before any are added up, so
/// that the stats count as many as the events do.
fn count(host: &mut impl Host, observed: &Observed) {
    for counter in &observed.counts {
        host.count(*counter, 1);
    }
    let calls = observed.facts.iter().filter(|fact| fact.is_call()).count();
    host.count(Counter::Calls, len_u64(calls));
}

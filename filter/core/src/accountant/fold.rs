//! Applies facts to sessions, and ends waiting calls and sessions as time passes.

use std::rc::Rc;

use rust_decimal::Decimal;

use crate::accountant::Accountant;
use crate::accountant::awaited::Awaited;
use crate::base::hash::hash;
use crate::base::limits::{GENERATION_TIME_MAX_MS, SESSION_GONE_MS};
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::config::Config;
use crate::config::product::Product;
use crate::domain::call::Certainty;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::event::Event;
use crate::fact::Fact;
use crate::fact::call::{Answer, CallEnded, FoldedCalls};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::session::table::Due;
use crate::session::{CloseReason, Session, SessionState};
use crate::wire::http::is_success;

/// What shows that a session is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// A call, or a generation that no call caused.
    Call,
    /// A generation that is a part of a call.
    Part,
}

impl Accountant {
    /// Applies a fact that a worker has written.
    pub(super) fn fold(&mut self, host: &mut impl Host, fact: &[u8], now: Timestamp) {
        match Fact::decode(fact) {
            None => host.count(Counter::FactsUnreadable, 1),
            Some(Fact::CallStarted(started)) => {
                let time_max = self.product(host, &started.session).call_timeout.millis();
                let is_kept = self.attributions.call_started(started, time_max);
                host.count(Counter::AttributionOverLimit, u64::from(!is_kept));
            }
            Some(Fact::GenerationStarted(started)) => {
                let time_max = Millis(GENERATION_TIME_MAX_MS);
                let is_kept = self.attributions.generation_started(started, time_max);
                host.count(Counter::AttributionOverLimit, u64::from(!is_kept));
            }
            Some(Fact::GenerationAwaited { link, holder, at }) => {
                self.await_generation(Awaited { link, holder, at });
            }
            Some(Fact::Generation(generation)) => {
                if let Some((generation, cause)) = self.attributions.generation_ended(generation) {
                    self.fold_generation(host, generation, cause, now);
                }
            }
            Some(Fact::Call(call)) => {
                if let Some(Answer { link, look }) = call.answer {
                    self.evidence.used_on_own_stream(link, look, call.ended_at);
                }
                self.fold_call(host, &call, now);
            }
            Some(Fact::Calls(calls)) => self.fold_calls(host, &calls, now),
            Some(Fact::Open(open)) => self.fold_open(host, open, now),
            Some(Fact::CallUpdate(update)) => self.fold_update(host, update, now),
            Some(Fact::Redirected { call_id, at, .. }) => {
                self.attributions.call_ended(&call_id, at);
                self.guards.reservations.end(&call_id);
            }
            Some(Fact::OtherOpen(other)) => self.evidence.other_open(other),
            Some(Fact::OtherAnswered { answer: Answer { link, look }, at, .. }) => {
                self.evidence.used_on_own_stream(link, look, at);
            }
            Some(Fact::Reserved(reserved)) => self.guard_reserved(host, &reserved, now),
            Some(Fact::Released { call_id, .. }) => self.guards.reservations.end(&call_id),
            Some(Fact::Running { session, started_at, at }) => {
                let slot = self.open(host, &session, started_at, now);
                self.touch(host, slot, Activity::Call, at, now);
            }
            Some(Fact::SessionEnd { session, reason, at }) => {
                self.fold_session_end(host, session, reason, at);
            }
        }
    }

    fn fold_session_end(
        &mut self,
        host: &mut impl Host,
        session: SessionRef,
        reason: SessionEnd,
        at: Timestamp,
    ) {
        let due_at = match reason {
            SessionEnd::SessionGone => {
                let idle = self.product(host, &session).session.idle_timeout.millis();
                at.plus(idle.min(Millis(SESSION_GONE_MS)))
            }
            SessionEnd::ClientDelete | SessionEnd::Closed => at,
        };
        let dropped = self.ends.push(session, reason, at, due_at);
        host.count(Counter::SessionEndUnused, dropped);
    }

    pub(super) fn fold_call(&mut self, host: &mut impl Host, call: &CallEnded, now: Timestamp) {
        self.fold_charged(host, call, 1, &call.tool, now);
    }

    fn fold_calls(&mut self, host: &mut impl Host, calls: &FoldedCalls, now: Timestamp) {
        let FoldedCalls { call, quantity, priced_as } = calls;
        let priced_as = priced_as.as_ref().unwrap_or(&call.tool);
        self.fold_charged(host, call, *quantity, priced_as, now);
    }

    /// Counts a call, or several that are alike, at the price of this tool.
    fn fold_charged(
        &mut self,
        host: &mut impl Host,
        call: &CallEnded,
        quantity: u64,
        priced_as: &str,
        now: Timestamp,
    ) {
        self.attributions.call_ended(&call.call_id, call.ended_at);
        self.lives(call);
        let slot = self.open(host, &call.session, call.started_at, now);
        self.touch(host, slot, Activity::Call, call.ended_at, now);
        let product = self.product(host, &call.session);
        let mut charge = product.pricing.charge(priced_as, call.status, call.is_request_sent);
        charge.calls = quantity;
        self.meta.calls = self.meta.calls.saturating_add(quantity);
        let price = charge.price.checked_mul(Decimal::from(quantity));
        host.count(Counter::MoneyOverflow, u64::from(price.is_none()));
        charge.price = price.unwrap_or(charge.price);
        // What was paid on the wire is worth its price to the guards, and is not invoiced again.
        let earned = (charge.price, quantity);
        if call.is_paid() && !product.pricing.bill_paid_calls {
            charge = charge.free();
        }
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let added = session.add(call, &charge);
        host.count(Counter::ToolsOverLimit, u64::from(added.is_tool_over_limit));
        host.count(Counter::MoneyOverflow, u64::from(added.is_money_over_limit));
        let is_inferred = call.certainty == Certainty::Inferred;
        host.count(Counter::CallsInferred, if is_inferred { quantity } else { 0 });
        let product_type = product.product_type;
        let event = Event::CallEnded { session, product_type, call, charge: &charge };
        let json = self.meta.write(&event, call.ended_at);
        self.push(host, json, now);
        self.guard_call(host, call, earned, &product.pricing.currency, now);
    }

    /// The session of a call that was answered: a 404 before did not mean that it is gone.
    pub(super) fn lives(&mut self, call: &CallEnded) {
        if is_success(call.http_status) {
            self.ends.disproved(&call.session.key, call.started_at);
        }
    }

    /// Returns the slot of a session. Creates the session if it is new.
    pub(super) fn open(
        &mut self,
        host: &mut impl Host,
        session: &SessionRef,
        started_at: Timestamp,
        now: Timestamp,
    ) -> u32 {
        let product = self.product(host, session);
        let currency = &product.pricing.currency;
        if let Some(slot) = self.sessions.find(session, currency) {
            self.sessions.is_priced_by(slot, session.config);
            return slot;
        }
        if len_u64(self.sessions.len()) >= u64::from(self.config.sessions_max)
            && let Some(oldest) = self.sessions.gives_way(session)
        {
            self.close(host, oldest, CloseReason::TableFull, now, now);
        }
        if let Some(oldest) = self.sessions.over_identity_limit(session, &product.session) {
            self.close(host, oldest, CloseReason::IdentityLimit, now, now);
        }
        let id = hash(&[
            self.meta.source.as_bytes(),
            &session.key,
            &self.meta.next_sequence.to_be_bytes(),
        ]);
        let created = Session::new(session.clone(), currency.clone(), id, started_at);
        let slot = self.sessions.insert(created, &product.session);
        self.tell_state(host, slot, &product, started_at, now);
        slot
    }

    /// Records activity at `at`. A session becomes ACTIVE with its second call, and with any
    /// activity after it was IDLE. A generation counts as a call, unless it is a part of one.
    pub(super) fn touch(
        &mut self,
        host: &mut impl Host,
        slot: u32,
        life: Activity,
        at: Timestamp,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.active_at = session.active_at.max(at);
        let is_further = session.totals.calls > 0 || session.generations.all.generations > 0;
        let becomes_active = match session.state {
            SessionState::Created => is_further && life == Activity::Call,
            SessionState::Idle => true,
            SessionState::Active | SessionState::Closed => false,
        };
        if becomes_active {
            session.state = SessionState::Active;
            let session = session.reference.clone();
            let product = self.product(host, &session);
            self.sessions.reschedule(slot, &product.session);
            self.tell_state(host, slot, &product, at, now);
        }
    }

    /// Makes the event of the state that a session has entered.
    fn tell_state(
        &mut self,
        host: &mut impl Host,
        slot: u32,
        product: &Product,
        at: Timestamp,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get(slot) else { return };
        let product_type = product.product_type;
        let event = Event::SessionChanged { session, product_type, state: session.state };
        let json = self.meta.write(&event, at);
        self.push(host, json, now);
    }

    /// Handles the session that has been due longest by `until`. Returns whether there was one.
    pub(super) fn next_due(
        &mut self,
        host: &mut impl Host,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        let (configurations, unknown) = (&self.configurations, &self.unknown_product);
        let rules_of = |session: &SessionRef| {
            let found = configurations.product(session, &session.product_id);
            &found.map_or(unknown, |(_, product)| product).session
        };
        match self.sessions.next_due(until, rules_of) {
            None => return false,
            Some(Due::TimedOut(slot, at)) => {
                self.close(host, slot, CloseReason::SessionTimeout, at, now);
            }
            Some(Due::Idle(slot, at)) => {
                let session = self.sessions.get(slot).map(|session| session.reference.clone());
                if let Some(session) = session {
                    let product = self.product(host, &session);
                    self.tell_state(host, slot, &product, at, now);
                }
            }
        }
        true
    }

    pub(super) fn close(
        &mut self,
        host: &mut impl Host,
        slot: u32,
        reason: CloseReason,
        at: Timestamp,
        now: Timestamp,
    ) {
        let Some(session_key) = self.sessions.get(slot).map(|session| session.reference.key) else {
            return;
        };
        self.match_updates(host, now, now);
        while let Some(join) = self.joins.take_of_session(&session_key) {
            self.fold_call(host, &join.call, now);
        }
        while let Some(estimate) = self.estimates.take_of_session(&session_key) {
            self.bill_estimate(host, estimate, now);
        }
        let Some(session) = self.sessions.remove(slot) else { return };
        self.guard_closed(&session.reference);
        let product_type = self.product(host, &session.reference).product_type;
        let event = Event::SessionClosed { session: &session, product_type, reason };
        let json = self.meta.write(&event, at);
        self.push(host, json, now);
    }

    /// Returns the product of a session, or one without prices if no configuration that is known
    /// contains it.
    pub(super) fn product(&self, host: &mut impl Host, session: &SessionRef) -> Rc<Product> {
        self.rules(host, session, &session.product_id).1
    }

    /// The same for a product with this id, with the configuration that it is in.
    pub(super) fn rules(
        &self,
        host: &mut impl Host,
        session: &SessionRef,
        product_id: &str,
    ) -> (Rc<Config>, Rc<Product>) {
        let found = self.configurations.product(session, product_id);
        host.count(Counter::ProductUnknown, u64::from(found.is_none()));
        let (config, product) = found.unwrap_or((&self.config, &self.unknown_product));
        (Rc::clone(config), Rc::clone(product))
    }
}

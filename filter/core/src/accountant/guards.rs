//! Adds calls and generations to the scopes of guards, and updates the levels of the scopes.

use std::collections::BTreeMap;
use std::rc::Rc;

use rust_decimal::Decimal;

use crate::accountant::Accountant;
use crate::accountant::corrections::Provisional;
use crate::accountant::guard_runs::{Run, of_run};
use crate::accountant::guard_state::{reservation_key, scope_key};
use crate::base::limits::{
    BALANCE_ACTIVE_MS, BALANCE_IDLE_POLLS, BALANCE_TICKS, COLLECTOR_LOST_TICKS, LEAK_READINGS,
    RESERVATIONS_MAX, TOTALS_PER_TICK_MAX, TOTALS_TICKS,
};
use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::config::{Action, Config, Guard, Metric, OnCollectorLoss};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::event::Event;
use crate::fact::call::{CallEnded, CallKind};
use crate::fact::generation::GenerationEnded;
use crate::fact::{Reservation, ReservedAmount};
use crate::guard::decision::lost_key;
use crate::guard::reservations::{OpenReservation, Part};
use crate::guard::scope::ScopeName;
use crate::guard::scope_state::ScopeState;
use crate::guard::scope_status::{
    ScopeStatus, bucket, costs_key, encoded_bucket, statuses_key, tool_key,
};
use crate::host::Host;
use crate::host::counter::Counter;
use crate::pricing::charge::{Charged, TokenCharge};
use crate::sink::reply::FleetTotals;

impl Accountant {
    /// Handles the end of a call; `earned` is what it is worth, and how many calls it stands for.
    pub(super) fn guard_call(
        &mut self,
        host: &mut impl Host,
        call: &CallEnded,
        earned: (Decimal, u64),
        currency: &str,
        now: Timestamp,
    ) {
        if self.config.guards.is_empty() {
            return;
        }
        self.guards.reservations.end(&call.call_id);
        // Neither was executed.
        if matches!(call.status, ExecutionStatus::Blocked | ExecutionStatus::PaymentRequired) {
            return;
        }
        let one = ScopeTotals { calls: 1, ..ScopeTotals::default() };
        for part in self.guards.reservations.spend(&call.call_id, &one) {
            self.settle(part.key, part.left);
        }
        let metric = match call.kind {
            CallKind::Tool => Metric::ToolInvocations,
            CallKind::Api(_) => Metric::ApiCalls,
            CallKind::Step => Metric::AgentSteps,
        };
        self.guard_repeat(host, call, currency, now);
        let (revenue, calls) = earned;
        let sums = ScopeTotals { revenue, calls, ..ScopeTotals::default() };
        self.guard_add(host, &call.session, &call.tool, currency, now, |guard| {
            guard.metric.is_none_or(|wanted| wanted == metric).then(|| sums.clone())
        });
    }

    /// Handles the end of a call that may repeat an earlier one.
    fn guard_repeat(
        &mut self,
        host: &mut impl Host,
        call: &CallEnded,
        currency: &str,
        now: Timestamp,
    ) {
        let Some(arguments) = call.arguments else { return };
        let config = Rc::clone(&self.config);
        let session = &call.session;
        for guard in config.guards_for(&session.product_id, &session.identity.customer) {
            let Some(rule) = guard.loop_rule else { continue };
            let name = ScopeName::of(guard.scope, session, &call.tool);
            let Some(slot) = self.guard_scope(host, guard, name, currency, now) else { continue };
            self.guards.scopes.change(slot, |state| {
                state.active_at = state.active_at.max(now);
                state.loop_window.add(&rule, &call.tool, arguments, call.ended_at);
            });
        }
    }

    /// Handles the end of a generation, which `call` caused if the cause is known.
    #[expect(
        clippy::too_many_arguments,
        reason = "a generation is charged once, with all that it has"
    )]
    pub(super) fn guard_generation(
        &mut self,
        host: &mut impl Host,
        generation: &GenerationEnded,
        session: &SessionRef,
        call: Option<&(String, String)>,
        charge: &TokenCharge<'_>,
        rules: &Product,
        currency: &str,
        now: Timestamp,
    ) {
        if self.config.guards.is_empty() {
            return;
        }
        let held_by = call.map_or(generation.generation_id.as_str(), |(id, _)| id.as_str());
        let spent = ScopeTotals {
            provider_cost: charge.at_least,
            tokens: generation.usage.total(),
            ..ScopeTotals::default()
        };
        for part in self.guards.reservations.spend(held_by, &spent) {
            self.settle(part.key, part.left);
        }
        // One of its own is not needed any more, whoever bears the cost.
        self.guards.reservations.end(&generation.generation_id);
        let tool = call.map_or("", |(_, tool)| tool.as_str());
        let lines = charge.cost.as_ref().map(|cost| cost.lines.as_slice()).unwrap_or_default();
        let TokenCharge { at_least, price, .. } = *charge;
        let run = Run { at_least, price, usage: generation.usage, lines };
        self.guard_add(host, session, tool, currency, now, |guard| {
            of_run(guard, &run, call.is_some(), rules)
        });
    }

    /// Lets what was charged for a generation give way to what is charged `after` that.
    ///
    /// Within the period, and the session, in which it was charged, the difference counts. Later
    /// only a surplus does: otherwise it would be beyond every limit, as what is over is told and
    /// stays as it was.
    pub(super) fn guard_correct(
        &mut self,
        host: &mut impl Host,
        billed: &Provisional,
        after: &[Charged],
        rules: &Product,
        is_open: bool,
        now: Timestamp,
    ) {
        let config = Rc::clone(&self.config);
        let (session, call) = (&billed.cause.session, billed.cause.call.as_ref());
        let tool = call.map_or("", |(_, tool)| tool.as_str());
        for guard in counting(&config, session, tool) {
            let sums = |charges: &[Charged]| {
                charges
                    .iter()
                    .filter_map(|charged| of_run(guard, &Run::of(charged), call.is_some(), rules))
                    .fold(ScopeTotals::default(), |mut sums, run| {
                        // An amount that does not fit was not added either.
                        let _ = sums.add(&run);
                        sums
                    })
            };
            let (less, mut more) = (sums(&billed.charges), sums(after));
            let name = ScopeName::of(guard.scope, session, tool);
            let slot = if guard.scope == ScopeKind::Session && !is_open {
                self.guards.scopes.find(&name.key(guard))
            } else {
                self.guard_scope(host, guard, name, &billed.session.currency, now)
            };
            let Some(slot) = slot else { continue };
            let is_same = |state: &ScopeState| match guard.scope {
                ScopeKind::Session => is_open,
                _ => state.period_started_at <= billed.billed_at,
            };
            let mut fits = true;
            self.guards.scopes.change(slot, |state| {
                if is_same(state) {
                    state.own.take(&less);
                } else {
                    more.take(&less);
                }
                fits = state.own.add(&more);
            });
            host.count(Counter::MoneyOverflow, u64::from(!fits));
            if guard.fleet {
                self.guards.unreported.insert(slot);
            }
        }
    }

    fn guard_add(
        &mut self,
        host: &mut impl Host,
        session: &SessionRef,
        tool: &str,
        currency: &str,
        now: Timestamp,
        sums_for: impl Fn(&Guard) -> Option<ScopeTotals>,
    ) {
        let config = Rc::clone(&self.config);
        for guard in counting(&config, session, tool) {
            let Some(sums) = sums_for(guard) else { continue };
            let name = ScopeName::of(guard.scope, session, tool);
            let Some(slot) = self.guard_scope(host, guard, name, currency, now) else { continue };
            let mut fits = true;
            self.guards.scopes.change(slot, |state| {
                state.active_at = state.active_at.max(now);
                fits = state.own.add(&sums);
            });
            host.count(Counter::MoneyOverflow, u64::from(!fits));
            if guard.fleet {
                self.guards.unreported.insert(slot);
            }
        }
    }

    fn guard_scope(
        &mut self,
        host: &mut impl Host,
        guard: &Guard,
        name: ScopeName,
        currency: &str,
        now: Timestamp,
    ) -> Option<u32> {
        let (slot, is_over) = self.guards.scopes.open(guard, name, currency, now);
        host.count(Counter::GuardScopesOverLimit, u64::from(is_over));
        slot
    }

    /// Records the reservation of a call.
    pub(super) fn guard_reserved(
        &mut self,
        host: &mut impl Host,
        reserved: &Reservation,
        now: Timestamp,
    ) {
        let config = Rc::clone(&self.config);
        let currency = self.product(host, &reserved.session).pricing.currency.clone();
        let mut parts = Vec::new();
        for ReservedAmount { guard_id, scope, amount } in &reserved.amounts {
            let Some(guard) = config.guard(guard_id) else { continue };
            let name = ScopeName::of(guard.scope, &reserved.session, &reserved.tool);
            let slot = self.guard_scope(host, guard, name, &currency, now);
            if guard.is_prepaid() {
                // Nothing is reserved: a worker has refused the call, and asks for the balance.
                if let Some(slot) = slot {
                    if let Some(state) = self.guards.scopes.slots.get_mut(slot) {
                        state.active_at = now;
                    }
                    self.guards.unreported.insert(slot);
                }
                continue;
            }
            parts.push(Part { key: *scope, unit: guard.unit(), left: *amount });
        }
        if parts.is_empty() {
            return;
        }
        if self.guards.reservations.slots.len() >= RESERVATIONS_MAX {
            host.count(Counter::HoldsOverLimit, 1);
            for part in &parts {
                self.settle(part.key, part.left);
            }
            return;
        }
        self.guards.reservations.insert(&OpenReservation {
            call_id: reserved.call_id.clone(),
            tool: tool_key(&reserved.session.product_id, &reserved.tool),
            parts,
            used: Decimal::ZERO,
            expires_at: reserved.expires_at,
            is_ended: false,
        });
    }

    fn settle(&mut self, key: ScopeKey, amount: Decimal) {
        if let Some(slot) = self.guards.scopes.find(&key) {
            self.guards.scopes.change(slot, |state| {
                state.settled = state.settled.saturating_add(amount);
            });
        }
    }

    /// Forgets the scopes of a session that is closed.
    pub(super) fn guard_closed(&mut self, session: &SessionRef) {
        let config = Rc::clone(&self.config);
        for guard in config.guards_for(&session.product_id, &session.identity.customer) {
            if guard.scope == ScopeKind::Session {
                let key = ScopeName::of(guard.scope, session, "").key(guard);
                if let Some(slot) = self.guards.scopes.find(&key) {
                    self.guards.forget(slot);
                }
            }
        }
    }

    /// Releases the reservations of ended calls after all journals have been read.
    pub(super) fn guard_all_read(&mut self, host: &mut impl Host, now: Timestamp) {
        for hold in self.guards.reservations.all_read(now) {
            for part in &hold.parts {
                self.settle(part.key, part.left);
            }
            if hold.is_ended {
                self.guards.remember_cost(&self.config, hold.tool, hold.used);
            }
        }
        if self.guards.ticks.is_multiple_of(TOTALS_TICKS) {
            self.settle_missing(host);
        }
    }

    /// Releases the reservations of calls that no worker reports, because their VM died in between.
    /// A scope that is full of such reservations would refuse every call.
    fn settle_missing(&mut self, host: &mut impl Host) {
        let config = Rc::clone(&self.config);
        if config.guards.iter().all(|guard| !guard.does(Action::Reserve)) {
            return;
        }
        let open = self.guards.reservations.open();
        let mut missing = BTreeMap::new();
        for counters in self.guards.scopes.counters(host, &self.prefix, &config) {
            for (slot, reserved) in counters {
                let Some(state) = self.guards.scopes.get(slot) else { continue };
                let taken = open.get(&state.key).copied().unwrap_or_default();
                let amount = reserved.saturating_sub(state.settled).saturating_sub(taken);
                if amount.is_zero() {
                    continue;
                }
                let key = state.key;
                let earlier = self.guards.missing.get(&slot).filter(|(last, _)| *last == reserved);
                let times = earlier.map_or(1, |(_, times)| times.saturating_add(1));
                if times > LEAK_READINGS {
                    host.count(Counter::HoldsLeaked, 1);
                    self.settle(key, amount);
                } else {
                    missing.insert(slot, (reserved, times));
                }
            }
        }
        self.guards.missing = missing;
    }

    /// Ends periods, changes levels and reports totals as time passes.
    pub(super) fn guard_tick(&mut self, host: &mut impl Host, now: Timestamp) {
        let config = Rc::clone(&self.config);
        self.guards.ticks = self.guards.ticks.saturating_add(1);
        self.guard_levels(host, now);
        self.poll_balances(&config, now);
        if self.guards.ticks.is_multiple_of(TOTALS_TICKS) {
            self.tell_totals(host, &config, now);
        }
    }

    /// Ends periods and changes levels.
    pub(super) fn guard_levels(&mut self, host: &mut impl Host, now: Timestamp) {
        let config = Rc::clone(&self.config);
        let guards = &mut self.guards;
        guards.scopes.roll(&config, now);
        let silence = guards.ticks.saturating_sub(guards.answered_at);
        let is_lost = self.outbox.is_failing() && silence > COLLECTOR_LOST_TICKS;
        if is_lost != guards.is_collector_lost {
            guards.is_collector_lost = is_lost;
            guards.scopes.collector(&config, is_lost);
            for guard in &config.guards {
                guards.scopes.soil(&lost_key(guard));
            }
        }
        let (changes, touched) = guards.scopes.evaluate(&config, is_lost, now);
        for change in changes {
            let Some(scope) = self.guards.scopes.get(change.slot).cloned() else { continue };
            let guard = config.guard(&scope.guard_id).map(|guard| &**guard);
            let plan = config.contracts.plan_name(&scope.name.customer);
            let mut from = change.from;
            let rises = |level: &Level| {
                *level == change.to
                    || (*level > change.from
                        && *level < change.to
                        && guard.is_some_and(|guard| guard.rule(*level).is_some()))
            };
            for to in Level::ALL.into_iter().filter(rises) {
                let threshold =
                    guard.and_then(|guard| guard.threshold(to, &scope.name.customer, plan));
                let event = Event::GuardLevel {
                    guard,
                    scope: &scope,
                    from,
                    to,
                    reason: change.reason,
                    position: &change.position,
                    threshold,
                };
                let event = self.meta.write(&event, now);
                self.push(host, event, now);
                from = to;
            }
        }
        for slot in touched {
            let is_known = self
                .guards
                .scopes
                .get(slot)
                .is_some_and(|state| config.guard(&state.guard_id).is_some());
            if !is_known {
                self.guards.forget(slot);
            }
        }
    }

    /// Asks for balances that others may have changed: by top-ups, by expiry, by what other Envoys
    /// spend. Those that are spent or not known are urgent.
    fn poll_balances(&mut self, config: &Config, now: Timestamp) {
        let guards = &mut self.guards;
        if !guards.ticks.is_multiple_of(BALANCE_TICKS)
            || !config.guards.iter().any(|guard| guard.is_prepaid())
        {
            return;
        }
        let since = Timestamp(now.0.saturating_sub(BALANCE_ACTIVE_MS));
        let all = guards.ticks.is_multiple_of(BALANCE_TICKS.saturating_mul(BALANCE_IDLE_POLLS));
        for (slot, state) in guards.scopes.slots.iter() {
            let is_urgent = state.prepaid.is_none() || state.level == Level::Block;
            let is_asked_for = state.active_at >= since && (all || is_urgent);
            if is_asked_for && config.guard(&state.guard_id).is_some_and(|guard| guard.is_prepaid())
            {
                guards.unreported.insert(slot);
            }
        }
    }

    fn tell_totals(&mut self, host: &mut impl Host, config: &Config, now: Timestamp) {
        for _ in 0..TOTALS_PER_TICK_MAX {
            let Some(slot) = self.guards.unreported.pop_first() else { return };
            let Some(scope) = self.guards.scopes.get(slot).cloned() else { continue };
            let Some(guard) = config.guard(&scope.guard_id) else { continue };
            let event = self.meta.write(&Event::GuardTotals { guard, scope: &scope }, now);
            self.push(host, event, now);
        }
    }

    /// Applies the other Envoys' totals from the collector's reply.
    pub(super) fn apply_fleet_totals(&mut self, host: &mut impl Host, verdicts: &[FleetTotals]) {
        self.guards.answered_at = self.guards.ticks;
        for verdict in verdicts {
            let slot = self.guards.scopes.find(&verdict.key);
            let is_used = slot.is_some_and(|slot| {
                let at = verdict.period_started_at.as_deref().unwrap_or_default();
                let FleetTotals { others, contracted, prepaid, .. } = verdict;
                self.guards.scopes.apply_fleet_totals(slot, at, others, *contracted, *prepaid)
            });
            host.count(Counter::VerdictsUnused, u64::from(!is_used));
        }
    }

    /// Adds everything that has changed to a commit.
    pub(super) fn guard_writes(&mut self, writes: &mut Vec<(String, Vec<u8>)>) {
        let config = Rc::clone(&self.config);
        let guards = &mut self.guards;
        let prefix = &self.prefix;
        writes.extend(guards.scopes.slots.take_writes(|slot| scope_key(prefix, slot)));
        writes.extend(guards.reservations.slots.take_writes(|slot| reservation_key(prefix, slot)));
        let blocks = |guard: &&Rc<Guard>| {
            guards.is_collector_lost && guard.on_collector_loss == OnCollectorLoss::Block
        };
        let lost: Vec<ScopeKey> =
            config.guards.iter().filter(blocks).map(|guard| lost_key(guard)).collect();
        for (number, mut verdicts) in guards.scopes.take_statuses(&config) {
            let of_bucket = lost.iter().filter(|key| bucket(key) == number);
            verdicts.extend(of_bucket.map(|key| ScopeStatus {
                key: *key,
                level: Level::Block,
                resets_at: None,
                headroom: None,
            }));
            writes.push((statuses_key(&self.prefix, number), encoded_bucket(&verdicts)));
        }
        for number in core::mem::take(&mut guards.dirty_costs) {
            let costs = guards.last_costs.get(&number).map(Vec::as_slice).unwrap_or_default();
            writes.push((costs_key(&self.prefix, number), encoded_bucket(costs)));
        }
    }
}

/// The guards that count what is spent in a session by a tool, or by none.
fn counting<'a>(
    config: &'a Config,
    session: &'a SessionRef,
    tool: &'a str,
) -> impl Iterator<Item = &'a Rc<Guard>> {
    let guards = config.guards_for(&session.product_id, &session.identity.customer);
    guards.filter(|guard| {
        let has_scope = guard.scope != ScopeKind::Tool || !tool.is_empty();
        guard.loop_rule.is_none() && has_scope
    })
}

//! Decides what a worker does with a request: it lets the request pass, perhaps with a mark, or
//! refuses it. The evaluator never waits: it reads the accountant's scope statuses in shared data,
//! and reserves there with compare-and-swap.
//!
//! To the next maintainer: a guard's actions are a list ([`Action`]). [`GuardEvaluator::decide`]
//! walks it in order over all guards of a call. To add an action, add a variant, its line in
//! `Guard::does` and its arm in [`GuardEvaluator::act`].

use std::rc::Rc;

use rust_decimal::Decimal;

use crate::base::hash::hash;
use crate::base::time::{Millis, Timestamp};
use crate::config::{
    Action, Budget, Config, Guard, Mode, OnCollectorLoss, OnUnseen, RevenueBasis, Unit,
};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::scope_totals::ScopeKey;
use crate::domain::session::SessionRef;
use crate::fact::{Reservation, ReservedAmount};
use crate::guard::refusal::{Prepaid, Refusal, RefusalReason, retry_paused_s};
use crate::guard::scope::ScopeName;
use crate::guard::scope_status::{
    Headroom, ScopeStatus, last_cost, scope_status, tool_key, update_counter,
};
use crate::host::Host;
use crate::host::counter::Counter;

/// A call that a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// See [`crate::fact::call::CallEnded::call_id`].
    pub id: &'a str,
    /// Its tool, or the name that stands for one.
    pub tool: &'a str,
}

/// What the filter does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The request passes.
    Pass {
        /// The strictest level of the scopes whose guards enforce, for headers.
        mark: Level,
        /// The reservations of its calls.
        reservations: Vec<Reservation>,
    },
    /// The filter answers the request itself.
    Refuse(Refusal),
}

/// What a request's head alone decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadDecision {
    /// Whether the decision depends on the body.
    pub(crate) needs_body: bool,
    /// Whether the body may make a guard, or the plan, refuse the request, so that all of its
    /// message must be known.
    pub(crate) needs_message: bool,
    /// The strictest level of the scopes that the head names and whose guards enforce.
    pub mark: Level,
}

/// Evaluates guards for one request.
#[derive(Debug)]
pub(crate) struct GuardEvaluator<'a, H> {
    /// Shared data and stats.
    pub host: &'a mut H,
    /// The prefix of the keys in shared data.
    pub prefix: &'a str,
    /// The configuration in force.
    pub config: &'a Config,
    /// The present time.
    pub now: Timestamp,
}

/// A guard, and the status of the scope to which a call belongs.
#[derive(Debug)]
struct Evaluation<'a> {
    guard: &'a Guard,
    name: ScopeName,
    key: ScopeKey,
    /// `None` if the accountant has published nothing: the scope is within limits.
    status: Option<ScopeStatus>,
}

impl Evaluation<'_> {
    /// The level that the accountant has published.
    fn own_level(&self) -> Level {
        self.status.as_ref().map(|status| status.level).unwrap_or_default()
    }

    /// Whether the guard refuses requests because it does not know the scope's balance.
    fn is_unknown(&self) -> bool {
        let is_known = self.status.as_ref().is_some_and(|status| status.headroom.is_some());
        !is_known && self.guard.is_prepaid() && self.guard.on_unknown_balance == OnUnseen::Reject
    }

    fn resets_at(&self) -> Option<Timestamp> {
        self.status.as_ref()?.resets_at
    }
}

impl<H: Host> GuardEvaluator<'_, H> {
    /// Decides by a request's head whether the filter must read the body first; if not, its mark.
    pub(crate) fn decide_head(
        &mut self,
        session: &SessionRef,
        may_body_name: bool,
    ) -> HeadDecision {
        let customer = &session.identity.customer;
        let config = self.config;
        let needs_message = config.contracts.lists_tools(customer);
        let mut decision =
            HeadDecision { needs_body: needs_message, needs_message, mark: Level::None };
        for guard in config.guards_for(&session.product_id, customer) {
            let is_named_by_body = guard.scope == ScopeKind::Tool
                || (guard.scope == ScopeKind::Session && may_body_name);
            let depends_on_body = guard.does(Action::Reserve) || is_named_by_body;
            decision.needs_body |= depends_on_body;
            decision.needs_message |=
                depends_on_body && guard.mode == Mode::Enforce && guard.acts_on_requests();
            if is_named_by_body {
                continue;
            }
            let evaluation = self.evaluate(guard, session, "");
            let level = self.level(&evaluation);
            decision.needs_body |= level >= Level::Throttle;
            if guard.mode == Mode::Enforce {
                decision.mark = decision.mark.max(level);
            }
        }
        decision
    }

    /// Decides on a request that makes these calls, and reserves what its guards ask for.
    pub(crate) fn decide(
        &mut self,
        session: &SessionRef,
        calls: &[Call<'_>],
        expires_in: Millis,
    ) -> Decision {
        let customer = &session.identity.customer;
        let contracts = &self.config.contracts;
        if calls.iter().any(|call| !contracts.allows_tool(customer, call.tool)) {
            self.host.count(Counter::ToolsNotInPlan, 1);
            return Decision::Refuse(Refusal::tool_not_in_plan());
        }
        let mut mark = Level::None;
        let mut reservations = Vec::new();
        for call in calls {
            let mut reservation = Reservation {
                call_id: call.id.to_owned(),
                session: session.clone(),
                tool: call.tool.to_owned(),
                amounts: Vec::new(),
                expires_at: self.now.plus(expires_in),
            };
            match self.decide_call(&mut reservation) {
                Ok(level) => mark = mark.max(level),
                Err(refusal) => {
                    reservations.push(reservation);
                    reservations.iter().for_each(|earlier| self.release(earlier));
                    return Decision::Refuse(refusal);
                }
            }
            if !reservation.amounts.is_empty() {
                reservations.push(reservation);
            }
        }
        Decision::Pass { mark, reservations }
    }

    /// Walks the actions of all guards of one call. Returns the strictest level among the guards
    /// that enforce, or the refusal.
    fn decide_call(&mut self, reservation: &mut Reservation) -> Result<Level, Refusal> {
        let config = self.config;
        let SessionRef { product_id, identity, .. } = &reservation.session;
        let guards = config.guards_for(product_id, &identity.customer);
        let evaluations: Vec<Evaluation<'_>> = guards
            .map(|guard| self.evaluate(guard, &reservation.session, &reservation.tool))
            .collect();
        for action in Action::ON_REQUEST {
            for evaluation in evaluations.iter().filter(|each| each.guard.does(action)) {
                if let Some(refusal) = self.act(action, evaluation, reservation) {
                    return Err(refusal);
                }
            }
        }
        let enforced = evaluations.iter().filter(|each| each.guard.mode == Mode::Enforce);
        Ok(enforced.map(|evaluation| self.level(evaluation)).max().unwrap_or_default())
    }

    /// Applies one action of one guard to one call. Returns the refusal if the guard enforces one.
    fn act(
        &mut self,
        action: Action,
        evaluation: &Evaluation<'_>,
        reservation: &mut Reservation,
    ) -> Option<Refusal> {
        match action {
            Action::Block => {
                let mut refusal = self.block(evaluation)?;
                self.ask(evaluation, &mut refusal);
                Some(refusal)
            }
            Action::Throttle => self.throttle(evaluation),
            Action::Reserve => self.reserve(evaluation, reservation),
            // Applies to responses: see `stop`.
            Action::StopStreams => None,
        }
    }

    /// Returns the refusal with which a guard ends a running response, and whether that guard
    /// enforces. Guards that enforce come before those that observe.
    pub(crate) fn stop(&mut self, session: &SessionRef, tools: &[&str]) -> Option<(Refusal, Mode)> {
        let config = self.config;
        for mode in [Mode::Enforce, Mode::Observe] {
            let guards = config.guards_for(&session.product_id, &session.identity.customer);
            let stops = |guard: &&Rc<Guard>| guard.does(Action::StopStreams) && guard.mode == mode;
            for guard in guards.filter(stops) {
                for tool in tools {
                    let evaluation = self.evaluate(guard, session, tool);
                    if let Some(refusal) = self.blocked(&evaluation) {
                        return Some((refusal, mode));
                    }
                }
            }
        }
        None
    }

    fn evaluate<'g>(
        &mut self,
        guard: &'g Guard,
        session: &SessionRef,
        tool: &str,
    ) -> Evaluation<'g> {
        let name = ScopeName::of(guard.scope, session, tool);
        let key = name.key(guard);
        let status = scope_status(self.host, self.prefix, &key);
        if status.is_none()
            && let Some(rest) = name.rest()
        {
            // A customer whose scopes are more than its share has statuses for the others.
            let key = rest.key(guard);
            let status = scope_status(self.host, self.prefix, &key);
            if status.is_some() {
                return Evaluation { guard, name: rest, key, status };
            }
        }
        Evaluation { guard, name, key, status }
    }

    /// The level that applies to requests: the stricter of its own and that of a lost collector.
    fn level(&mut self, evaluation: &Evaluation<'_>) -> Level {
        let own = match evaluation.is_unknown() {
            true => Level::Block,
            false => evaluation.own_level(),
        };
        if evaluation.guard.on_collector_loss == OnCollectorLoss::Block {
            let of_all = scope_status(self.host, self.prefix, &lost_key(evaluation.guard));
            return of_all.map_or(own, |of_all| of_all.level.max(own));
        }
        own
    }

    fn block(&mut self, evaluation: &Evaluation<'_>) -> Option<Refusal> {
        let refusal = self.blocked(evaluation)?;
        let is_paused = refusal.reason == RefusalReason::Paused;
        let does = if is_paused { Counter::RequestsPaused } else { Counter::GuardBlocked };
        self.enforced(evaluation, does, Counter::GuardWouldBlock, refusal)
    }

    /// The refusal for a scope at level 3.
    fn blocked(&mut self, evaluation: &Evaluation<'_>) -> Option<Refusal> {
        if self.level(evaluation) < Level::Block || !evaluation.guard.does(Action::Block) {
            return None;
        }
        if evaluation.own_level() == Level::Block && evaluation.guard.pauses() {
            let retry_after_s = retry_paused_s(evaluation.resets_at(), self.now);
            return Some(self.refusal(evaluation, RefusalReason::Paused, retry_after_s));
        }
        let own_level = evaluation.own_level();
        if evaluation.guard.is_prepaid() && (own_level == Level::Block || evaluation.is_unknown()) {
            return Some(self.unpaid(evaluation));
        }
        let reason = match (own_level, evaluation.guard.budget) {
            (Level::Block, Some(_)) => RefusalReason::Budget,
            (Level::Block, None) => RefusalReason::Margin,
            _ => RefusalReason::CollectorLost,
        };
        let wait_ms = evaluation.resets_at().map(|at| at.saturating_since(self.now).0);
        let retry_after_s = wait_ms.map_or(RETRY_SESSION_S, |ms| ms.div_ceil(1000).max(1));
        Some(self.refusal(evaluation, reason, retry_after_s))
    }

    /// Counts what comes at a rate under a key. Returns whether it keeps to the rate.
    fn passes(&mut self, key: &ScopeKey, requests: u32, per: Millis) -> bool {
        let now = self.now;
        let passes =
            update_counter(self.host, self.prefix, key, |counter| counter.pass(requests, per, now));
        self.is_done(passes)
    }

    /// The refusal for a scope whose balance is spent or not known.
    fn unpaid(&mut self, evaluation: &Evaluation<'_>) -> Refusal {
        let guard = evaluation.guard;
        let headroom = evaluation.status.as_ref().and_then(|status| status.headroom.as_ref());
        let balance = headroom.and_then(|headroom| headroom.limit.checked_sub(headroom.spent));
        let is_guarded = |id: &String| guard.products.is_empty() || guard.products.contains(id);
        let product = self.config.products.iter().find(|product| is_guarded(&product.id));
        let currency = product.map(|product| product.pricing.currency.clone()).unwrap_or_default();
        let wait_s = if balance.is_some() { RETRY_UNPAID_S } else { RETRY_UNKNOWN_S };
        let refusal = self.refusal(evaluation, RefusalReason::PrepaidBalance, wait_s);
        let top_up_url = guard.top_up_url.clone();
        let prepaid = Prepaid { balance, currency, top_up_url, ask: None };
        // The next period brings no money.
        Refusal { resets_at: None, prepaid: Some(Box::new(prepaid)), ..refusal }
    }

    /// Lets a refusal ask for the balance of its scope, once a second, however many are refused.
    fn ask(&mut self, evaluation: &Evaluation<'_>, refusal: &mut Refusal) {
        let Some(prepaid) = &mut refusal.prepaid else { return };
        let key = hash(&[b"agent-meter question for a balance 1", &evaluation.key]);
        if self.passes(&key, 1, ASK_PER) {
            let guard_id = evaluation.guard.id.clone();
            let (scope, amount) = (evaluation.key, Decimal::ZERO);
            prepaid.ask = Some(ReservedAmount { guard_id, scope, amount });
        }
    }

    fn throttle(&mut self, evaluation: &Evaluation<'_>) -> Option<Refusal> {
        let rate = evaluation.guard.throttle_rate()?;
        if self.level(evaluation) < Level::Throttle {
            return None;
        }
        if self.passes(&evaluation.key, rate.requests, rate.per) {
            return None;
        }
        let interval_ms = rate.per.0.div_ceil(u64::from(rate.requests));
        let retry_after_s = interval_ms.div_ceil(1000).max(1);
        let refusal = self.refusal(evaluation, RefusalReason::Throttled, retry_after_s);
        self.enforced(evaluation, Counter::GuardThrottled, Counter::GuardWouldThrottle, refusal)
    }

    /// Reserves an estimate of what the call will cost or use in a guard's scope, or refuses the
    /// call.
    fn reserve(
        &mut self,
        evaluation: &Evaluation<'_>,
        reservation: &mut Reservation,
    ) -> Option<Refusal> {
        let rules = evaluation.guard.reserve.as_ref()?;
        let published = evaluation.status.as_ref().and_then(|status| status.headroom.clone());
        let headroom = published.or_else(|| self.first_headroom(evaluation))?;
        let estimate = match evaluation.guard.unit() {
            // A generation is no call.
            Unit::Calls if reservation.tool.is_empty() => return None,
            Unit::Calls => Decimal::ONE,
            Unit::Tokens => Decimal::from(rules.estimate_tokens.unwrap_or_default()),
            Unit::Cost => {
                let tool = tool_key(&reservation.session.product_id, &reservation.tool);
                let last = rules.last_cost.then(|| last_cost(self.host, self.prefix, &tool));
                last.flatten().unwrap_or_else(|| rules.estimate.amount())
            }
        };
        let is_reserved = update_counter(self.host, self.prefix, &evaluation.key, |counter| {
            let open = counter.reserved.saturating_sub(headroom.settled).max(Decimal::ZERO);
            let fits = headroom.spent.saturating_add(open) < headroom.limit;
            if fits {
                counter.reserved = counter.reserved.saturating_add(estimate);
            }
            fits
        });
        if self.is_done(is_reserved) {
            reservation.amounts.push(ReservedAmount {
                guard_id: evaluation.guard.id.clone(),
                scope: evaluation.key,
                amount: estimate,
            });
            return None;
        }
        let reason = RefusalReason::InsufficientHeadroom;
        let refusal = self.refusal(evaluation, reason, RETRY_HEADROOM_S);
        self.enforced(evaluation, Counter::GuardBlocked, Counter::GuardWouldBlock, refusal)
    }

    fn release(&mut self, reservation: &Reservation) {
        for ReservedAmount { scope, amount, .. } in &reservation.amounts {
            // If this fails, the accountant finds an amount without a call, and settles it.
            let _ = update_counter(self.host, self.prefix, scope, |counter| {
                counter.reserved = counter.reserved.saturating_sub(*amount);
                true
            });
        }
    }

    /// The headroom of a scope about which the accountant has not published anything yet.
    fn first_headroom(&self, evaluation: &Evaluation<'_>) -> Option<Headroom> {
        let customer = evaluation.name.customer.as_str();
        let basis = match evaluation.guard.budget {
            Some(Budget { calls: Some(limit), .. } | Budget { tokens: Some(limit), .. }) => {
                Decimal::from(limit)
            }
            Some(Budget { provider_cost, .. }) => provider_cost?.amount(),
            None if evaluation.guard.revenue == RevenueBasis::Earned => return None,
            None => self.config.contracts.revenue(customer)?,
        };
        let limit = self.config.limit(evaluation.guard, customer, basis)?;
        Some(Headroom { limit, spent: Decimal::ZERO, settled: Decimal::ZERO })
    }

    /// Counts what a guard does, or would do if it enforced. Returns the refusal if it enforces.
    fn enforced(
        &mut self,
        evaluation: &Evaluation<'_>,
        does: Counter,
        would: Counter,
        refusal: Refusal,
    ) -> Option<Refusal> {
        let enforces = evaluation.guard.mode == Mode::Enforce;
        self.host.count(if enforces { does } else { would }, 1);
        enforces.then_some(refusal)
    }

    fn refusal(
        &mut self,
        evaluation: &Evaluation<'_>,
        reason: RefusalReason,
        retry_after_s: u64,
    ) -> Refusal {
        Refusal {
            reason,
            level: self.level(evaluation),
            guard_id: evaluation.guard.id.clone(),
            scope: evaluation.guard.scope,
            resets_at: evaluation.resets_at(),
            retry_after_s: Some(retry_after_s),
            prepaid: None,
        }
    }

    /// True if the counter accepted the change, or if it could not be written: traffic goes on.
    fn is_done(&mut self, done: Option<bool>) -> bool {
        self.host.count(Counter::GuardContended, u64::from(done.is_none()));
        done.unwrap_or(true)
    }
}

/// The key of the status that stands for all scopes of a guard while the collector is lost.
pub(crate) fn lost_key(guard: &Guard) -> ScopeKey {
    hash(&[b"agent-meter guard without collector 1", guard.id.as_bytes()])
}

/// In seconds, where no period ends: the value that the billing domain's own gateways send.
const RETRY_SESSION_S: u64 = 1800;

/// In seconds: somebody has to pay first.
const RETRY_UNPAID_S: u64 = 60;

/// In seconds: the collector tells a balance with its next reply.
const RETRY_UNKNOWN_S: u64 = 2;

/// Between two questions of an Envoy for the balance of a scope.
const ASK_PER: Millis = Millis(1000);

/// In seconds, for insufficient headroom: running calls reserve and release all the time.
const RETRY_HEADROOM_S: u64 = 1;

//! A worker's ruling on a request: it passes, maybe with a mark, or it is refused. Nothing is waited for: verdicts are
//! read from shared data, and room is taken there with compare-and-swap.

use rust_decimal::Decimal;

use crate::base::hash::hash;
use crate::base::time::{Millis, Timestamp};
use crate::config::{Config, Guard, Mode, OnCollectorLoss, RevenueBasis};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::scope_totals::ScopeKey;
use crate::domain::session::SessionRef;
use crate::fact::Reserved;
use crate::guard::refusal::{Reason, Refusal};
use crate::guard::scope::ScopeName;
use crate::guard::verdict::{Room, Verdict, at_desk, last_cost, tool_key, verdict};
use crate::host::Host;
use crate::host::counter::Counter;

/// A call that a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// See [`crate::fact::call::CallEnded::call_id`].
    pub id: &'a str,
    /// Its tool, or what stands for it.
    pub tool: &'a str,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It passes.
    Pass {
        /// The strictest level of its scopes, for headers.
        mark: Level,
        /// The room that it has taken.
        reserved: Vec<Reserved>,
    },
    /// It does not pass.
    Refuse(Refusal),
}

/// What a request's head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// It depends on what the request asks.
    pub needs_message: bool,
    /// The strictest level of its scopes.
    pub mark: Level,
}

/// Where a ruling is made.
#[derive(Debug)]
pub struct Bench<'a, H> {
    /// Shared data and stats.
    pub host: &'a mut H,
    /// What keys begin with.
    pub prefix: &'a str,
    /// The configuration.
    pub config: &'a Config,
    /// The time.
    pub now: Timestamp,
}

/// A guard, and what it says of one scope.
#[derive(Debug)]
struct Case<'a> {
    guard: &'a Guard,
    name: ScopeName,
    key: ScopeKey,
    verdict: Option<Verdict>,
}

impl<H: Host> Bench<'_, H> {
    /// What a request's head tells: whether a ruling has to wait for its message, and else its mark.
    pub fn glance(&mut self, session: &SessionRef, may_message_name: bool) -> Glance {
        let customer = &session.identity.customer;
        let config = self.config;
        let mut glance =
            Glance { needs_message: config.contracts.lists_tools(customer), mark: Level::None };
        for guard in config.guards_for(&session.product_id, customer) {
            let is_named_by_message = guard.scope == ScopeKind::Tool
                || (guard.scope == ScopeKind::Session && may_message_name);
            glance.needs_message |= guard.reserve.is_some() || is_named_by_message;
            if is_named_by_message {
                continue;
            }
            let case = self.case(guard, session, "");
            let level = self.level(&case);
            glance.needs_message |= level >= Level::Throttle;
            if guard.mode == Mode::Enforce {
                glance.mark = glance.mark.max(level);
            }
        }
        glance
    }

    /// Rules on a request that makes these calls, and takes the room that it needs.
    pub fn rule(&mut self, session: &SessionRef, calls: &[Call<'_>], expires_in: Millis) -> Ruling {
        let customer = &session.identity.customer;
        let contracts = &self.config.contracts;
        if calls.iter().any(|call| !contracts.allows_tool(customer, call.tool)) {
            self.host.count(Counter::ToolsNotInPlan, 1);
            return Ruling::Refuse(Refusal {
                reason: Reason::ToolNotInPlan,
                level: Level::None,
                guard_id: String::new(),
                scope: ScopeKind::Customer,
                resets_at: None,
                retry_after_s: None,
            });
        }
        let mut mark = Level::None;
        let mut reserved = Vec::new();
        let config = self.config;
        for call in calls {
            let guards = config.guards_for(&session.product_id, customer);
            let cases: Vec<Case<'_>> =
                guards.map(|guard| self.case(guard, session, call.tool)).collect();
            // What takes nothing comes first, so that nothing has to be given back for it.
            let refused = cases.iter().find_map(|case| self.block(case));
            let refused = refused.or_else(|| cases.iter().find_map(|case| self.throttle(case)));
            let taken = match refused {
                Some(refusal) => Err(refusal),
                None => self.reserve(&cases, session, call, expires_in),
            };
            match taken {
                Ok(taken) => reserved.extend(taken),
                Err(refusal) => {
                    for earlier in &reserved {
                        self.give_back(earlier);
                    }
                    return Ruling::Refuse(refusal);
                }
            }
            let marks = cases.iter().filter(|case| case.guard.mode == Mode::Enforce);
            let marks: Vec<Level> = marks.map(|case| self.level(case)).collect();
            mark = marks.into_iter().fold(mark, Level::max);
        }
        Ruling::Pass { mark, reserved }
    }

    fn case<'g>(&mut self, guard: &'g Guard, session: &SessionRef, tool: &str) -> Case<'g> {
        let name = ScopeName::of(guard.scope, session, tool);
        let key = name.key(guard);
        let verdict = verdict(self.host, self.prefix, &key);
        Case { guard, name, key, verdict }
    }

    /// The level that requests are treated by.
    fn level(&mut self, case: &Case<'_>) -> Level {
        let own = case.verdict.as_ref().map(|verdict| verdict.level).unwrap_or_default();
        if case.guard.on_collector_loss == OnCollectorLoss::Block {
            let of_all = verdict(self.host, self.prefix, &lost_key(case.guard));
            return of_all.map_or(own, |of_all| of_all.level.max(own));
        }
        own
    }

    fn block(&mut self, case: &Case<'_>) -> Option<Refusal> {
        let refusal = self.blocked(case)?;
        self.enforced(case, Counter::GuardBlocked, Counter::GuardWouldBlock, refusal)
    }

    /// The refusal of a case that is at its third level.
    fn blocked(&mut self, case: &Case<'_>) -> Option<Refusal> {
        if self.level(case) < Level::Block || !case.guard.blocks() {
            return None;
        }
        let own = case.verdict.as_ref().map(|verdict| verdict.level).unwrap_or_default();
        let reason = match (own, case.guard.budget) {
            (Level::Block, Some(_)) => Reason::Budget,
            (Level::Block, None) => Reason::Margin,
            _ => Reason::CollectorLost,
        };
        let resets_at = case.verdict.as_ref().and_then(|verdict| verdict.resets_at);
        let left_ms = resets_at.map(|at| at.saturating_since(self.now).0);
        let retry_after_s = left_ms.map_or(RETRY_SESSION_S, |ms| ms.div_ceil(1000).max(1));
        Some(self.refusal(case, reason, retry_after_s))
    }

    /// Whether a response that runs is to end, by the first guard that says so, and whether that guard enforces.
    pub fn stop(&mut self, session: &SessionRef, tools: &[&str]) -> Option<(Refusal, Mode)> {
        let config = self.config;
        for mode in [Mode::Enforce, Mode::Observe] {
            let guards = config.guards_for(&session.product_id, &session.identity.customer);
            for guard in guards.filter(|guard| guard.stops_streams() && guard.mode == mode) {
                for tool in tools {
                    let case = self.case(guard, session, tool);
                    if let Some(refusal) = self.blocked(&case) {
                        return Some((refusal, mode));
                    }
                }
            }
        }
        None
    }

    fn throttle(&mut self, case: &Case<'_>) -> Option<Refusal> {
        let rate = case.guard.rule(Level::Throttle)?.throttle_rate?;
        if self.level(case) < Level::Throttle {
            return None;
        }
        let now = self.now;
        let passes = at_desk(self.host, self.prefix, &case.key, |desk| {
            desk.pass(rate.requests, rate.per, now)
        });
        if self.is_done(passes) {
            return None;
        }
        let interval_ms = rate.per.0.div_ceil(u64::from(rate.requests));
        let retry_after_s = interval_ms.div_ceil(1000).max(1);
        let refusal = self.refusal(case, Reason::Throttled, retry_after_s);
        self.enforced(case, Counter::GuardThrottled, Counter::GuardWouldThrottle, refusal)
    }

    /// The refusal, if the guard enforces.
    fn enforced(
        &mut self,
        case: &Case<'_>,
        does: Counter,
        would: Counter,
        refusal: Refusal,
    ) -> Option<Refusal> {
        let enforces = case.guard.mode == Mode::Enforce;
        self.host.count(if enforces { does } else { would }, 1);
        enforces.then_some(refusal)
    }

    fn refusal(&mut self, case: &Case<'_>, reason: Reason, retry_after_s: u64) -> Refusal {
        Refusal {
            reason,
            level: self.level(case),
            guard_id: case.guard.id.clone(),
            scope: case.guard.scope,
            resets_at: case.verdict.as_ref().and_then(|verdict| verdict.resets_at),
            retry_after_s: Some(retry_after_s),
        }
    }

    /// Takes room for a call with every guard that asks for it, or with none.
    fn reserve(
        &mut self,
        cases: &[Case<'_>],
        session: &SessionRef,
        call: &Call<'_>,
        expires_in: Millis,
    ) -> Result<Option<Reserved>, Refusal> {
        let mut reserved = Reserved {
            call_id: call.id.to_owned(),
            session: session.clone(),
            tool: call.tool.to_owned(),
            amounts: Vec::new(),
            keys: Vec::new(),
            expires_at: self.now.plus(expires_in),
        };
        for case in cases {
            let Some(rules) = &case.guard.reserve else { continue };
            let tool = tool_key(&session.product_id, call.tool);
            let last = rules.last_cost.then(|| last_cost(self.host, self.prefix, &tool)).flatten();
            let estimate = last.unwrap_or_else(|| rules.estimate.amount());
            let room = match case.verdict.as_ref().and_then(|verdict| verdict.room.clone()) {
                Some(room) => room,
                None => match self.first_room(case) {
                    Some(room) => room,
                    None => continue,
                },
            };
            let taken = at_desk(self.host, self.prefix, &case.key, |desk| {
                let open = desk.reserved.saturating_sub(room.settled).max(Decimal::ZERO);
                let has_room = room.spent.saturating_add(open) < room.limit;
                if has_room {
                    desk.reserved = desk.reserved.saturating_add(estimate);
                }
                has_room
            });
            if self.is_done(taken) {
                reserved.amounts.push((case.guard.id.clone(), estimate.to_string()));
                reserved.keys.push(case.key);
                continue;
            }
            let refusal = self.refusal(case, Reason::NoRoom, RETRY_ROOM_S);
            let refusal =
                self.enforced(case, Counter::GuardBlocked, Counter::GuardWouldBlock, refusal);
            if let Some(refusal) = refusal {
                self.give_back(&reserved);
                return Err(refusal);
            }
        }
        Ok((!reserved.amounts.is_empty()).then_some(reserved))
    }

    fn give_back(&mut self, reserved: &Reserved) {
        for ((_, amount), key) in reserved.amounts.iter().zip(&reserved.keys) {
            let amount = amount.parse().unwrap_or(Decimal::ZERO);
            // What could not be given back is noticed as missing, and settled.
            let _ = at_desk(self.host, self.prefix, key, |desk| {
                desk.reserved = desk.reserved.saturating_sub(amount);
                true
            });
        }
    }

    /// The room of a scope that nothing is known of yet.
    fn first_room(&self, case: &Case<'_>) -> Option<Room> {
        let customer = case.name.customer.as_str();
        let whole = match case.guard.budget {
            Some(budget) => budget.provider_cost?.amount(),
            None if case.guard.revenue == RevenueBasis::Earned => return None,
            None => self.config.contracts.revenue(customer)?,
        };
        let limit = self.config.cost_limit(case.guard, customer, whole)?;
        Some(Room { limit, spent: Decimal::ZERO, settled: Decimal::ZERO })
    }

    /// Where shared data could not be written, traffic goes on.
    fn is_done(&mut self, done: Option<bool>) -> bool {
        self.host.count(Counter::GuardContended, u64::from(done.is_none()));
        done.unwrap_or(true)
    }
}

/// Stands for all scopes of a guard while the collector is lost.
pub fn lost_key(guard: &Guard) -> ScopeKey {
    hash(&[b"agent-meter guard without collector 1", guard.id.as_bytes()])
}

/// When to try again where no period ends: as the billing domain's own gateways say.
const RETRY_SESSION_S: u64 = 1800;

/// Calls that run take and give room all the time.
const RETRY_ROOM_S: u64 = 1;

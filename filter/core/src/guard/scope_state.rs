//! One scope of a guard: its totals, its position, and the level that follows.

use crate::base::time::Timestamp;
use crate::config::{Action, Config, Guard, LoopRule, RevenueBasis};
use crate::domain::level::Level;
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::guard::level::{Remaining, level};
use crate::guard::loop_window::LoopWindow;
use crate::guard::scope::ScopeName;
use crate::guard::scope_status::{Headroom, ScopeStatus};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Why a level has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelChangeReason {
    /// A threshold was reached.
    Threshold,
    /// The margin has come back above a threshold.
    Recovered,
    /// A new period has begun.
    PeriodStarted,
    /// The same tool was called with the same arguments too often.
    RepeatedCall,
    /// The configuration has changed.
    Configuration,
    /// A threshold was reached by what the other Envoys have used.
    Fleet,
    /// The collector does not answer, and the guard says what that means.
    CollectorLost,
    /// The collector answers again.
    CollectorBack,
}

impl LevelChangeReason {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::Recovered => "recovered",
            Self::PeriodStarted => "period_started",
            Self::RepeatedCall => "repeated_call",
            Self::Configuration => "configuration",
            Self::Fleet => "fleet",
            Self::CollectorLost => "collector_lost",
            Self::CollectorBack => "collector_back",
        }
    }
}

/// One scope of a guard, in its present period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeState {
    /// The guard.
    pub guard_id: String,
    /// What it is.
    pub name: ScopeName,
    /// Names it.
    pub key: ScopeKey,
    /// ISO 4217 code of its amounts.
    pub currency: String,
    /// When the period began; zero for a session.
    pub period_started_at: Timestamp,
    /// When it ends.
    pub period_ends_at: Option<Timestamp>,
    /// What this Envoy has counted in the period.
    pub own: ScopeTotals,
    /// What the others have, as far as the collector has told.
    pub others: ScopeTotals,
    /// What the collector says that the customer pays.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub contracted: Option<Decimal>,
    /// Where it stands.
    pub level: Level,
    /// Of what was ever reserved, what has become cost or was given back.
    #[serde(with = "rust_decimal::serde::str")]
    pub settled: Decimal,
    /// The calls that were made again, of a guard against loops.
    pub loop_rule: LoopWindow,
    /// The last call.
    pub active_at: Timestamp,
}

/// How a scope stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// What it is held against: revenue or limit.
    pub basis: Decimal,
    /// What is gone of it: cost or usage.
    pub spent: Decimal,
    /// What is left.
    pub remaining: Remaining,
}

impl ScopeState {
    /// How it stands with these totals.
    pub fn position(&self, config: &Config, guard: &Guard, sums: &ScopeTotals) -> Position {
        let of = |basis: Decimal, spent: Decimal| Position {
            basis,
            spent,
            remaining: Remaining::of(basis, spent),
        };
        if let Some(budget) = guard.budget {
            let counted = budget.calls.map(|limit| (limit, sums.calls));
            let counted = counted.or_else(|| budget.tokens.map(|limit| (limit, sums.tokens)));
            return match (counted, budget.provider_cost) {
                (Some((limit, used)), _) => of(Decimal::from(limit), Decimal::from(used)),
                (None, limit) => {
                    of(limit.map(|limit| limit.amount()).unwrap_or_default(), sums.provider_cost)
                }
            };
        }
        let unguarded = Position {
            basis: Decimal::ZERO,
            spent: sums.provider_cost,
            remaining: Remaining::Unguarded,
        };
        let contracted = self.contracted(config);
        let earned = config.earns(guard).then_some(sums.revenue);
        let basis = match guard.revenue {
            RevenueBasis::Contracted => contracted,
            RevenueBasis::Earned => earned,
            RevenueBasis::Larger => contracted.max(earned),
        };
        match basis {
            Some(basis) if sums.provider_cost >= guard.min_cost.amount() => {
                of(basis, sums.provider_cost)
            }
            Some(basis) => Position { basis, ..unguarded },
            None => unguarded,
        }
    }

    pub(super) fn contracted(&self, config: &Config) -> Option<Decimal> {
        let customer = self.name.customer.as_str();
        let configured =
            if customer.is_empty() { None } else { config.contracts.revenue(customer) };
        self.contracted.or(configured)
    }

    pub(super) fn with_others(&self) -> ScopeTotals {
        let mut all = self.own.clone();
        // What no decimal reservations stays as it is: the own totals are the better half then.
        let _ = all.add(&self.others);
        all
    }

    /// How a session stands that may be a loop.
    pub(super) fn repeated(&self, rule: &LoopRule, now: Timestamp) -> (Level, Position) {
        let calls = self.loop_rule.most(rule, now).map_or(0, |repeated| repeated.calls);
        let is_loop = calls > u64::from(rule.calls);
        let (basis, used) = (Decimal::from(rule.calls), Decimal::from(calls));
        let position = Position { basis, spent: used, remaining: Remaining::of(basis, used) };
        (if is_loop { Level::Throttle } else { Level::None }, position)
    }

    /// The level that it belongs to, and whether only the others' totals make it so.
    pub(super) fn evaluate(
        &self,
        config: &Config,
        guard: &Guard,
        now: Timestamp,
    ) -> (Level, Position, bool) {
        if let Some(rule) = &guard.loop_rule {
            let (level, position) = self.repeated(rule, now);
            return (level, position, false);
        }
        let plan = config.contracts.plan_name(&self.name.customer);
        let thresholds = |level: Level| guard.threshold(level, &self.name.customer, plan);
        let level_of = |position: &Position| {
            level(position.remaining, thresholds, guard.hysteresis.0, self.level)
        };
        let own = self.position(config, guard, &self.own);
        let of_own = level_of(&own);
        if !guard.fleet {
            return (of_own, own, false);
        }
        let all = self.position(config, guard, &self.with_others());
        let of_all = level_of(&all);
        if of_all > of_own { (of_all, all, true) } else { (of_own, own, false) }
    }

    pub(super) fn scope_status(&self, config: &Config, guard: &Guard) -> Option<ScopeStatus> {
        let sums = if guard.fleet { self.with_others() } else { self.own.clone() };
        let position = self.position(config, guard, &sums);
        let headroom = (guard.does(Action::Reserve) && position.basis > Decimal::ZERO)
            .then(|| config.cost_limit(guard, &self.name.customer, position.basis))
            .flatten();
        let headroom = headroom.map(|limit| Headroom {
            limit,
            spent: sums.provider_cost,
            settled: self.settled,
        });
        (self.level != Level::None || headroom.is_some()).then_some(ScopeStatus {
            key: self.key,
            level: self.level,
            resets_at: self.period_ends_at,
            headroom,
        })
    }
}

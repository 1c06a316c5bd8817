//! One scope of a guard: its totals, its position, and the level that follows from them.

use crate::base::hash::hash;
use crate::base::time::Timestamp;
use crate::config::{Action, Config, Guard, LoopRule, RevenueBasis};
use crate::domain::level::Level;
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::guard::level::{Remaining, level};
use crate::guard::loop_window::LoopWindow;
use crate::guard::scope::ScopeName;
use crate::guard::scope_status::{Headroom, ScopeStatus};
use crate::shared_data::shares::Holder;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Why a level changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelChangeReason {
    /// This Envoy's totals reached a threshold.
    Threshold,
    /// What remains rose above a threshold again.
    Recovered,
    /// A new period began.
    PeriodStarted,
    /// The client called the same tool with the same arguments too often.
    RepeatedCall,
    /// The configuration changed.
    Configuration,
    /// The totals reached a threshold only together with those of the other Envoys.
    Fleet,
    /// The collector does not reply, and the guard's `on_collector_loss` sets the level.
    CollectorLost,
    /// The collector replies again.
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
    /// The guard's id.
    pub guard_id: String,
    /// What the scope covers.
    pub name: ScopeName,
    /// Its key.
    pub key: ScopeKey,
    /// The ISO 4217 code of its amounts.
    pub currency: String,
    /// When the period began; zero for a session.
    pub period_started_at: Timestamp,
    /// When the period ends, if it does.
    pub period_ends_at: Option<Timestamp>,
    /// The totals that this Envoy has counted in the period.
    pub own: ScopeTotals,
    /// The totals of the other Envoys, as far as the collector has reported them.
    pub others: ScopeTotals,
    /// The customer's contracted revenue, as the collector reports it.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub contracted: Option<Decimal>,
    /// What may be spent in the period before the balance is spent, as far as the collector has told.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub(crate) prepaid: Option<Decimal>,
    /// The present level.
    pub level: Level,
    /// How much of everything that was ever reserved has become cost or was released.
    #[serde(with = "rust_decimal::serde::str")]
    pub settled: Decimal,
    /// The repeated calls, for a guard against loops.
    pub(crate) loop_window: LoopWindow,
    /// The time of the last call.
    pub(crate) active_at: Timestamp,
}

/// The position of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The revenue or the limit.
    pub(crate) basis: Decimal,
    /// The cost or the usage.
    pub spent: Decimal,
    /// What remains of the basis.
    pub(crate) remaining: Remaining,
}

impl ScopeState {
    /// A scope in which nothing has happened.
    pub(super) fn new(guard: &Guard, name: ScopeName, currency: &str, now: Timestamp) -> Self {
        let (period_started_at, period_ends_at) = guard.period.around(now);
        Self {
            guard_id: guard.id.clone(),
            key: name.key(guard),
            name,
            currency: currency.to_owned(),
            period_started_at,
            period_ends_at,
            own: ScopeTotals::default(),
            others: ScopeTotals::default(),
            contracted: None,
            prepaid: None,
            level: Level::None,
            settled: Decimal::ZERO,
            loop_window: LoopWindow::default(),
            active_at: now,
        }
    }

    /// Names the customer together with the guard.
    pub(super) fn holder(&self) -> Holder {
        hash(&[self.guard_id.as_bytes(), self.name.customer.as_bytes()])
    }

    /// The position with these totals.
    pub fn position(&self, config: &Config, guard: &Guard, sums: &ScopeTotals) -> Position {
        let of = |basis: Decimal, spent: Decimal| Position {
            basis,
            spent,
            remaining: Remaining::of(basis, spent),
        };
        if guard.is_prepaid() {
            // One that is not known is no level: workers see that it is not.
            let basis = self.prepaid.unwrap_or_default();
            let remaining = match self.prepaid {
                None => Remaining::Unguarded,
                Some(granted) if granted <= Decimal::ZERO => Remaining::Worst,
                Some(granted) => Remaining::of(granted, sums.revenue),
            };
            return Position { basis, spent: sums.revenue, remaining };
        }
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

    /// Begins the next period with what is left of the balance.
    pub(super) fn carry_prepaid(&mut self) {
        let spent = self.with_others().revenue;
        self.prepaid = self.prepaid.map(|granted| granted.saturating_sub(spent));
    }

    pub(super) fn with_others(&self) -> ScopeTotals {
        let mut all = self.own.clone();
        // A sum that does not fit a decimal stays as it is: the own totals matter more.
        let _ = all.add(&self.others);
        all
    }

    /// The level and the position of a session under a rule against loops.
    pub(super) fn repeated(&self, rule: &LoopRule, now: Timestamp) -> (Level, Position) {
        let calls = self.loop_window.most(rule, now).map_or(0, |repeated| repeated.calls);
        let is_loop = calls > u64::from(rule.calls);
        let (basis, used) = (Decimal::from(rule.calls), Decimal::from(calls));
        let position = Position { basis, spent: used, remaining: Remaining::of(basis, used) };
        (if is_loop { Level::Throttle } else { Level::None }, position)
    }

    /// The level and the position by the totals, and whether only the other Envoys cause the level.
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
            // A balance rises by top-ups alone, so nothing swings.
            let slack = if guard.is_prepaid() { Decimal::ZERO } else { guard.hysteresis.0 };
            level(position.remaining, thresholds, slack, self.level)
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

    /// The status to publish; `None` for a scope that is within limits, unless it is wanted anyway.
    pub(super) fn scope_status(
        &self,
        config: &Config,
        guard: &Guard,
        is_wanted: bool,
    ) -> Option<ScopeStatus> {
        let sums = if guard.fleet { self.with_others() } else { self.own.clone() };
        let position = self.position(config, guard, &sums);
        let headroom = if guard.is_prepaid() {
            self.prepaid
        } else {
            (guard.does(Action::Reserve) && position.basis > Decimal::ZERO)
                .then(|| config.limit(guard, &self.name.customer, position.basis))
                .flatten()
        };
        let headroom =
            headroom.map(|limit| Headroom { limit, spent: position.spent, settled: self.settled });
        (is_wanted || self.level != Level::None || headroom.is_some()).then_some(ScopeStatus {
            key: self.key,
            level: self.level,
            resets_at: self.period_ends_at,
            headroom,
        })
    }
}

//! The figures of one run of the margin scenario, as text and as JSON, and the promises that they
//! break.

use std::fmt;

use anyhow::Context;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::agents::Seen;
use super::books::{Books, Call, Level};
use super::{CONTRACT, LEVELS, NEIGHBOUR, TENANT, limit};

/// How much later than its own time a decision may reach the workers: the time of a commit, and of
/// a clock that counts milliseconds.
const DECISION_MS: i64 = 50;

/// The header of the table of levels; see [`Level::row`].
pub(super) const LEVELS_HEAD: &str = "   after  level         margin  cost, USD  revenue, USD";

impl Level {
    /// This level as a line of the table of levels.
    pub(super) fn row(&self, began_ms: i64) -> String {
        let after = Decimal::new(self.at_ms - began_ms, 3).round_dp(1);
        let margin = (self.margin * Decimal::ONE_HUNDRED).round_dp(2);
        let (cost, revenue) = (self.cost.normalize(), self.revenue.normalize());
        let other = if self.customer == TENANT { "" } else { &self.customer };
        format!("{after:>6} s  {:<11} {margin:>6} %  {cost:>9}  {revenue:>12} {other}", self.level)
            .trim_end()
            .to_owned()
    }
}

/// The results of one run; money in USD.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    began_ms: i64,
    levels: Vec<Level>,
    tenant: Seen,
    neighbour: Seen,
    /// The cost in the ledger, of the tenant and of the neighbour.
    cost: Decimal,
    neighbour_cost: Decimal,
    /// The cost in the ledger, of everybody.
    total_cost: Decimal,
    /// The cost by the LLM endpoint's own account.
    llm_cost: Decimal,
    /// The cost that the guard had counted when it blocked.
    cost_at_block: Decimal,
    /// Calls that began after the block, and that ran or cost something nevertheless.
    late_calls: u64,
    /// Calls in the ledger, executed and refused, of the tenant and of the neighbour.
    booked: [[u64; 2]; 2],
    dearest_call: Decimal,
}

impl Figures {
    pub(super) fn new(
        began_ms: i64,
        tenant: Seen,
        neighbour: Seen,
        books: &Books,
        llm_cost: Decimal,
    ) -> anyhow::Result<Self> {
        let [.., (last, _)] = LEVELS;
        let block = books.levels.iter().find(|level| level.level == last);
        let block = block.with_context(|| format!("{last} is not in the ledger"))?;
        let is_executed = |call: &&Call| call.status != "BLOCKED";
        let cost = |customer| books.of_customer(customer).map(|call| call.cost).sum();
        let late = books.of_customer(TENANT).filter(|call| {
            call.started_ms > block.at_ms + DECISION_MS
                && (is_executed(call) || !call.cost.is_zero())
        });
        let booked = [TENANT, NEIGHBOUR].map(|customer| {
            let calls = |is_executed_one| {
                let calls = books.of_customer(customer);
                let counted = calls.filter(|call| is_executed(call) == is_executed_one);
                counted.map(|call| call.quantity).sum()
            };
            [calls(true), calls(false)]
        });
        Ok(Self {
            began_ms,
            levels: books.levels.clone(),
            tenant,
            neighbour,
            cost: cost(TENANT),
            neighbour_cost: cost(NEIGHBOUR),
            total_cost: books.cost,
            llm_cost,
            cost_at_block: block.cost,
            late_calls: u64::try_from(late.count())?,
            booked,
            dearest_call: books.calls.iter().map(|call| call.cost).max().unwrap_or_default(),
        })
    }

    /// What the tenant spent after the guard had blocked, by calls that were already running.
    fn cost_after_block(&self) -> Decimal {
        self.cost - self.cost_at_block
    }

    /// How far the cost exceeds what the guard allows.
    fn overshoot(&self) -> Decimal {
        (self.cost - limit()).max(Decimal::ZERO)
    }

    /// The promises that the guard broke, one text each.
    pub(super) fn broken(&self, reserves: bool) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |is_kept: bool, text: String| {
            if !is_kept {
                broken.push(text);
            }
        };
        let expected = LEVELS.map(|(level, _)| (TENANT, level));
        let reached: Vec<_> =
            self.levels.iter().map(|level| (&level.customer[..], &level.level[..])).collect();
        check(reached == expected, format!("expected the levels {expected:?}, found {reached:?}"));
        for (level, (_, threshold)) in self.levels.iter().zip(LEVELS) {
            let is_reached = level.margin * Decimal::ONE_HUNDRED <= Decimal::from(threshold);
            let Level { level, margin, .. } = level;
            check(is_reached, format!("{level} at a margin of {margin}, above {threshold} %"));
        }
        let late = self.late_calls;
        check(late == 0, format!("{late} calls began after {TENANT} was blocked, and passed"));
        let Seen { passed, marked, .. } = self.neighbour;
        let refused = self.neighbour.refused();
        check(
            passed > 0 && marked == 0 && refused == 0,
            format!(
                "{NEIGHBOUR} was not left alone: {passed} calls passed, {marked} of them marked, {refused} refused"
            ),
        );
        for ((customer, seen), booked) in
            [(TENANT, self.tenant), (NEIGHBOUR, self.neighbour)].into_iter().zip(self.booked)
        {
            let seen = [seen.passed, seen.refused()];
            check(
                seen == booked,
                format!(
                    "{customer} saw {seen:?} calls executed and refused, the ledger has {booked:?}"
                ),
            );
        }
        let (total, own) = (self.total_cost.normalize(), self.llm_cost.normalize());
        check(
            total == own,
            format!("{total} USD in the ledger, {own} by the LLM endpoint's own account"),
        );
        let customers = (self.cost + self.neighbour_cost).normalize();
        check(
            total == customers,
            format!("{total} USD in the ledger, {customers} on the two customers' calls"),
        );
        let (over, dearest) = (self.overshoot().normalize(), self.dearest_call.normalize());
        check(
            !reserves || over <= dearest,
            format!("{over} USD beyond the limit, more than the dearest call, {dearest}"),
        );
        broken
    }

    /// The figures as JSON; money as decimal text in USD, times in milliseconds.
    pub(super) fn to_json(&self) -> Value {
        let usd = |amount: Decimal| amount.normalize().to_string();
        let levels = self.levels.iter().map(|level| {
            json!({
                "level": level.level,
                "after_ms": level.at_ms - self.began_ms,
                "margin": usd(level.margin),
                "provider_cost": usd(level.cost),
                "revenue": usd(level.revenue),
            })
        });
        let Seen { passed, marked, throttled, no_room, blocked } = self.tenant;
        json!({
            "levels": levels.collect::<Vec<_>>(),
            "calls": {
                "passed": passed, "marked": marked, "throttled": throttled, "no_room": no_room,
                "blocked": blocked,
            },
            "contract": usd(CONTRACT),
            "provider_cost": usd(self.cost),
            "provider_cost_at_block": usd(self.cost_at_block),
            "provider_cost_after_block": usd(self.cost_after_block()),
            "late_calls_passed": self.late_calls,
            "limit": usd(limit()),
            "overshoot": usd(self.overshoot()),
            "dearest_call": usd(self.dearest_call),
            "neighbour": {
                "passed": self.neighbour.passed,
                "marked": self.neighbour.marked,
                "refused": self.neighbour.refused(),
                "provider_cost": usd(self.neighbour_cost),
            },
            "ledger_cost": usd(self.total_cost),
            "llm_account_cost": usd(self.llm_cost),
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { passed, marked, throttled, no_room, blocked } = self.tenant;
        let [cost, own, total] =
            [self.cost, self.llm_cost, self.total_cost].map(|amount| amount.normalize());
        let (after, over) = (self.cost_after_block().normalize(), self.overshoot().normalize());
        writeln!(f, "{TENANT}")?;
        writeln!(f, "  {passed:>5} calls passed, {marked} of them marked as slowed down")?;
        writeln!(
            f,
            "  {:>5} calls refused: {throttled} throttled, {no_room} without room, {blocked} blocked",
            self.tenant.refused()
        )?;
        writeln!(
            f,
            "  {cost} USD spent of {CONTRACT}; {over} USD beyond the limit, a call costs {} USD",
            self.dearest_call.normalize()
        )?;
        writeln!(
            f,
            "  {after} USD of it after the block, by calls under way; of calls that began later {} passed",
            self.late_calls
        )?;
        writeln!(f, "{NEIGHBOUR}")?;
        writeln!(
            f,
            "  {:>5} calls passed, {} marked, {} refused; {} USD spent",
            self.neighbour.passed,
            self.neighbour.marked,
            self.neighbour.refused(),
            self.neighbour_cost.normalize()
        )?;
        write!(f, "Provider cost {total} USD; by the LLM endpoint's own account {own} USD.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let level = |(level, threshold): (&str, u32)| Level {
            level: level.to_owned(),
            customer: TENANT.to_owned(),
            at_ms: 1000,
            margin: Decimal::new(i64::from(threshold), 2),
            cost: Decimal::ONE,
            revenue: CONTRACT,
        };
        let tenant = Seen { passed: 4, marked: 1, throttled: 1, no_room: 1, blocked: 1 };
        Figures {
            began_ms: 0,
            levels: LEVELS.map(level).into(),
            tenant,
            neighbour: Seen { passed: 1, ..Seen::default() },
            cost: Decimal::new(185, 2),
            neighbour_cost: Decimal::new(5, 2),
            total_cost: Decimal::new(190, 2),
            llm_cost: Decimal::new(19, 1),
            cost_at_block: Decimal::new(18, 1),
            late_calls: 0,
            booked: [[4, 3], [1, 0]],
            dearest_call: Decimal::new(5, 2),
        }
    }

    #[test]
    fn each_promise_that_is_not_kept_is_named() {
        assert_eq!(figures().broken(true), [""; 0]);
        type Breach = (&'static str, fn(&mut Figures));
        let breaches: [Breach; 10] = [
            ("expected the levels", |figures| figures.levels.swap(0, 1)),
            ("expected the levels", |figures| figures.levels.push(figures.levels[2].clone())),
            ("expected the levels", |figures| figures.levels[0].customer = NEIGHBOUR.to_owned()),
            ("L2_THROTTLE at a margin of 0.4", |figures| {
                figures.levels[1].margin = Decimal::new(4, 1);
            }),
            ("1 calls began after acme was blocked", |figures| figures.late_calls = 1),
            ("globex was not left alone", |figures| {
                figures.neighbour.throttled = 1;
                figures.booked[1] = [1, 1];
            }),
            ("globex was not left alone", |figures| {
                figures.neighbour.passed = 0;
                figures.booked[1] = [0, 0];
            }),
            ("acme saw [4, 3] calls", |figures| figures.booked[0] = [5, 2]),
            ("1.9 USD in the ledger, 2 by", |figures| figures.llm_cost = Decimal::TWO),
            ("0.05 USD beyond the limit", |figures| figures.dearest_call = Decimal::new(4, 2)),
        ];
        for (text, breach) in breaches {
            let mut figures = figures();
            breach(&mut figures);
            let broken = figures.broken(true).join("; ");
            assert!(broken.contains(text), "{text}: {broken}");
        }
        let mut expensive = figures();
        expensive.dearest_call = Decimal::ZERO;
        assert_eq!(
            expensive.broken(false),
            [""; 0],
            "without reservation nothing bounds what is under way"
        );
    }
}

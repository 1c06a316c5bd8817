//! Finds the level of a scope from what remains of its revenue or budget.

use rust_decimal::Decimal;

use crate::domain::level::Level;

/// What remains, as a share of the basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// The basis is missing, or nothing counts against it: the scope is within limits.
    Unguarded,
    /// Cost without revenue: worse than every threshold.
    Worst,
    /// `(revenue - cost) / revenue`, or `(limit - used) / limit`.
    Share(Decimal),
}

impl Remaining {
    /// What remains of `basis` after `used` is spent.
    pub fn of(basis: Decimal, used: Decimal) -> Self {
        if basis <= Decimal::ZERO {
            return if used > Decimal::ZERO { Self::Worst } else { Self::Unguarded };
        }
        let left = basis.checked_sub(used).and_then(|left| left.checked_div(basis));
        // A share that does not fit a decimal is far below every threshold.
        left.map_or(Self::Worst, Self::Share)
    }

    fn is_at_most(self, threshold: Decimal) -> bool {
        match self {
            Self::Unguarded => false,
            Self::Worst => true,
            Self::Share(share) => share <= threshold,
        }
    }
}

/// The level of a scope whose level was `now_at`. A scope reaches a level at or below its
/// threshold, and leaves it only when more than `hysteresis` above the threshold.
pub fn level(
    left: Remaining,
    thresholds: impl Fn(Level) -> Option<Decimal>,
    hysteresis: Decimal,
    now_at: Level,
) -> Level {
    let is_at = |level: &Level| {
        let slack = if *level <= now_at { hysteresis } else { Decimal::ZERO };
        let threshold = thresholds(*level).and_then(|threshold| threshold.checked_add(slack));
        threshold.is_some_and(|threshold| left.is_at_most(threshold))
    };
    Level::ALL.into_iter().rev().find(is_at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Decimal, Level, Remaining, level};

    #[test]
    fn a_level_is_reached_at_its_threshold_and_left_above_its_hysteresis() {
        let thresholds = |level| match level {
            Level::None => None,
            Level::Alert => Some(Decimal::new(30, 2)),
            Level::Throttle => Some(Decimal::new(20, 2)),
            Level::Block => Some(Decimal::new(10, 2)),
        };
        const NONE: Level = Level::None;
        use Level::{Alert, Block, Throttle};
        for (share, now_at, expected) in [
            (100, NONE, NONE),
            (31, NONE, NONE),
            (30, NONE, Alert),
            (20, Alert, Throttle),
            (21, Alert, Alert),
            (10, Throttle, Block),
            (-500, NONE, Block),
            (12, Block, Block),
            (13, Block, Throttle),
            (22, Throttle, Throttle),
            (23, Throttle, Alert),
            (32, Alert, Alert),
            (33, Alert, NONE),
            (90, Block, NONE),
        ] {
            let left = Remaining::Share(Decimal::new(share, 2));
            let found = level(left, thresholds, Decimal::new(2, 2), now_at);
            assert_eq!(found, expected, "{share}% from {now_at:?}");
        }
        assert_eq!(level(Remaining::Worst, thresholds, Decimal::ZERO, NONE), Block);
        assert_eq!(level(Remaining::Unguarded, thresholds, Decimal::ZERO, Block), NONE);
    }

    #[test]
    fn cost_without_revenue_is_the_worst_and_nothing_at_all_is_no_matter() {
        assert_eq!(Remaining::of(Decimal::ZERO, Decimal::ONE), Remaining::Worst);
        assert_eq!(Remaining::of(Decimal::ZERO, Decimal::ZERO), Remaining::Unguarded);
        assert_eq!(Remaining::of(Decimal::TWO, Decimal::ONE), Remaining::Share(Decimal::new(5, 1)));
    }
}

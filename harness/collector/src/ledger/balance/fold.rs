//! What top-ups and usage come to: a pure function, so that neither the order in which they came nor
//! how often they came matters.
//!
//! To the next maintainer. What was granted is always what was spent, expired and is left, to the
//! last digit: each step below moves an amount from one of these to another, and makes none.

use std::collections::BTreeMap;

use crate::money::Exact;

/// An amount that was paid in advance. Times are in milliseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lot {
    pub(crate) top_up_id: String,
    pub(crate) amount: Exact,
    /// From when it pays.
    pub(crate) from_ms: i64,
    /// When what is left of it is gone; `None` for never.
    pub(crate) expires_ms: Option<i64>,
}

/// The order in which lots pay: the one that expires first, then the older one, then by id.
type Turn = (i64, i64, String);

impl Lot {
    fn turn(&self) -> Turn {
        (self.expires_ms.unwrap_or(i64::MAX), self.from_ms, self.top_up_id.clone())
    }
}

/// What lots and usage come to at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What is left of each lot that pays.
    live: BTreeMap<Turn, Exact>,
    /// What was used and no lot paid for; the next lot pays it first.
    debt: Exact,
    /// The amounts of all lots that have begun.
    pub(crate) granted: Exact,
    /// The prices of all that was used.
    pub(crate) spent: Exact,
    /// What was left of lots when they expired.
    pub(crate) expired: Exact,
}

/// What happens at a moment. Of what happens at the same one, the first of these comes first: a lot
/// pays for what happens when it begins, and not for what happens when it expires.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Expire(Turn),
    Begin(Turn, Exact),
    Use(Exact),
}

impl Standing {
    /// Plays what happens from `from_ms` on: the lots as far as they have begun or expired at
    /// `now_ms`, and amounts that were used, each with its time.
    pub(crate) fn play(&mut self, lots: &[Lot], used: &[(i64, Exact)], from_ms: i64, now_ms: i64) {
        let begins = lots.iter().map(|lot| (lot.from_ms, Step::Begin(lot.turn(), lot.amount)));
        let expires =
            lots.iter().filter_map(|lot| Some((lot.expires_ms?, Step::Expire(lot.turn()))));
        let turns = begins.chain(expires).filter(|(at_ms, _)| (from_ms..=now_ms).contains(at_ms));
        let uses = used.iter().map(|(at_ms, amount)| (*at_ms, Step::Use(*amount)));
        let mut steps: Vec<(i64, Step)> = turns.chain(uses).collect();
        steps.sort();
        for (_, step) in steps {
            match step {
                Step::Expire(turn) => {
                    let left = self.live.remove(&turn).unwrap_or_default();
                    self.expired.add(left);
                }
                Step::Begin(turn, amount) => {
                    self.granted.add(amount);
                    self.live.insert(turn, amount);
                    let debt = std::mem::take(&mut self.debt);
                    self.take(debt);
                }
                Step::Use(amount) => {
                    self.spent.add(amount);
                    self.take(amount);
                }
            }
        }
    }

    /// Takes an amount from the lots in their order; what they do not cover is debt.
    fn take(&mut self, mut amount: Exact) {
        while amount > Exact::ZERO
            && let Some(mut lot) = self.live.first_entry()
        {
            let paid = amount.min(*lot.get());
            amount.add(-paid);
            lot.get_mut().add(-paid);
            if *lot.get() == Exact::ZERO {
                lot.remove();
            }
        }
        self.debt.add(amount);
    }

    /// What is left; below zero, what is owed.
    pub(crate) fn balance(&self) -> Exact {
        let mut balance = -self.debt;
        self.live.values().for_each(|left| balance.add(*left));
        balance
    }

    /// What is left of a lot.
    pub(crate) fn left_of(&self, lot: &Lot) -> Exact {
        self.live.get(&lot.turn()).copied().unwrap_or_default()
    }

    /// When the next lot expires of which something is left, in milliseconds since 1970, UTC.
    pub(crate) fn next_expiry_ms(&self) -> Option<i64> {
        let (expires_ms, ..) = self.live.first_key_value()?.0;
        (*expires_ms < i64::MAX).then_some(*expires_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Exact {
        Exact::parse(text).expect(text)
    }

    fn lot(top_up_id: &str, text: &str, from_ms: i64, expires_ms: Option<i64>) -> Lot {
        Lot { top_up_id: top_up_id.to_owned(), amount: amount(text), from_ms, expires_ms }
    }

    #[test]
    fn lots_pay_in_the_order_in_which_they_expire_and_debt_first() {
        let (a, b) = (lot("a", "10", 0, None), lot("b", "5", 10, Some(20)));
        for (lots, used, now_ms, expected) in [
            // Balance, spent, expired.
            (vec![], vec![], 0, ["0", "0", "0"]),
            (vec![a.clone()], vec![(0, "3")], 0, ["7", "3", "0"]),
            (vec![a.clone()], vec![(0, "13")], 0, ["-3", "13", "0"]),
            // What expires first pays first; the rest of it is gone at that moment.
            (vec![a.clone(), b.clone()], vec![(9, "1"), (15, "2")], 19, ["12", "3", "0"]),
            (vec![a.clone(), b.clone()], vec![(9, "1"), (15, "2")], 20, ["9", "3", "3"]),
            (vec![a.clone(), b.clone()], vec![(10, "2"), (20, "2")], 20, ["8", "4", "3"]),
            // One that has not begun pays nothing.
            (vec![b.clone()], vec![], 9, ["0", "0", "0"]),
            // Debt is paid by the next lot, whatever becomes of that.
            (vec![a.clone(), b.clone()], vec![(5, "12")], 15, ["3", "12", "0"]),
            (vec![a.clone(), b.clone()], vec![(5, "12")], 25, ["0", "12", "3"]),
            (vec![lot("a", "1", 0, Some(2)), b.clone()], vec![(3, "1")], 25, ["0", "1", "5"]),
        ] {
            let used: Vec<(i64, Exact)> =
                used.iter().map(|(at, text)| (*at, amount(text))).collect();
            let expected = expected.map(str::to_owned);
            let shown = |standing: &Standing| {
                let Standing { spent, expired, .. } = standing;
                [standing.balance(), *spent, *expired].map(|sum| sum.to_string())
            };
            let mut standing = Standing::default();
            standing.play(&lots, &used, i64::MIN, now_ms);
            assert_eq!(shown(&standing), expected, "{lots:?} {used:?} at {now_ms}");
            let mut others = -standing.balance();
            [standing.spent, standing.expired].iter().for_each(|sum| others.add(-*sum));
            others.add(standing.granted);
            assert_eq!(others, Exact::ZERO, "granted is spent, expired and left");
            // In two parts, at any moment between, it is the same.
            for cut_ms in 0..=now_ms {
                let (before, after): (Vec<_>, Vec<_>) =
                    used.iter().copied().partition(|(at_ms, _)| *at_ms < cut_ms);
                let mut parts = Standing::default();
                parts.play(&lots, &before, i64::MIN, cut_ms - 1);
                parts.play(&lots, &after, cut_ms, now_ms);
                assert_eq!(parts, standing, "cut at {cut_ms}");
            }
        }
    }

    #[test]
    fn the_next_expiry_is_that_of_what_is_left() {
        let lots = [lot("a", "1", 0, Some(30)), lot("b", "5", 0, Some(20)), lot("c", "1", 0, None)];
        for (used, expected) in [("0", Some(20)), ("5", Some(30)), ("6", None), ("9", None)] {
            let mut standing = Standing::default();
            standing.play(&lots, &[(1, amount(used))], i64::MIN, 10);
            assert_eq!(standing.next_expiry_ms(), expected, "{used}");
        }
    }
}

//! Totals by scope and period, and the level of each scope. Only the accountant writes the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;

use crate::base::limits::{GUARD_SCOPES_MAX, GUARD_SCOPES_PER_CUSTOMER_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::config::{Action, Config, Guard, OnCollectorLoss};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::guard::level::Remaining;
use crate::guard::scope::ScopeName;
use crate::guard::scope_state::{LevelChangeReason, Position, ScopeState};
use crate::guard::scope_status::{ScopeStatus, bucket, counters};
use crate::host::Host;
use crate::shared_data::shares::{Holder, Shares};
use crate::shared_data::slots::Slots;

/// A change of a scope's level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The scope's slot.
    pub slot: u32,
    /// The level before.
    pub from: Level,
    /// The level after.
    pub to: Level,
    /// The reason.
    pub reason: LevelChangeReason,
    /// The position of the scope.
    pub position: Position,
}

/// All scopes of all guards.
#[derive(Debug, Default)]
pub(crate) struct ScopeTable {
    pub(crate) slots: Slots<ScopeState>,
    by_key: HashMap<ScopeKey, u32>,
    by_bucket: BTreeMap<u32, BTreeSet<u32>>,
    ends: BTreeSet<(Timestamp, u32)>,
    /// Which scopes each customer has with each guard, and when each was active, or earlier: an
    /// entry moves only when `least_recent` reads it. Scopes for the rest are apart.
    shares: Shares,
    recent_entries: BTreeMap<u32, Timestamp>,
    /// The scopes that stand for the rest of a customer's, with their guards: see
    /// [`ScopeName::rest`].
    rests: BTreeMap<Holder, u32>,
    /// Scopes that a new period has found, with nothing in it yet.
    at_ease: BTreeSet<(Holder, u32)>,
    /// Loops, and when to evaluate them again, because their calls leave the window.
    loops: BTreeMap<u32, Timestamp>,
    /// The scopes to evaluate, and the reason if it is not a change of totals.
    touched: BTreeMap<u32, Option<LevelChangeReason>>,
    dirty_buckets: BTreeSet<u32>,
}

impl ScopeTable {
    /// Restores a slot from shared data, to be evaluated by the configuration in force.
    pub(crate) fn restore(&mut self, slot: u32, state: Option<ScopeState>) {
        if let Some(state) = &state {
            self.index(slot, state);
            self.touched.insert(slot, Some(LevelChangeReason::Configuration));
        }
        self.slots.restore(slot, state);
    }

    fn index(&mut self, slot: u32, state: &ScopeState) {
        self.by_key.insert(state.key, slot);
        self.by_bucket.entry(bucket(&state.key)).or_default().insert(slot);
        self.ends.extend(state.period_ends_at.map(|end| (end, slot)));
        let holder = state.holder();
        if state.name.is_rest() {
            self.rests.insert(holder, slot);
            self.soil_all(&holder);
        } else {
            self.shares.insert(holder, state.active_at, slot);
            self.recent_entries.insert(slot, state.active_at);
        }
    }

    /// Marks the statuses of all scopes that a customer has with a guard to be written again.
    fn soil_all(&mut self, holder: &Holder) {
        let keys = self.shares.of(holder).filter_map(|slot| self.slots.get(slot));
        self.dirty_buckets.extend(keys.map(|state| bucket(&state.key)));
    }

    /// The slot of the scope with this key.
    pub(crate) fn find(&self, key: &ScopeKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The scope in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&ScopeState> {
        self.slots.get(slot)
    }

    /// Finds or adds a scope. Returns its slot, and whether the customer has more scopes than its
    /// share. Then the slot is that of the scope for the rest, whose totals are those of all scopes
    /// beyond the share, so that none of a running period is forgotten. `None` means that even the
    /// customers and guards are too many for one scope each.
    pub(crate) fn open(
        &mut self,
        guard: &Guard,
        name: ScopeName,
        currency: &str,
        now: Timestamp,
    ) -> (Option<u32>, bool) {
        let key = name.key(guard);
        if let Some(slot) = self.find(&key) {
            self.relabel(slot, guard, now);
            return (Some(slot), false);
        }
        let new = ScopeState::new(guard, name, currency, now);
        let holder = new.holder();
        let rest = new.name.rest().map(|name| ScopeState::new(guard, name, currency, now));
        if let Some(slot) = self.rests.get(&holder).copied()
            && !(self.at_ease.contains(&(holder, slot)) && self.drop_at_ease(holder, slot))
        {
            // What was added to it may be of this scope.
            self.relabel(slot, guard, now);
            return (Some(slot), true);
        }
        let is_over = self.shares.len(&holder) >= GUARD_SCOPES_PER_CUSTOMER_MAX
            && !self.drop_one_at_ease(Some(holder));
        if !is_over && self.has_room(&holder, now) {
            return (Some(self.insert(&new)), false);
        }
        if guard.loop_rule.is_some()
            && let Some(oldest) = self.least_recent(&holder)
        {
            // A window of calls is no total.
            self.remove(oldest);
            return (Some(self.insert(&new)), true);
        }
        if self.slots.len() >= GUARD_SCOPES_MAX.saturating_mul(2) {
            return (None, true);
        }
        (Some(self.insert(&rest.unwrap_or(new))), true)
    }

    fn insert(&mut self, state: &ScopeState) -> u32 {
        let slot = self.slots.insert(state.clone());
        self.index(slot, state);
        slot
    }

    /// Whether there is room for one more scope of this customer, after the one who has the most
    /// has given way: its least recently active scope becomes a part of the rest.
    fn has_room(&mut self, newcomer: &Holder, now: Timestamp) -> bool {
        if self.slots.len() < GUARD_SCOPES_MAX || self.drop_one_at_ease(None) {
            return true;
        }
        let giver = self.shares.who_gives_way(newcomer);
        let giver = giver.filter(|giver| giver != newcomer && self.shares.len(giver) > 1);
        let Some(giver) = giver else { return false };
        // The first that becomes a part of the rest makes no room, as the rest needs a scope too.
        for _ in 0..2 {
            if self.slots.len() >= GUARD_SCOPES_MAX
                && let Some(slot) = self.least_recent(&giver)
            {
                self.fold(slot, now);
            }
        }
        self.slots.len() < GUARD_SCOPES_MAX
    }

    /// Makes a scope a part of its customer's rest.
    fn fold(&mut self, slot: u32, now: Timestamp) {
        let Some(state) = self.slots.get(slot).cloned() else { return };
        self.remove(slot);
        let none = ScopeTotals::default();
        let is_present = state.period_ends_at.is_none_or(|end| now < end);
        if !is_present || (&state.own, &state.others) == (&none, &none) {
            return;
        }
        let holder = state.holder();
        let rest = self.rests.get(&holder).copied().or_else(|| {
            let name = state.name.rest()?;
            let key = name.key_for(&state.guard_id);
            let (own, others) = (none.clone(), none.clone());
            let empty = ScopeState { name, key, own, others, level: Level::None, ..state.clone() };
            Some(self.insert(&ScopeState { settled: Decimal::ZERO, prepaid: None, ..empty }))
        });
        if let Some(rest) = rest {
            self.change(rest, |rest| {
                // A sum that does not fit a decimal stays as it is.
                let _ = rest.own.add(&state.own);
                let _ = rest.others.add(&state.others);
                rest.active_at = rest.active_at.max(state.active_at);
            });
        }
    }

    /// Drops a scope whose period is over and in which nothing has happened since, of this
    /// customer and guard or of any; `false` if there is none.
    fn drop_one_at_ease(&mut self, of: Option<Holder>) -> bool {
        let from = (of.unwrap_or_default(), 0);
        while let Some((holder, slot)) = self.at_ease.range(from..).next().copied() {
            if of.is_some_and(|of| of != holder) {
                return false;
            }
            if self.drop_at_ease(holder, slot) {
                return true;
            }
        }
        false
    }

    fn drop_at_ease(&mut self, holder: Holder, slot: u32) -> bool {
        self.at_ease.remove(&(holder, slot));
        let none = ScopeTotals::default();
        let holds_nothing = |state: &ScopeState| {
            state.level == Level::None
                && (&state.own, &state.others) == (&none, &none)
                && state.settled.is_zero()
        };
        let is_dropped = self.slots.get(slot).is_some_and(holds_nothing);
        if is_dropped {
            self.remove(slot);
        }
        is_dropped
    }

    /// Moves a scope whose period begins after `now`, as the clock was wrong before, to the present
    /// period. The scope's totals stay.
    fn relabel(&mut self, slot: u32, guard: &Guard, now: Timestamp) {
        let is_ahead = self.get(slot).is_some_and(|state| now < state.period_started_at);
        if let Some(state) = self.slots.get_mut(slot).filter(|_| is_ahead) {
            let (start, end) = guard.period.around(now);
            if let Some(old) = state.period_ends_at {
                self.ends.remove(&(old, slot));
            }
            (state.period_started_at, state.period_ends_at) = (start, end);
            self.ends.extend(end.map(|end| (end, slot)));
        }
    }

    /// Changes a scope, and marks it for evaluation.
    pub(crate) fn change(&mut self, slot: u32, change: impl FnOnce(&mut ScopeState)) {
        if let Some(state) = self.slots.get_mut(slot) {
            change(state);
            if !self.at_ease.is_empty() {
                self.at_ease.remove(&(state.holder(), slot));
            }
            self.touched.entry(slot).or_default();
        }
    }

    /// Takes in the other Envoys' totals from the collector; `false` if they are of another period.
    pub(crate) fn apply_fleet_totals(
        &mut self,
        slot: u32,
        period_started_at: &str,
        others: &ScopeTotals,
        contracted: Option<Decimal>,
        prepaid: Option<Decimal>,
    ) -> bool {
        let is_present =
            self.get(slot).is_some_and(|state| is_time(state.period_started_at, period_started_at));
        if is_present {
            self.change(slot, |state| {
                state.others.grow_to(others);
                state.contracted = contracted.or(state.contracted);
                state.prepaid = prepaid.or(state.prepaid);
            });
        }
        is_present
    }

    /// Marks the scopes of guards that depend on the collector for evaluation: it is lost or back.
    pub(crate) fn collector(&mut self, config: &Config, is_lost: bool) {
        let cares = |state: &ScopeState| {
            let guard = config.guard(&state.guard_id);
            guard.is_some_and(|guard| guard.on_collector_loss != OnCollectorLoss::Local)
        };
        let caring = self.slots.iter().filter(|(_, state)| cares(state));
        let slots: Vec<u32> = caring.map(|(slot, _)| slot).collect();
        let reason = if is_lost {
            LevelChangeReason::CollectorLost
        } else {
            LevelChangeReason::CollectorBack
        };
        self.touched.extend(slots.into_iter().map(|slot| (slot, Some(reason))));
    }

    /// Begins new periods where old ones have ended, and marks loops that are due for evaluation.
    pub(crate) fn roll(&mut self, config: &Config, now: Timestamp) {
        let due = self.loops.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot);
        for slot in due {
            self.touched.entry(slot).or_default();
        }
        while let Some((end, slot)) = self.ends.first().copied()
            && end <= now
        {
            self.ends.pop_first();
            let Some(guard) = self.get(slot).and_then(|state| config.guard(&state.guard_id)) else {
                continue;
            };
            let (start, next) = guard.period.around(now);
            if let Some(state) = self.slots.get_mut(slot)
                && state.period_ends_at == Some(end)
            {
                (state.period_started_at, state.period_ends_at) = (start, next);
                state.carry_prepaid();
                (state.own, state.others) = (ScopeTotals::default(), ScopeTotals::default());
                self.at_ease.insert((state.holder(), slot));
                self.ends.extend(next.map(|next| (next, slot)));
                self.touched.insert(slot, Some(LevelChangeReason::PeriodStarted));
            }
        }
        self.end_rests(config, now);
    }

    /// Ends the rest of sessions, which has no period, when every session in it must be closed.
    fn end_rests(&mut self, config: &Config, now: Timestamp) {
        let longest =
            config.products.iter().map(|product| product.session.session_timeout.millis());
        let longest = longest.max().unwrap_or(Millis(0));
        let is_over = |slot: &u32| {
            self.slots.get(*slot).is_some_and(|state| {
                state.name.kind == ScopeKind::Session
                    && now.saturating_since(state.active_at) > longest
            })
        };
        let over: Vec<u32> = self.rests.values().copied().filter(is_over).collect();
        for slot in over {
            self.remove(slot);
        }
    }

    /// Removes a scope.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(state) = self.slots.remove(slot) else { return };
        self.by_key.remove(&state.key);
        let number = bucket(&state.key);
        if let Some(slots) = self.by_bucket.get_mut(&number) {
            slots.remove(&slot);
        }
        self.dirty_buckets.insert(number);
        if let Some(end) = state.period_ends_at {
            self.ends.remove(&(end, slot));
        }
        let holder = state.holder();
        if let Some(entry) = self.recent_entries.remove(&slot) {
            self.shares.remove(&holder, entry, slot);
        } else {
            self.rests.remove(&holder);
            self.soil_all(&holder);
        }
        self.at_ease.remove(&(holder, slot));
        self.touched.remove(&slot);
        self.loops.remove(&slot);
    }

    /// Evaluates the marked scopes. Returns the changes of level, and the slots of these scopes.
    pub(crate) fn evaluate(
        &mut self,
        config: &Config,
        is_lost: bool,
        now: Timestamp,
    ) -> (Vec<Change>, Vec<u32>) {
        let mut changes = Vec::new();
        let touched = core::mem::take(&mut self.touched);
        let slots: Vec<u32> = touched.keys().copied().collect();
        for (slot, cause) in touched {
            let Some(state) = self.slots.get(slot) else { continue };
            self.dirty_buckets.insert(bucket(&state.key));
            let from = state.level;
            let guard = config.guard(&state.guard_id);
            let rule = guard.and_then(|guard| guard.loop_rule);
            let found = guard.map(|guard| {
                let (level, position, is_fleet) = state.evaluate(config, guard, now);
                let by_loss = match guard.on_collector_loss {
                    OnCollectorLoss::Allow if is_lost => Some(Level::None),
                    OnCollectorLoss::Block if is_lost => Some(Level::Block),
                    _ => None,
                };
                (by_loss.unwrap_or(level), position, is_fleet, by_loss.is_some())
            });
            // A guard that the configuration no longer contains guards nothing.
            let nothing = Position {
                basis: Decimal::ZERO,
                spent: Decimal::ZERO,
                remaining: Remaining::Unguarded,
            };
            let (to, position, is_fleet, is_by_loss) =
                found.unwrap_or((Level::None, nothing, false, false));
            match rule {
                Some(rule) if to > Level::None => self.loops.insert(slot, rule.next_part(now)),
                _ => self.loops.remove(&slot),
            };
            if to == from {
                continue;
            }
            let by_totals = match (to > from, is_fleet) {
                (true, true) => LevelChangeReason::Fleet,
                (true, false) if rule.is_some() => LevelChangeReason::RepeatedCall,
                (true, false) => LevelChangeReason::Threshold,
                (false, _) => LevelChangeReason::Recovered,
            };
            let by_loss = is_by_loss.then_some(LevelChangeReason::CollectorLost);
            let reason = cause.or(by_loss).unwrap_or(by_totals);
            changes.push(Change { slot, from, to, reason, position });
            if let Some(state) = self.slots.get_mut(slot) {
                state.level = to;
            }
        }
        (changes, slots)
    }

    /// The buckets of statuses that the accountant must write again.
    pub(crate) fn take_statuses(&mut self, config: &Config) -> Vec<(u32, Vec<ScopeStatus>)> {
        let dirty = core::mem::take(&mut self.dirty_buckets);
        let statuses_of = |number: &u32| {
            let slots = self.by_bucket.get(number).into_iter().flatten();
            let states = slots.filter_map(|slot| self.slots.get(*slot));
            let statuses = states.filter_map(|state| {
                let guard = config.guard(&state.guard_id)?;
                // A worker takes a scope without a status for a part of the rest.
                let has_rest = !self.rests.is_empty() && self.rests.contains_key(&state.holder());
                state.scope_status(config, guard, has_rest)
            });
            statuses.collect()
        };
        dirty.into_iter().map(|number| (number, statuses_of(&number))).collect()
    }

    /// Marks the bucket of a scope's status to be written again.
    pub(crate) fn soil(&mut self, key: &ScopeKey) {
        self.dirty_buckets.insert(bucket(key));
    }

    /// What workers have ever reserved in the scopes whose guards reserve, bucket by bucket.
    pub(crate) fn counters<H: Host>(
        &self,
        host: &mut H,
        prefix: &str,
        config: &Config,
    ) -> Vec<Vec<(u32, Decimal)>> {
        let reserves = |slot: &&u32| {
            let guard = self.slots.get(**slot).and_then(|state| config.guard(&state.guard_id));
            guard.is_some_and(|guard| guard.does(Action::Reserve))
        };
        let with_slots =
            self.by_bucket.iter().filter(|(_, slots)| slots.iter().any(|s| reserves(&s)));
        let numbers: Vec<u32> = with_slots.map(|(number, _)| *number).collect();
        let of_bucket = |number: u32| {
            let counters = counters(host, prefix, number).into_iter();
            counters
                .filter_map(|counter| Some((self.find(&counter.key)?, counter.reserved)))
                .collect()
        };
        numbers.into_iter().map(of_bucket).collect()
    }

    /// The least recently active scope that a customer has with a guard.
    fn least_recent(&mut self, holder: &Holder) -> Option<u32> {
        while let Some((entry, slot)) = self.shares.first(holder) {
            let active_at = self.slots.get(slot).map_or(entry, |state| state.active_at);
            if active_at <= entry {
                return Some(slot);
            }
            self.shares.remove(holder, entry, slot);
            self.shares.insert(*holder, active_at, slot);
            self.recent_entries.insert(slot, active_at);
        }
        None
    }
}

/// Whether an RFC 3339 text in UTC, with any number of zeros behind its fraction, is this time.
fn is_time(time: Timestamp, text: &str) -> bool {
    let time = time.to_rfc3339();
    let basis = |text: &str| {
        let text = text.trim_end_matches('Z');
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        (seconds.to_owned(), fraction.trim_end_matches('0').to_owned())
    };
    basis(&time) == basis(text)
}

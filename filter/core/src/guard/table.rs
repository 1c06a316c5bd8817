//! Totals by scope and period, and the level of each scope. Only the accountant writes the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;

use crate::base::limits::{GUARD_SCOPES_MAX, GUARD_SCOPES_SPARED};
use crate::base::time::Timestamp;
use crate::config::{Action, Config, Guard, OnCollectorLoss};
use crate::domain::level::Level;
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::guard::level::Remaining;
use crate::guard::loop_window::LoopWindow;
use crate::guard::scope::ScopeName;
use crate::guard::scope_state::{LevelChangeReason, Position, ScopeState};
use crate::guard::scope_status::{ScopeStatus, bucket, counters};
use crate::host::Host;
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
    /// When each was active, or earlier: an entry moves only when `least_recent` reads it.
    recent: BTreeSet<(Timestamp, u32)>,
    recent_entries: BTreeMap<u32, Timestamp>,
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
        self.enter(slot, state.active_at);
    }

    fn enter(&mut self, slot: u32, active_at: Timestamp) {
        self.recent.insert((active_at, slot));
        self.recent_entries.insert(slot, active_at);
    }

    /// The slot of the scope with this key.
    pub(crate) fn find(&self, key: &ScopeKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The scope in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&ScopeState> {
        self.slots.get(slot)
    }

    /// Finds or adds a scope. Returns its slot, and whether the table forgot another scope for it.
    pub(crate) fn open(
        &mut self,
        guard: &Guard,
        name: ScopeName,
        currency: &str,
        now: Timestamp,
    ) -> (u32, bool) {
        let key = name.key(guard);
        if let Some(slot) = self.find(&key) {
            self.relabel(slot, guard, now);
            return (slot, false);
        }
        let is_full = self.slots.len() >= GUARD_SCOPES_MAX;
        if is_full && let Some(oldest) = self.least_recent() {
            self.remove(oldest);
        }
        let (period_started_at, period_ends_at) = guard.period.around(now);
        let state = ScopeState {
            guard_id: guard.id.clone(),
            name,
            key,
            currency: currency.to_owned(),
            period_started_at,
            period_ends_at,
            own: ScopeTotals::default(),
            others: ScopeTotals::default(),
            contracted: None,
            level: Level::None,
            settled: Decimal::ZERO,
            loop_window: LoopWindow::default(),
            active_at: now,
        };
        let slot = self.slots.insert(state.clone());
        self.index(slot, &state);
        (slot, is_full)
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
    ) -> bool {
        let is_present =
            self.get(slot).is_some_and(|state| is_time(state.period_started_at, period_started_at));
        if is_present {
            self.change(slot, |state| {
                state.others.grow_to(others);
                state.contracted = contracted.or(state.contracted);
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
                (state.own, state.others) = (ScopeTotals::default(), ScopeTotals::default());
                self.ends.extend(next.map(|next| (next, slot)));
                self.touched.insert(slot, Some(LevelChangeReason::PeriodStarted));
            }
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
        if let Some(entry) = self.recent_entries.remove(&slot) {
            self.recent.remove(&(entry, slot));
        }
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
            states.filter_map(|s| s.scope_status(config, config.guard(&s.guard_id)?)).collect()
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

    /// The least recently active scope that is within limits; the oldest if none is found among the
    /// first [`GUARD_SCOPES_SPARED`].
    fn least_recent(&mut self) -> Option<u32> {
        let mut spared = Vec::new();
        let mut found = None;
        while found.is_none()
            && spared.len() < GUARD_SCOPES_SPARED
            && let Some((entry, slot)) = self.recent.pop_first()
        {
            let Some(state) = self.slots.get(slot) else { continue };
            if state.active_at > entry {
                self.enter(slot, state.active_at);
            } else {
                found = (state.level == Level::None).then_some(slot);
                spared.push((entry, slot));
            }
        }
        let oldest = spared.first().map(|(_, slot)| *slot);
        self.recent.extend(spared);
        found.or(oldest)
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

//! Totals by scope and period, and the level that each is at. One writer owns the table: the accountant.

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

/// What a change of level was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The scope.
    pub slot: u32,
    /// Before.
    pub from: Level,
    /// After.
    pub to: Level,
    /// Why.
    pub reason: LevelChangeReason,
    /// How it stands.
    pub position: Position,
}

/// All scopes.
#[derive(Debug, Default)]
pub struct ScopeTable {
    pub(crate) slots: Slots<ScopeState>,
    by_key: HashMap<ScopeKey, u32>,
    by_bucket: BTreeMap<u32, BTreeSet<u32>>,
    ends: BTreeSet<(Timestamp, u32)>,
    /// When each was active, or earlier: moved only when it is looked at.
    recent: BTreeSet<(Timestamp, u32)>,
    recent_entries: BTreeMap<u32, Timestamp>,
    /// Loops, and when they have to be looked at again, as their calls grow old.
    loops: BTreeMap<u32, Timestamp>,
    /// To be evaluated, and why if that is not by what was added.
    touched: BTreeMap<u32, Option<LevelChangeReason>>,
    dirty_buckets: BTreeSet<u32>,
}

impl ScopeTable {
    /// Puts back what was read from shared data, to be evaluated by the configuration in force.
    pub fn restore(&mut self, slot: u32, state: Option<ScopeState>) {
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

    /// The scope with this key.
    pub fn find(&self, key: &ScopeKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The scope in a slot.
    pub fn get(&self, slot: u32) -> Option<&ScopeState> {
        self.slots.get(slot)
    }

    /// The slot of a scope, which is there from now on, and whether another was forgotten for it.
    pub fn open(
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
            loop_rule: LoopWindow::default(),
            active_at: now,
        };
        let slot = self.slots.insert(state.clone());
        self.index(slot, &state);
        (slot, is_full)
    }

    /// A scope whose period begins after `now` has seen the clock go wrong: its totals stay, under the present period.
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

    /// Changes a scope, which is evaluated then.
    pub fn change(&mut self, slot: u32, change: impl FnOnce(&mut ScopeState)) {
        if let Some(state) = self.slots.get_mut(slot) {
            change(state);
            self.touched.entry(slot).or_default();
        }
    }

    /// Takes in what the collector tells of the other Envoys; `false` if it is of another period.
    pub fn apply_fleet_totals(
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

    /// Lets every scope of guards that care be evaluated anew, as the collector is lost or back.
    pub fn collector(&mut self, config: &Config, is_lost: bool) {
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

    /// Begins new periods where old ones have ended, and lets loops be looked at.
    pub fn roll(&mut self, config: &Config, now: Timestamp) {
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

    /// Forgets the scope of a session that is closed.
    pub fn remove(&mut self, slot: u32) {
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

    /// Evaluates what was touched. Gives the changes of level, and the slots that were looked at.
    pub fn evaluate(
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
            // A guard that is no longer configured guards nothing.
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

    /// The buckets of statuses that have to be written anew.
    pub fn take_statuses(&mut self, config: &Config) -> Vec<(u32, Vec<ScopeStatus>)> {
        let dirty = core::mem::take(&mut self.dirty_buckets);
        let statuses_of = |number: &u32| {
            let slots = self.by_bucket.get(number).into_iter().flatten();
            let states = slots.filter_map(|slot| self.slots.get(*slot));
            states.filter_map(|s| s.scope_status(config, config.guard(&s.guard_id)?)).collect()
        };
        dirty.into_iter().map(|number| (number, statuses_of(&number))).collect()
    }

    /// Lets a bucket be written anew.
    pub fn soil(&mut self, key: &ScopeKey) {
        self.dirty_buckets.insert(bucket(key));
    }

    /// What workers have ever reserved, of all scopes whose guards reserve; one bucket after the other.
    pub fn counters<H: Host>(
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

    /// The least recently active scope that is at ease, or one of the oldest if those are not.
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

/// Whether a text in RFC 3339, in UTC and with as many zeros of a second as its writer likes, is this time.
fn is_time(time: Timestamp, text: &str) -> bool {
    let time = time.to_rfc3339();
    let basis = |text: &str| {
        let text = text.trim_end_matches('Z');
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        (seconds.to_owned(), fraction.trim_end_matches('0').to_owned())
    };
    basis(&time) == basis(text)
}

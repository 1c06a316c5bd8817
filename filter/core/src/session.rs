//! Sessions: CREATED, ACTIVE, IDLE, CLOSED, and the totals that the final billing event carries.
//! One writer owns the table: the accountant.
//!
//! To the next maintainer: a session has one entry in `due` and one in `recent`, which are *not* moved on each call:
//! an entry that turns out to be early when it is looked at is put back at its true place. So a call costs no
//! tree operation, and a tick costs what is due. An entry may be early, never late: a session that wakes up is due
//! sooner than while it was idle, so its entry is moved.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::active_time::ActiveTime;
use crate::config::SessionRules;
use crate::fact::{CallEnded, GenerationEnded, SessionEnd, SessionRef};
use crate::free_slots::FreeSlots;
use crate::limits::{OTHER, TOOLS_PER_SESSION_MAX};
use crate::pricing::Charge;
use crate::session_key::identity_key;
use crate::session_tokens::{GenerationTotals, TokenCharge};
use crate::status::ExecutionStatus;
use crate::units::{Timestamp, count};

/// Where a session stands; a closed one is no longer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// One call so far.
    Created,
    /// Further calls came.
    Active,
    /// No activity for the product's `idle_timeout`.
    Idle,
    /// Over.
    Closed,
}

impl SessionState {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Active => "ACTIVE",
            Self::Idle => "IDLE",
            Self::Closed => "CLOSED",
        }
    }
}

/// Why a session was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No activity for the product's `session_timeout`.
    SessionTimeout,
    /// The client or the server ended it.
    Ended(SessionEnd),
    /// Room was needed for a new one, and this was the least recently active.
    TableFull,
    /// The identity has as many sessions as its product allows, and this was its least recently active.
    IdentityLimit,
    /// Envoy stops.
    Shutdown,
}

impl CloseReason {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionTimeout => "session_timeout",
            Self::Ended(SessionEnd::ClientDelete) => "client_delete",
            Self::Ended(SessionEnd::SessionGone) => "session_gone",
            Self::Ended(SessionEnd::Closed) => "closed",
            Self::IdentityLimit => "identity_limit",
            Self::TableFull => "table_full",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What was counted under one heading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Calls of any outcome.
    pub calls: u64,
    /// Calls that were charged.
    pub billable_calls: u64,
    /// What the customer is charged.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
    /// What the operator pays to providers.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
}

impl Totals {
    /// Adds one call; `false` if the revenue no longer fits a decimal, and is left as it was.
    fn add(&mut self, charge: &Charge<'_>) -> bool {
        self.calls = self.calls.saturating_add(1);
        self.billable_calls = self.billable_calls.saturating_add(u64::from(charge.is_billable));
        add_money(&mut self.revenue, charge.price)
    }
}

/// Adds to a sum; `false` if it no longer fits a decimal, and is left as it was.
pub(crate) fn add_money(sum: &mut Decimal, amount: Decimal) -> bool {
    match sum.checked_add(amount) {
        Some(new) => {
            *sum = new;
            true
        }
        None => false,
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What names it.
    pub session: SessionRef,
    /// The currency of its totals.
    pub currency: String,
    /// Unique for each span that is billed.
    pub id: [u8; 16],
    /// Where it stands.
    pub state: SessionState,
    /// The start of its first call.
    pub started_at: Timestamp,
    /// The end of its last call.
    pub ended_at: Timestamp,
    /// The last sign of life.
    pub active_at: Timestamp,
    /// All calls, and what they and their generations cost and are charged.
    pub totals: Totals,
    /// All generations.
    pub generations: GenerationTotals,
    /// Calls by outcome, in the order of [`ExecutionStatus::ALL`].
    pub by_status: BTreeMap<ExecutionStatus, u64>,
    /// Calls by tool, bounded.
    pub by_tool: BTreeMap<String, Totals>,
    /// Time during which a call ran.
    pub active: ActiveTime,
}

/// What adding a call to a session came across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The tool was added under [`OTHER`].
    pub is_tool_over_limit: bool,
    /// A sum no longer fits a decimal.
    pub is_money_over_limit: bool,
}

impl Session {
    /// A session that starts with a call, or a sign of life of one, at `started_at`.
    pub fn new(session: SessionRef, currency: String, id: [u8; 16], started_at: Timestamp) -> Self {
        Self {
            session,
            currency,
            id,
            state: SessionState::Created,
            started_at,
            ended_at: started_at,
            active_at: started_at,
            totals: Totals::default(),
            generations: GenerationTotals::default(),
            by_status: BTreeMap::new(),
            by_tool: BTreeMap::new(),
            active: ActiveTime::default(),
        }
    }

    /// Adds a call that has ended.
    pub fn add(&mut self, call: &CallEnded, charge: &Charge<'_>) -> Added {
        self.started_at = self.started_at.min(call.started_at);
        self.ended_at = self.ended_at.max(call.ended_at);
        self.active_at = self.active_at.max(call.ended_at);
        self.active.add(call.started_at, call.ended_at);
        let of_status = self.by_status.entry(call.status).or_default();
        *of_status = of_status.saturating_add(1);
        let (of_tool, is_tool_over_limit) = self.of_tool(&call.tool);
        let fits_tool = of_tool.add(charge);
        let fits = self.totals.add(charge);
        Added { is_tool_over_limit, is_money_over_limit: !(fits && fits_tool) }
    }

    /// Adds a generation that has ended, caused by a call of `tool` if that is known.
    pub fn add_generation(
        &mut self,
        generation: &GenerationEnded,
        tool: Option<&str>,
        charge: &TokenCharge<'_>,
    ) -> Added {
        self.started_at = self.started_at.min(generation.started_at);
        self.ended_at = self.ended_at.max(generation.ended_at);
        self.active_at = self.active_at.max(generation.ended_at);
        self.active.add(generation.started_at, generation.ended_at);
        let cost = charge.cost();
        let (place, is_tool_over_limit) = match tool {
            Some(tool) => {
                let (of_tool, is_over_limit) = self.of_tool(tool);
                (&mut of_tool.provider_cost, is_over_limit)
            }
            None => (&mut self.generations.unattributed_cost, false),
        };
        let fits = [
            add_money(place, cost),
            self.generations.add(generation, charge),
            add_money(&mut self.totals.provider_cost, cost),
            add_money(&mut self.totals.revenue, charge.price),
        ];
        Added { is_tool_over_limit, is_money_over_limit: fits.contains(&false) }
    }

    /// The totals of a tool, and whether they are those of all tools beyond the bound.
    fn of_tool(&mut self, tool: &str) -> (&mut Totals, bool) {
        let is_over_limit =
            self.by_tool.len() >= TOOLS_PER_SESSION_MAX && !self.by_tool.contains_key(tool);
        let tool = if is_over_limit { OTHER } else { tool };
        (self.by_tool.entry(tool.to_owned()).or_default(), is_over_limit)
    }

    fn due_at(&self, rules: &SessionRules) -> Timestamp {
        match self.state {
            SessionState::Created | SessionState::Active => {
                self.active_at.plus(rules.idle_timeout.millis())
            }
            SessionState::Idle | SessionState::Closed => {
                self.active_at.plus(rules.session_timeout.millis())
            }
        }
    }
}

/// Whose sessions count together, by these rules of the session's product.
fn limited(session: &SessionRef, rules: &SessionRules) -> [u8; 16] {
    identity_key(rules.group_of(&session.product_id), &session.identity)
}

/// What has become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The session in this slot has become idle, at this time.
    Idle(u32, Timestamp),
    /// The session in this slot has timed out, at this time.
    TimedOut(u32, Timestamp),
}

#[derive(Clone, Debug)]
struct Slot {
    session: Session,
    due_entry: Timestamp,
    recent_entry: Timestamp,
    /// Under which it stands in `by_identity`, if its product limits them.
    identity: Option<[u8; 16]>,
}

/// All sessions that are not closed, in numbered slots.
#[derive(Clone, Debug, Default)]
pub struct SessionTable {
    slots: BTreeMap<u32, Slot>,
    free: FreeSlots,
    by_key: HashMap<([u8; 16], String), u32>,
    due: BTreeSet<(Timestamp, u32)>,
    recent: BTreeSet<(Timestamp, u32)>,
    /// Sessions of products that limit how many one identity has.
    by_identity: HashMap<[u8; 16], BTreeSet<u32>>,
    dirty: BTreeSet<u32>,
}

impl SessionTable {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The number of slots that were ever in use.
    pub fn high(&self) -> u32 {
        self.free.high()
    }

    /// The slot of a session.
    pub fn find(&self, session: &SessionRef, currency: &str) -> Option<u32> {
        self.by_key.get(&(session.key, currency.to_owned())).copied()
    }

    /// The session in a slot.
    pub fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(&slot).map(|slot| &slot.session)
    }

    /// The session in a slot, to be changed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        let found = self.slots.get_mut(&slot)?;
        self.dirty.insert(slot);
        Some(&mut found.session)
    }

    /// Moves the session's entry to where it is due now.
    pub fn reschedule(&mut self, slot: u32, rules: &SessionRules) {
        let Some(found) = self.slots.get_mut(&slot) else { return };
        self.due.remove(&(found.due_entry, slot));
        found.due_entry = found.session.due_at(rules);
        self.due.insert((found.due_entry, slot));
    }

    /// Adds a session in the first free slot.
    pub fn insert(&mut self, session: Session, rules: &SessionRules) -> u32 {
        let slot = self.free.take();
        self.put(slot, session, rules);
        self.dirty.insert(slot);
        slot
    }

    /// Puts back a session that was read from shared data; a slot without one becomes free.
    pub fn restore(&mut self, slot: u32, session: Option<Session>, rules: &SessionRules) {
        self.free.restore(slot, session.is_some());
        if let Some(session) = session {
            self.put(slot, session, rules);
        }
    }

    fn put(&mut self, slot: u32, session: Session, rules: &SessionRules) {
        let due_entry = session.due_at(rules);
        let recent_entry = session.active_at;
        let identity = (rules.per_identity_max > 0).then(|| limited(&session.session, rules));
        if let Some(identity) = identity {
            self.by_identity.entry(identity).or_default().insert(slot);
        }
        self.by_key.insert((session.session.key, session.currency.clone()), slot);
        self.due.insert((due_entry, slot));
        self.recent.insert((recent_entry, slot));
        self.slots.insert(slot, Slot { session, due_entry, recent_entry, identity });
    }

    /// Takes a session out.
    pub fn remove(&mut self, slot: u32) -> Option<Session> {
        let Slot { session, due_entry, recent_entry, identity } = self.slots.remove(&slot)?;
        self.by_key.remove(&(session.session.key, session.currency.clone()));
        self.due.remove(&(due_entry, slot));
        self.recent.remove(&(recent_entry, slot));
        if let Some(identity) = identity
            && let Some(slots) = self.by_identity.get_mut(&identity)
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        self.free.give_back(slot);
        self.dirty.insert(slot);
        Some(session)
    }

    /// The least recently active session of an identity that has as many as its product allows.
    pub fn over_identity_limit(&self, session: &SessionRef, rules: &SessionRules) -> Option<u32> {
        if rules.per_identity_max == 0 {
            return None;
        }
        let slots = self.by_identity.get(&limited(session, rules))?;
        let is_full = count(slots.len()) >= u64::from(rules.per_identity_max);
        let active_at = |slot: &&u32| self.get(**slot).map(|session| session.active_at);
        is_full.then(|| slots.iter().min_by_key(active_at).copied()).flatten()
    }

    /// The slot of the least recently active session.
    pub fn least_recent(&mut self) -> Option<u32> {
        while let Some((entry, slot)) = self.recent.pop_first() {
            let Some(found) = self.slots.get_mut(&slot) else { continue };
            found.recent_entry = found.session.active_at;
            self.recent.insert((found.recent_entry, slot));
            if found.recent_entry <= entry {
                return Some(slot);
            }
        }
        None
    }

    /// The next session that has become idle or has timed out by `now`. An idle one is marked as such.
    pub fn next_due<'a>(
        &mut self,
        now: Timestamp,
        rules_of: impl Fn(&SessionRef) -> &'a SessionRules,
    ) -> Option<Due> {
        while let Some(&(entry, slot)) = self.due.first() {
            if entry > now {
                return None;
            }
            self.due.pop_first();
            let Some(found) = self.slots.get_mut(&slot) else { continue };
            let rules = rules_of(&found.session.session);
            let due_at = found.session.due_at(rules);
            if due_at > now {
                found.due_entry = due_at;
                self.due.insert((due_at, slot));
                continue;
            }
            if found.session.state == SessionState::Idle {
                // Put back until the caller removes the session.
                self.due.insert((entry, slot));
                return Some(Due::TimedOut(slot, due_at));
            }
            found.session.state = SessionState::Idle;
            found.due_entry = found.session.due_at(rules);
            self.due.insert((found.due_entry, slot));
            self.dirty.insert(slot);
            return Some(Due::Idle(slot, due_at));
        }
        None
    }

    /// The slots of all sessions.
    pub fn slots(&self) -> Vec<u32> {
        self.slots.keys().copied().collect()
    }

    /// The slots that have changed since the last time.
    pub fn take_dirty(&mut self) -> BTreeSet<u32> {
        core::mem::take(&mut self.dirty)
    }
}

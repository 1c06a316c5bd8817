//! Sessions: CREATED, ACTIVE, IDLE, CLOSED, and the totals in the final billing event. Only the
//! accountant writes the table.
//!
//! To the next maintainer: a session has one entry in `due` and one in `shares`. Calls do *not*
//! move them: when the table reads an entry that is too early, it puts the entry back at its true
//! place. So a call costs no tree operation, and a tick costs what is due. An entry may be early,
//! never late: a session that wakes up is due sooner than while it was idle, so the accountant
//! moves its entry.

pub(crate) mod active_time;
pub(crate) mod generation_totals;
pub mod table;

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::limits::{OTHER, TOOLS_PER_SESSION_MAX};
use crate::base::money::{add_money, take_money};
use crate::base::time::Timestamp;
use crate::config::SessionRules;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::domain::status::ExecutionStatus;
use crate::fact::call::CallEnded;
use crate::fact::generation::GenerationEnded;
use crate::pricing::charge::{CallCharge, Charged, TokenCharge};
use crate::session::active_time::ActiveTime;
use crate::session::generation_totals::GenerationTotals;

/// The state of a session; a closed session is no longer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// The session has had one call.
    Created,
    /// The session has had further calls.
    Active,
    /// The session was not active for the product's `idle_timeout`.
    Idle,
    /// The session has ended.
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

/// Why the accountant closed a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The session was not active for the product's `session_timeout`.
    SessionTimeout,
    /// The client or the server ended it.
    Ended(SessionEnd),
    /// The table was full, and this session was the least recently active one of the customer with
    /// the most.
    TableFull,
    /// The identity had as many sessions as it may have, and this one was the least recently
    /// active.
    IdentityLimit,
    /// Envoy shuts down.
    Shutdown,
    /// An operator drains this Envoy.
    Drain,
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
            Self::Drain => "drain",
        }
    }
}

/// Totals over calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Calls of any outcome.
    pub calls: u64,
    /// Calls that are charged.
    pub billable_calls: u64,
    /// What the customer is charged.
    #[serde(with = "rust_decimal::serde::str")]
    pub revenue: Decimal,
    /// What the operator pays to providers.
    #[serde(with = "rust_decimal::serde::str")]
    pub provider_cost: Decimal,
}

impl Totals {
    /// Adds one call; `false` if the revenue no longer fits a decimal, and stays as it was.
    fn add(&mut self, charge: &CallCharge<'_>) -> bool {
        self.calls = self.calls.saturating_add(charge.calls);
        let billable = if charge.is_billable { charge.calls } else { 0 };
        self.billable_calls = self.billable_calls.saturating_add(billable);
        add_money(&mut self.revenue, charge.price)
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its product, identity and key.
    pub reference: SessionRef,
    /// The currency of its totals.
    pub currency: String,
    /// A unique id for each span that is billed.
    #[serde(with = "serde_bytes")]
    pub id: [u8; 16],
    /// The present state.
    pub state: SessionState,
    /// The start of its first call or generation.
    pub started_at: Timestamp,
    /// The end of its last call or generation.
    pub ended_at: Timestamp,
    /// The time of its last activity.
    pub(crate) active_at: Timestamp,
    /// All calls, with the cost and the revenue of the calls and their generations.
    pub totals: Totals,
    /// All generations.
    pub generations: GenerationTotals,
    /// Calls by outcome, in the order of [`ExecutionStatus::ALL`].
    pub by_status: BTreeMap<ExecutionStatus, u64>,
    /// Calls by tool; the number of tools is bounded.
    pub by_tool: BTreeMap<String, Totals>,
    /// The time during which a call ran.
    pub active: ActiveTime,
}

/// The limits that an addition to a session reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// True if the tool was added under [`OTHER`].
    pub(crate) is_tool_over_limit: bool,
    /// True if a sum no longer fits a decimal.
    pub(crate) is_money_over_limit: bool,
}

impl Session {
    /// A session that starts at `started_at`, with a call that has ended or one that still runs.
    pub fn new(
        reference: SessionRef,
        currency: String,
        id: [u8; 16],
        started_at: Timestamp,
    ) -> Self {
        Self {
            reference,
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

    /// Adds an ended call.
    pub fn add(&mut self, call: &CallEnded, charge: &CallCharge<'_>) -> Added {
        self.started_at = self.started_at.min(call.started_at);
        self.ended_at = self.ended_at.max(call.ended_at);
        self.active_at = self.active_at.max(call.ended_at);
        self.active.add(call.started_at, call.ended_at);
        let of_status = self.by_status.entry(call.status).or_default();
        *of_status = of_status.saturating_add(charge.calls);
        let (of_tool, is_tool_over_limit) = self.of_tool(&call.tool);
        let fits_tool = of_tool.add(charge);
        let fits = self.totals.add(charge);
        Added { is_tool_over_limit, is_money_over_limit: !(fits && fits_tool) }
    }

    /// Adds an ended generation; `tool` is the tool whose call caused it, if that is known.
    pub(crate) fn add_generation(
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

    /// Takes back a generation that was added, with what was charged for it.
    pub(crate) fn take_generation(
        &mut self,
        generation: &GenerationEnded,
        tool: Option<&str>,
        charged: &Charged,
    ) {
        let place = match tool {
            Some(tool) => &mut self.of_tool(tool).0.provider_cost,
            None => &mut self.generations.unattributed_cost,
        };
        take_money(place, charged.total);
        self.generations.take(generation, charged);
        take_money(&mut self.totals.provider_cost, charged.total);
        take_money(&mut self.totals.revenue, charged.price);
    }

    /// The totals of a tool, and whether it shares them with all tools beyond the limit.
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

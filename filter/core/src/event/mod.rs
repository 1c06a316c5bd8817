//! The events that the accountant sends to the collector. The accountant makes an event once: from
//! then on its sequence number, id and time are fixed.

pub mod calls;
pub mod common;
pub mod generations;
pub mod sessions;

mod guards;
mod heartbeat;
mod write;

pub use self::write::write;
use rust_decimal::Decimal;

use crate::base::time::{Millis, Timestamp};
use crate::config::Guard;
use crate::config::product::ProductType;
use crate::domain::level::Level;
use crate::fact::call::CallEnded;
use crate::fact::generation::{Attribution, GenerationEnded};
use crate::guard::scope_state::{LevelChangeReason, Position, ScopeState};
use crate::pricing::charge::{CallCharge, TokenCharge};
use crate::session::{CloseReason, Session, SessionState};

/// The number and the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStamp {
    /// 1, 2, 3, ... without gaps within a source.
    pub sequence: u64,
    /// When the thing happened that the event reports.
    pub time: Timestamp,
}

/// What an event reports.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A call has ended.
    CallEnded {
        /// The session that the call belongs to.
        session: &'a Session,
        /// The kind of the call's product.
        product_type: ProductType,
        /// The call.
        call: &'a CallEnded,
        /// What the customer is charged for the call.
        charge: &'a CallCharge<'a>,
    },
    /// A generation has ended.
    TokenConsumption {
        /// The session that the generation belongs to.
        session: &'a Session,
        /// The product of what caused the generation, or else the generation's own product.
        product_id: &'a str,
        /// The kind of that product.
        product_type: ProductType,
        /// The generation.
        generation: &'a GenerationEnded,
        /// The id of the generation whose event, with those of its further runs, this one takes the
        /// place of.
        supersedes: Option<&'a str>,
        /// What a further run within a response was for; `None` if it is the response's own.
        purpose: Option<&'a str>,
        /// How the accountant knows what caused the generation.
        attribution: Attribution,
        /// The id and the tool of the call that caused the generation.
        call: Option<&'a (String, String)>,
        /// What the generation costs, and what the customer is charged for it.
        charge: &'a TokenCharge<'a>,
    },
    /// A session has entered a state other than CLOSED.
    SessionChanged {
        /// The session.
        session: &'a Session,
        /// The kind of the session's product.
        product_type: ProductType,
        /// The new state.
        state: SessionState,
    },
    /// The final billing event.
    SessionClosed {
        /// The session.
        session: &'a Session,
        /// The kind of the session's product.
        product_type: ProductType,
        /// Why the session was closed.
        reason: CloseReason,
    },
    /// A guard scope changed level.
    GuardLevel {
        /// The guard; `None` if the configuration no longer contains it.
        guard: Option<&'a Guard>,
        /// The scope.
        scope: &'a ScopeState,
        /// The level before.
        from: Level,
        /// The level now. A rise makes one event for each level that it passes.
        to: Level,
        /// Why the level changed.
        reason: LevelChangeReason,
        /// The position of the scope.
        position: &'a Position,
        /// The threshold at which the level begins.
        threshold: Option<Decimal>,
    },
    /// The totals of a guard scope in this Envoy.
    GuardTotals {
        /// The guard.
        guard: &'a Guard,
        /// The scope.
        scope: &'a ScopeState,
    },
    /// That the source lives, and how much it has told.
    Heartbeat {
        /// When the next one comes at the latest.
        interval: Millis,
        /// Sessions that are not closed.
        open_sessions: u64,
        /// Calls that have ended.
        calls: u64,
        /// True if the source ends.
        is_last: bool,
    },
}

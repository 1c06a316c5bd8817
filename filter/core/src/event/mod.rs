//! What the accountant tells the collector. An event is made once: its sequence number, id and time are fixed then.

pub mod calls;
pub mod common;
pub mod generations;
pub mod sessions;

mod guards;
mod write;

pub use self::write::write;
use rust_decimal::Decimal;

use crate::base::time::Timestamp;
use crate::config::Guard;
use crate::config::product::ProductType;
use crate::domain::level::Level;
use crate::fact::call::CallEnded;
use crate::fact::generation::{Attribution, GenerationEnded};
use crate::guard::scope_state::{LevelChangeReason, Position, ScopeState};
use crate::pricing::charge::{CallCharge, TokenCharge};
use crate::session::{CloseReason, Session, SessionState};

/// When an event was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStamp {
    /// 1, 2, 3, ... without a hole for a source.
    pub sequence: u64,
    /// When what the event says happened.
    pub time: Timestamp,
}

/// What an event tells.
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
        /// What it is charged.
        charge: &'a CallCharge<'a>,
    },
    /// A generation has ended.
    TokenConsumption {
        /// The session that the generation belongs to.
        session: &'a Session,
        /// The product of what caused it, else its own.
        product_id: &'a str,
        /// The kind of that product.
        product_type: ProductType,
        /// The generation.
        generation: &'a GenerationEnded,
        /// How it is known what caused it.
        attribution: Attribution,
        /// The id and the tool of the call that caused it.
        call: Option<&'a (String, String)>,
        /// What it costs and is charged.
        charge: &'a TokenCharge<'a>,
    },
    /// A session has come into a state other than CLOSED.
    SessionChanged {
        /// The session.
        session: &'a Session,
        /// The kind of the session's product.
        product_type: ProductType,
        /// The state.
        state: SessionState,
    },
    /// The final billing event.
    SessionClosed {
        /// The session.
        session: &'a Session,
        /// The kind of the session's product.
        product_type: ProductType,
        /// Why.
        reason: CloseReason,
    },
    /// A scope of a guard has come to another level.
    GuardLevel {
        /// The guard; `None` if the configuration no longer has it.
        guard: Option<&'a Guard>,
        /// The scope.
        scope: &'a ScopeState,
        /// The level before.
        from: Level,
        /// The level now: one event for each that was passed on the way up.
        to: Level,
        /// Why.
        reason: LevelChangeReason,
        /// How it stands.
        position: &'a Position,
        /// Where the level begins.
        threshold: Option<Decimal>,
    },
    /// What a scope of a guard has come to in this Envoy.
    GuardTotals {
        /// The guard.
        guard: &'a Guard,
        /// The scope.
        scope: &'a ScopeState,
    },
}

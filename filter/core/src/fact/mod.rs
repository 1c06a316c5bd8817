//! What a worker tells the accountant. Facts travel through shared data, so they are small, versioned,
//! and reading them never fails in another way than `None`.

pub mod call;
pub mod generation;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::scope_totals::ScopeKey;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::fact::call::{CallEnded, CallOpen, CallStarted, CallUpdate};
use crate::fact::generation::{GenerationEnded, GenerationStarted};

/// The version of the encoding; raised when [`Fact`] changes.
const VERSION: u8 = 7;

/// Headroom that a call has taken with guards, for what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The call, or the generation that belongs to none.
    pub call_id: String,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name.
    pub tool: String,
    /// What was reserved with which guard.
    pub amounts: Vec<ReservedAmount>,
    /// When it is given back if nothing more is told of the call.
    pub expires_at: Timestamp,
}

/// What a call has reserved with one guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedAmount {
    /// The guard.
    pub guard_id: String,
    /// The guard's scope that the call belongs to.
    pub scope: ScopeKey,
    /// The estimate of the call's cost, in the currency of the rate cards.
    #[serde(with = "rust_decimal::serde::str")]
    pub amount: Decimal,
}

/// What a worker tells the accountant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A call runs.
    CallStarted(CallStarted),
    /// A call has ended.
    Call(CallEnded),
    /// A call may end on another stream.
    Open(CallOpen),
    /// What another stream tells of a call.
    CallUpdate(CallUpdate),
    /// A call of the session has been running for a while: the session is not idle.
    Running {
        /// The session.
        session: SessionRef,
        /// When the call started.
        started_at: Timestamp,
        /// When this was seen.
        at: Timestamp,
    },
    /// A call has taken room.
    Reserved(Box<Reservation>),
    /// The stream of a call that has taken room is over, and nothing else may be told of the call.
    Released {
        /// The call.
        call_id: String,
    },
    /// A generation has been asked for.
    GenerationStarted(GenerationStarted),
    /// A generation has ended.
    Generation(Box<GenerationEnded>),
    /// The session is over.
    SessionEnd {
        /// The session.
        session: SessionRef,
        /// Why.
        reason: SessionEnd,
        /// When this was seen.
        at: Timestamp,
    },
}

impl Fact {
    /// The fact as bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain data into memory cannot fail; an empty fact would be counted as unreadable.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// The fact in `bytes`, or `None` if it is of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        postcard::from_bytes(rest).ok()
    }
}

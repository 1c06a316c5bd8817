//! What a worker reports to the accountant. Facts travel through shared data, so they are small and
//! versioned, and decoding one fails only with `None`.

pub mod call;
pub mod generation;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::identity::ANONYMOUS;
use crate::domain::ids::Link;
use crate::domain::scope_totals::ScopeKey;
use crate::domain::session::{SessionEnd, SessionRef};
use crate::fact::call::{
    Answer, CallEnded, CallOpen, CallStarted, CallUpdate, FoldedCalls, OtherOpen,
};
use crate::fact::generation::{GenerationEnded, GenerationStarted};
use crate::shared_data::shares::{Holder, holder_of};

/// The version of the encoding. Raise it when [`Fact`] changes.
const VERSION: u8 = 16;

/// Most facts take less, so that their buffer need not grow.
const FACT_BYTES_USUAL: usize = 384;

/// Headroom that a call has reserved with guards for its possible cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The call, or a generation that belongs to no call.
    pub call_id: String,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name.
    pub tool: String,
    /// The amount reserved with each guard.
    pub amounts: Vec<ReservedAmount>,
    /// When the accountant releases it if nothing more is reported about the call.
    pub(crate) expires_at: Timestamp,
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

/// A report from a worker to the accountant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A call runs.
    CallStarted(CallStarted),
    /// A call has ended.
    Call(CallEnded),
    /// Calls have ended that are alike: see [`FoldedCalls`].
    Calls(Box<FoldedCalls>),
    /// A call may end on another stream.
    Open(CallOpen),
    /// A worker saw something about a call on another stream.
    CallUpdate(CallUpdate),
    /// The server has sent the request elsewhere: the call is that of another request.
    Redirected {
        /// The call, of which nothing more is reported.
        call_id: String,
        /// Its customer.
        holder: Holder,
        /// When.
        at: Timestamp,
    },
    /// The answer to a request that is no call may come on another stream.
    OtherOpen(OtherOpen),
    /// A request that is no call was answered on its own stream, with what may be the answer to a
    /// call too.
    OtherAnswered {
        /// The answer.
        answer: Answer,
        /// The customer.
        holder: Holder,
        /// When.
        at: Timestamp,
    },
    /// A call of the session has been running for a while: the session is not idle.
    Running {
        /// The session.
        session: SessionRef,
        /// When the call started.
        started_at: Timestamp,
        /// When the worker saw this.
        at: Timestamp,
    },
    /// A call has reserved headroom.
    Reserved(Box<Reservation>),
    /// The stream of a call with a reservation has ended. Perhaps no other fact about the call
    /// follows.
    Released {
        /// The call.
        call_id: String,
        /// Its customer. Lines of earlier logs name none.
        #[serde(default)]
        holder: Holder,
    },
    /// A client has requested a generation.
    GenerationStarted(GenerationStarted),
    /// A client has requested a generation that only a later response tells.
    GenerationAwaited {
        /// What that response carries.
        link: Link,
        /// The customer.
        holder: Holder,
        /// When.
        at: Timestamp,
    },
    /// A generation has ended.
    Generation(Box<GenerationEnded>),
    /// The session is over.
    SessionEnd {
        /// The session.
        session: SessionRef,
        /// Why.
        reason: SessionEnd,
        /// When the worker saw this.
        at: Timestamp,
    },
}

impl Fact {
    /// Whether the fact is that of a whole call, of which there is one for each call, whatever
    /// comes of it: the call has ended, or it is known to end elsewhere.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self, Self::Call(_) | Self::Open(_))
    }

    /// The customer whose traffic made the worker report it.
    pub(crate) fn holder(&self) -> Holder {
        let session = match self {
            Self::CallStarted(CallStarted { session, .. })
            | Self::Call(CallEnded { session, .. })
            | Self::Open(CallOpen { call: CallEnded { session, .. }, .. })
            | Self::Running { session, .. }
            | Self::SessionEnd { session, .. } => session,
            Self::Calls(calls) => &calls.call.session,
            Self::Reserved(reserved) => &reserved.session,
            Self::Generation(generation) => &generation.session,
            Self::CallUpdate(update) => return update.holder,
            Self::OtherOpen(other) => return other.holder,
            Self::Redirected { holder, .. }
            | Self::OtherAnswered { holder, .. }
            | Self::GenerationAwaited { holder, .. } => return *holder,
            Self::Released { holder, .. } => return *holder,
            Self::GenerationStarted(started) => {
                return holder_of(started.customer.as_deref().unwrap_or(ANONYMOUS));
            }
        };
        holder_of(&session.identity.customer)
    }

    /// Encodes the fact.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain data into memory cannot fail; the accountant would count an empty fact
        // as unreadable.
        let mut bytes = Vec::with_capacity(FACT_BYTES_USUAL);
        bytes.push(VERSION);
        postcard::to_extend(self, bytes).unwrap_or_default()
    }

    /// Decodes a fact; `None` if it is of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        postcard::from_bytes(rest).ok()
    }
}

//! What a worker tells the accountant. Facts travel through shared data, so they are small, versioned,
//! and reading them never fails in another way than `None`.

use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::status::ExecutionStatus;
use crate::units::Timestamp;

/// The version of the encoding; raised when [`Fact`] changes.
const VERSION: u8 = 2;

/// Who a request is for. `anonymous` stands where the request did not tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The billed customer.
    pub customer: String,
    /// The customer's team.
    pub team: String,
    /// The agent that called.
    pub agent: String,
}

/// The session that a call belongs to: the product and a hash of what names the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The product's id in the configuration.
    pub product_id: String,
    /// Who the session is for.
    pub identity: Identity,
    /// See [`crate::session_key`].
    pub key: [u8; 16],
}

/// How the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A JSON body.
    Json,
    /// A server-sent event.
    Sse,
    /// No answer was seen.
    None,
}

/// One call that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEnded {
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name as the client wrote it, bounded.
    pub tool: String,
    /// Its outcome.
    pub status: ExecutionStatus,
    /// The response's HTTP status; 0 when no response head was seen.
    pub http_status: u16,
    /// How the answer came.
    pub transport: Transport,
    /// The end of the request.
    pub started_at: Timestamp,
    /// The end of the response message, or of the stream.
    pub ended_at: Timestamp,
}

/// A call whose stream has ended, or whose time is up, while its answer may come elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOpen {
    /// The call; its status and end are what they are if nothing more comes.
    pub call: CallEnded,
    /// What an answer will carry.
    pub link: Link,
    /// When it is over without one.
    pub expires_at: Timestamp,
}

/// What was seen of a call on another stream than its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The calls that it may be about, the likeliest first.
    pub links: Vec<Link>,
    /// When it was seen.
    pub at: Timestamp,
    /// What it tells.
    pub tells: Tells,
}

/// What evidence tells of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tells {
    /// It has ended.
    Ended {
        /// Its outcome.
        status: ExecutionStatus,
        /// The HTTP status under which the evidence came.
        http_status: u16,
        /// How it came.
        transport: Transport,
    },
    /// It goes on as a task.
    BecameTask(Link),
    /// It is a task that is not final: the server was asked, or told of it.
    Alive {
        /// When it is over if nothing more is told.
        expires_at: Timestamp,
    },
    /// The client no longer waits for it.
    Cancelled,
}

/// Why a session ends before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEnd {
    /// A `DELETE` that the server answered 2xx.
    ClientDelete,
    /// The server answered 404 to a request of the session.
    SessionGone,
}

/// What a worker tells the accountant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A call has ended.
    Call(CallEnded),
    /// A call may end on another stream.
    Open(CallOpen),
    /// What another stream tells of a call.
    Evidence(Evidence),
    /// A call of the session has been running for a while: the session is not idle.
    Running {
        /// The session.
        session: SessionRef,
        /// When the call started.
        started_at: Timestamp,
        /// When this was seen.
        at: Timestamp,
    },
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

//! Facts about calls.

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::domain::call::Transport;
use crate::domain::ids::{Link, TraceId};
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;

/// A call that runs, told where it may have to be joined with the generations that it causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStarted {
    /// See [`CallEnded::call_id`].
    pub call_id: String,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name as the client wrote it, bounded.
    pub tool: String,
    /// The traces that the request names.
    pub traces: Vec<TraceId>,
    /// The end of the request's message.
    pub at: Timestamp,
}

/// What a call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallKind {
    /// A tool execution.
    Tool,
    /// An API call.
    Api(ApiCall),
    /// A turn of an agent.
    Step,
}

/// What is told of an API call only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall {
    /// The HTTP method; `OTHER` for one that is not common.
    pub method: String,
    /// The size of the request's body, as it came.
    pub request_bytes: u64,
    /// The size of the response's body, as it came.
    pub response_bytes: u64,
}

/// One call that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEnded {
    /// Unique within the source.
    pub call_id: String,
    /// What it is.
    pub kind: CallKind,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name as the client wrote it, bounded; of an API call method and route, such as
    /// `GET /orders/{id}`; of a step its operation, such as `message/send` or `responses.create`.
    pub tool: String,
    /// A hash of a tool's arguments, where a guard looks for loops.
    pub arguments: Option<u64>,
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
pub struct CallUpdate {
    /// The calls that it may be about, the likeliest first.
    pub links: Vec<Link>,
    /// When it was seen.
    pub at: Timestamp,
    /// What it tells.
    pub tells: Observation,
}

/// What evidence tells of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
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

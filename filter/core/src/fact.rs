//! What a worker tells the accountant. Facts travel through shared data, so they are small, versioned,
//! and reading them never fails in another way than `None`.

use serde::{Deserialize, Serialize};

use crate::config::Credential;
use crate::link::Link;
use crate::session_tokens::UNKNOWN_MODEL;
use crate::status::ExecutionStatus;
use crate::trace::TraceId;
use crate::units::Timestamp;
use crate::usage::{Completeness, Provider, ServiceTier, Usage};

/// The version of the encoding; raised when [`Fact`] changes.
const VERSION: u8 = 6;

/// Who a request is for. `anonymous` stands where the request did not tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The billed customer.
    pub customer: String,
    /// The customer's team.
    pub team: String,
    /// The agent, or app, that called.
    pub agent: String,
    /// A keyed hash of the API key that the request was made with.
    pub api_key: Option<String>,
    /// How the caller got its token, where the product asks.
    pub credential: Option<Credential>,
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

/// A generation that has been asked for, told where it may have to be joined with the call that causes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStarted {
    /// See [`GenerationEnded::generation_id`].
    pub generation_id: String,
    /// The traces that the request names.
    pub traces: Vec<TraceId>,
    /// The call may be inferred from being the only one that runs.
    pub may_infer: bool,
    /// The request's head.
    pub at: Timestamp,
}

/// Where a generation's usage was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The response's body.
    Body,
    /// Headers of the response.
    ResponseHeaders,
    /// What Envoy's own filter has extracted.
    EnvoyMetadata,
    /// The result of an MCP tool call.
    McpResult,
}

/// One generation of a large language model that has ended, however it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationEnded {
    /// Unique within the source.
    pub generation_id: String,
    /// The session it belongs to if no tool call caused it.
    pub session: SessionRef,
    /// The product whose rules it is metered by.
    pub product_id: String,
    /// The tool call that told of it, and the tool.
    pub told_by: Option<(String, String)>,
    /// Who ran the model.
    pub provider: Provider,
    /// The model, as the response names it.
    pub model: Option<String>,
    /// The model, as the request names it.
    pub model_requested: Option<String>,
    /// The tier that decides the rate.
    pub service_tier: ServiceTier,
    /// The tokens.
    pub usage: Usage,
    /// How much of them is known.
    pub completeness: Completeness,
    /// Some of them are an estimate.
    pub is_estimated: bool,
    /// Where they were read.
    pub source: UsageSource,
    /// What names the generation if another response may tell of it again, and when it was asked for by the
    /// provider's clock, in seconds since 1970.
    pub told_again: Option<(Link, Option<u64>)>,
    /// The response's HTTP status.
    pub http_status: u16,
    /// The response came as a stream of documents.
    pub is_streamed: bool,
    /// The request's head.
    pub started_at: Timestamp,
    /// The end of the response.
    pub ended_at: Timestamp,
}

impl GenerationEnded {
    /// The model as the response names it, else as the request does.
    pub fn model_name(&self) -> &str {
        let model = self.model.as_deref().or(self.model_requested.as_deref());
        model.unwrap_or(UNKNOWN_MODEL)
    }
}

/// Why a session ends before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEnd {
    /// A `DELETE` that the server answered 2xx.
    ClientDelete,
    /// The server answered 404 to a request of the session.
    SessionGone,
    /// A request to the product's `close_path`.
    Closed,
}

/// Room that a call has taken with guards, for what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The call, or the generation that belongs to none.
    pub call_id: String,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name.
    pub tool: String,
    /// Guards by id, and how much was taken with each, as decimal text.
    pub amounts: Vec<(String, String)>,
    /// The scopes of these guards.
    pub keys: Vec<[u8; 16]>,
    /// When it is given back if nothing more is told of the call.
    pub expires_at: Timestamp,
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
    /// A call has taken room.
    Reserved(Box<Reserved>),
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

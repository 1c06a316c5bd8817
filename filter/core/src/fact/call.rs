//! Facts about calls.

use serde::{Deserialize, Serialize};

use crate::base::limits::OTHER;
use crate::base::time::Timestamp;
use crate::domain::call::{Certainty, Transport};
use crate::domain::correlation::Correlation;
use crate::domain::ids::{Link, TraceId};
use crate::domain::payment::Payment;
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::shared_data::shares::Holder;

/// A call that runs. A worker reports it only if generations may have to be attributed to the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStarted {
    /// See [`CallEnded::call_id`].
    pub call_id: String,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name as the client wrote it, limited in length.
    pub tool: String,
    /// The ids that only the server of this call learns, so that whoever presents one of them is
    /// caused by this call: see [`crate::protocol::call_proof`]. Calls of one request share them.
    pub proofs: Vec<TraceId>,
    /// The traces that the client names. Any client can name them, so they prove nothing.
    pub traces: Vec<TraceId>,
    /// The end of the request's message; of an API call, the request's head.
    pub at: Timestamp,
}

/// The kind of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallKind {
    /// A tool execution.
    Tool,
    /// An API call.
    Api(ApiCall),
    /// A turn of an agent.
    Step,
}

/// The details of an API call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall {
    /// The HTTP method; `OTHER` for one that is not common.
    pub method: String,
    /// The size of the request body in bytes, before decoding.
    pub request_bytes: u64,
    /// The size of the response body in bytes, before decoding.
    pub response_bytes: u64,
}

/// One call that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEnded {
    /// Unique within the source.
    pub call_id: String,
    /// Its kind.
    pub kind: CallKind,
    /// How certain it is that there was a call.
    pub certainty: Certainty,
    /// The session it belongs to.
    pub session: SessionRef,
    /// The tool's name as the client wrote it, limited in length. For an API call, its method and
    /// route, such as `GET /orders/{id}`; for a step, its operation, such as `message/send` or
    /// `responses.create`.
    pub tool: String,
    /// A hash of a tool's arguments, if a guard looks for loops.
    pub arguments: Option<u64>,
    /// Its outcome.
    pub status: ExecutionStatus,
    /// The response's HTTP status; 0 if the worker saw no response head.
    pub http_status: u16,
    /// How the server sent its response.
    pub transport: Transport,
    /// True if the request went on to the server to its end: the server may have executed the call
    /// even if no response was seen.
    pub is_request_sent: bool,
    /// The end of the request; of an API call, and of a step in a model provider's API, its head.
    pub started_at: Timestamp,
    /// The end of the response message, or of the stream.
    pub ended_at: Timestamp,
    /// What answered it on its own stream, if the server may send that again elsewhere.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// The payment that came with it, settled or not.
    #[serde(default)]
    pub payment: Option<Box<Payment>>,
    /// The ids by which it is joined with other systems.
    #[serde(default)]
    pub correlation: Option<Box<Correlation>>,
}

impl CallEnded {
    /// The same with what a receipt says of its payment. Only a call that succeeded has one.
    pub(crate) fn settled_by(mut self, receipt: Option<Payment>) -> Self {
        if let (Some(offer), Some(receipt), ExecutionStatus::Success) =
            (&mut self.payment, receipt, self.status)
        {
            **offer = offer.as_ref().clone().settled_by(receipt);
        }
        self
    }

    /// Whether the server says that the call is paid for.
    pub(crate) fn is_paid(&self) -> bool {
        self.payment.as_ref().is_some_and(|payment| payment.is_settled())
    }

    /// The same once nothing more will be known of it: of a task that nobody asked for again, the
    /// outcome is not known.
    pub(crate) fn unanswered(self) -> Self {
        let status = match self.status {
            ExecutionStatus::Pending => ExecutionStatus::Unknown,
            status => status,
        };
        Self { status, ..self }
    }
}

/// An answer to a request, as it is told from others that carry the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The link of the request.
    #[serde(with = "serde_bytes")]
    pub(crate) link: Link,
    /// What it looks like.
    pub(crate) look: AnswerLook,
}

/// What an answer looks like: a server that sends it twice sends the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerLook {
    /// A hash of its text; 0 if that is not known.
    pub(crate) text: u64,
    /// A hash of the id of its server-sent event; 0 if it has none.
    pub(crate) event: u64,
}

/// What an answer may be the answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerKind {
    /// The result of a tool, or what only calls are answered with.
    OfCall,
    /// An error, or an empty result: any request may be answered so.
    OfAny,
    /// The result of another method.
    OfOther,
}

/// An answer that was seen on another stream than its request's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerSeen {
    /// What it may answer.
    pub(crate) kind: AnswerKind,
    /// What it looks like.
    pub(crate) look: AnswerLook,
}

/// A request that is no call, and whose answer may come on another stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherOpen {
    /// The customer.
    pub(crate) holder: Holder,
    /// The links that its answer may carry.
    pub(crate) links: Vec<Link>,
    /// The end of the request.
    pub(crate) started_at: Timestamp,
    /// When nobody waits for it any more.
    pub(crate) expires_at: Timestamp,
}

/// Calls that are alike, as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedCalls {
    /// What they have in common, with the id of the first, the end of the last and the sums of
    /// bytes.
    pub call: CallEnded,
    /// How many they are.
    pub quantity: u64,
    /// The tool whose price is theirs, if they are of several tools.
    pub priced_as: Option<String>,
}

impl FoldedCalls {
    /// The same as calls of any tool that has the same price.
    pub(crate) fn of_other(mut self) -> Self {
        let other = match self.call.tool.split_once(' ') {
            Some((method, _)) if matches!(self.call.kind, CallKind::Api(_)) => {
                format!("{method} {OTHER}")
            }
            _ => OTHER.to_owned(),
        };
        self.priced_as = Some(core::mem::replace(&mut self.call.tool, other));
        self
    }
}

/// A call whose stream has ended, or whose time is up, while its response may arrive elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOpen {
    /// The call, with the status and the end that it has if nothing more arrives.
    pub call: CallEnded,
    /// The links that a response may carry: one, or one for each event that may be named when the
    /// call's stream is resumed.
    pub links: Vec<Link>,
    /// When the call ends without a response.
    pub(crate) expires_at: Timestamp,
}

/// What a worker saw about a call on a stream other than the call's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallUpdate {
    /// The customer on whose stream the worker saw it. Lines of earlier logs name none.
    #[serde(default)]
    pub(crate) holder: Holder,
    /// The calls that it may be about, the likeliest first.
    pub(crate) links: Vec<Link>,
    /// When the worker saw it.
    pub at: Timestamp,
    /// What the worker saw.
    pub observation: Observation,
    /// The answer that it saw, if it is one to a JSON-RPC id.
    pub(crate) answer: Option<AnswerSeen>,
}

/// What another stream shows about a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// It has ended.
    Ended {
        /// Its outcome.
        status: ExecutionStatus,
        /// The HTTP status of the response that showed it.
        http_status: u16,
        /// How the server sent that response.
        transport: Transport,
        /// What the response says of the call's payment.
        #[serde(default)]
        receipt: Option<Box<Payment>>,
    },
    /// It continues as a task.
    BecameTask(Link),
    /// It is a task in a state that is not final: the client asked the server, or the server
    /// reported it.
    Alive {
        /// When the call ends if nothing more is reported.
        expires_at: Timestamp,
    },
    /// The client no longer waits for it.
    Cancelled,
}

//! JSON-RPC 2.0 messages of the Model Context Protocol (revisions 2024-11-05 to 2026-07-28), as far
//! as metering needs them.

pub use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::reported::Reported;
use crate::protocol::payment::PaymentReading;
use crate::wire::doubt::Doubt;
use crate::wire::json_rpc::Id;

/// The value of `result.resultType` (2026-07-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultType {
    /// Absent, as in all earlier revisions, or `complete`.
    #[default]
    Complete,
    /// `input_required`: the call continues when the client has given its input.
    InputRequired,
    /// `task`: the call continues as a task.
    Task,
    /// A value that no revision defines.
    Unknown,
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Any that is not final, such as `working` or `input_required`.
    Open,
    /// `completed`.
    Completed,
    /// `failed`.
    Failed,
    /// `cancelled`.
    Cancelled,
}

/// What a message says about a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskReport {
    /// `taskId`.
    pub id: Option<Vec<u8>>,
    /// `status`.
    pub state: Option<TaskState>,
    /// True if `result.isError` beside them is true (2026-07-28).
    pub is_error: bool,
}

/// Where an answer asks for a payment instead of a result. Servers say it in several places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// `result.structuredContent.x402Version`.
    pub(crate) in_structured_content: bool,
    /// The first text of `result.content` is an object with `x402Version`.
    pub(crate) in_text: bool,
    /// `result._meta["x402/error"]`.
    pub(crate) in_meta: bool,
    /// `error.data.challenges`, or `error.data.httpStatus` of 402.
    pub(crate) in_error: bool,
}

impl Challenge {
    /// Whether a result that is an error asks for a payment.
    pub(crate) fn is_in_result(self) -> bool {
        self.in_structured_content || self.in_text || self.in_meta
    }
}

/// One JSON-RPC message, as far as metering needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `method`.
    pub method: Method,
    /// `id`, unless it is absent or null.
    pub id: Option<Id>,
    /// `params.name`.
    pub tool: Option<Vec<u8>>,
    /// A hash of `params.arguments`, even if they are absent, if the reader hashes arguments.
    pub arguments: Option<u64>,
    /// True if there is a `result`, even if it is null.
    pub(crate) has_result: bool,
    /// True if `result` has a member that only tool results have: `content`, `structuredContent`,
    /// `toolResult` (2024-10-07) or `isError`.
    pub(crate) has_tool_result: bool,
    /// True if `result` has a member that tool results do not have.
    pub(crate) has_other_result: bool,
    /// True if `result.isError` is true.
    pub is_error: bool,
    /// `result.resultType`.
    pub result_type: ResultType,
    /// True if `result.task` is an object (2025-11-25).
    pub has_task: bool,
    /// True if there is an `error` that is not null.
    pub has_error: bool,
    /// `error.code`, if it is a whole number.
    pub error_code: Option<i64>,
    /// True if `jsonrpc` is a text.
    pub(crate) is_json_rpc: bool,
    /// `params.requestId`.
    pub(crate) request_id: Option<Id>,
    /// `params._meta.traceparent`.
    pub traceparent: Option<Vec<u8>>,
    /// `params._meta.session_id`.
    pub session_id: Option<Vec<u8>>,
    /// The task that `params` names or reports on.
    pub(crate) params_task: TaskReport,
    /// The task that `result` reports on: in its own members, or in `result.task`.
    pub(crate) result_task: TaskReport,
    /// `result._meta["io.modelcontextprotocol/related-task"].taskId`: the task whose result this
    /// is.
    pub(crate) related_task: Option<Vec<u8>>,
    /// The tasks in `result.tasks`, limited in number.
    pub(crate) listed_tasks: Vec<TaskReport>,
    /// The payment that a request offers, or an answer confirms.
    pub(crate) payment: Option<Box<PaymentReading>>,
    /// Where an answer asks for a payment.
    pub(crate) challenge: Challenge,
    /// The usage that the result reports for generations of the tool, if the product says where it
    /// stands.
    pub reported: Option<Box<Reported>>,
    /// Why it is not certain what the message asks for.
    pub doubt: Option<Doubt>,
}

impl Message {
    /// Whether it is a request that runs a tool. Without an id it is a notification, which servers
    /// do not run.
    pub fn is_call(&self) -> bool {
        self.method == Method::ToolsCall && self.id.is_some()
    }

    /// Whether it is a response to a request. An `error` without an id answers only in the form of
    /// JSON-RPC: gateways and authorization servers use the word in other ways.
    pub fn is_answer(&self) -> bool {
        let is_error = self.has_error && (self.id.is_some() || self.rpc_error().is_some());
        self.method == Method::None && (self.has_result || is_error)
    }

    /// The code of an error in the form of JSON-RPC 2.0: an object with a whole number as `code`, in
    /// a message with `jsonrpc` or an id.
    pub(crate) fn rpc_error(&self) -> Option<i64> {
        let code = self.error_code.filter(|_| self.has_error)?;
        (self.is_json_rpc || self.id.is_some()).then_some(code)
    }
}

//! The members of messages that the reader looks for, as numbers. Those from 200 on are of payments:
//! see [`crate::protocol::payment`].

/// The objects and lists that the reader follows.
pub(super) mod node {
    pub(in crate::protocol::mcp) const BATCH: u8 = 0;
    pub(in crate::protocol::mcp) const MESSAGE: u8 = 1;
    pub(in crate::protocol::mcp) const PARAMS: u8 = 2;
    pub(in crate::protocol::mcp) const RESULT: u8 = 3;
    pub(in crate::protocol::mcp) const ERROR: u8 = 4;
    /// `result.task`.
    pub(in crate::protocol::mcp) const TASK: u8 = 5;
    /// `result.tasks`, and its elements.
    pub(in crate::protocol::mcp) const TASKS: u8 = 6;
    pub(in crate::protocol::mcp) const LISTED_TASK: u8 = 7;
    /// `params.result` of a notification about a task.
    pub(in crate::protocol::mcp) const PUSHED_RESULT: u8 = 8;
    /// `result.result` of a response about a task.
    pub(in crate::protocol::mcp) const POLLED_RESULT: u8 = 9;
    /// `result._meta`, and its member that names the task.
    pub(in crate::protocol::mcp) const META: u8 = 10;
    pub(in crate::protocol::mcp) const RELATED_TASK: u8 = 11;
    /// `params._meta`.
    pub(in crate::protocol::mcp) const PARAMS_META: u8 = 12;
    /// `result.content`, and its first element.
    pub(in crate::protocol::mcp) const CONTENT: u8 = 13;
    pub(in crate::protocol::mcp) const FIRST_CONTENT: u8 = 14;
    /// `result.structuredContent`.
    pub(in crate::protocol::mcp) const STRUCTURED: u8 = 15;
    /// `error.data`.
    pub(in crate::protocol::mcp) const ERROR_DATA: u8 = 16;
    /// `error.data.challenges`, and its elements.
    pub(in crate::protocol::mcp) const CHALLENGES: u8 = 17;
    pub(in crate::protocol::mcp) const CHALLENGE: u8 = 18;
    /// `result._meta["x402/error"]`.
    pub(in crate::protocol::mcp) const META_ERROR: u8 = 19;
}

/// The values that it takes.
pub(super) mod field {
    pub(in crate::protocol::mcp) const METHOD: u8 = 0;
    pub(in crate::protocol::mcp) const ID: u8 = 1;
    pub(in crate::protocol::mcp) const NAME: u8 = 2;
    pub(in crate::protocol::mcp) const IS_ERROR: u8 = 3;
    pub(in crate::protocol::mcp) const RESULT_TYPE: u8 = 4;
    pub(in crate::protocol::mcp) const CODE: u8 = 5;
    pub(in crate::protocol::mcp) const REQUEST_ID: u8 = 6;
    pub(in crate::protocol::mcp) const PARAMS_TASK_ID: u8 = 7;
    pub(in crate::protocol::mcp) const PARAMS_STATUS: u8 = 8;
    pub(in crate::protocol::mcp) const PUSHED_IS_ERROR: u8 = 9;
    pub(in crate::protocol::mcp) const RESULT_TASK_ID: u8 = 10;
    pub(in crate::protocol::mcp) const RESULT_STATUS: u8 = 11;
    pub(in crate::protocol::mcp) const POLLED_IS_ERROR: u8 = 12;
    pub(in crate::protocol::mcp) const LISTED_TASK_ID: u8 = 13;
    pub(in crate::protocol::mcp) const LISTED_STATUS: u8 = 14;
    pub(in crate::protocol::mcp) const RELATED_TASK_ID: u8 = 15;
    pub(in crate::protocol::mcp) const TRACEPARENT: u8 = 16;
    pub(in crate::protocol::mcp) const SESSION_ID: u8 = 17;
    pub(in crate::protocol::mcp) const JSON_RPC: u8 = 18;
    /// `error`, if it is no object.
    pub(in crate::protocol::mcp) const ERROR: u8 = 19;
    /// A member that only tool results have, if it is no object and no list.
    pub(in crate::protocol::mcp) const OF_TOOL: u8 = 20;
    /// A member of `result` that tool results do not have, if it is no object and no list.
    pub(in crate::protocol::mcp) const OF_OTHER: u8 = 21;
    pub(in crate::protocol::mcp) const CONTENT_TEXT: u8 = 22;
    pub(in crate::protocol::mcp) const X402_VERSION: u8 = 23;
    pub(in crate::protocol::mcp) const ERROR_HTTP_STATUS: u8 = 24;
}

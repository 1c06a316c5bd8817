//! The methods of JSON-RPC messages.

/// The methods that the filter distinguishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// There is no method: the message is a response.
    #[default]
    None,
    /// `tools/call`.
    ToolsCall,
    /// `tasks/result` (2025-11-25): asks for the result of the call.
    TasksResult,
    /// `tasks/get` and `tasks/cancel`: the response reports the state of the task.
    TaskStatus,
    /// `tasks/list` (2025-11-25).
    TasksList,
    /// `notifications/cancelled`: the client no longer waits.
    Cancelled,
    /// `notifications/tasks/status` (2025-11-25) and `notifications/tasks` (2026-07-28).
    TaskNotification,
    /// Any other.
    Other,
}

impl Method {
    pub(super) fn of_text(text: &[u8]) -> Self {
        match text {
            b"tools/call" => Self::ToolsCall,
            b"tasks/result" => Self::TasksResult,
            b"tasks/get" | b"tasks/cancel" => Self::TaskStatus,
            b"tasks/list" => Self::TasksList,
            b"notifications/cancelled" => Self::Cancelled,
            b"notifications/tasks/status" | b"notifications/tasks" => Self::TaskNotification,
            _ => Self::Other,
        }
    }
}

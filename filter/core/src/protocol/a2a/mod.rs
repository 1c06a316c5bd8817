//! Reads requests and answers of the Agent2Agent protocol (A2A, versions 0.2 to 1.0), as far as
//! metering needs them.
//!
//! To the next maintainer: 0.2 and 0.3 name the subject of a result by its `kind`; 1.0, and 0.3
//! over HTTP+JSON, name it by the member that holds it; `tasks/get` names it by neither. The
//! readers accept all three forms, whatever version a peer claims. Over JSON-RPC an answer has an
//! envelope, over HTTP+JSON it does not; they do not differ otherwise.

pub mod outcome;
pub mod response_body;

mod answer;
mod request;
mod route;

pub(crate) use self::answer::AnswerReader;
pub use self::answer::{Answer, Subject};
pub use self::request::{Request, RequestReader};
pub use self::route::{Route, route};

use crate::wire::member_check::is_alike;

/// How the protocol is bound to HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// JSON-RPC 2.0: clients post everything to one path.
    JsonRpc,
    /// HTTP+JSON: the path names the operation.
    Rest,
}

/// What a client asks an agent to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// `message/send`, `SendMessage`: a step.
    Send,
    /// `message/stream`, `SendStreamingMessage`: a step whose progress the agent streams.
    Stream,
    /// `tasks/get`, `GetTask`.
    GetTask,
    /// `tasks/list`, `ListTasks`.
    ListTasks,
    /// `tasks/cancel`, `CancelTask`.
    CancelTask,
    /// `tasks/resubscribe`, `SubscribeToTask`: follows the further progress of a task.
    Subscribe,
    /// Any operation on the addresses to which an agent pushes updates about a task.
    PushConfig,
    /// Anything else, such as the agent's card.
    #[default]
    Other,
}

impl Operation {
    /// The operation that a JSON-RPC method names.
    pub(crate) fn of_method(name: &[u8]) -> Self {
        match name {
            b"message/send" | b"SendMessage" => Self::Send,
            b"message/stream" | b"SendStreamingMessage" => Self::Stream,
            b"tasks/get" | b"GetTask" => Self::GetTask,
            b"tasks/list" | b"ListTasks" => Self::ListTasks,
            b"tasks/cancel" | b"CancelTask" => Self::CancelTask,
            b"tasks/resubscribe" | b"SubscribeToTask" => Self::Subscribe,
            _ if name.starts_with(b"tasks/pushNotificationConfig/")
                || name.ends_with(b"TaskPushNotificationConfig")
                || name.ends_with(b"TaskPushNotificationConfigs") =>
            {
                Self::PushConfig
            }
            _ => Self::Other,
        }
    }

    /// Whether a lenient server may take this name, which is none of the above, for a step's.
    fn is_alike_step(name: &[u8]) -> bool {
        ["message/send", "SendMessage", "message/stream", "SendStreamingMessage"]
            .iter()
            .any(|step| is_alike(name, step))
    }

    /// Whether it is one turn of an agent.
    pub fn is_step(self) -> bool {
        matches!(self, Self::Send | Self::Stream)
    }

    /// Whether the answer reports the state of a task that an earlier step began.
    pub(crate) fn is_about_task(self) -> bool {
        matches!(self, Self::GetTask | Self::ListTasks | Self::CancelTask | Self::Subscribe)
    }
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// `submitted`, `working`, `unknown`, and states that no version defines: the task may go on.
    Open,
    /// `input-required`: the task goes on with the client's next message.
    InputRequired,
    /// `auth-required`: the task goes on when someone has given the agent its credentials, by a
    /// message or otherwise.
    AuthRequired,
    /// `completed`.
    Completed,
    /// `canceled`.
    Canceled,
    /// `failed`.
    Failed,
    /// `rejected`: the agent will not do it.
    Rejected,
}

impl TaskState {
    /// The state by its name, in the form of JSON-RPC up to 0.3 or in the other form.
    fn of_name(name: &[u8]) -> Self {
        match name {
            b"input-required" | b"TASK_STATE_INPUT_REQUIRED" => Self::InputRequired,
            b"auth-required" | b"TASK_STATE_AUTH_REQUIRED" => Self::AuthRequired,
            b"completed" | b"TASK_STATE_COMPLETED" => Self::Completed,
            // 0.3 has two spellings, one of them over HTTP+JSON.
            b"canceled" | b"TASK_STATE_CANCELED" | b"TASK_STATE_CANCELLED" => Self::Canceled,
            b"failed" | b"TASK_STATE_FAILED" => Self::Failed,
            b"rejected" | b"TASK_STATE_REJECTED" => Self::Rejected,
            _ => Self::Open,
        }
    }
}

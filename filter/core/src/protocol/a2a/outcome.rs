//! What one turn of an agent, a step, comes to.

use crate::domain::status::ExecutionStatus;
use crate::protocol::a2a::{Answer, Subject, TaskState};

/// One step, from its request to the end of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    stand: StepState,
    context_id: Option<Vec<u8>>,
    task_id: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StepState {
    /// Nothing has been told.
    #[default]
    Unknown,
    /// It goes on as a task.
    Task,
    /// It waits for someone, unless the answer tells that it goes on.
    Waits,
    Ended(ExecutionStatus),
}

impl Step {
    /// Takes in an answer, or an event of one. Gives the outcome with the answer that tells it, once.
    pub fn update(&mut self, answer: &Answer, http_status: u16) -> Option<ExecutionStatus> {
        // A result counts only under a 2xx, because clients discard it under any other.
        let is_error = answer.subject == Subject::Error;
        if matches!(self.stand, StepState::Ended(_)) || !(is_error || is_success(http_status)) {
            return None;
        }
        if let Some(context_id) = &answer.context_id {
            self.context_id = Some(context_id.clone());
        }
        if let Some(task_id) = &answer.task_id {
            self.task_id = Some(task_id.clone());
        }
        self.stand = match answer.subject {
            Subject::Nothing | Subject::Tasks => self.stand,
            // Whoever makes something does not wait.
            Subject::ArtifactUpdate => StepState::Task,
            Subject::Error => StepState::Ended(of_error(answer, http_status)),
            Subject::Message => StepState::Ended(ExecutionStatus::Success),
            Subject::Task | Subject::StatusUpdate => {
                let state = answer.state.unwrap_or(TaskState::Open);
                // A task that begins a stream may still tell how the turn before it ended, and one that waits for
                // credentials goes on in the same stream when it gets them; the next message is another step's.
                let is_over = match state {
                    TaskState::InputRequired => answer.subject == Subject::StatusUpdate,
                    TaskState::AuthRequired => answer.is_final,
                    TaskState::Open
                    | TaskState::Completed
                    | TaskState::Canceled
                    | TaskState::Failed
                    | TaskState::Rejected => true,
                };
                match of_task(state) {
                    Some(outcome) if is_over => StepState::Ended(outcome),
                    Some(_) => StepState::Waits,
                    None => StepState::Task,
                }
            }
        };
        match self.stand {
            StepState::Ended(outcome) => Some(outcome),
            StepState::Unknown | StepState::Task | StepState::Waits => None,
        }
    }

    /// The outcome when the answer has ended, however it did. PENDING with a task: what comes of it is told elsewhere.
    pub fn end(&self, http_status: u16) -> ExecutionStatus {
        match self.stand {
            StepState::Ended(outcome) => outcome,
            StepState::Waits => ExecutionStatus::HitlRequired,
            StepState::Task => ExecutionStatus::Pending,
            StepState::Unknown => ExecutionStatus::of_http(http_status),
        }
    }

    /// The conversation that the server names.
    pub fn context_id(&self) -> Option<&[u8]> {
        self.context_id.as_deref()
    }

    /// The task that the step began or went on with, as the server names it.
    pub fn task_id(&self) -> Option<&[u8]> {
        self.task_id.as_deref()
    }
}

/// The outcome of the step that a task's state ends, if it does. A task that waits for its client has ended the step:
/// the client's next message is another one.
pub fn of_task(state: TaskState) -> Option<ExecutionStatus> {
    match state {
        TaskState::Open => None,
        TaskState::InputRequired | TaskState::AuthRequired => Some(ExecutionStatus::HitlRequired),
        TaskState::Completed => Some(ExecutionStatus::Success),
        TaskState::Canceled => Some(ExecutionStatus::Cancelled),
        // Why an agent rejects a task is not told: the input, the client, or its own load.
        TaskState::Failed | TaskState::Rejected => Some(ExecutionStatus::Error),
    }
}

/// The outcome of a request that failed. What is told in the body decides before the HTTP status, and means the same
/// over both bindings: what A2A maps to `INVALID_ARGUMENT` is the request's fault.
pub fn of_error(answer: &Answer, http_status: u16) -> ExecutionStatus {
    match (answer.error_status.as_deref(), answer.error_code) {
        (Some(b"INVALID_ARGUMENT"), _) => ExecutionStatus::ValidationFailed,
        // Not as HTTP 400: the agent does not do what is well asked.
        (Some(b"FAILED_PRECONDITION"), _) => ExecutionStatus::Error,
        // No JSON, no request, wrong parameters, media types that the agent does not take.
        (_, Some(-32700 | -32600 | -32602 | -32005)) => ExecutionStatus::ValidationFailed,
        (_, Some(code @ 400..600)) => {
            u16::try_from(code).map_or(ExecutionStatus::Error, ExecutionStatus::of_http)
        }
        (_, None) if !is_success(http_status) => ExecutionStatus::of_http(http_status),
        // -32001 is no timeout here, but a task that is not there.
        _ => ExecutionStatus::Error,
    }
}

fn is_success(http_status: u16) -> bool {
    (200..300).contains(&http_status)
}

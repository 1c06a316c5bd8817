//! Determines the outcome of one turn of an agent, a step.

use crate::domain::status::ExecutionStatus;
use crate::protocol::a2a::{Answer, Subject, TaskState};
use crate::wire::http::is_success;

/// One step, from its request to the end of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    stand: StepState,
    context_id: Option<Vec<u8>>,
    task_id: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StepState {
    /// No answer has reported a state.
    #[default]
    Unknown,
    /// It goes on as a task.
    Task,
    /// It waits for someone, and ends so unless an answer reports that it goes on.
    Waits(ExecutionStatus),
    Ended(ExecutionStatus),
}

impl Step {
    /// Applies an answer, or an event of one. Returns the outcome once, with the answer that
    /// reports it.
    pub fn update(&mut self, answer: &Answer, http_status: u16) -> Option<ExecutionStatus> {
        // A result counts only with a 2xx status, because clients discard it with any other.
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
            // An agent that produces output does not wait.
            Subject::ArtifactUpdate => StepState::Task,
            Subject::Error => StepState::Ended(of_error(answer, http_status)),
            Subject::Message => StepState::Ended(ExecutionStatus::Success),
            Subject::Task | Subject::StatusUpdate => {
                let state = answer.state.unwrap_or(TaskState::Open);
                // A task at the start of a stream may still report how the turn before it ended,
                // and one that waits for credentials goes on in the same stream when it gets them;
                // the client's next message belongs to another step.
                let is_over = match state {
                    TaskState::InputRequired => answer.subject == Subject::StatusUpdate,
                    TaskState::AuthRequired => answer.is_final,
                    TaskState::Open
                    | TaskState::Completed
                    | TaskState::Canceled
                    | TaskState::Failed
                    | TaskState::Rejected => true,
                };
                let outcome = of_task(state).map(|outcome| match outcome {
                    ExecutionStatus::HitlRequired if answer.asks_payment => {
                        ExecutionStatus::PaymentRequired
                    }
                    outcome => outcome,
                });
                match outcome {
                    Some(outcome) if is_over => StepState::Ended(outcome),
                    Some(outcome) => StepState::Waits(outcome),
                    None => StepState::Task,
                }
            }
        };
        match self.stand {
            StepState::Ended(outcome) => Some(outcome),
            StepState::Unknown | StepState::Task | StepState::Waits(_) => None,
        }
    }

    /// The outcome when the answer has ended, for whatever reason. PENDING for a task: another
    /// exchange reports its outcome.
    pub fn end(&self, http_status: u16) -> ExecutionStatus {
        match self.stand {
            StepState::Ended(outcome) | StepState::Waits(outcome) => outcome,
            StepState::Task => ExecutionStatus::Pending,
            StepState::Unknown => ExecutionStatus::of_http(http_status),
        }
    }

    /// The conversation that the server names.
    pub fn context_id(&self) -> Option<&[u8]> {
        self.context_id.as_deref()
    }

    /// The task that the step began or continued, as the server names it.
    pub fn task_id(&self) -> Option<&[u8]> {
        self.task_id.as_deref()
    }
}

/// The outcome of a step whose task is in this state; `None` if the state does not end the step. A
/// task that waits for its client has ended the step: the client's next message begins another one.
pub fn of_task(state: TaskState) -> Option<ExecutionStatus> {
    match state {
        TaskState::Open => None,
        TaskState::InputRequired | TaskState::AuthRequired => Some(ExecutionStatus::HitlRequired),
        TaskState::Completed => Some(ExecutionStatus::Success),
        TaskState::Canceled => Some(ExecutionStatus::Cancelled),
        // An agent does not say why it rejects a task: the input, the client, or its own load.
        TaskState::Failed | TaskState::Rejected => Some(ExecutionStatus::Error),
    }
}

/// The outcome of a request that failed. The error in the body takes precedence over the HTTP
/// status, and means the same over both bindings: what A2A maps to `INVALID_ARGUMENT` is the
/// request's fault.
pub fn of_error(answer: &Answer, http_status: u16) -> ExecutionStatus {
    match (answer.error_status.as_deref(), answer.error_code) {
        (Some(b"INVALID_ARGUMENT"), _) => ExecutionStatus::ValidationFailed,
        // Unlike HTTP 400: the request is valid, but the agent does not carry it out.
        (Some(b"FAILED_PRECONDITION"), _) => ExecutionStatus::Error,
        // Not JSON, not a request, wrong parameters, media types that the agent does not accept.
        (_, Some(-32700 | -32600 | -32602 | -32005)) => ExecutionStatus::ValidationFailed,
        (_, Some(code @ 400..600)) => {
            u16::try_from(code).map_or(ExecutionStatus::Error, ExecutionStatus::of_http)
        }
        (_, None) if !is_success(http_status) => ExecutionStatus::of_http(http_status),
        // -32001 is not a timeout here: it means that the task does not exist.
        _ => ExecutionStatus::Error,
    }
}

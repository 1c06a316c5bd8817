//! Reads the answers of A2A agents: a body, the data of one server-sent event, or what an agent
//! pushes to its client.

use crate::protocol::a2a::request::{json_rpc_id, told_id};
use crate::protocol::a2a::{Binding, TaskState};
use crate::protocol::payment;
use crate::protocol::payment::PaymentReading;
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};
use crate::wire::json_rpc::Id;

/// The most tasks that the reader keeps of one list; servers do not put more on a page.
const TASKS_LISTED_MAX: usize = 100;

/// The subject of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// Nothing that the filter meters: an agent's card, a push address, an empty result.
    #[default]
    Nothing,
    /// The agent answers with a message, which ends the turn.
    Message,
    /// A task in its current state.
    Task,
    /// A change of a task's state.
    StatusUpdate,
    /// A piece of a task's output.
    ArtifactUpdate,
    /// A list of tasks.
    Tasks,
    /// The request failed.
    Error,
}

impl Subject {
    /// Whether an agent answers a step with it.
    pub(crate) fn is_of_step(self) -> bool {
        matches!(self, Self::Message | Self::Task | Self::StatusUpdate | Self::ArtifactUpdate)
    }
}

/// One task of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskReport {
    /// `id`.
    pub id: Option<Vec<u8>>,
    /// `status.state`.
    pub state: Option<TaskState>,
}

/// One answer, as far as metering needs it. The reader leaves out an id that is longer than the
/// values it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The subject.
    pub subject: Subject,
    /// The id of the JSON-RPC message, unless it is absent or null.
    pub id: Option<Id>,
    /// The conversation; the server names it if the client does not.
    pub context_id: Option<Vec<u8>>,
    /// The task that it is about, or that a message belongs to.
    pub task_id: Option<Vec<u8>>,
    /// The state of the task.
    pub state: Option<TaskState>,
    /// True if `final` of a status update is true (up to 0.3): the stream ends here.
    pub is_final: bool,
    /// `error.code`, if it is a whole number: a JSON-RPC code or, over HTTP+JSON, an HTTP status.
    pub error_code: Option<i64>,
    /// `error.status` (HTTP+JSON): the name of a gRPC status.
    pub error_status: Option<Vec<u8>>,
    /// The tasks of a list, limited in number.
    pub tasks: Vec<TaskReport>,
    /// True if the agent waits for a payment.
    pub(crate) asks_payment: bool,
    /// The last receipt of a payment that the agent's message carries.
    pub(crate) payment: Option<Box<PaymentReading>>,
}

mod node {
    pub(super) const BATCH: u8 = 0;
    /// The JSON-RPC message.
    pub(super) const ENVELOPE: u8 = 1;
    /// `result`, or the body of an HTTP+JSON answer.
    pub(super) const RESULT: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const TASK: u8 = 4;
    pub(super) const MESSAGE: u8 = 5;
    pub(super) const STATUS_UPDATE: u8 = 6;
    pub(super) const ARTIFACT_UPDATE: u8 = 7;
    pub(super) const STATUS: u8 = 8;
    pub(super) const TASKS: u8 = 9;
    pub(super) const LISTED_TASK: u8 = 10;
    pub(super) const LISTED_STATUS: u8 = 11;
    /// `artifact` of a result that does not name its subject.
    pub(super) const ARTIFACT: u8 = 12;
    /// `status.message`, and the metadata of a message.
    pub(super) const STATUS_MESSAGE: u8 = 13;
    pub(super) const METADATA: u8 = 14;
    /// `x402.payment.receipts` in it.
    pub(super) const RECEIPTS: u8 = 15;
}

mod field {
    pub(super) const ID: u8 = 0;
    pub(super) const KIND: u8 = 1;
    /// `id` of a result: the task's, if the result is a task.
    pub(super) const RESULT_ID: u8 = 2;
    pub(super) const TASK_ID: u8 = 3;
    pub(super) const CONTEXT_ID: u8 = 4;
    pub(super) const STATE: u8 = 5;
    pub(super) const FINAL: u8 = 6;
    pub(super) const CODE: u8 = 7;
    pub(super) const ERROR_STATUS: u8 = 8;
    pub(super) const LISTED_ID: u8 = 9;
    pub(super) const LISTED_STATE: u8 = 10;
    pub(super) const MESSAGE_ID: u8 = 11;
    /// An error that is not an object.
    pub(super) const ERROR: u8 = 12;
    pub(super) const PAYMENT_STATUS: u8 = 13;
}

/// Reads the answers of one text.
#[derive(Clone, Debug)]
pub(crate) struct AnswerReader {
    binding: Binding,
    scanner: Scanner,
    draft: Draft,
}

#[derive(Clone, Debug, Default)]
struct Draft {
    answer: Answer,
    /// The subject that `kind` names.
    kind: Option<Subject>,
    /// `id` of a result.
    result_id: Option<Vec<u8>>,
    /// Whether the result itself has a `status`, an `artifact` or a `messageId`.
    has_status: bool,
    has_artifact: bool,
    has_message_id: bool,
}

impl Draft {
    /// Discards what the result has said so far. An error remains one: some servers send an empty
    /// result beside it.
    fn forget_result(&mut self) {
        let Answer { subject, id, error_code, error_status, .. } = core::mem::take(self).answer;
        let subject = if subject == Subject::Error { subject } else { Subject::Nothing };
        self.answer = Answer { subject, id, error_code, error_status, ..Answer::default() };
    }

    /// The subject of a result if no member names it.
    fn subject(&self) -> Subject {
        match self.kind {
            Some(kind) => kind,
            None if self.has_status && self.answer.task_id.is_some() => Subject::StatusUpdate,
            None if self.has_status && self.result_id.is_some() => Subject::Task,
            None if self.has_artifact => Subject::ArtifactUpdate,
            None if self.has_message_id => Subject::Message,
            None => Subject::Nothing,
        }
    }
}

impl AnswerReader {
    /// Creates a reader for answers over this binding.
    pub(crate) fn new(binding: Binding) -> Self {
        Self { binding, scanner: Scanner::default(), draft: Draft::default() }
    }

    /// Reads the next bytes and calls `found` with each answer as it ends.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(&Answer)) {
        let Self { binding, scanner, draft } = self;
        scanner.feed(chunk, &mut Builder { binding: *binding, draft, found });
    }

    /// Begins a new text.
    pub(crate) fn restart(&mut self) {
        self.scanner.restart();
        self.draft = Draft::default();
    }

    /// How far the text has been read.
    pub(crate) fn progress(&self) -> Progress {
        self.scanner.progress()
    }
}

struct Builder<'a> {
    binding: Binding,
    draft: &'a mut Draft,
    found: &'a mut dyn FnMut(&Answer),
}

impl Builder<'_> {
    /// The node of one answer.
    fn root(&self) -> u8 {
        match self.binding {
            Binding::JsonRpc => node::ENVELOPE,
            Binding::Rest => node::RESULT,
        }
    }
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        let array = (self.binding == Binding::JsonRpc).then_some(node::BATCH);
        Want { scalar: None, object: Some(self.root()), array, ..Want::NOTHING }
    }

    fn element(&mut self, node: u8) -> Want {
        match node {
            node::BATCH => Want::object(node::ENVELOPE),
            node::TASKS => Want::object(node::LISTED_TASK),
            node::RECEIPTS => Want::object(payment::node::X402_SETTLEMENT),
            _ => Want::NOTHING,
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: one row for each member")]
    // A repeated member replaces the earlier one: the reader discards the earlier value before it
    // reads the new one.
    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        let is_root = node == self.root();
        let draft = &mut *self.draft;
        let answer = &mut draft.answer;
        match (node, key) {
            (node::ENVELOPE, b"id") => {
                answer.id = None;
                Want::scalar(field::ID)
            }
            (node::ENVELOPE, b"result") => {
                draft.forget_result();
                Want::object(node::RESULT)
            }
            (_, b"error") if is_root => {
                answer.error_code = None;
                answer.error_status = None;
                Want {
                    scalar: Some(field::ERROR),
                    object: Some(node::ERROR),
                    array: None,
                    ..Want::NOTHING
                }
            }
            (node::ERROR, b"code") => {
                answer.error_code = None;
                Want::scalar(field::CODE)
            }
            (node::ERROR, b"status") => {
                answer.error_status = None;
                Want::scalar(field::ERROR_STATUS)
            }
            (node::RESULT, b"task") => Want::object(node::TASK),
            (node::RESULT, b"message") => Want::object(node::MESSAGE),
            (node::RESULT, b"statusUpdate" | b"status_update") => Want::object(node::STATUS_UPDATE),
            (node::RESULT, b"artifactUpdate" | b"artifact_update") => {
                Want::object(node::ARTIFACT_UPDATE)
            }
            (node::RESULT, b"tasks") => {
                Want { scalar: None, object: None, array: Some(node::TASKS), ..Want::NOTHING }
            }
            (node::RESULT, b"kind") => {
                draft.kind = None;
                Want::scalar(field::KIND)
            }
            (node::RESULT, b"id") => {
                draft.result_id = None;
                Want::scalar(field::RESULT_ID)
            }
            (node::RESULT, b"artifact") => Want::object(node::ARTIFACT),
            (node::RESULT, b"messageId" | b"message_id") => {
                draft.has_message_id = false;
                Want::scalar(field::MESSAGE_ID)
            }
            (node::TASK, b"id")
            | (
                node::RESULT | node::MESSAGE | node::STATUS_UPDATE | node::ARTIFACT_UPDATE,
                b"taskId" | b"task_id",
            ) => {
                answer.task_id = None;
                Want::scalar(field::TASK_ID)
            }
            (
                node::RESULT
                | node::TASK
                | node::MESSAGE
                | node::STATUS_UPDATE
                | node::ARTIFACT_UPDATE,
                b"contextId" | b"context_id",
            ) => {
                answer.context_id = None;
                Want::scalar(field::CONTEXT_ID)
            }
            (node::RESULT | node::TASK | node::STATUS_UPDATE, b"status") => {
                answer.state = None;
                draft.has_status = node == node::RESULT;
                Want::object(node::STATUS)
            }
            (node::STATUS, b"message") => {
                answer.asks_payment = false;
                answer.payment = None;
                Want::object(node::STATUS_MESSAGE)
            }
            (node::RESULT | node::MESSAGE | node::STATUS_MESSAGE, b"metadata") => {
                Want::object(node::METADATA)
            }
            (node::METADATA, b"x402.payment.status") => Want::scalar(field::PAYMENT_STATUS),
            (node::METADATA, b"x402.payment.receipts") => {
                Want { array: Some(node::RECEIPTS), ..Want::NOTHING }
            }
            (node::STATUS, b"state") => {
                answer.state = None;
                Want::scalar(field::STATE)
            }
            (node::RESULT | node::STATUS_UPDATE, b"final") => {
                answer.is_final = false;
                Want::scalar(field::FINAL)
            }
            (node::LISTED_TASK, b"id") => Want::scalar(field::LISTED_ID),
            (node::LISTED_TASK, b"status") => Want::object(node::LISTED_STATUS),
            (node::LISTED_STATUS, b"state") => Want::scalar(field::LISTED_STATE),
            _ => payment::member(node, key),
        }
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let draft = &mut *self.draft;
        let answer = &mut draft.answer;
        let state = || value.is_string.then(|| TaskState::of_name(value.text));
        match field {
            field::ID => answer.id = json_rpc_id(value),
            field::KIND if value.is_string => {
                draft.kind = match value.text {
                    b"message" => Some(Subject::Message),
                    b"task" => Some(Subject::Task),
                    b"status-update" => Some(Subject::StatusUpdate),
                    b"artifact-update" => Some(Subject::ArtifactUpdate),
                    _ => None,
                };
            }
            field::RESULT_ID => draft.result_id = told_id(value),
            field::MESSAGE_ID => draft.has_message_id = value.is_string,
            field::TASK_ID => answer.task_id = told_id(value),
            field::CONTEXT_ID => answer.context_id = told_id(value),
            field::STATE => answer.state = state(),
            field::FINAL => answer.is_final = !value.is_string && value.text == b"true",
            field::ERROR if value.is_string => answer.subject = Subject::Error,
            field::CODE => {
                let text = core::str::from_utf8(value.text).ok();
                answer.error_code = text.and_then(|text| text.parse().ok());
            }
            field::ERROR_STATUS => {
                answer.error_status = value.is_string.then(|| value.text.to_vec());
            }
            field::LISTED_ID => {
                if let Some(task) = answer.tasks.last_mut() {
                    task.id = told_id(value);
                }
            }
            field::LISTED_STATE => {
                if let Some(task) = answer.tasks.last_mut() {
                    task.state = state();
                }
            }
            field::PAYMENT_STATUS => answer.asks_payment = value.text == b"payment-required",
            _ => payment::scalar(&mut answer.payment, field, value),
        }
    }

    fn open(&mut self, node: u8) {
        if node == self.root() {
            *self.draft = Draft::default();
        }
        let draft = &mut *self.draft;
        match node {
            node::ERROR => draft.answer.subject = Subject::Error,
            node::TASK => self.named(Subject::Task),
            node::MESSAGE => self.named(Subject::Message),
            node::STATUS_UPDATE => self.named(Subject::StatusUpdate),
            node::ARTIFACT_UPDATE => self.named(Subject::ArtifactUpdate),
            node::TASKS => self.named(Subject::Tasks),
            node::ARTIFACT => draft.has_artifact = true,
            node::LISTED_TASK => {
                // A task beyond the limit replaces the last one.
                if draft.answer.tasks.len() >= TASKS_LISTED_MAX {
                    draft.answer.tasks.pop();
                }
                draft.answer.tasks.push(TaskReport::default());
            }
            _ => payment::open(&mut draft.answer.payment, node),
        }
    }

    fn close(&mut self, node: u8) {
        if node != self.root() {
            return;
        }
        let draft = &mut *self.draft;
        if draft.answer.subject == Subject::Nothing {
            draft.answer.subject = draft.subject();
            if draft.answer.subject == Subject::Task {
                draft.answer.task_id = draft.result_id.take();
            }
        }
        (self.found)(&draft.answer);
    }
}

impl Builder<'_> {
    /// Records the subject that a member names.
    fn named(&mut self, subject: Subject) {
        if self.draft.answer.subject != Subject::Error {
            self.draft.forget_result();
            self.draft.answer.subject = subject;
        }
    }
}

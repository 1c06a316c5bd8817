//! Reads messages one by one out of a body that is an object or an array of objects. A member that
//! is null is absent.

use crate::protocol::mcp::arguments::ArgumentsHash;
use crate::protocol::mcp::doubts::{MessageDoubts, Object};
use crate::protocol::mcp::members::{field, node};
use crate::protocol::mcp::message::{Challenge, Message, ResultType, TaskReport, TaskState};
use crate::protocol::mcp::method::Method;
use crate::protocol::payment;
use crate::protocol::request_body::ReadMessages;
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};
use crate::wire::json_rpc::Id;

/// The most tasks that the reader keeps of one `tasks/list` response; pages are smaller in
/// practice.
const TASKS_LISTED_MAX: usize = 100;

/// Reads the messages of one body, or of one server-sent event.
#[derive(Clone, Debug, Default)]
pub struct MessageReader {
    scanner: Scanner,
    message: Message,
    doubts: MessageDoubts,
    /// Values of the body that are not known to be messages.
    other_values: u64,
    arguments: Option<ArgumentsHash>,
    before_null: Presence,
    has_content: bool,
}

/// What was known of a result before the member that is being read: a member that is null is
/// absent.
#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    has_tool_result: bool,
    has_other_result: bool,
}

impl MessageReader {
    /// Creates a reader that hashes the arguments of calls if `hashes_arguments`.
    pub fn new(hashes_arguments: bool) -> Self {
        Self { arguments: hashes_arguments.then(ArgumentsHash::default), ..Self::default() }
    }

    /// Reads the next bytes and calls `found` with each message as it ends. Returns how many of the
    /// bytes belong to the text.
    pub fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(Message)) -> usize {
        let Self { scanner, message, doubts, other_values, arguments, before_null, has_content } =
            self;
        let mut builder =
            Builder { message, doubts, other_values, arguments, before_null, has_content, found };
        scanner.feed(chunk, &mut builder)
    }

    /// How far the body has been read.
    pub fn progress(&self) -> Progress {
        self.scanner.progress()
    }
}

impl ReadMessages for MessageReader {
    type Message = Message;

    fn feed(&mut self, piece: &[u8], show: &mut dyn FnMut(Message)) {
        let _ = Self::feed(self, piece, show);
    }

    fn progress(&self) -> Progress {
        self.scanner.progress()
    }

    fn is_lax(&self) -> bool {
        self.scanner.is_lax()
    }

    fn has_other_values(&self) -> bool {
        self.scanner.progress() == Progress::Complete && self.other_values > 0
    }
}

struct Builder<'a> {
    message: &'a mut Message,
    doubts: &'a mut MessageDoubts,
    other_values: &'a mut u64,
    arguments: &'a mut Option<ArgumentsHash>,
    before_null: &'a mut Presence,
    /// True once `result.content` has an element.
    has_content: &'a mut bool,
    found: &'a mut dyn FnMut(Message),
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        *self.other_values = 1;
        Want {
            scalar: None,
            object: Some(node::MESSAGE),
            array: Some(node::BATCH),
            ..Want::NOTHING
        }
    }

    fn element(&mut self, node: u8) -> Want {
        match node {
            node::BATCH => {
                *self.other_values = self.other_values.saturating_add(1);
                Want::object(node::MESSAGE)
            }
            node::TASKS => Want::object(node::LISTED_TASK),
            node::CONTENT if !core::mem::replace(self.has_content, true) => {
                Want::object(node::FIRST_CONTENT)
            }
            node::CHALLENGES => Want::object(node::CHALLENGE),
            _ => Want::NOTHING,
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: one row for each member")]
    // A repeated member replaces the earlier one, as in the parsers of the official SDKs: the
    // reader discards the earlier value before it reads the new one.
    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        match node {
            node::MESSAGE => self.doubts.member(Object::Message, key),
            node::PARAMS => self.doubts.member(Object::Params, key),
            node::PARAMS_META => self.doubts.member(Object::Meta, key),
            _ => {}
        }
        let message = &mut *self.message;
        if node == node::RESULT {
            let Message { has_tool_result, has_other_result, .. } = *message;
            *self.before_null = Presence { has_tool_result, has_other_result };
        }
        match (node, key) {
            (node::MESSAGE, b"jsonrpc") => {
                message.is_json_rpc = false;
                Want::scalar(field::JSON_RPC)
            }
            (node::MESSAGE, b"method") => {
                message.method = Method::Other;
                Want::scalar(field::METHOD)
            }
            (node::MESSAGE, b"id") => {
                message.id = None;
                Want::scalar(field::ID)
            }
            (node::MESSAGE, b"params") => {
                self.forget_arguments();
                let message = &mut *self.message;
                message.tool = None;
                message.request_id = None;
                message.traceparent = None;
                message.session_id = None;
                message.payment = None;
                message.params_task = TaskReport::default();
                Want::object(node::PARAMS)
            }
            (node::MESSAGE, b"result") => {
                message.has_result = true;
                message.has_tool_result = false;
                message.has_other_result = false;
                message.is_error = false;
                message.result_type = ResultType::Complete;
                message.has_task = false;
                message.result_task = TaskReport::default();
                message.related_task = None;
                message.payment = None;
                message.challenge = Challenge::default();
                message.listed_tasks.clear();
                Want::object(node::RESULT)
            }
            (node::MESSAGE, b"error") => {
                message.has_error = true;
                message.error_code = None;
                message.challenge.in_error = false;
                Want { scalar: Some(field::ERROR), ..Want::object(node::ERROR) }
            }
            (node::PARAMS, b"name") => {
                message.tool = None;
                Want::scalar(field::NAME)
            }
            (node::PARAMS, b"arguments") if self.arguments.is_some() => {
                self.forget_arguments();
                Want { shows_skipped: true, ..Want::NOTHING }
            }
            (node::PARAMS, b"_meta") => {
                message.traceparent = None;
                message.session_id = None;
                message.payment = None;
                Want::object(node::PARAMS_META)
            }
            (node::PARAMS_META, b"x402/payment") => {
                message.payment = None;
                Want::object(payment::node::X402_PAYLOAD)
            }
            (node::PARAMS_META, b"org.paymentauth/credential") => {
                message.payment = None;
                Want::object(payment::node::MPP_CREDENTIAL)
            }
            (node::PARAMS_META, b"traceparent") => Want::scalar(field::TRACEPARENT),
            (node::PARAMS_META, b"session_id") => Want::scalar(field::SESSION_ID),
            (node::PARAMS, b"requestId") => {
                message.request_id = None;
                Want::scalar(field::REQUEST_ID)
            }
            (node::PARAMS, b"taskId") => {
                message.params_task.id = None;
                Want::scalar(field::PARAMS_TASK_ID)
            }
            (node::PARAMS, b"status") => {
                message.params_task.state = None;
                Want::scalar(field::PARAMS_STATUS)
            }
            (node::PARAMS, b"result") => {
                message.params_task.is_error = false;
                Want::object(node::PUSHED_RESULT)
            }
            (node::PUSHED_RESULT, b"isError") => Want::scalar(field::PUSHED_IS_ERROR),
            (node::RESULT, b"content") => {
                message.has_tool_result = true;
                message.challenge.in_text = false;
                *self.has_content = false;
                Want { array: Some(node::CONTENT), ..Want::scalar(field::OF_TOOL) }
            }
            (node::FIRST_CONTENT, b"text") => {
                Want { is_head_only: true, ..Want::scalar(field::CONTENT_TEXT) }
            }
            (node::RESULT, b"structuredContent") => {
                message.has_tool_result = true;
                message.challenge.in_structured_content = false;
                Want { object: Some(node::STRUCTURED), ..Want::scalar(field::OF_TOOL) }
            }
            (node::STRUCTURED, b"x402Version") => Want::scalar(field::X402_VERSION),
            (node::RESULT, b"toolResult") => {
                message.has_tool_result = true;
                Want::scalar(field::OF_TOOL)
            }
            (node::RESULT, b"isError") => {
                message.has_tool_result = true;
                message.is_error = false;
                Want::scalar(field::IS_ERROR)
            }
            (node::RESULT, b"resultType") => {
                message.result_type = ResultType::Unknown;
                Want::scalar(field::RESULT_TYPE)
            }
            (node::RESULT, b"task") => {
                message.has_task = false;
                Want::object(node::TASK)
            }
            (node::RESULT | node::TASK, b"taskId") => {
                message.result_task.id = None;
                Want::scalar(field::RESULT_TASK_ID)
            }
            (node::RESULT | node::TASK, b"status") => {
                message.result_task.state = None;
                Want::scalar(field::RESULT_STATUS)
            }
            (node::RESULT, b"result") => {
                message.result_task.is_error = false;
                Want::object(node::POLLED_RESULT)
            }
            (node::RESULT, b"_meta") => {
                message.related_task = None;
                message.payment = None;
                message.challenge.in_meta = false;
                Want::object(node::META)
            }
            (node::META, b"x402/payment-response") => {
                message.payment = None;
                Want::object(payment::node::X402_SETTLEMENT)
            }
            (node::META, b"org.paymentauth/receipt") => {
                message.payment = None;
                Want::object(payment::node::MPP_RECEIPT)
            }
            (node::META, b"x402/error") => Want::object(node::META_ERROR),
            (node::META, b"io.modelcontextprotocol/related-task") => {
                message.related_task = None;
                Want::object(node::RELATED_TASK)
            }
            (node::RELATED_TASK, b"taskId") => Want::scalar(field::RELATED_TASK_ID),
            (node::POLLED_RESULT, b"isError") => Want::scalar(field::POLLED_IS_ERROR),
            (node::RESULT, b"tasks") => {
                message.listed_tasks.clear();
                Want { scalar: None, object: None, array: Some(node::TASKS), ..Want::NOTHING }
            }
            (node::LISTED_TASK, b"taskId") => Want::scalar(field::LISTED_TASK_ID),
            (node::LISTED_TASK, b"status") => Want::scalar(field::LISTED_STATUS),
            (node::ERROR, b"code") => {
                message.error_code = None;
                Want::scalar(field::CODE)
            }
            (node::ERROR, b"data") => {
                message.challenge.in_error = false;
                Want::object(node::ERROR_DATA)
            }
            (node::ERROR_DATA, b"httpStatus") => Want::scalar(field::ERROR_HTTP_STATUS),
            (node::ERROR_DATA, b"challenges") => {
                Want { array: Some(node::CHALLENGES), ..Want::NOTHING }
            }
            (node::RESULT, _) => {
                message.has_other_result = true;
                Want::scalar(field::OF_OTHER)
            }
            _ => payment::member(node, key),
        }
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let message = &mut *self.message;
        let is_null = value.is_null();
        let is_true = !value.is_string && value.text == b"true";
        let text = || value.is_string.then(|| value.text.to_vec());
        let name = || value.is_string.then(|| value.identity());
        match field {
            field::METHOD => {
                message.method = match value.is_string {
                    true => Method::of_text(value.text),
                    false if is_null => Method::None,
                    false => Method::Other,
                };
                self.doubts.method(value, message.method);
            }
            field::ID if !is_null => {
                message.id = Some(id(value));
                self.doubts.id(value);
            }
            field::REQUEST_ID if !is_null => message.request_id = Some(id(value)),
            field::NAME => {
                message.tool = text();
                self.doubts.name(value);
            }
            field::TRACEPARENT => message.traceparent = text(),
            field::SESSION_ID => message.session_id = name().filter(|id| !id.is_empty()),
            field::JSON_RPC => message.is_json_rpc = value.is_string,
            field::ERROR if is_null => message.has_error = false,
            field::OF_TOOL | field::IS_ERROR | field::OF_OTHER if is_null => {
                let Presence { has_tool_result, has_other_result } = *self.before_null;
                message.has_tool_result = has_tool_result;
                message.has_other_result = has_other_result;
            }
            field::IS_ERROR => message.is_error = is_true,
            field::PUSHED_IS_ERROR => message.params_task.is_error = is_true,
            field::POLLED_IS_ERROR => message.result_task.is_error = is_true,
            field::RELATED_TASK_ID => message.related_task = name(),
            field::PARAMS_TASK_ID => message.params_task.id = name(),
            field::RESULT_TASK_ID => message.result_task.id = name(),
            field::PARAMS_STATUS => message.params_task.state = task_state(value),
            field::RESULT_STATUS => message.result_task.state = task_state(value),
            field::LISTED_TASK_ID => {
                if let Some(task) = message.listed_tasks.last_mut() {
                    task.id = name();
                }
            }
            field::LISTED_STATUS => {
                if let Some(task) = message.listed_tasks.last_mut() {
                    task.state = task_state(value);
                }
            }
            field::RESULT_TYPE => {
                message.result_type = match value.text {
                    b"complete" if value.is_string => ResultType::Complete,
                    b"input_required" if value.is_string => ResultType::InputRequired,
                    b"task" if value.is_string => ResultType::Task,
                    _ if is_null => ResultType::Complete,
                    _ => ResultType::Unknown,
                };
            }
            field::CODE => {
                let code = core::str::from_utf8(value.text).ok().filter(|_| !value.is_string);
                message.error_code = code.and_then(|code| code.parse().ok());
            }
            field::X402_VERSION => message.challenge.in_structured_content = !is_null,
            field::CONTENT_TEXT => {
                message.challenge.in_text = value.is_string && is_x402(value.text);
            }
            field::ERROR_HTTP_STATUS => message.challenge.in_error |= value.text == b"402",
            _ => payment::scalar(&mut message.payment, field, value),
        }
    }

    fn open(&mut self, node: u8) {
        match node {
            node::BATCH => *self.other_values = 0,
            node::MESSAGE => {
                *self.other_values = self.other_values.saturating_sub(1);
                *self.message = Message::default();
                *self.doubts = MessageDoubts::default();
                self.forget_arguments();
            }
            node::TASK => self.message.has_task = true,
            node::META_ERROR => self.message.challenge.in_meta = true,
            node::CHALLENGE => self.message.challenge.in_error = true,
            node::LISTED_TASK => {
                // A task beyond the limit replaces the last one.
                if self.message.listed_tasks.len() >= TASKS_LISTED_MAX {
                    self.message.listed_tasks.pop();
                }
                self.message.listed_tasks.push(TaskReport::default());
            }
            _ => payment::open(&mut self.message.payment, node),
        }
    }

    fn close(&mut self, node: u8) {
        if node == node::MESSAGE {
            self.message.arguments = self.arguments.as_ref().map(ArgumentsHash::finish);
            self.message.doubt = self.doubts.of(self.message.method);
            (self.found)(core::mem::take(self.message));
        }
    }

    fn skipped(&mut self, text: &[u8]) {
        if let Some(arguments) = self.arguments {
            arguments.feed(text);
        }
    }
}

impl Builder<'_> {
    fn forget_arguments(&mut self) {
        if let Some(arguments) = self.arguments {
            *arguments = ArgumentsHash::default();
        }
    }
}

/// Whether a text begins as the JSON of an x402 challenge does, whose first member is its version.
fn is_x402(text: &[u8]) -> bool {
    let object = text.trim_ascii_start().strip_prefix(b"{");
    object.is_some_and(|object| memchr::memmem::find(object, b"\"x402Version\"").is_some())
}

fn id(value: Scalar<'_>) -> Id {
    Id { is_string: value.is_string, text: value.identity() }
}

fn task_state(value: Scalar<'_>) -> Option<TaskState> {
    match value.text {
        _ if !value.is_string => None,
        b"completed" => Some(TaskState::Completed),
        b"failed" => Some(TaskState::Failed),
        b"cancelled" => Some(TaskState::Cancelled),
        _ => Some(TaskState::Open),
    }
}

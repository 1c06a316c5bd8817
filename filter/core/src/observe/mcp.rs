//! Reads JSON-RPC 2.0 messages of the Model Context Protocol (revisions 2024-11-05 to 2026-07-28), one by one,
//! out of a body that is an object or an array of objects. It keeps of each message what metering needs.

use rust_decimal::Decimal;

use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};

/// A JSON-RPC id as it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// A string, or else a number.
    pub is_string: bool,
    /// The unescaped string, or the number as written.
    pub text: Vec<u8>,
}

impl Id {
    /// Whether both are the same id by type and value: `1` and `1.0` are, `1` and `"1"` are not.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_string == other.is_string
            && (self.text == other.text || (!self.is_string && self.is_same_number(other)))
    }

    /// Whether both are the same if one overlooks the type, as some servers do.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.text == other.text || self.is_same_number(other)
    }

    fn is_same_number(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(one), Some(two)) => one == two,
            _ => false,
        }
    }

    fn number(&self) -> Option<Decimal> {
        let text = core::str::from_utf8(&self.text).ok()?;
        Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
    }
}

/// The value of `result.resultType` (2026-07-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultType {
    /// Absent, as in all earlier revisions, or `complete`.
    #[default]
    Complete,
    /// `input_required`: the call goes on when the client has given its input.
    InputRequired,
    /// `task`: the call goes on as a task.
    Task,
    /// A value that no revision defines.
    Unknown,
}

/// What one JSON-RPC message says, as far as metering goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `method` is `tools/call`.
    pub is_tools_call: bool,
    /// There is a `method`: a request or a notification.
    pub has_method: bool,
    /// `id`, unless it is absent or null.
    pub id: Option<Id>,
    /// `params.name`.
    pub tool: Option<Vec<u8>>,
    /// There is a `result`.
    pub has_result: bool,
    /// `result.isError` is true.
    pub is_error: bool,
    /// `result.resultType`.
    pub result_type: ResultType,
    /// `result.task` is an object (2025-11-25).
    pub has_task: bool,
    /// There is an `error`.
    pub has_error: bool,
    /// `error.code`, if it is a whole number.
    pub error_code: Option<i64>,
}

impl Message {
    /// A request that runs a tool; without an id it is a notification, which servers do not run.
    pub fn is_call(&self) -> bool {
        self.is_tools_call && self.id.is_some()
    }

    /// An answer to a request.
    pub fn is_answer(&self) -> bool {
        !self.has_method && (self.has_result || self.has_error)
    }
}

mod node {
    pub(super) const BATCH: u8 = 0;
    pub(super) const MESSAGE: u8 = 1;
    pub(super) const PARAMS: u8 = 2;
    pub(super) const RESULT: u8 = 3;
    pub(super) const TASK: u8 = 4;
    pub(super) const ERROR: u8 = 5;
}

mod field {
    pub(super) const METHOD: u8 = 0;
    pub(super) const ID: u8 = 1;
    pub(super) const NAME: u8 = 2;
    pub(super) const IS_ERROR: u8 = 3;
    pub(super) const RESULT_TYPE: u8 = 4;
    pub(super) const CODE: u8 = 5;
}

/// Reads the messages of one body, or of one server-sent event.
#[derive(Clone, Debug, Default)]
pub struct MessageReader {
    scanner: Scanner,
    message: Message,
}

impl MessageReader {
    /// Reads the next bytes and calls `found` with each message as it ends.
    pub fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(&Message)) {
        self.scanner.feed(chunk, &mut Builder { message: &mut self.message, found });
    }

    /// Where the body stands.
    pub fn progress(&self) -> Progress {
        self.scanner.progress()
    }

    /// Whether the body holds anything.
    pub fn has_started(&self) -> bool {
        self.scanner.has_started()
    }
}

struct Builder<'a> {
    message: &'a mut Message,
    found: &'a mut dyn FnMut(&Message),
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        Want { scalar: None, object: Some(node::MESSAGE), array: Some(node::BATCH) }
    }

    fn element(&mut self, node: u8) -> Want {
        if node == node::BATCH { Want::object(node::MESSAGE) } else { Want::NOTHING }
    }

    // A repeated member replaces the earlier one, as in the parsers of the official SDKs: what it said is forgotten
    // before the new value is read.
    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        let message = &mut *self.message;
        match (node, key) {
            (node::MESSAGE, b"method") => {
                message.has_method = true;
                message.is_tools_call = false;
                Want::scalar(field::METHOD)
            }
            (node::MESSAGE, b"id") => {
                message.id = None;
                Want::scalar(field::ID)
            }
            (node::MESSAGE, b"params") => {
                message.tool = None;
                Want::object(node::PARAMS)
            }
            (node::MESSAGE, b"result") => {
                message.has_result = true;
                message.is_error = false;
                message.result_type = ResultType::Complete;
                message.has_task = false;
                Want::object(node::RESULT)
            }
            (node::MESSAGE, b"error") => {
                message.has_error = true;
                message.error_code = None;
                Want::object(node::ERROR)
            }
            (node::PARAMS, b"name") => {
                message.tool = None;
                Want::scalar(field::NAME)
            }
            (node::RESULT, b"isError") => {
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
            (node::ERROR, b"code") => {
                message.error_code = None;
                Want::scalar(field::CODE)
            }
            _ => Want::NOTHING,
        }
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let message = &mut *self.message;
        let is_null = !value.is_string && value.text == b"null";
        match field {
            field::METHOD => {
                message.is_tools_call = value.is_string && value.text == b"tools/call";
            }
            field::ID if !is_null => {
                message.id = Some(Id { is_string: value.is_string, text: value.text.to_vec() });
            }
            field::NAME if value.is_string => message.tool = Some(value.text.to_vec()),
            field::IS_ERROR => message.is_error = !value.is_string && value.text == b"true",
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
                message.error_code =
                    core::str::from_utf8(value.text).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }

    fn open(&mut self, node: u8) {
        match node {
            node::MESSAGE => *self.message = Message::default(),
            node::TASK => self.message.has_task = true,
            _ => {}
        }
    }

    fn close(&mut self, node: u8) {
        if node == node::MESSAGE {
            (self.found)(self.message);
        }
    }
}

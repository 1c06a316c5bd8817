//! Reads A2A requests: a JSON-RPC message, or the body of an HTTP+JSON request.

use crate::protocol::a2a::{Binding, Operation, Route};
use crate::protocol::payment;
use crate::protocol::payment::PaymentReading;
use crate::protocol::request_body::ReadMessages;
use crate::wire::doubt::Doubt;
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};
use crate::wire::json_rpc::Id;
use crate::wire::member_check::MemberCheck;

/// One request, as far as metering needs it. The reader leaves out an id that is longer than the
/// values it keeps: half an id may be the id of something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The operation that the client asks for.
    pub operation: Operation,
    /// The id of the JSON-RPC message, unless it is absent or null.
    pub id: Option<Id>,
    /// The conversation that a message, or a list, belongs to. The first message of a conversation
    /// usually has none: the server names it in its answer.
    pub context_id: Option<Vec<u8>>,
    /// The task that a message continues, or that the client asks about.
    pub task_id: Option<Vec<u8>>,
    /// The id that the client gave to the message.
    pub message_id: Option<Vec<u8>>,
    /// `traceparent` in the metadata of the request or the message. A2A has it in the headers; some
    /// clients put it here as they do in MCP.
    pub traceparent: Option<Vec<u8>>,
    /// The payment that the message offers.
    pub(crate) payment: Option<Box<PaymentReading>>,
    /// Why it is not certain what the message asks for.
    pub doubt: Option<Doubt>,
}

impl Request {
    /// The request as the head alone describes it, for a request without a body.
    pub fn of_route(route: &Route) -> Self {
        let Route { operation, task_id, .. } = route.clone();
        Self { operation, task_id, ..Self::default() }
    }
}

mod node {
    pub(super) const BATCH: u8 = 0;
    /// The JSON-RPC message.
    pub(super) const ENVELOPE: u8 = 1;
    /// `params`, or the body of an HTTP+JSON request.
    pub(super) const PARAMS: u8 = 2;
    pub(super) const MESSAGE: u8 = 3;
    /// `metadata` or `_meta`.
    pub(super) const METADATA: u8 = 4;
}

mod field {
    pub(super) const METHOD: u8 = 0;
    pub(super) const ID: u8 = 1;
    /// `params.id`.
    pub(super) const PARAMS_ID: u8 = 2;
    pub(super) const PARAMS_TASK_ID: u8 = 3;
    pub(super) const TASK_ID: u8 = 4;
    pub(super) const CONTEXT_ID: u8 = 5;
    pub(super) const MESSAGE_ID: u8 = 6;
    pub(super) const TRACEPARENT: u8 = 7;
}

/// Reads the body of one request.
#[derive(Clone, Debug)]
pub struct RequestReader {
    scanner: Scanner,
    route: Route,
    draft: Draft,
    /// Values of the body that are not known to be requests.
    other_values: u64,
}

#[derive(Clone, Debug, Default)]
struct Draft {
    request: Request,
    /// `params.id`: the task or, if `params.taskId` names the task, one of its push configurations.
    params_id: Option<Vec<u8>>,
    params_task_id: Option<Vec<u8>>,
    has_method: bool,
    envelope: MemberCheck,
    params: MemberCheck,
    message: MemberCheck,
}

/// The members that decide what a message asks for and which conversation it belongs to, with their
/// places.
const ENVELOPE: &[(&str, u32)] = &[("method", 0), ("id", 1), ("params", 2)];
const PARAMS: &[(&str, u32)] = &[("message", 0), ("contextId", 1), ("context_id", 1)];
const MESSAGE: &[(&str, u32)] = &[("contextId", 0), ("context_id", 0)];

impl RequestReader {
    /// Creates a reader for the body of a request with this head.
    pub fn new(route: Route) -> Self {
        Self { scanner: Scanner::default(), route, draft: Draft::default(), other_values: 0 }
    }

    /// Reads the next bytes and calls `found` with each request as it ends.
    pub fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(&Request)) {
        let Self { scanner, route, draft, other_values } = self;
        scanner.feed(chunk, &mut Builder { route, draft, other_values, found });
    }

    /// How far the body has been read.
    pub fn progress(&self) -> Progress {
        self.scanner.progress()
    }
}

impl ReadMessages for RequestReader {
    type Message = Request;

    fn feed(&mut self, piece: &[u8], show: &mut dyn FnMut(Request)) {
        Self::feed(self, piece, &mut |request| show(request.clone()));
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
    route: &'a Route,
    draft: &'a mut Draft,
    other_values: &'a mut u64,
    found: &'a mut dyn FnMut(&Request),
}

impl Builder<'_> {
    /// The node of one request.
    fn root(&self) -> u8 {
        match self.route.binding {
            Binding::JsonRpc => node::ENVELOPE,
            Binding::Rest => node::PARAMS,
        }
    }
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        *self.other_values = 1;
        let array = (self.route.binding == Binding::JsonRpc).then_some(node::BATCH);
        Want { scalar: None, object: Some(self.root()), array, ..Want::NOTHING }
    }

    fn element(&mut self, _node: u8) -> Want {
        *self.other_values = self.other_values.saturating_add(1);
        Want::object(self.root())
    }

    // A repeated member replaces the earlier one. Servers accept the names in both styles, as
    // ProtoJSON does.
    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        let draft = &mut *self.draft;
        let is_certain = match node {
            node::ENVELOPE => draft.envelope.is_certain(key, ENVELOPE),
            node::PARAMS => draft.params.is_certain(key, PARAMS),
            node::MESSAGE => draft.message.is_certain(key, MESSAGE),
            _ => true,
        };
        let request = &mut draft.request;
        request.doubt = request.doubt.or((!is_certain).then_some(Doubt::Member));
        match (node, key) {
            (node::ENVELOPE, b"method") => {
                draft.has_method = false;
                request.operation = Operation::Other;
                Want::scalar(field::METHOD)
            }
            (node::ENVELOPE, b"id") => {
                request.id = None;
                Want::scalar(field::ID)
            }
            (node::ENVELOPE, b"params") => {
                let (operation, id, doubt) = (request.operation, request.id.take(), request.doubt);
                let Draft { has_method, envelope, .. } = *draft;
                *draft = Draft { has_method, envelope, ..Draft::default() };
                draft.request = Request { operation, id, doubt, ..Request::default() };
                Want::object(node::PARAMS)
            }
            (node::PARAMS, b"id") => {
                draft.params_id = None;
                Want::scalar(field::PARAMS_ID)
            }
            (node::PARAMS, b"taskId" | b"task_id") => {
                draft.params_task_id = None;
                Want::scalar(field::PARAMS_TASK_ID)
            }
            (node::PARAMS, b"message") => {
                request.context_id = None;
                request.task_id = None;
                request.message_id = None;
                Want::object(node::MESSAGE)
            }
            (node::PARAMS | node::MESSAGE, b"contextId" | b"context_id") => {
                request.context_id = None;
                Want::scalar(field::CONTEXT_ID)
            }
            (node::MESSAGE, b"taskId" | b"task_id") => {
                request.task_id = None;
                Want::scalar(field::TASK_ID)
            }
            (node::MESSAGE, b"messageId" | b"message_id") => {
                request.message_id = None;
                Want::scalar(field::MESSAGE_ID)
            }
            (node::PARAMS | node::MESSAGE, b"metadata" | b"_meta") => Want::object(node::METADATA),
            (node::METADATA, b"traceparent") => Want::scalar(field::TRACEPARENT),
            (node::METADATA, b"x402.payment.payload") => {
                request.payment = None;
                Want::object(payment::node::X402_PAYLOAD)
            }
            _ => payment::member(node, key),
        }
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let draft = &mut *self.draft;
        let request = &mut draft.request;
        let text = told_id(value);
        match field {
            field::METHOD if value.is_string => {
                request.operation = Operation::of_method(value.text);
                draft.has_method =
                    request.operation != Operation::Other || !Operation::is_alike_step(value.text);
            }
            field::ID => request.id = json_rpc_id(value),
            field::PARAMS_ID => draft.params_id = text,
            field::PARAMS_TASK_ID => draft.params_task_id = text,
            field::TASK_ID => request.task_id = text,
            field::CONTEXT_ID => request.context_id = text,
            field::MESSAGE_ID => request.message_id = text,
            field::TRACEPARENT => request.traceparent = text,
            _ => payment::scalar(&mut request.payment, field, value),
        }
    }

    fn open(&mut self, node: u8) {
        if node == node::BATCH {
            *self.other_values = 0;
        } else if node == self.root() {
            *self.other_values = self.other_values.saturating_sub(1);
            *self.draft = Draft::default();
        } else {
            payment::open(&mut self.draft.request.payment, node);
        }
    }

    fn close(&mut self, node: u8) {
        if node != self.root() {
            return;
        }
        let Draft { request, params_id, params_task_id, has_method, .. } = &mut *self.draft;
        if self.route.binding == Binding::Rest {
            request.operation = self.route.operation;
        } else if !*has_method {
            request.doubt = request.doubt.or(Some(Doubt::Method));
        }
        if !request.operation.is_step() {
            let in_path = self.route.task_id.clone();
            request.task_id = in_path.or(params_task_id.take()).or(params_id.take());
        }
        (self.found)(request);
    }
}

/// Reads an id: a string that is complete and not empty.
pub(super) fn told_id(value: Scalar<'_>) -> Option<Vec<u8>> {
    let is_given = value.is_string && !value.is_truncated && !value.text.is_empty();
    is_given.then(|| value.text.to_vec())
}

/// Reads the id of a JSON-RPC message, unless it is null.
pub(super) fn json_rpc_id(value: Scalar<'_>) -> Option<Id> {
    let is_null = !value.is_string && value.text == b"null";
    (!is_null).then(|| Id { is_string: value.is_string, text: value.text.to_vec() })
}

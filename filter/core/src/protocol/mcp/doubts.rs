//! What of a request another parser may read as something else: see [`Doubt`]. The reader takes the
//! last of repeated members, as the official SDKs do, but some servers take the first, and some take
//! `Method` for `method`.

use crate::protocol::mcp::method::Method;
use crate::wire::doubt::Doubt;
use crate::wire::json::Scalar;
use crate::wire::member_check::{MemberCheck, is_alike, trimmed};

/// The members of a message, of `params` and of `params._meta` that decide, with their places.
const MESSAGE: &[(&str, u32)] =
    &[("method", 0), ("id", 1), ("params", 2), ("result", 3), ("error", 4)];
const PARAMS: &[(&str, u32)] = &[("name", 0), ("_meta", 1), ("requestId", 2), ("taskId", 3)];
const META: &[(&str, u32)] = &[("session_id", 0)];

/// The objects of a message whose members decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Message,
    Params,
    Meta,
}

/// What is not certain about one message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageDoubts {
    message: MemberCheck,
    params: MemberCheck,
    meta: MemberCheck,
    of_message: Option<Doubt>,
    of_params: Option<Doubt>,
    has_method: bool,
    is_method_plain: bool,
    is_id_plain: bool,
    is_name_plain: bool,
}

impl MessageDoubts {
    /// Handles the name of the next member.
    pub(super) fn member(&mut self, object: Object, key: &[u8]) {
        let (check, known, doubt) = match object {
            Object::Message => (&mut self.message, MESSAGE, &mut self.of_message),
            Object::Params => (&mut self.params, PARAMS, &mut self.of_params),
            Object::Meta => (&mut self.meta, META, &mut self.of_params),
        };
        if !check.is_certain(key, known) {
            *doubt = Some(Doubt::Member);
        }
        match (object, key) {
            (Object::Message, b"method") => {
                self.has_method = true;
                self.is_method_plain = false;
            }
            (Object::Message, b"id") => self.is_id_plain = false,
            (Object::Message, b"params") => {
                self.params = MemberCheck::default();
                self.is_name_plain = false;
            }
            (Object::Params, b"_meta") => self.meta = MemberCheck::default(),
            (Object::Params, b"name") => self.is_name_plain = false,
            _ => {}
        }
    }

    /// Handles the value of `method`, read as this method.
    pub(super) fn method(&mut self, value: Scalar<'_>, method: Method) {
        let is_other = method == Method::Other;
        self.is_method_plain = value.is_string && !(is_other && is_alike(value.text, "tools/call"));
    }

    /// Handles the value of `id`.
    pub(super) fn id(&mut self, value: Scalar<'_>) {
        // Servers change what has an exponent or is no number of JSON.
        let digits = value.text.strip_prefix(b"-").unwrap_or(value.text);
        let begins_plain = !matches!(digits, [b'0', b'0'..=b'9', ..] | [b'.', ..] | []);
        let is_number = digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        self.is_id_plain = value.is_string || (begins_plain && is_number);
    }

    /// Handles the value of `params.name`.
    pub(super) fn name(&mut self, value: Scalar<'_>) {
        self.is_name_plain = value.is_string && !value.is_truncated && is_plain_name(value.text);
    }

    /// Why it is not certain what a message with this method asks for; `None` if it is.
    pub(super) fn of(&self, method: Method) -> Option<Doubt> {
        let is_call = method == Method::ToolsCall;
        let decides = is_call
            || matches!(method, Method::TasksResult | Method::TaskStatus | Method::Cancelled);
        let is_odd = self.has_method && !self.is_method_plain;
        self.of_message
            .or(is_odd.then_some(Doubt::Method))
            .or(self.of_params.filter(|_| decides))
            .or((is_call && !self.is_name_plain).then_some(Doubt::Name))
            .or((is_call && !self.is_id_plain).then_some(Doubt::Id))
    }
}

/// Whether every server takes a text for the same name: some cut off white space around it, and in
/// C it ends before a NUL.
fn is_plain_name(text: &[u8]) -> bool {
    core::str::from_utf8(text).is_ok_and(|name| {
        !name.is_empty() && trimmed(name) == name && !name.chars().any(char::is_control)
    })
}

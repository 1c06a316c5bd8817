//! A JSON-RPC message as the relay sees it: what it is and whose it is. The rest passes as it is,
//! also what no revision of MCP knows.
//!
//! Source: JSON-RPC 2.0, and MCP 2025-11-25, "Transports", "Progress" and "Cancellation".

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The id of a request, or the token of its progress: a number as it is written, or a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Number(String),
    Text(String),
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Request {
        id: Id,
        method: String,
        /// The token by which its sender wants to know its progress.
        progress: Option<Id>,
    },
    Notification {
        /// The token of `notifications/progress`.
        progress: Option<Id>,
        /// The request of `notifications/cancelled`.
        cancelled: Option<Id>,
    },
    Response {
        /// `None` if whoever answers could not read the request's.
        id: Option<Id>,
        is_error: bool,
    },
}

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not JSON, not UTF-8, or a member twice.
    Json(String),
    /// JSON that is no message.
    Message(&'static str),
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    /// Also `null`.
    #[serde(default, deserialize_with = "is_there")]
    result: bool,
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, rename = "progressToken")]
    progress: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    cancelled: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress: Option<&'a RawValue>,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Message {
    /// Reads one message; a batch is none, as in every revision but 2025-03-26.
    pub(super) fn read(text: &[u8]) -> Result<Self, Unreadable> {
        let text =
            std::str::from_utf8(text).map_err(|error| Unreadable::Json(error.to_string()))?;
        if text.trim_start().starts_with('[') {
            return Err(Unreadable::Message("a batch; send its messages one by one"));
        }
        let members: Members =
            serde_json::from_str(text).map_err(|error| Unreadable::Json(error.to_string()))?;
        let id = match members.id {
            Some(raw) => {
                Some(Id::read(raw).ok_or(Unreadable::Message("`id` is no text or number"))?)
            }
            None => None,
        };
        // Servers may take what they like in `params`; what has no such members is not about them.
        let params = members.params.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let params: Params = params.unwrap_or_default();
        let is_error = members.error.is_some();
        match (members.method, id) {
            (Some(method), Some(id)) => {
                let meta = params.meta.and_then(|raw| serde_json::from_str::<Meta>(raw.get()).ok());
                let progress = meta.and_then(|meta| Id::read(meta.progress?));
                Ok(Self::Request { id, method: method.into_owned(), progress })
            }
            (Some(method), None) => {
                let of = |name: &str, raw: Option<&RawValue>| {
                    raw.filter(|_| method == name).and_then(Id::read)
                };
                Ok(Self::Notification {
                    progress: of("notifications/progress", params.progress),
                    cancelled: of("notifications/cancelled", params.cancelled),
                })
            }
            (None, id) if members.result || is_error => Ok(Self::Response { id, is_error }),
            (None, _) => Err(Unreadable::Message("neither `method` nor `result` nor `error`")),
        }
    }
}

impl Id {
    fn read(raw: &RawValue) -> Option<Self> {
        match raw.get().as_bytes().first()? {
            b'"' => serde_json::from_str(raw.get()).ok().map(Self::Text),
            b'-' | b'0'..=b'9' => Some(Self::Number(raw.get().to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Id {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(number),
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => f.write_str(error),
            Self::Message(what) => f.write_str(what),
        }
    }
}

/// A message as one line, without its end. JSON has line breaks only between its tokens, and a
/// stream of stdio or of events none at all.
pub(super) fn one_line(mut message: Vec<u8>) -> Vec<u8> {
    for byte in &mut message {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    message
}

/// The response to a request that no server can answer. `id` is JSON-RPC's `null` if there is none.
pub(super) fn error(id: Option<&Id>, code: i32, message: &str) -> Vec<u8> {
    let id = id.map_or_else(|| "null".to_owned(), Id::to_string);
    let message = serde_json::Value::from(message);
    let error =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#);
    error.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Id {
        Id::Number(text.to_owned())
    }

    #[test]
    fn a_message_is_told_by_its_members() {
        let text = Id::Text("a\u{e9}".to_owned());
        for (json, expected) in [
            (
                r#"{"id":1,"method":"m","params":{"_meta":{"progressToken":"a\u00e9"}}}"#,
                Message::Request { id: number("1"), method: "m".to_owned(), progress: Some(text) },
            ),
            (
                r#"{"id":123456789012345678901234567890,"method":"m","params":[1]}"#,
                Message::Request {
                    id: number("123456789012345678901234567890"),
                    method: "m".to_owned(),
                    progress: None,
                },
            ),
            (
                r#"{"method":"notifications/progress","params":{"progressToken":7,"requestId":1}}"#,
                Message::Notification { progress: Some(number("7")), cancelled: None },
            ),
            (
                r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
                Message::Notification { progress: None, cancelled: Some(number("7")) },
            ),
            (
                r#"{"id":2,"result":null}"#,
                Message::Response { id: Some(number("2")), is_error: false },
            ),
            (r#"{"id":null,"error":{}}"#, Message::Response { id: None, is_error: true }),
        ] {
            assert_eq!(Message::read(json.as_bytes()), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        for (text, expected) in [
            (&b"[{}]"[..], "a batch"),
            (b"{}", "neither"),
            (br#"{"id":{},"method":"m"}"#, "`id`"),
            (br#"{"id":1,"id":2,"method":"m"}"#, "duplicate field `id`"),
            (b"{", "EOF"),
            (b"\xff", "utf-8"),
        ] {
            let found = Message::read(text).expect_err(expected).to_string();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn an_error_names_the_request_and_is_one_line() {
        let id = Id::Text("a\"b".to_owned());
        let found = error(Some(&id), -32000, "it \"ended\"");
        let read: serde_json::Value = serde_json::from_slice(&found).expect("JSON");
        assert_eq!(read["id"], "a\"b");
        assert_eq!(read["error"]["message"], "it \"ended\"");
        assert_eq!(one_line(b"{\r\n}".to_vec()), b"{  }");
    }
}

//! What the filter of a control listener does with a request.

use serde_json::json;

use crate::wire::http::LocalReply;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAction {
    /// Answer it.
    Answer(LocalReply),
    /// Hold it until a tick answers it.
    Wait,
}

pub(super) fn not_post() -> ControlAction {
    let LocalReply { status, mut headers, body } = reply(405, &json!({ "error": "expected POST" }));
    headers.push(("allow", "POST".to_owned()));
    ControlAction::Answer(LocalReply { status, headers, body })
}

pub(super) fn answer(status: u16, body: &serde_json::Value) -> ControlAction {
    ControlAction::Answer(reply(status, body))
}

pub(super) fn reply(status: u16, body: &serde_json::Value) -> LocalReply {
    let headers = vec![("content-type", "application/json".to_owned())];
    LocalReply { status, headers, body: format!("{body}\n") }
}

//! The measured exchange: a call of 420 bytes and its result of 470, as JSON or as an event stream.

use std::fmt;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

/// The length of a call, in bytes.
pub(super) const CALL_BYTES: usize = 420;
/// The length of the message with the result, in bytes.
pub(super) const RESULT_BYTES: usize = 470;
/// The called tool.
pub(super) const TOOL: &str = "lookup_customer";

/// Ids have eight digits, so that every exchange has the same size.
const ID_MIN: u32 = 10_000_000;
const IDS: u32 = 90_000_000;
/// The offset of the id in a call.
const ID_START: usize = r#"{"jsonrpc":"2.0","id":"#.len();

/// The format in which the upstream answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// One JSON body.
    Json,
    /// An event stream: priming event, progress, result.
    Sse,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Sse => "sse",
        })
    }
}

impl Scenario {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Sse => "text/event-stream",
        }
    }

    /// The size of the response to a call, in bytes.
    pub(super) fn answer_bytes(self) -> anyhow::Result<usize> {
        let call = call(0);
        let id = id_of(call.as_bytes()).context("a call without id")?;
        Ok(self.answer(id).iter().map(String::len).sum())
    }

    /// The chunks of the response to a call.
    pub(super) fn answer(self, id: &str) -> Vec<String> {
        let result = result(id);
        match self {
            Self::Json => vec![result],
            Self::Sse => vec![
                "id: 1\ndata: \n\n".to_owned(),
                concat!(
                    r#"data: {"jsonrpc":"2.0","method":"notifications/progress","params":"#,
                    r#"{"progressToken":"p-1","progress":1,"total":2,"message":"looking"}}"#,
                    "\n\n"
                )
                .to_owned(),
                format!("id: 2\ndata: {result}\n\n"),
            ],
        }
    }
}

/// The `number`th call.
pub(super) fn call(number: u32) -> String {
    let id = ID_MIN + number % IDS;
    padded(
        CALL_BYTES,
        &format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{TOOL}","_meta":{{"progressToken":"p-1"}},"arguments":{{"customer_id":"c-1042","reason":""#
        ),
        r#""}}}"#,
    )
}

/// The id of a [`call`].
pub(super) fn id_of(call: &[u8]) -> Option<&str> {
    std::str::from_utf8(call.get(ID_START..ID_START + 8)?).ok()
}

fn result(id: &str) -> String {
    padded(
        RESULT_BYTES,
        &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#),
        r#""}],"isError":false}}"#,
    )
}

fn padded(bytes: usize, start: &str, end: &str) -> String {
    let text = "The customer asks which invoices are open, and since when. ".chars().cycle();
    let text = text.take(bytes.saturating_sub(start.len() + end.len()));
    start.chars().chain(text).chain(end.chars()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_exchange_is_json_of_the_documented_size() {
        for number in [0, 1, 89_999_999, u32::MAX] {
            let call = call(number);
            assert_eq!(call.len(), CALL_BYTES, "{call}");
            let id = id_of(call.as_bytes()).expect("an id");
            let [answer] = &Scenario::Json.answer(id)[..] else { panic!("one chunk") };
            assert_eq!(answer.len(), RESULT_BYTES, "{answer}");
            let call: Value = serde_json::from_str(&call).expect("JSON");
            let answer: Value = serde_json::from_str(answer).expect("JSON");
            assert_eq!(call["id"], answer["id"]);
            assert_eq!(call["params"]["name"], TOOL);
        }
    }
}

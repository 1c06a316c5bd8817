//! Reads what a meter has to know of one MCP call: method, tool, id and session of the request, and the
//! outcome of the response with the same id.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::wire::{HttpHeaders, Step};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    ToolError,
    Error,
}

/// What is known of an exchange so far.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    session: Option<Bytes>,
    customer: Option<Bytes>,
    agent: Option<Bytes>,
    call: Option<Call>,
    is_ok: bool,
    is_event_stream: bool,
}

#[derive(Debug)]
struct Call {
    id: String,
    tool: String,
}

/// A call whose request and response were both understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Understood {
    pub(crate) tool: String,
    pub(crate) session: Bytes,
    pub(crate) outcome: Outcome,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    result: Option<ToolResult>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ToolResult {
    #[serde(rename = "isError", default)]
    is_error: bool,
}

impl Exchange {
    /// Takes the next step. Returns the call once its response was understood.
    pub(crate) fn take(&mut self, step: &Step) -> Option<Understood> {
        match step {
            Step::RequestHeaders(head) => self.request_head(head),
            Step::RequestBody(body) => self.call = call(&body.body),
            Step::ResponseHeaders(head) => self.response_head(head),
            Step::ResponseBody(body) => return self.end(&body.body),
        }
        None
    }

    fn request_head(&mut self, head: &HttpHeaders) {
        for header in head.headers.iter().flat_map(|map| &map.headers) {
            let place = match header.key.as_str() {
                "mcp-session-id" => &mut self.session,
                "x-customer-id" => &mut self.customer,
                "x-agent-id" => &mut self.agent,
                _ => continue,
            };
            *place = Some(header.raw_value.clone());
        }
    }

    fn response_head(&mut self, head: &HttpHeaders) {
        for header in head.headers.iter().flat_map(|map| &map.headers) {
            match header.key.as_str() {
                ":status" => self.is_ok = header.raw_value.as_ref() == b"200",
                "content-type" => {
                    self.is_event_stream = header.raw_value.starts_with(b"text/event-stream");
                }
                _ => {}
            }
        }
    }

    /// Nothing is understood of which a part is missing: a meter would have nobody to bill.
    fn end(&mut self, body: &[u8]) -> Option<Understood> {
        let Call { id, tool } = self.call.take()?;
        let (session, _, _) = (self.session.take()?, self.customer.take()?, self.agent.take()?);
        if !self.is_ok {
            return None;
        }
        let outcome = match self.is_event_stream {
            true => body.split(|byte| *byte == b'\n').find_map(|line| {
                let data = line.strip_prefix(b"data:")?;
                outcome(data, &id)
            })?,
            false => outcome(body, &id)?,
        };
        Some(Understood { tool, session, outcome })
    }
}

fn call(body: &[u8]) -> Option<Call> {
    let request: Request<'_> = serde_json::from_slice(body).ok()?;
    let is_call = request.method == "tools/call";
    let call = || Call { id: request.id.get().to_owned(), tool: request.params.name.into_owned() };
    is_call.then(call)
}

/// The outcome that a message tells, if it is the response to this id.
fn outcome(message: &[u8], id: &str) -> Option<Outcome> {
    let response: Response<'_> = serde_json::from_slice(message).ok()?;
    if response.id.get() != id {
        return None;
    }
    match (response.result, response.error) {
        (Some(ToolResult { is_error: false }), None) => Some(Outcome::Success),
        (Some(ToolResult { is_error: true }), None) => Some(Outcome::ToolError),
        (None, Some(IgnoredAny)) => Some(Outcome::Error),
        (Some(_), Some(IgnoredAny)) | (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::{body, head};

    const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{"id":8},"name":"look\u0075p"}}"#;
    const HEAD: [(&str, &str); 3] =
        [("mcp-session-id", "s-1"), ("x-customer-id", "acme"), ("x-agent-id", "a-1")];

    fn exchange(
        request: &[(&str, &str)],
        call: &str,
        response: &[(&str, &str)],
        answer: &str,
    ) -> Option<Understood> {
        let mut exchange = Exchange::default();
        assert_eq!(exchange.take(&Step::RequestHeaders(head(request))), None);
        assert_eq!(exchange.take(&Step::RequestBody(body(call))), None);
        assert_eq!(exchange.take(&Step::ResponseHeaders(head(response))), None);
        exchange.take(&Step::ResponseBody(body(answer)))
    }

    #[test]
    fn calls_are_understood_as_json_and_as_event_streams() {
        let json = [(":status", "200"), ("content-type", "application/json")];
        let sse = [(":status", "200"), ("content-type", "text/event-stream")];
        for (response, answer, outcome) in [
            (json, r#"{"id":7,"result":{"isError":false}}"#, Outcome::Success),
            (json, r#"{"id":7,"result":{"content":[]}}"#, Outcome::Success),
            (json, r#"{"id":7,"result":{"isError":true}}"#, Outcome::ToolError),
            (json, r#"{"id":7,"error":{"code":-32602}}"#, Outcome::Error),
            (
                sse,
                "id: 1\ndata: \n\ndata: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":7,\"result\":{}}\n\n",
                Outcome::Success,
            ),
        ] {
            let found = exchange(&HEAD, CALL, &response, answer).expect(answer);
            assert_eq!((found.tool.as_str(), found.outcome), ("lookup", outcome), "{answer}");
            assert_eq!(found.session, "s-1");
        }
    }

    #[test]
    fn nothing_is_understood_of_which_a_part_is_missing() {
        let ok = [(":status", "200"), ("content-type", "application/json")];
        let failed = [(":status", "500"), ("content-type", "application/json")];
        let good = r#"{"id":7,"result":{}}"#;
        let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"name":"x"}}"#;
        for (request, call, response, answer) in [
            (&HEAD[1..], CALL, ok, good),
            (&HEAD[..2], CALL, ok, good),
            (&HEAD[..], list, ok, good),
            (&HEAD[..], "", ok, good),
            (&HEAD[..], CALL, failed, good),
            (&HEAD[..], CALL, ok, r#"{"id":8,"result":{}}"#),
            (&HEAD[..], CALL, ok, r#"{"id":7}"#),
            (&HEAD[..], CALL, ok, "{"),
        ] {
            assert_eq!(exchange(request, call, &response, answer), None, "{call} {answer}");
        }
    }
}

//! What A2A requests ask and what the answers tell, whole, byte by byte and cut at each place: as SDK servers answer
//! (`tests/fixtures/a2a`), and what they leave out.

use std::io::Write;

use agent_meter_core::domain::status::ExecutionStatus;
use agent_meter_core::protocol::a2a::outcome::{Step, of_error, of_task};
use agent_meter_core::protocol::a2a::response_body::A2aResponseBody;
use agent_meter_core::protocol::a2a::{
    Answer, Binding, Operation, Request, RequestReader, Subject, TaskState, route,
};
use agent_meter_core::protocol::request_body::{BodyHead, RequestBody};
use agent_meter_core::wire::encoding::ContentCoding;
use agent_meter_core::wire::http::Headers;
use agent_meter_core::wire::media_type::MediaType;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::support::{cuts, test};

const FIXTURES: &[&str] = &[
    include_str!("../../../../tests/fixtures/a2a/v0.3.json"),
    include_str!("../../../../tests/fixtures/a2a/v1.0.json"),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    method: String,
    path: String,
    request: Option<String>,
    status: u16,
    content_type: String,
    body: String,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    outcome: Option<String>,
    context_id: Option<String>,
    task_id: Option<String>,
}

fn cases() -> Vec<Case> {
    let read = |text: &&str| serde_json::from_str::<Vec<Case>>(text).expect("a list of cases");
    let cases: Vec<Case> = FIXTURES.iter().flat_map(read).collect();
    assert!(cases.len() > 90);
    cases
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn text(value: Option<&[u8]>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(value).into_owned())
}

fn read_request(method: &str, path: &str, chunks: &[&[u8]]) -> (Vec<Request>, bool) {
    let route = route(method, path).expect("a request of A2A");
    let mut reader =
        RequestBody::new(RequestReader::new(route.clone()), BodyHead::read(Headers(&[])));
    let mut found: Vec<Request> = chunks.iter().flat_map(|chunk| reader.feed(chunk)).collect();
    if reader.is_empty() {
        found.push(Request::of_route(&route));
    }
    (found, reader.doubt(true).is_some())
}

fn read_answers(
    binding: Binding,
    content_type: &str,
    coding: ContentCoding,
    chunks: &[&[u8]],
) -> Vec<Answer> {
    let media_type = MediaType::parse(content_type.as_bytes());
    let mut reader = A2aResponseBody::new(binding, coding, media_type).expect("a coding");
    chunks.iter().flat_map(|chunk| reader.feed(chunk)).collect()
}

/// The outcome, the conversation and the task, of a step or of the task that was asked for.
fn told(case: &Case, operation: Operation, answers: &[Answer]) -> Expected {
    if operation.is_step() {
        let mut step = Step::default();
        let told: Vec<_> =
            answers.iter().filter_map(|answer| step.update(answer, case.status)).collect();
        assert!(told.len() <= 1, "{}: the outcome is told once", case.name);
        let outcome = step.end(case.status);
        assert!(told.iter().all(|told| *told == outcome), "{}", case.name);
        return Expected {
            outcome: Some(outcome.name().to_owned()),
            context_id: text(step.context_id()),
            task_id: text(step.task_id()),
        };
    }
    let answer = answers.last().cloned().unwrap_or_default();
    let outcome = match answer.subject {
        Subject::Error => Some(of_error(&answer, case.status)),
        Subject::Nothing if case.status >= 400 => Some(ExecutionStatus::of_http(case.status)),
        _ => answer.state.and_then(of_task),
    };
    Expected {
        outcome: outcome.map(|outcome| outcome.name().to_owned()),
        context_id: text(answer.context_id.as_deref()),
        task_id: text(answer.task_id.as_deref()),
    }
}

#[test]
fn requests_and_answers_of_sdk_servers_are_read() {
    for case in cases() {
        let body = case.request.clone().unwrap_or_default();
        let mut asked = Vec::new();
        for cut in cuts(body.as_bytes()) {
            let (requests, is_unreadable) = read_request(&case.method, &case.path, &cut);
            assert!(!is_unreadable && requests.len() == 1, "{}: {requests:?}", case.name);
            asked.extend(requests);
        }
        asked.dedup();
        let [request] = asked.as_slice() else { panic!("{}: {asked:?}", case.name) };
        let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let is_rest = value["jsonrpc"].is_null();
        let message = if is_rest { &value["message"] } else { &value["params"]["message"] };
        let member = |name: &str| message[name].as_str().map(str::to_owned);
        assert_eq!(request.operation.is_step(), !message.is_null(), "{}", case.name);
        assert_eq!(text(request.message_id.as_deref()), member("messageId"), "{}", case.name);
        assert_eq!(text(request.context_id.as_deref()), member("contextId"), "{}", case.name);
        if request.operation.is_step() {
            assert_eq!(text(request.task_id.as_deref()), member("taskId"), "{}", case.name);
        } else if case.expect.task_id.is_some() {
            assert_eq!(text(request.task_id.as_deref()), case.expect.task_id, "{}", case.name);
        }
        let id = request.id.as_ref().map(|id| id.text.as_slice());
        assert_eq!(text(id), value["id"].as_str().map(str::to_owned), "{}", case.name);

        let binding = if is_rest { Binding::Rest } else { Binding::JsonRpc };
        let coded = gzip(case.body.as_bytes());
        let plain =
            cuts(case.body.as_bytes()).into_iter().map(|cut| (ContentCoding::Identity, cut));
        let coded = cuts(&coded).into_iter().take(3).map(|cut| (ContentCoding::Gzip, cut));
        let mut read = Vec::new();
        for (coding, cut) in plain.chain(coded) {
            read.push(read_answers(binding, &case.content_type, coding, &cut));
        }
        read.dedup();
        assert_eq!(read.len(), 1, "{}: the cuts make no difference", case.name);
        let found = told(&case, request.operation, &read[0]);
        let Expected { outcome, context_id, task_id } = &case.expect;
        assert_eq!(
            (&found.outcome, &found.context_id, &found.task_id),
            (outcome, context_id, task_id),
            "{}",
            case.name
        );
        if let Some(answer) = read[0].iter().find(|_| !is_rest) {
            assert_eq!(answer.id, request.id, "{}", case.name);
        }
    }
}

#[test]
fn heads_tell_what_is_asked() {
    use Operation::{CancelTask, GetTask, ListTasks, Other, PushConfig, Send, Stream, Subscribe};
    for (method, path, want) in [
        ("POST", "/", Some((Binding::JsonRpc, Other, None))),
        ("POST", "/a2a/v1?x=/tasks/1", Some((Binding::JsonRpc, Other, None))),
        ("POST", "/tasks", Some((Binding::JsonRpc, Other, None))),
        ("POST", "/v1/message:send", Some((Binding::Rest, Send, None))),
        ("POST", "/agents/poet/message:stream?key=1", Some((Binding::Rest, Stream, None))),
        ("POST", "/tenant/message%3Asend", Some((Binding::Rest, Send, None))),
        ("GET", "/v1/tasks/t-1?historyLength=2", Some((Binding::Rest, GetTask, Some("t-1")))),
        ("GET", "/tasks/a%2Fb", Some((Binding::Rest, GetTask, Some("a/b")))),
        ("GET", "/tasks/50%", Some((Binding::Rest, GetTask, Some("50%")))),
        ("GET", "/tasks", Some((Binding::Rest, ListTasks, None))),
        ("POST", "/v1/tasks/t:1:cancel", Some((Binding::Rest, CancelTask, Some("t:1")))),
        ("GET", "/v1/tasks/t:subscribe", Some((Binding::Rest, Subscribe, Some("t")))),
        ("POST", "/tasks/t:subscribe", Some((Binding::Rest, Subscribe, Some("t")))),
        ("POST", "/tasks/t/pushNotificationConfigs", Some((Binding::Rest, PushConfig, Some("t")))),
        (
            "DELETE",
            "/tasks/t/pushNotificationConfigs/c",
            Some((Binding::Rest, PushConfig, Some("t"))),
        ),
        ("GET", "/.well-known/agent-card.json", None),
        ("GET", "/v1/card", None),
        ("GET", "/", None),
        ("OPTIONS", "/v1/message:send", None),
    ] {
        let found = route(method, path);
        let found = found.as_ref().map(|found| {
            let task = found.task_id.as_deref().map(String::from_utf8_lossy);
            (found.binding, found.operation, task.map(String::from))
        });
        let want =
            want.map(|(binding, operation, task)| (binding, operation, task.map(str::to_owned)));
        assert_eq!(found, want, "{method} {path}");
    }
}

/// `OPERATION context task message traceparent`, `-` for what is not told.
fn describe(request: &Request) -> String {
    let or_none = |value: &Option<Vec<u8>>| text(value.as_deref()).unwrap_or("-".to_owned());
    let Request { operation, context_id, task_id, message_id, traceparent, .. } = request;
    let values = [context_id, task_id, message_id, traceparent].map(or_none);
    format!("{operation:?} {}", values.join(" "))
}

#[test]
fn requests_are_read_as_tolerantly_as_servers_read_them() {
    let long = "x".repeat(300);
    let cut_id = format!(
        r#"{{"method":"SendMessage","params":{{"message":{{"contextId":"{long}","messageId":"m"}}}}}}"#
    );
    for (path, body, want) in [
        (
            "/",
            r#"{"id":1,"method":"message/send","params":{"message":{"messageId":"m","contextId":"c","taskId":"t"}}}"#,
            "Send c t m -",
        ),
        (
            "/",
            r#"{"params":{"message":{"contextId":"c"}},"id":1,"method":"message/stream"}"#,
            "Stream c - - -",
        ),
        (
            "/",
            r#"{"id":1,"method":"message\/send","params":{"message":{"context_id":"c","task_id":"t","message_id":"m"}}}"#,
            "Send c t m -",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"message":{"contextId":"","parts":[{"data":{"contextId":"no"}}],"metadata":{"contextId":"no"}}}}"#,
            "Send - - - -",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"message":{"contextId":"a"},"message":{"messageId":"m"}}}"#,
            "Send - - m -",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"message":{"contextId":"a"}},"params":null}"#,
            "Send - - - -",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"metadata":{"traceparent":"00-1"},"message":{}}}"#,
            "Send - - - 00-1",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"message":{"metadata":{"traceparent":"00-2"}}}}"#,
            "Send - - - 00-2",
        ),
        (
            "/",
            r#"{"id":1,"method":"SendMessage","params":{"_meta":{"traceparent":"00-3"}}}"#,
            "Send - - - 00-3",
        ),
        ("/", &cut_id, "Send - - m -"),
        (
            "/",
            r#"{"id":1,"method":"tasks/get","params":{"id":"t","historyLength":1}}"#,
            "GetTask - t - -",
        ),
        ("/", r#"{"id":1,"method":"CancelTask","params":{"id":"t"}}"#, "CancelTask - t - -"),
        ("/", r#"{"id":1,"method":"tasks/resubscribe","params":{"id":"t"}}"#, "Subscribe - t - -"),
        ("/", r#"{"id":1,"method":"SubscribeToTask","params":{"id":"t"}}"#, "Subscribe - t - -"),
        ("/", r#"{"id":1,"method":"ListTasks","params":{"contextId":"c"}}"#, "ListTasks c - - -"),
        (
            "/",
            r#"{"id":1,"method":"tasks/pushNotificationConfig/set","params":{"taskId":"t","pushNotificationConfig":{"id":"p","url":"u"}}}"#,
            "PushConfig - t - -",
        ),
        (
            "/",
            r#"{"id":1,"method":"GetTaskPushNotificationConfig","params":{"id":"p","taskId":"t"}}"#,
            "PushConfig - t - -",
        ),
        ("/", r#"{"id":1,"method":"agent/getAuthenticatedExtendedCard"}"#, "Other - - - -"),
        (
            "/",
            r#"{"id":1,"method":"tools/call","params":{"name":"message/send"}}"#,
            "Other - - - -",
        ),
        ("/", r#"{"id":1,"method":"message/send","method":7}"#, "Other - - - -"),
        (
            "/message:send",
            r#"{"message":{"messageId":"m","contextId":"c"},"method":"tasks/get"}"#,
            "Send c - m -",
        ),
        ("/v1/message:stream", "{}", "Stream - - - -"),
        ("/tasks/t:cancel", r#"{"id":"other"}"#, "CancelTask - t - -"),
        ("/tasks/t:cancel", "", "CancelTask - t - -"),
        ("/", r#"[{"id":1,"method":"SendMessage"}]"#, "Send - - - -"),
    ] {
        for cut in cuts(body.as_bytes()) {
            let (found, is_unreadable) = read_request("POST", path, &cut);
            let found: Vec<String> = found.iter().map(describe).collect();
            assert_eq!((found, is_unreadable), (vec![want.to_owned()], false), "{body}");
        }
    }
    for body in ["<html>", "{\"id\":1,", "\u{1f}\u{8b}"] {
        assert_eq!(read_request("POST", "/", &[body.as_bytes()]), (vec![], true), "{body}");
    }
}

/// `SUBJECT state`, and what else is told.
fn describe_answer(answer: &Answer) -> String {
    let mut words = vec![format!("{:?}", answer.subject)];
    words.extend(answer.state.map(|state| format!("{state:?}")));
    words.extend(answer.is_final.then(|| "final".to_owned()));
    words.extend(text(answer.context_id.as_deref()).map(|id| format!("c={id}")));
    words.extend(text(answer.task_id.as_deref()).map(|id| format!("t={id}")));
    words.extend(answer.error_code.map(|code| code.to_string()));
    words.extend(text(answer.error_status.as_deref()));
    for task in &answer.tasks {
        words.push(format!("{}={:?}", text(task.id.as_deref()).unwrap_or_default(), task.state));
    }
    words.join(" ")
}

#[test]
fn answers_are_read_in_every_form() {
    use Binding::{JsonRpc, Rest};
    for (binding, body, want) in [
        (
            JsonRpc,
            r#"{"id":1,"result":{"kind":"task","id":"t","contextId":"c","status":{"state":"auth-required"}}}"#,
            "Task AuthRequired c=c t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_REJECTED"}}}"#,
            "Task Rejected c=c t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"task":{"id":"t","contextId":"c","status":{"message":{"contextId":"no","state":"failed"},"state":"TASK_STATE_WORKING"},"history":[{"taskId":"no"}]}}}"#,
            "Task Open c=c t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"taskId":"t","contextId":"c","status":{"state":"canceled"},"final":true}}"#,
            "StatusUpdate Canceled final c=c t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"kind":"status-update","taskId":"t","status":{"state":"input-required"},"final":false}}"#,
            "StatusUpdate InputRequired t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"taskId":"t","contextId":"c","artifact":{"parts":[]}}}"#,
            "ArtifactUpdate c=c t=t",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"messageId":"m","contextId":"c","role":"agent"}}"#,
            "Message c=c",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"task":null,"message":{"messageId":"m","contextId":"c"}}}"#,
            "Message c=c",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"task":{"id":"t"}},"result":{"message":{"contextId":"c"}}}"#,
            "Message c=c",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"tasks":[{"id":"a","status":{"state":"completed"}},{"id":"b"}]}}"#,
            "Tasks a=Some(Completed) b=None",
        ),
        (
            JsonRpc,
            r#"{"id":1,"result":{"taskId":"t","pushNotificationConfig":{"url":"u"}}}"#,
            "Nothing t=t",
        ),
        (JsonRpc, r#"{"id":1,"result":null}"#, "Nothing"),
        (JsonRpc, r#"{"id":1,"error":null,"result":{"message":{}}}"#, "Message"),
        (
            JsonRpc,
            r#"{"id":1,"error":{"code":-32001,"message":"no"},"result":null}"#,
            "Error -32001",
        ),
        (JsonRpc, r#"{"id":1,"error":"no"}"#, "Error"),
        // What the envelope holds is no result.
        (JsonRpc, r#"{"message":"no","task":{"id":"t"}}"#, "Nothing"),
        (Rest, r#"{"message":"no"}"#, "Nothing"),
        (
            Rest,
            r#"{"error":{"code":400,"status":"INVALID_ARGUMENT"}}"#,
            "Error 400 INVALID_ARGUMENT",
        ),
        (
            Rest,
            r#"{"id":"t","contextId":"c","status":{"state":"TASK_STATE_CANCELLED"}}"#,
            "Task Canceled c=c t=t",
        ),
        (
            Rest,
            r#"{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED"}}}"#,
            "StatusUpdate Completed c=c t=t",
        ),
        (
            Rest,
            r#"{"status_update":{"task_id":"t","status":{"state":"TASK_STATE_FAILED"}}}"#,
            "StatusUpdate Failed t=t",
        ),
        (
            Rest,
            r#"{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a"}}}"#,
            "ArtifactUpdate t=t",
        ),
        // As a webhook of 0.3 gets it.
        (
            Rest,
            r#"{"kind":"task","id":"t","contextId":"c","status":{"state":"completed"}}"#,
            "Task Completed c=c t=t",
        ),
        (Rest, r#"{"name":"an agent's card","skills":[{"id":"s"}],"id":"x"}"#, "Nothing"),
    ] {
        for cut in cuts(body.as_bytes()) {
            let found =
                read_answers(binding, "application/a2a+json", ContentCoding::Identity, &cut);
            let found: Vec<String> = found.iter().map(describe_answer).collect();
            assert_eq!(found, [want], "{body}");
        }
    }
}

#[test]
fn lists_are_bounded() {
    let tasks = vec![r#"{"id":"t","status":{"state":"completed"}}"#; 1000].join(",");
    let body = format!(r#"{{"tasks":[{tasks}]}}"#);
    let coding = ContentCoding::Identity;
    let found = read_answers(Binding::Rest, "application/json", coding, &[body.as_bytes()]);
    assert_eq!(found[0].tasks.len(), 100);
}

/// An event of a task: as a member of a stream over HTTP+JSON.
fn update(state: &str) -> String {
    format!(
        "data: {{\"statusUpdate\":{{\"taskId\":\"t\",\"status\":{{\"state\":\"{state}\"}}}}}}\n\n"
    )
}

fn task(state: &str) -> String {
    format!("data: {{\"task\":{{\"id\":\"t\",\"status\":{{\"state\":\"{state}\"}}}}}}\n\n")
}

#[test]
fn streams_tell_the_outcome_with_the_event_that_ends_the_step() {
    const ARTIFACT: &str = "data: {\"artifactUpdate\":{\"taskId\":\"t\"}}\n\n";
    const FINAL: &str = "data: {\"kind\":\"status-update\",\"taskId\":\"t\",\"status\":{\"state\":\"auth-required\"},\"final\":true}\n\n";
    const ERROR: &str =
        "event: error\ndata: {\"error\":{\"code\":500,\"status\":\"INTERNAL\"}}\n\n";
    let [submitted, working] = ["SUBMITTED", "WORKING"].map(|name| format!("TASK_STATE_{name}"));
    let [completed, input, auth] =
        ["COMPLETED", "INPUT_REQUIRED", "AUTH_REQUIRED"].map(|name| format!("TASK_STATE_{name}"));
    // Told by an event, and at the end of the stream.
    for (name, events, by_event, at_end) in [
        (
            "a task to its end",
            vec![task(&submitted), update(&working), update(&completed)],
            Some("SUCCESS"),
            "SUCCESS",
        ),
        (
            "a task that goes on",
            vec![task(&submitted), update(&working), ARTIFACT.to_owned()],
            None,
            "PENDING",
        ),
        (
            "a stream that stays open for the next message",
            vec![update(&working), update(&input), update(&working), update(&completed)],
            Some("HITL_REQUIRED"),
            "HITL_REQUIRED",
        ),
        (
            "the state in which the turn before it left the task",
            vec![task(&input), update(&working), update(&completed)],
            Some("SUCCESS"),
            "SUCCESS",
        ),
        ("a task that waits", vec![task(&input)], None, "HITL_REQUIRED"),
        ("credentials that do not come", vec![update(&auth)], None, "HITL_REQUIRED"),
        (
            "credentials that come while the stream is open",
            vec![update(&auth), ARTIFACT.to_owned(), update(&completed)],
            Some("SUCCESS"),
            "SUCCESS",
        ),
        ("a last event", vec![FINAL.to_owned()], Some("HITL_REQUIRED"), "HITL_REQUIRED"),
        ("an error in the stream", vec![task(&working), ERROR.to_owned()], Some("ERROR"), "ERROR"),
        (
            "an event that is cut off",
            vec![update(&completed).trim_end().to_owned()],
            None,
            "UNKNOWN",
        ),
        (
            "comments and events that are no JSON",
            vec![": ping\n\ndata: [DONE]\n\n".to_owned(), task(&completed)],
            Some("SUCCESS"),
            "SUCCESS",
        ),
        ("nothing", vec![], None, "UNKNOWN"),
    ] {
        let body = events.concat();
        for cut in cuts(body.as_bytes()) {
            let coding = ContentCoding::Identity;
            let answers = read_answers(Binding::Rest, "text/event-stream", coding, &cut);
            let mut step = Step::default();
            let told = answers.iter().find_map(|answer| step.update(answer, 200));
            for answer in &answers {
                let _ = step.update(answer, 200);
            }
            let told = told.map(ExecutionStatus::name);
            assert_eq!((told, step.end(200).name()), (by_event, at_end), "{name}");
        }
    }
}

#[test]
fn errors_mean_the_same_over_both_bindings() {
    let error = |code: i64| format!(r#"{{"id":1,"error":{{"code":{code},"message":"no"}}}}"#);
    let named = |code: u16, name: &str| {
        format!(r#"{{"error":{{"code":{code},"status":"{name}","message":"no"}}}}"#)
    };
    let done = r#"{"message":{"messageId":"m"}}"#.to_owned();
    for (binding, http_status, body, want) in [
        (Binding::JsonRpc, 200, error(-32700), "VALIDATION_FAILED"),
        (Binding::JsonRpc, 200, error(-32600), "VALIDATION_FAILED"),
        (Binding::JsonRpc, 200, error(-32602), "VALIDATION_FAILED"),
        (Binding::JsonRpc, 200, error(-32005), "VALIDATION_FAILED"),
        (Binding::JsonRpc, 400, error(-32001), "ERROR"),
        (Binding::JsonRpc, 200, error(-32004), "ERROR"),
        (Binding::JsonRpc, 200, error(-32601), "ERROR"),
        (Binding::JsonRpc, 500, error(-32603), "ERROR"),
        (Binding::JsonRpc, 401, r#"{"error":"unauthorized"}"#.to_owned(), "BLOCKED"),
        (Binding::JsonRpc, 200, r#"{"error":"unauthorized"}"#.to_owned(), "ERROR"),
        (Binding::Rest, 400, named(400, "INVALID_ARGUMENT"), "VALIDATION_FAILED"),
        (Binding::Rest, 400, named(400, "FAILED_PRECONDITION"), "ERROR"),
        (Binding::Rest, 404, named(404, "NOT_FOUND"), "ERROR"),
        (Binding::Rest, 403, named(403, "PERMISSION_DENIED"), "BLOCKED"),
        (Binding::Rest, 429, named(429, "RESOURCE_EXHAUSTED"), "BLOCKED"),
        (Binding::Rest, 504, named(504, "DEADLINE_EXCEEDED"), "TIMEOUT"),
        (Binding::Rest, 422, r#"{"message":"no"}"#.to_owned(), "VALIDATION_FAILED"),
        (Binding::Rest, 401, String::new(), "BLOCKED"),
        (Binding::Rest, 502, "<html>".to_owned(), "ERROR"),
        // Clients discard a result under another status.
        (Binding::Rest, 503, done.clone(), "ERROR"),
        (Binding::Rest, 201, done, "SUCCESS"),
        (Binding::Rest, 200, String::new(), "UNKNOWN"),
    ] {
        let coding = ContentCoding::Identity;
        let answers = read_answers(binding, "application/json", coding, &[body.as_bytes()]);
        let mut step = Step::default();
        for answer in &answers {
            let _ = step.update(answer, http_status);
        }
        assert_eq!(step.end(http_status).name(), want, "HTTP {http_status}: {body}");
    }
}

#[test]
fn states_end_a_step_or_not() {
    for (state, want) in [
        (TaskState::Open, None),
        (TaskState::InputRequired, Some("HITL_REQUIRED")),
        (TaskState::AuthRequired, Some("HITL_REQUIRED")),
        (TaskState::Completed, Some("SUCCESS")),
        (TaskState::Canceled, Some("CANCELLED")),
        (TaskState::Failed, Some("ERROR")),
        (TaskState::Rejected, Some("ERROR")),
    ] {
        assert_eq!(of_task(state).map(ExecutionStatus::name), want, "{state:?}");
    }
}

#[test]
fn events_that_are_no_json_tell_nothing() {
    const STREAM: &str = "data: [{\"id\":1,\"result\":{\"message\":{}}},\n\ndata: {\"id\":2,\"result\":{\"message\":{}}}\n\n";
    for cut in cuts(STREAM.as_bytes()) {
        let coding = ContentCoding::Identity;
        let found = read_answers(Binding::JsonRpc, "text/event-stream", coding, &cut);
        let ids: Vec<_> = found.iter().map(|it| text(it.id.as_ref().map(|id| &*id.text))).collect();
        assert_eq!(ids, [Some("2".to_owned())]);
    }
}

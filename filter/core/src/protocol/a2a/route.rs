//! Classifies an A2A request by the method and path of the HTTP request.

use crate::protocol::a2a::{Binding, Operation};
use crate::wire::target::percent_decoded;

/// What the head says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The binding, which says where the rest of the request stands.
    pub binding: Binding,
    /// The operation; over JSON-RPC only the body names it.
    pub operation: Operation,
    /// The task that the path names.
    pub task_id: Option<Vec<u8>>,
}

/// The route of a request to this path; `None` if it asks nothing of an agent. 0.3 has `/v1` before
/// the paths of HTTP+JSON, 1.0 the tenant or nothing; anything may stand before them.
pub fn route(method: &str, path: &str) -> Option<Route> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<String> =
        path.split('/').filter(|segment| !segment.is_empty()).map(percent_decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    route_to(method, &segments)
        .or_else(|| {
            let words: Vec<String> = segments.iter().map(|word| in_usual_case(word)).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            route_to(method, &words)
        })
        .or_else(|| {
            let route =
                Route { binding: Binding::JsonRpc, operation: Operation::Other, task_id: None };
            (method == "POST").then_some(route)
        })
}

/// A segment with its words as the protocol writes them: many servers do not distinguish the case.
fn in_usual_case(segment: &str) -> String {
    const WORDS: [&str; 4] = ["message:send", "message:stream", "tasks", "pushNotificationConfigs"];
    if let Some(word) = WORDS.iter().find(|word| word.eq_ignore_ascii_case(segment)) {
        return (*word).to_owned();
    }
    match segment.rsplit_once(':') {
        Some((task, verb)) => format!("{task}:{}", verb.to_ascii_lowercase()),
        None => segment.to_owned(),
    }
}

/// The route over HTTP+JSON.
fn route_to(method: &str, segments: &[&str]) -> Option<Route> {
    let rest = |operation, task: Option<&str>| {
        let task_id = task.map(|task| task.as_bytes().to_vec());
        Some(Route { binding: Binding::Rest, operation, task_id })
    };
    match (method, segments) {
        ("POST", [.., "message:send"]) => rest(Operation::Send, None),
        ("POST", [.., "message:stream"]) => rest(Operation::Stream, None),
        ("GET", [.., "tasks"]) => rest(Operation::ListTasks, None),
        ("GET" | "POST", [.., "tasks", task]) if task.ends_with(":subscribe") => {
            rest(Operation::Subscribe, task.strip_suffix(":subscribe"))
        }
        ("POST", [.., "tasks", task]) if task.ends_with(":cancel") => {
            rest(Operation::CancelTask, task.strip_suffix(":cancel"))
        }
        ("GET", [.., "tasks", task]) => rest(Operation::GetTask, Some(task)),
        (_, [.., "tasks", task, "pushNotificationConfigs"])
        | (_, [.., "tasks", task, "pushNotificationConfigs", _]) => {
            rest(Operation::PushConfig, Some(task))
        }
        _ => None,
    }
}

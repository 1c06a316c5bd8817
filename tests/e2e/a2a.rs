//! An agent with A2A behind Envoy. An upstream replays responses of the SDKs' servers, whole and in
//! small pieces; each step, its outcome and its conversation must be in the ledger.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Rig;
use crate::books::text;
use crate::client::{Client, request};
use crate::upstream::{Step, Upstream, chunk, json_response, response, rpc_of, sse_response};

const FIXTURES: [&str; 2] =
    [include_str!("../fixtures/a2a/v0.3.json"), include_str!("../fixtures/a2a/v1.0.json")];
/// The size of a chunk of a streamed response, in bytes.
const PIECE: usize = 61;

#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Deserialize)]
struct Expected {
    outcome: Option<String>,
}

/// True for a message, which begins a step.
fn is_step(case: &Case) -> bool {
    let asked: Value =
        serde_json::from_str(case.request.as_deref().unwrap_or_default()).unwrap_or_default();
    asked["message"].is_object() || asked["params"]["message"].is_object()
}

/// The recorded response: in one piece, or as an event stream whose chunks cut through events.
fn answer(case: &Case) -> Vec<u8> {
    let status = format!("{} As Recorded", case.status);
    let headers = [("content-type", case.content_type.as_str())];
    if !case.content_type.starts_with("text/event-stream") {
        return response(&status, &headers, case.body.as_bytes());
    }
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        case.content_type
    );
    let pieces = case.body.as_bytes().chunks(PIECE).flat_map(chunk);
    head.into_bytes().into_iter().chain(pieces).chain(*b"0\r\n\r\n").collect()
}

fn plugin() -> Value {
    let mut plugin = crate::impatient_plugin();
    plugin["products"][0]["id"] = json!("agent");
    plugin["products"][0]["type"] = json!("AI_AGENT");
    plugin["products"][0]["match"] = json!({ "path_prefix": "/" });
    plugin
}

fn headers<'a>(agent: &'a str, case: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("content-type", "application/json"),
        ("x-customer-id", "acme"),
        ("x-agent-id", agent),
        ("x-case", case),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sdk_servers_answered_comes_to_what_it_says() -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for text in FIXTURES {
        cases.extend(serde_json::from_str::<Vec<Case>>(text)?.into_iter().filter(is_step));
    }
    ensure!(cases.len() > 80, "{} cases", cases.len());
    let recorded = cases.clone();
    let upstream = Upstream::start(move |request| {
        let at = request.header("x-case").and_then(|at| at.parse::<usize>().ok());
        let case = at.and_then(|at| recorded.get(at));
        case.map(|case| vec![Step::Send(answer(case))]).unwrap_or_default()
    })
    .await?;
    let rig = Rig::start(upstream, plugin()).await?;
    for (at, case) in cases.iter().enumerate() {
        let at = at.to_string();
        let body = case.request.as_deref().unwrap_or_default();
        let bytes = request(&case.method, &case.path, &headers(&at, &at), body.as_bytes());
        let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
        assert_eq!(answer.status(), case.status, "{}", case.name);
        assert_eq!(String::from_utf8_lossy(&answer.body), case.body, "{}", case.name);
    }
    let books = rig
        .settled("all steps are in the ledger", |books| {
            let steps = books.of_type("agent_step").count();
            ensure!(steps == cases.len(), "{steps} of {} steps", cases.len());
            Ok(())
        })
        .await?;
    books.check(&rig.stack()?.ledger()?).await?;
    let steps: BTreeMap<String, &Value> =
        books.of_type("agent_step").map(|step| (text(step, "/agent_id"), step)).collect();
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let step = steps.get(&at.to_string()).copied().cloned().unwrap_or_default();
        let outcome = match case.expect.outcome.as_deref() {
            // Nobody asks for the task again.
            Some("PENDING") | None => "UNKNOWN",
            Some(outcome) => outcome,
        };
        let is_stream = case.content_type.starts_with("text/event-stream");
        let transport = if is_stream { "sse" } else { "json" };
        let found = (text(&step, "/execution_status"), text(&step, "/transport"));
        if found != (outcome.to_owned(), transport.to_owned())
            || step["http_status"] != case.status
            || step["billable"] != json!(outcome == "SUCCESS")
        {
            wrong.push(format!("{}: {outcome} by {transport}, found {step}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turns_of_a_conversation_are_one_session() -> anyhow::Result<()> {
    let task = |id: &Value, state: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "result": {
            "kind": "task", "id": "t1", "contextId": "c1", "status": { "state": state },
        } })
    };
    let update = |id: &Value, state: &str, is_final: bool| {
        json!({ "jsonrpc": "2.0", "id": id, "result": {
            "kind": "status-update", "taskId": "t2", "contextId": "c1", "final": is_final,
            "status": { "state": state },
        } })
    };
    let upstream = Upstream::start(move |request| {
        let asked = rpc_of(request);
        let id = &asked["id"];
        let bytes = match asked["method"].as_str().unwrap_or_default() {
            "message/stream" => {
                let events = [update(id, "working", false), update(id, "completed", true)];
                sse_response(&events)
            }
            "tasks/get" => json_response(&task(id, "completed")),
            _ if asked["params"]["message"]["contextId"] == "c2" => json_response(&json!({
                "jsonrpc": "2.0", "id": id,
                "error": { "code": -32602, "message": "no such conversation" },
            })),
            _ => json_response(&task(id, "working")),
        };
        vec![Step::Send(bytes)]
    })
    .await?;
    let mut plugin = plugin();
    plugin["products"][0]["call_timeout"] = json!("1h");
    let rig = Rig::start(upstream, plugin).await?;
    let message = |context: Value| {
        json!({ "message": {
        "kind": "message", "messageId": "m", "role": "user", "parts": [], "contextId": context,
    } })
    };
    for (method, params) in [
        // The server names the conversation.
        ("message/send", message(Value::Null)),
        ("message/stream", message(json!("c1"))),
        ("tasks/get", json!({ "id": "t1" })),
        ("message/send", message(json!("c2"))),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let bytes = request("POST", "/", &headers("bot", ""), body.to_string().as_bytes());
        let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    let books = rig
        .settled("three steps are in the ledger", |books| {
            let steps = books.of_type("agent_step").count();
            ensure!(steps == 3, "{steps} steps");
            Ok(())
        })
        .await?;
    let conversation_of = |operation: &str, status: &str| -> anyhow::Result<String> {
        let mut found = books
            .of_type("agent_step")
            .filter(|step| step["operation"] == operation && step["execution_status"] == status);
        let step = found.next().cloned().unwrap_or_default();
        ensure!(!step.is_null() && found.next().is_none(), "{operation} {status}: {books:?}");
        Ok(text(&step, "/session_id"))
    };
    let first = conversation_of("message/send", "SUCCESS")?;
    assert_eq!(conversation_of("message/stream", "SUCCESS")?, first);
    assert_ne!(conversation_of("message/send", "VALIDATION_FAILED")?, first);
    assert!(!json!(books.events).to_string().contains("\"c1\""), "the name is never told");
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

//! Sessions as their events report them, and the status of each outcome of a call.

use std::time::Duration;

use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::upstream::{
    SSE_HEAD, Step, Upstream, chunk, json_response, obliging, response, rpc_error, rpc_of,
    sse_event, sse_response, success, tool_error,
};
use crate::{LIMIT, Rig, impatient_plugin, plain_plugin, plugin};

/// Makes a call and expects 200.
async fn call(rig: &Rig, agent: &Agent, tool: &str) -> anyhow::Result<()> {
    let answer = Client::connect(rig.listen()?).await?.exchange(&agent.call(1, tool)).await?;
    ensure!(answer.status() == 200, "{tool} was answered {answer:?}");
    Ok(())
}

/// Sends the `DELETE` and returns the response's status.
async fn delete(rig: &Rig, agent: &Agent) -> anyhow::Result<u16> {
    Ok(Client::connect(rig.listen()?).await?.exchange(&agent.delete()).await?.status())
}

/// Waits until these are the events of an agent, in this order; returns all events.
async fn story(rig: &Rig, agent: &Agent, expected: &[&str]) -> anyhow::Result<Books> {
    let name = &agent.name;
    let what = format!("the story of {name}");
    rig.settled(&what, |books| {
        let found = books.story(name);
        ensure!(found == expected, "expected {expected:?}, found {found:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_created_active_idle_active_again_and_closed_by_its_timeout()
-> anyhow::Result<()> {
    let rules = json!({ "idle_timeout": "1s", "session_timeout": "3s" });
    let plugin = plugin(&rules);
    let rig = Rig::start(Upstream::start(obliging).await?, plugin).await?;
    let agent = Agent::new("acme");
    call(&rig, &agent, "first").await?;
    call(&rig, &agent, "second").await?;
    story(&rig, &agent, &["created", "call", "active", "call", "idle"]).await?;
    call(&rig, &agent, "first").await?;
    let all = ["created", "call", "active", "call", "idle", "active", "call", "idle", "closed"];
    let books = story(&rig, &agent, &all).await?;

    let closed = books.closed().next().cloned().unwrap_or_default();
    assert_eq!(closed["close_reason"], "session_timeout");
    assert_eq!(closed["total_tool_calls"], 3);
    assert_eq!(closed["billable_tool_calls"], 3);
    assert_eq!(closed["calls_by_status"], json!({ "SUCCESS": 3 }));
    assert_eq!(
        closed["calls_by_tool"],
        json!([
            { "tool_name": "first", "calls": 2, "billable_calls": 2, "revenue": "0.002", "provider_cost": "0" },
            { "tool_name": "second", "calls": 1, "billable_calls": 1, "revenue": "0.001", "provider_cost": "0" },
        ])
    );
    assert_eq!(closed["total_revenue"], "0.003");
    let wall = closed["wall_duration_ms"].as_u64().unwrap_or_default();
    let active = closed["active_duration_ms"].as_u64().unwrap_or_default();
    assert!((1000..60_000).contains(&wall), "wall {wall} ms spans the idle time");
    assert!(active < wall, "active {active} ms does not");
    books.check(&rig.stack()?.ledger()?).await?;

    // An agent that comes back after that begins another session under the same key.
    call(&rig, &agent, "third").await?;
    let more = [&all[..], &["created", "call"]].concat();
    let books = rig
        .settled("a new session", |books| {
            let found = books.story("acme");
            ensure!(
                found.starts_with(&more.iter().map(ToString::to_string).collect::<Vec<_>>()),
                "{found:?}"
            );
            Ok(())
        })
        .await?;
    let created: Vec<&Value> = books.of_type("session_created").collect();
    assert_ne!(created[0]["session_id"], created[1]["session_id"]);
    assert_eq!(created[0]["session_key"], created[1]["session_key"]);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_longer_than_the_idle_timeout_keeps_its_session_awake()
-> anyhow::Result<()> {
    let rules = json!({ "idle_timeout": "2s", "session_timeout": "3s" });
    let upstream = Upstream::start(|request| {
        let work = vec![Step::Work(Duration::from_secs(6))];
        [work, obliging(request)].concat()
    });
    let rig = Rig::start(upstream.await?, plugin(&rules)).await?;
    let agent = Agent::new("acme");
    call(&rig, &agent, "slow").await?;
    let books = story(&rig, &agent, &["created", "call", "idle", "closed"]).await?;
    let closed = books.closed().next().cloned().unwrap_or_default();
    let active = closed["active_duration_ms"].as_u64().unwrap_or_default();
    assert!((6000..60_000).contains(&active), "active {active} ms");
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_a_delete_that_the_server_grants_or_when_it_is_gone()
-> anyhow::Result<()> {
    // 13, 33: the session's name decides how the server answers its DELETE.
    let upstream = Upstream::start(|request| {
        let session = request.header("mcp-session-id").unwrap_or_default();
        let tool = text(&rpc_of(request), "/params/name");
        let status = match (request.method().as_str(), session.as_str()) {
            ("DELETE", "session-of-refused") => "405 Method Not Allowed",
            ("DELETE", "session-of-accepted") => "202 Accepted",
            ("DELETE", _) => "200 OK",
            _ if tool == "gone" => "404 Not Found",
            _ => return obliging(request),
        };
        vec![Step::Send(response(status, &[], b""))]
    });
    let rig = Rig::start(upstream.await?, plain_plugin()).await?;

    let refused = Agent::new("refused");
    call(&rig, &refused, "one").await?;
    assert_eq!(delete(&rig, &refused).await?, 405);
    call(&rig, &refused, "two").await?;
    story(&rig, &refused, &["created", "call", "active", "call"]).await?;

    let accepted = Agent::new("accepted");
    call(&rig, &accepted, "one").await?;
    assert_eq!(delete(&rig, &accepted).await?, 202);
    let books = story(&rig, &accepted, &["created", "call", "closed"]).await?;
    assert_eq!(books.of_agent("accepted")[2]["close_reason"], "client_delete");

    let gone = Agent::new("gone");
    call(&rig, &gone, "one").await?;
    let answer = Client::connect(rig.listen()?).await?.exchange(&gone.call(2, "gone")).await?;
    assert_eq!(answer.status(), 404);
    let books = story(&rig, &gone, &["created", "call", "active", "call", "closed"]).await?;
    let events = books.of_agent("gone");
    assert_eq!(events[4]["close_reason"], "session_gone");
    assert_eq!(events[4]["calls_by_status"], json!({ "SUCCESS": 1, "ERROR": 1 }));

    // The DELETE of a session without calls bills nothing.
    assert_eq!(delete(&rig, &Agent::new("silent")).await?, 200);
    call(&rig, &refused, "three").await?;
    let books = story(&rig, &refused, &["created", "call", "active", "call", "call"]).await?;
    assert_eq!(books.story("silent"), [""; 0]);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_follow_their_ids_and_not_their_connections() -> anyhow::Result<()> {
    let rig = Rig::start(Upstream::start(obliging).await?, plain_plugin()).await?;
    let mut client = Client::connect(rig.listen()?).await?;
    // Two sessions of one agent over one connection, in turn.
    let (mut one, mut two) = (Agent::new("shared"), Agent::new("shared"));
    (one.session, two.session) = (Some("one".to_owned()), Some("two".to_owned()));
    // A session without an id, by the identity alone; and one with its id in another header.
    let window = Agent { session: None, ..one.clone() };
    let named = window.with("x-session-id", "one");
    // A revision without sessions: the filter ignores the header in which an old client sends its
    // session.
    let stateless = one.with("mcp-protocol-version", "2026-07-28");
    for round in 0..3 {
        for (tool, agent) in [
            ("one", &one),
            ("two", &two),
            ("window", &window),
            ("named", &named),
            ("window", &stateless),
        ] {
            let answer = client.exchange(&agent.call(round, tool)).await?;
            ensure!(answer.status() == 200, "{answer:?}");
        }
    }
    // The same id from another identity is another session.
    let thief = Agent { session: one.session.clone(), ..Agent::new("thief") };
    client.exchange(&thief.call(1, "one")).await?;

    // 35: one session over connections to both workers.
    let wide = Agent::new("wide");
    let mut connections = 0;
    wait::until(LIMIT, "both workers serve", async || {
        call(&rig, &wide, "wide").await?;
        connections += 1;
        let stats = rig.stack()?.envoy()?.stats("listener.").await?;
        let workers = stats
            .iter()
            .filter(|(name, _)| name.contains(".worker_") && name.ends_with("downstream_cx_total"))
            .filter(|(_, connections)| **connections > 0)
            .count();
        // Not counting the first connection, which may be the only one of its worker.
        ensure!(workers == 2 && connections >= 8, "{workers} workers, {connections} connections");
        Ok(())
    })
    .await?;

    let calls = 15 + 1 + connections;
    let books = rig
        .settled("all calls are there", |books| {
            let count = books.tool_invocations().count();
            ensure!(count >= calls, "{count} of {calls} calls");
            Ok(())
        })
        .await?;
    let mut sessions: Vec<(String, String, String)> = books
        .tool_invocations()
        .map(|data| (text(data, "/agent_id"), text(data, "/tool_name"), text(data, "/session_id")))
        .collect();
    sessions.sort();
    sessions.dedup();
    let names: Vec<(&str, &str)> =
        sessions.iter().map(|(agent, tool, _)| (agent.as_str(), tool.as_str())).collect();
    let expected = [
        ("shared", "named"),
        ("shared", "one"),
        ("shared", "two"),
        ("shared", "window"),
        ("thief", "one"),
        ("wide", "wide"),
    ];
    assert_eq!(names, expected, "each tool is in one session");
    let mut ids: Vec<&String> = sessions.iter().map(|(.., id)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), expected.len(), "and each session has its own id: {sessions:?}");
    rig.finish().await
}

/// The accountant reads the workers' journals one after another, a few times a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_in_a_moment_is_closed_whichever_worker_sees_its_end()
-> anyhow::Result<()> {
    let rig = Rig::start(Upstream::start(obliging).await?, plain_plugin()).await?;
    // So many connections that there are pairs of them on both workers, in both orders.
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(Client::connect(rig.listen()?).await?);
    }
    let pairs: Vec<(usize, usize)> =
        (0..8).flat_map(|call| (0..8).map(move |end| (call, end))).collect();
    for (call, end) in &pairs {
        let agent = Agent::new(&format!("{call}-{end}"));
        connections[*call].exchange(&agent.call(1, "only")).await?;
        let answer = connections[*end].exchange(&agent.delete()).await?;
        ensure!(answer.status() == 200, "DELETE was answered {answer:?}");
    }
    let books = rig
        .settled("all sessions are closed", |books| {
            let (calls, closed) = (books.tool_invocations().count(), books.closed().count());
            ensure!((calls, closed) == (64, 64), "{calls} calls of 64, {closed} sessions of 64");
            Ok(())
        })
        .await?;
    assert!(books.closed().all(|data| data["close_reason"] == "client_delete"));
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

/// A row of the table of outcomes.
struct Outcome {
    name: &'static str,
    /// True for the revision of MCP without sessions.
    is_stateless: bool,
    answer: Vec<Step>,
    /// Status, HTTP status and transport in the event.
    expected: (&'static str, u16, &'static str),
    /// True if the client leaves once it has seen the head of the response, or at once if there is
    /// none.
    leaves: bool,
}

fn outcomes() -> Vec<Outcome> {
    let id = &json!(1);
    let row = |name, bytes: Vec<u8>, status, http, transport| Outcome {
        name,
        is_stateless: false,
        answer: vec![Step::Send(bytes)],
        expected: (status, http, transport),
        leaves: false,
    };
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": result });
    let json = |body: &Value| json_response(body);
    let plain = |status: &str| response(status, &[("content-type", "text/plain")], b"no");
    let error_under = |status: &str, code: i64| {
        let body = rpc_error(id, code).to_string();
        response(status, &[("content-type", "application/json")], body.as_bytes())
    };
    let open_stream = [SSE_HEAD.as_bytes(), &chunk(b": ping\n\n")].concat();
    let cut_event = sse_event(&success(id)).trim_end().to_owned();
    let unfinished = [SSE_HEAD.as_bytes(), &chunk(cut_event.as_bytes()), b"0\r\n\r\n"].concat();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let leaving = |name, is_stateless, answer: Vec<Step>, status, http| Outcome {
        name,
        is_stateless,
        answer: [answer, vec![Step::Gate]].concat(),
        expected: (status, http, "none"),
        leaves: true,
    };
    vec![
        row("result", json(&success(id)), "SUCCESS", 200, "json"),
        row("result_sse", sse_response(&[success(id)]), "SUCCESS", 200, "sse"),
        row("complete", json(&result(json!({ "resultType": "complete" }))), "SUCCESS", 200, "json"),
        row("is_error", json(&tool_error(id)), "ERROR", 200, "json"),
        row("is_error_sse", sse_response(&[tool_error(id)]), "ERROR", 200, "sse"),
        row("is_error_false", json(&result(json!({ "isError": false }))), "SUCCESS", 200, "json"),
        row("after_ping", sse_response(&[ping, success(id)]), "SUCCESS", 200, "sse"),
        row("id_as_string", json(&success(&json!("1"))), "SUCCESS", 200, "json"),
        row("invalid_params", json(&rpc_error(id, -32602)), "VALIDATION_FAILED", 200, "json"),
        row("internal", json(&rpc_error(id, -32603)), "ERROR", 200, "json"),
        row("timed_out", json(&rpc_error(id, -32001)), "TIMEOUT", 200, "json"),
        row("url_needed", json(&rpc_error(id, -32042)), "HITL_REQUIRED", 200, "json"),
        row("parse_error", json(&rpc_error(&Value::Null, -32700)), "ERROR", 200, "json"),
        row(
            "input",
            json(&result(json!({ "resultType": "input_required" }))),
            "HITL_REQUIRED",
            200,
            "json",
        ),
        row("task", json(&result(json!({ "resultType": "task" }))), "PENDING", 200, "json"),
        row(
            "task_2025",
            json(&result(json!({ "task": { "taskId": "1" } }))),
            // Nobody asks for it before the call times out.
            "UNKNOWN",
            200,
            "json",
        ),
        row("new_type", json(&result(json!({ "resultType": "surprise" }))), "UNKNOWN", 200, "json"),
        row("error_400", error_under("400 Bad Request", -32600), "ERROR", 400, "json"),
        row("params_400", error_under("400 Bad Request", -32602), "VALIDATION_FAILED", 400, "json"),
        row("http_400", plain("400 Bad Request"), "VALIDATION_FAILED", 400, "none"),
        row("http_401", plain("401 Unauthorized"), "BLOCKED", 401, "none"),
        row("http_403", plain("403 Forbidden"), "BLOCKED", 403, "none"),
        row("http_408", plain("408 Request Timeout"), "TIMEOUT", 408, "none"),
        row("http_409", plain("409 Conflict"), "ERROR", 409, "none"),
        row("http_422", plain("422 Unprocessable Content"), "VALIDATION_FAILED", 422, "none"),
        row("http_429", plain("429 Too Many Requests"), "BLOCKED", 429, "none"),
        row("http_500", plain("500 Internal Server Error"), "ERROR", 500, "none"),
        row("http_503", plain("503 Service Unavailable"), "ERROR", 503, "none"),
        row("http_504", plain("504 Gateway Timeout"), "TIMEOUT", 504, "none"),
        row("http_202", plain("202 Accepted"), "UNKNOWN", 202, "none"),
        row("html", plain("200 OK"), "UNKNOWN", 200, "none"),
        row("no_answer", sse_response(&[]), "UNKNOWN", 200, "none"),
        row("unfinished_event", unfinished, "UNKNOWN", 200, "none"),
        leaving("left_head", false, vec![Step::Send(open_stream.clone())], "UNKNOWN", 200),
        leaving("left_stateless", true, vec![Step::Send(open_stream)], "CANCELLED", 200),
        leaving("left_early", false, Vec::new(), "UNKNOWN", 0),
        leaving("left_early_stateless", true, Vec::new(), "CANCELLED", 0),
    ]
}

/// Makes one call; the client leaves if the row says so.
async fn play(rig: &Rig, row: &Outcome) -> anyhow::Result<()> {
    let mut agent = Agent::new("acme").with("x-row", row.name);
    if row.is_stateless {
        agent = agent.with("mcp-protocol-version", "2026-07-28");
    }
    let mut client = Client::connect(rig.listen()?).await?;
    let before = rig.upstream.requests_len();
    client.send(&agent.call(1, row.name)).await?;
    wait::until(LIMIT, "the upstream sees the call", async || {
        ensure!(rig.upstream.requests_len() > before, "not yet");
        Ok(())
    })
    .await?;
    if !row.leaves {
        let answer = client.receive(|_| ()).await?;
        ensure!(answer.is_complete, "{answer:?}");
    } else if row.expected.1 != 0 {
        // Reads until the first bytes of the body have come, and no further.
        let (seen, mut is_seen) = tokio::sync::oneshot::channel();
        let mut seen = Some(seen);
        let reading = client.receive(|bytes| {
            if bytes > 0
                && let Some(seen) = seen.take()
            {
                let _ = seen.send(());
            }
        });
        tokio::select! {
            answer = reading => anyhow::bail!("an answer that is open has ended: {answer:?}"),
            _ = &mut is_seen => {}
        }
    }
    drop(client);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_has_the_status_of_the_table() -> anyhow::Result<()> {
    let answers: Vec<_> = outcomes().into_iter().map(|row| (row.name, row.answer)).collect();
    let upstream = Upstream::start(move |request: &Message| {
        let name = request.header("x-row").unwrap_or_default();
        let row = answers.iter().find(|(row, _)| *row == name);
        row.map(|(_, answer)| answer.clone()).unwrap_or_default()
    });
    let rig = Rig::start(upstream.await?, impatient_plugin()).await?;
    let rows = outcomes();
    for row in &rows {
        play(&rig, row).await?;
    }
    let books = rig
        .settled("all calls are there", |books| {
            let count = books.tool_invocations().count();
            ensure!(count >= rows.len(), "{count} of {} calls", rows.len());
            Ok(())
        })
        .await?;
    assert_eq!(books.tool_invocations().count(), rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let calls = books.tool_invocations().filter(|data| data["tool_name"] == row.name);
        let found: Vec<(String, u64, String, bool)> = calls
            .map(|data| {
                let http_status = data["http_status"].as_u64().unwrap_or(u64::MAX);
                let is_billable = data["billable"] == true;
                (
                    text(data, "/execution_status"),
                    http_status,
                    text(data, "/transport"),
                    is_billable,
                )
            })
            .collect();
        let (status, http_status, transport) = row.expected;
        let is_billable = status == "SUCCESS";
        let expected =
            [(status.to_owned(), u64::from(http_status), transport.to_owned(), is_billable)];
        if found != expected {
            wrong.push(format!("{}: expected {expected:?}, found {found:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

//! Answers that find their calls, and no others, on the streams of real servers: cases from 137 on
//! of `tests/README.md`, over two workers. `filter/core/tests/core/origins.rs` has them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_meter::stack::Options;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::Agent;
use crate::streams::{ANY, Calls, Wire, call, json_ok, patient_for_two_seconds, result};
use crate::upstream::{Step, json_response, response};
use crate::{LIMIT, release_module};

/// A tool's result with this text.
fn told(id: u64, words: &str) -> Value {
    result(id, &json!({ "content": [{ "type": "text", "text": words }] }))
}

fn agent(name: &str) -> Agent {
    Agent { session: Some(format!("session of {name}")), ..Agent::new(name) }
}

/// HTTP+SSE whose `POST` is answered in another way than by 202, before or after the answer.
async fn accepted_by_other_words(wire: &Wire) -> anyhow::Result<Vec<(&'static str, Calls)>> {
    let mut wanted = Vec::new();
    let rows = [
        ("137: 200 after", "200 OK", "", false),
        ("137: 200 before", "200 OK", "", true),
        ("138: 204", "204 No Content", "", false),
        ("139: a text", "200 OK", "Accepted", false),
        ("140: JSON", "200 OK", r#"{"status":"ok"}"#, true),
    ];
    for (at, (name, status, words, is_before)) in rows.into_iter().enumerate() {
        let agent = Agent { session: None, ..Agent::new(name) };
        let path = format!("/mcp/messages?sid={at}");
        let mut stream = wire.request(0, &agent, "GET", "/mcp/sse", b"").await?;
        stream.begin("text/event-stream").await?;
        stream.write(format!("event: endpoint\ndata: ./messages?sid={at}\n\n")).await?;
        let body = call(1, "a").to_string();
        let posted = wire.request(1, &agent, "POST", &path, body.as_bytes()).await?;
        let answer = response(status, &[("content-type", "text/plain")], words.as_bytes());
        if is_before {
            stream.event(&told(1, "done")).await?;
            posted.answer(answer).await?;
        } else {
            posted.answer(answer).await?;
            stream.event(&told(1, "done")).await?;
        }
        stream.done().await?;
        wanted.push((name, vec![("a", "SUCCESS")]));
    }
    Ok(wanted)
}

/// An answer that was used on its own stream is repeated on the session's standing stream, where a
/// call with the same id waits; then that call's own answer comes, late.
async fn repeated_answers(wire: &Wire) -> anyhow::Result<Vec<(&'static str, Calls)>> {
    let mut wanted = Vec::new();
    for (name, comes_late) in [("154: repeated", false), ("156: repeated, then late", true)] {
        let agent = agent(name);
        let lost = wire.stream(0, &agent, &call(1, "lost")).await?;
        lost.break_off(Step::Close).await?;
        let good = told(1, "good");
        wire.ask(1, &agent, &call(1, "good"), json_response(&good)).await?;
        let mut standing = wire.resume(0, &agent).await?;
        standing.event(&good).await?;
        if comes_late {
            standing.event(&told(1, "late")).await?;
        }
        standing.done().await?;
        let outcome = if comes_late { "SUCCESS" } else { "UNKNOWN" };
        wanted.push((name, vec![("good", "SUCCESS"), ("lost", outcome)]));
    }
    Ok(wanted)
}

/// Two clients of one identity without a session use one id, and resume their streams by events.
async fn resumed_by_event(wire: &Wire) -> anyhow::Result<Vec<(&'static str, Calls)>> {
    let name = "165: two clients";
    let agent = Agent { session: None, ..Agent::new(name) };
    for (worker, tool, event) in [(0, "one", "e1"), (1, "two", "e2")] {
        let mut open = wire.post(worker, &agent, &call(1, tool)).await?;
        open.begin("text/event-stream").await?;
        open.write(format!("id: {event}\ndata: \n\n")).await?;
        open.break_off(Step::Close).await?;
    }
    let resumed = agent.with("last-event-id", "e2");
    let mut open = wire.request(0, &resumed, "GET", "/mcp", b"").await?;
    open.begin("text/event-stream").await?;
    open.event(&told(1, "done")).await?;
    open.done().await?;
    Ok(vec![(name, vec![("one", "UNKNOWN"), ("two", "SUCCESS")])])
}

/// 404s that end no session, and redirects that are no calls.
async fn not_found_and_moved(wire: &Wire) -> anyhow::Result<Vec<(&'static str, Calls)>> {
    let gone = "176, 179: 404";
    let one = agent(gone);
    wire.ask(ANY, &one, &call(1, "a"), json_ok(1)).await?;
    let nothing = response("404 Not Found", &[("content-type", "text/plain")], b"Cannot GET /mcp");
    wire.request(ANY, &one, "GET", "/mcp", b"").await?.answer(nothing.clone()).await?;
    wire.ask(ANY, &one, &call(2, "a"), json_ok(2)).await?;
    let list = json!({ "jsonrpc": "2.0", "id": 3, "method": "prompts/list" });
    wire.ask(ANY, &one, &list, nothing).await?;
    wire.ask(ANY, &one, &call(4, "a"), json_ok(4)).await?;
    let moved = "181: moved";
    let two = agent(moved);
    for (status, location) in [("307 Temporary Redirect", "/mcp/"), ("308 Permanent Redirect", "x")]
    {
        let answer = response(status, &[("location", location)], b"");
        wire.ask(ANY, &two, &call(1, "a"), answer).await?;
        let body = call(1, "a").to_string();
        let followed = wire.request(ANY, &two, "POST", "/mcp/", body.as_bytes()).await?;
        followed.answer(json_ok(1)).await?;
    }
    let three = vec![("a", "SUCCESS"); 3];
    Ok(vec![(gone, three), (moved, vec![("a", "SUCCESS"); 2])])
}

/// Tool and status of each agent's calls, in order.
fn calls_of(books: &Books) -> BTreeMap<String, Vec<(String, String)>> {
    let mut calls = BTreeMap::<String, Vec<(String, String)>>::new();
    for data in books.tool_invocations() {
        let call = (text(data, "/tool_name"), text(data, "/execution_status"));
        calls.entry(text(data, "/agent_id")).or_default().push(call);
    }
    calls.values_mut().for_each(|calls| calls.sort());
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_finds_its_call_and_no_other() -> anyhow::Result<()> {
    let mut plugin = patient_for_two_seconds();
    plugin["products"][0]["call_timeout"] = json!("4s");
    plugin["products"][0]["session"] = json!({ "idle_timeout": "20s" });
    let wire = Wire::start(Options::new(plugin, Some(release_module()?))).await?;
    wire.fill_pool().await?;
    let (one, two, three, four) = tokio::try_join!(
        accepted_by_other_words(&wire),
        repeated_answers(&wire),
        resumed_by_event(&wire),
        not_found_and_moved(&wire),
    )?;
    let wanted: BTreeMap<String, Vec<(String, String)>> = [one, two, three, four]
        .concat()
        .into_iter()
        .map(|(name, calls)| {
            let calls =
                calls.into_iter().map(|(tool, status)| (tool.to_owned(), status.to_owned()));
            (name.to_owned(), calls.collect())
        })
        .collect();
    let settled = wire.rig.settled("all calls", |books| {
        let found = calls_of(books);
        ensure!(found == wanted, "expected {wanted:#?}, found {found:#?}");
        Ok(())
    });
    let books = tokio::time::timeout(LIMIT, settled).await??;
    let sessions = |name: &str| {
        let calls = books.tool_invocations().filter(|data| text(data, "/agent_id") == name);
        calls.map(|data| text(data, "/session_id")).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(sessions("176, 179: 404"), 1, "a 404 ended the session");
    assert_eq!(wire.rig.metric("calls_redirected").await?, 2);
    // Nothing comes later.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let books = wire.rig.settled("the end", |_| Ok(())).await?;
    assert_eq!(calls_of(&books), wanted);
    wire.rig.finish().await
}

//! The wire cases that need the host, by the numbers of `tests/README.md`: several streams, workers
//! and connections, streams that are cut off, bodies in pieces. One stack plays all of them at
//! once. Each case is one agent; at the end the test looks the agent up in the ledger. `alone.rs`
//! has the cases that need an Envoy of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::Agent;
use crate::streams::{
    ANY, Calls, Open, Wire, accepted, call, json_ok, lock, modern, ok, patient_for_two_seconds,
    refusal, result,
};
use crate::upstream::{
    Step, json_response, response, rpc_error, sse_event, sse_response, tool_error,
};
use crate::{LIMIT, release_module};

/// The start of every session id, task id and the like: none may appear in an event or in the log.
const SECRET: &str = "hush";
const ROUTE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/\
    virtual_hosts/0/routes/0/route";
/// Longer than the timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Plays one case as one agent; its name begins with its numbers.
async fn play(
    wire: &Wire,
    name: &'static str,
    case: impl AsyncFnOnce(&Wire, &Agent) -> anyhow::Result<Calls>,
) -> anyhow::Result<()> {
    let session = Some(format!("{SECRET}-{}", name.split(':').next().unwrap_or_default()));
    let agent = Agent { session, ..Agent::new(name) };
    let calls = case(wire, &agent).await.context(name)?;
    lock(&wire.wanted).push((name, calls));
    Ok(())
}

async fn calls_that_are_sent_again(wire: &Wire) -> anyhow::Result<()> {
    let sent_again = async |wire: &Wire, agent: &Agent, status: &str| {
        wire.ask(ANY, agent, &call(1, "a"), refusal(status)).await?;
        wire.ask(ANY, &agent.with("authorization", "Bearer x"), &call(1, "a"), json_ok(1)).await?;
        anyhow::Ok(vec![("a", "BLOCKED"), ("a", "SUCCESS")])
    };
    tokio::try_join!(
        play(wire, "15: 401, and again with a token", async |wire, agent| {
            sent_again(wire, agent, "401 Unauthorized").await
        }),
        play(wire, "16: 403, and again with more scope", async |wire, agent| {
            sent_again(wire, agent, "403 Forbidden").await
        }),
        play(wire, "17: 404, and again in a new session", async |wire, agent| {
            wire.ask(ANY, agent, &call(1, "a"), refusal("404 Not Found")).await?;
            let no_session = Agent { session: None, ..agent.clone() };
            let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" });
            wire.ask(ANY, &no_session, &hello, json_response(&result(0, &json!({})))).await?;
            let session = Some(format!("{SECRET}-17-new"));
            let again = Agent { session, ..agent.clone() };
            wire.ask(ANY, &again, &call(1, "a"), json_ok(1)).await?;
            Ok(vec![("a", "ERROR"), ("a", "SUCCESS")])
        }),
        play(wire, "59: Envoy tries again after 503", async |wire, agent| {
            // The upstream answers the second one by itself.
            let open = wire.post(ANY, agent, &call(1, "a")).await?;
            let answer = open.answer(refusal("503 Service Unavailable")).await?;
            ensure!(answer.status() == 200, "{answer:?}");
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "23: no session and no initialize", async |wire, agent| {
            let agent = Agent { session: None, ..agent.clone() };
            wire.ask(ANY, &agent, &call(1, "a"), json_ok(1)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "24: the same id at once, without sessions", async |wire, agent| {
            let agent = Agent { session: None, ..agent.clone() };
            let one = wire.post(0, &agent, &call(1, "a")).await?;
            let two = wire.post(1, &agent, &call(1, "b")).await?;
            two.answer(json_response(&tool_error(&json!(1)))).await?;
            one.answer(json_ok(1)).await?;
            Ok(vec![("a", "SUCCESS"), ("b", "ERROR")])
        }),
        play(wire, "26: the same id at once in a session, one answer", async |wire, agent| {
            let one = wire.stream(0, agent, &call(1, "a")).await?;
            let mut two = wire.stream(1, agent, &call(1, "a")).await?;
            two.event(&ok(1)).await?;
            two.done().await?;
            one.leave();
            Ok(vec![("a", "SUCCESS"), ("a", "UNKNOWN")])
        }),
        play(wire, "35: one session over connections to both workers", async |wire, agent| {
            for worker in [0, 1, 0, 1] {
                wire.ask(worker, agent, &call(1, "a"), json_ok(1)).await?;
            }
            Ok(vec![("a", "SUCCESS"); 4])
        }),
        play(
            wire,
            "34: three sessions by turns over one connection of HTTP/2",
            async |wire, agent| {
                over_http2(wire.rig.listen()?, &agent.name).await?;
                Ok(["one", "two", "three"].map(|tool| vec![(tool, "SUCCESS"); 2]).concat())
            }
        ),
    )?;
    Ok(())
}

/// Six calls at once in three sessions.
async fn over_http2(listen: SocketAddr, name: &str) -> anyhow::Result<()> {
    let stream = tokio::net::TcpStream::connect(listen).await?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    for id in [1_u64, 2] {
        for tool in ["one", "two", "three"] {
            sender = sender.ready().await?;
            let request = http::Request::post("http://tools.example/mcp")
                .header("x-customer-id", name)
                .header("x-agent-id", name)
                .header("mcp-session-id", format!("{SECRET}-34-{tool}"))
                .header("content-type", "application/json")
                .body(())?;
            let (answer, mut body) = sender.send_request(request, false)?;
            body.send_data(call(id, tool).to_string().into_bytes().into(), true)?;
            answers.push(answer);
        }
    }
    for answer in answers {
        let mut answer = tokio::time::timeout(LIMIT, answer).await??;
        ensure!(answer.status() == 200, "{answer:?}");
        while let Some(data) = answer.body_mut().data().await {
            data?;
        }
    }
    connection.abort();
    Ok(())
}

async fn resumed_streams(wire: &Wire) -> anyhow::Result<()> {
    tokio::try_join!(
        play(wire, "44: the answer comes on the resumed stream only", async |wire, agent| {
            wire.stream(0, agent, &call(1, "a")).await?.leave();
            let mut resumed = wire.resume(1, agent).await?;
            resumed.event(&ok(1)).await?;
            resumed.leave();
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "45: answered, and replayed on the resumed stream", async |wire, agent| {
            let mut first = wire.stream(0, agent, &call(1, "a")).await?;
            first.event(&ok(1)).await?;
            first.leave();
            let mut resumed = wire.resume(1, agent).await?;
            resumed.event(&ok(1)).await?;
            resumed.leave();
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "46: resumed twice at the same event", async |wire, agent| {
            wire.stream(1, agent, &call(1, "a")).await?.leave();
            for worker in [0, 1] {
                let mut resumed = wire.resume(worker, agent).await?;
                resumed.event(&ok(1)).await?;
                resumed.leave();
            }
            Ok(vec![("a", "SUCCESS")])
        }),
        play(
            wire,
            "47, 48: answers to other calls and placeholders are replayed",
            async |wire, agent| {
                for (id, tool) in [(1, "a"), (2, "b")] {
                    let mut stream = wire.stream(0, agent, &call(id, tool)).await?;
                    stream.event(&ok(id)).await?;
                    stream.done().await?;
                }
                wire.stream(0, agent, &call(3, "c")).await?.leave();
                for worker in [1, 0] {
                    let mut resumed = wire.resume(worker, agent).await?;
                    for message in [ok(1), json!({}), ok(2), ok(3)] {
                        resumed.event(&message).await?;
                    }
                    resumed.leave();
                }
                Ok(vec![("a", "SUCCESS"), ("b", "SUCCESS"), ("c", "SUCCESS")])
            }
        ),
        play(wire, "49: polled three times", async |wire, agent| {
            wire.stream(0, agent, &call(1, "a")).await?.done().await?;
            for worker in [1, 0] {
                let mut resumed = wire.resume(worker, agent).await?;
                resumed.write("id: 2\nretry: 10\ndata:\n\n").await?;
                resumed.done().await?;
            }
            let mut resumed = wire.resume(1, agent).await?;
            resumed.event(&ok(1)).await?;
            resumed.done().await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(
            wire,
            "50: a gateway repeats the answer on the standing stream",
            async |wire, agent| {
                let mut standing = wire.resume(1, agent).await?;
                for id in [1, 2] {
                    let mut stream = wire.stream(0, agent, &call(id, "a")).await?;
                    // Once before and once after it comes on the call's own stream.
                    if id == 1 {
                        standing.event(&ok(id)).await?;
                    }
                    stream.event(&ok(id)).await?;
                    stream.done().await?;
                    standing.event(&ok(id)).await?;
                }
                wire.keep(standing);
                Ok(vec![("a", "SUCCESS"); 2])
            }
        ),
        play(
            wire,
            "51: the answer on another worker's stream, while the call's is open",
            async |wire, agent| {
                for (id, one, other) in [(1, 0, 1), (2, 1, 0)] {
                    let first = wire.stream(one, agent, &call(id, "a")).await?;
                    let mut resumed = wire.resume(other, agent).await?;
                    resumed.event(&ok(id)).await?;
                    resumed.leave();
                    first.leave();
                }
                Ok(vec![("a", "SUCCESS"); 2])
            }
        ),
        play(
            wire,
            "51: the answer is on the wire before the call's stream ends",
            async |wire, agent| {
                let first = wire.stream(0, agent, &call(1, "a")).await?;
                let mut resumed = wire.resume(1, agent).await?;
                resumed.event(&tool_error(&json!(1))).await?;
                // The accountant has read the response by then.
                tokio::time::sleep(Duration::from_millis(700)).await;
                first.leave();
                Ok(vec![("a", "ERROR")])
            }
        ),
    )?;
    Ok(())
}

async fn streams_that_end(wire: &Wire) -> anyhow::Result<()> {
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 },
    });
    tokio::try_join!(
        play(wire, "52: the stream ends without an answer", async |wire, agent| {
            let mut stream = wire.post(0, agent, &call(1, "a")).await?;
            stream.begin("text/event-stream").await?;
            stream.write(": nothing\n\n").await?;
            stream.done().await?;
            Ok(vec![("a", "UNKNOWN")])
        }),
        play(wire, "53: cancelled, and nothing but comments from then on", async |wire, agent| {
            let mut stream = wire.stream(0, agent, &call(1, "a")).await?;
            wire.ask(1, agent, &cancel, accepted()).await?;
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write(": keepalive\n\n").await?;
            }
            wire.keep(stream);
            Ok(vec![("a", "CANCELLED")])
        }),
        play(wire, "54: cancelled, and answered all the same", async |wire, agent| {
            let mut stream = wire.stream(0, agent, &call(1, "a")).await?;
            wire.ask(1, agent, &cancel, accepted()).await?;
            stream.event(&ok(1)).await?;
            stream.done().await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "55: a legacy client leaves, and nothing is replayed", async |wire, agent| {
            wire.stream(0, agent, &call(1, "a")).await?.leave();
            wire.resume(1, agent).await?.done().await?;
            Ok(vec![("a", "UNKNOWN")])
        }),
        play(wire, "56: a modern client leaves, and calls anew", async |wire, agent| {
            let agent = modern(agent);
            let mut stream = wire.post(0, &agent, &call(1, "a")).await?;
            stream.begin("text/event-stream").await?;
            stream.write(": working\n\n").await?;
            stream.leave();
            wire.ask(1, &agent, &call(2, "a"), sse_response(&[ok(2)])).await?;
            Ok(vec![("a", "CANCELLED"), ("a", "SUCCESS")])
        }),
        play(wire, "57: the upstream resets behind the answer", async |wire, agent| {
            let mut stream = wire.stream(0, agent, &call(1, "a")).await?;
            stream.event(&ok(1)).await?;
            stream.break_off(Step::Reset).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "58: the stream ends inside the answer", async |wire, agent| {
            let event = sse_event(&ok(1));
            let mut stream = wire.stream(0, agent, &call(1, "a")).await?;
            stream.write(event.trim_end()).await?;
            stream.done().await?;
            let mut stream = wire.stream(1, agent, &call(2, "b")).await?;
            stream.write(sse_event(&ok(2)).trim_end()).await?;
            stream.break_off(Step::Close).await?;
            Ok(vec![("a", "UNKNOWN"), ("b", "UNKNOWN")])
        }),
    )?;
    Ok(())
}

async fn bodies(wire: &Wire) -> anyhow::Result<()> {
    tokio::try_join!(
        play(wire, "66: every byte for itself", async |wire, agent| {
            let mut stream = wire.stream(ANY, agent, &call(1, "a")).await?;
            let message = json!({ "result": { "content": [{ "text": "\u{e9}\u{20ac}\u{1f600}" }] }, "id": 1 });
            for byte in sse_event(&message).replace('\n', "\r\n").bytes() {
                stream.write([byte]).await?;
            }
            stream.done().await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "71: a line of 10 MB", async |wire, agent| {
            let mut stream = wire.stream(ANY, agent, &call(1, "a")).await?;
            stream.write("data: {\"result\":{\"content\":[{\"text\":\"").await?;
            for _ in 0..10 {
                stream.write("z".repeat(1_000_000)).await?;
            }
            stream.write("\"}]},\"id\":1}\n\n").await?;
            stream.done().await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "72: JSON in gzip", async |wire, agent| {
            let agent = agent.with("accept-encoding", "gzip, deflate");
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(ok(1).to_string().as_bytes())?;
            let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
            let body = gzip.finish()?;
            let answer =
                wire.ask(ANY, &agent, &call(1, "a"), response("200 OK", &headers, &body)).await?;
            ensure!(answer.body == body, "other bytes");
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "73: events in gzip, told as they are flushed", async |wire, agent| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            let mut stream = wire.post(ANY, agent, &call(1, "a")).await?;
            stream.begin("text/event-stream\r\ncontent-encoding: gzip").await?;
            let progress = json!({ "method": "notifications/progress", "params": {} });
            for message in [progress.clone(), progress, ok(1)] {
                gzip.write_all(sse_event(&message).as_bytes())?;
                gzip.flush()?;
                stream.write(std::mem::take(gzip.get_mut())).await?;
            }
            // The call is billed although its stream never ends.
            wire.keep(stream);
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "83: 3.9 MB of arguments", async |wire, agent| {
            let mut body = call(1, "a");
            body["params"]["arguments"] = json!({ "text": "x\"\u{e9}".repeat(780_000) });
            ensure!(body.to_string().len() > 3_900_000);
            wire.ask(ANY, agent, &body, json_ok(1)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "84: a request in gzip", async |wire, agent| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(call(1, "a").to_string().as_bytes())?;
            let agent = agent.with("content-encoding", "gzip");
            let open = wire.request(ANY, &agent, "POST", "/mcp", &gzip.finish()?).await?;
            open.answer(json_ok(1)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "135: other paths and other streams", async |wire, agent| {
            let body = call(1, "a").to_string();
            let open = wire.request(ANY, agent, "POST", "/other", body.as_bytes()).await?;
            open.answer(json_ok(1)).await?;
            let mut html = wire.resume(ANY, agent).await?;
            html.write("data: <p>tools/call</p>\n\ndata: [\"tools/call\"]\n\n").await?;
            html.done().await?;
            Ok(vec![])
        }),
        play(wire, "136: what is no JSON passes untouched, and is counted", async |wire, agent| {
            let before = wire.rig.metric("request_unparsed").await?;
            let body = [b"\xff\x00{\"method\":\"tools/call\",,".as_slice(), agent.name.as_bytes()];
            let open = wire.request(ANY, agent, "POST", "/mcp", &body.concat()).await?;
            let answer = open.answer(response("200 OK", &[], b"\x00\xff")).await?;
            ensure!(answer.status() == 200 && answer.body == b"\x00\xff", "{answer:?}");
            wait::until(LIMIT, "it is counted", async || {
                ensure!(wire.rig.metric("request_unparsed").await? > before, "not yet");
                Ok(())
            })
            .await?;
            let requests = wire.rig.upstream.take_requests();
            ensure!(requests.iter().any(|seen| seen.body == body.concat()), "other bytes");
            Ok(vec![])
        }),
    )?;
    Ok(())
}

/// An event stream of HTTP+SSE that has sent its endpoint.
async fn old_stream(
    wire: &Wire,
    worker: usize,
    agent: &Agent,
    endpoint: &str,
) -> anyhow::Result<Open> {
    let mut stream = wire.request(worker, agent, "GET", "/mcp/sse", b"").await?;
    stream.begin("text/event-stream").await?;
    stream.write(format!("event: endpoint\ndata: {endpoint}\n\n")).await?;
    Ok(stream)
}

/// A message to an endpoint of HTTP+SSE.
async fn old_post(
    wire: &Wire,
    worker: usize,
    agent: &Agent,
    endpoint: &str,
    body: &Value,
) -> anyhow::Result<Open> {
    wire.request(worker, agent, "POST", endpoint, body.to_string().as_bytes()).await
}

async fn http_with_sse(wire: &Wire) -> anyhow::Result<()> {
    let endpoint = |case: &str| format!("/mcp/message?sessionId={SECRET}-{case}");
    let nameless = |agent: &Agent| Agent { session: None, ..agent.clone() };
    tokio::try_join!(
        play(wire, "89: accepted, and answered on the event stream", async |wire, agent| {
            let (agent, endpoint) = (nameless(agent), endpoint("89"));
            let mut stream = old_stream(wire, 0, &agent, &endpoint).await?;
            old_post(wire, 1, &agent, &endpoint, &call(1, "a")).await?.answer(accepted()).await?;
            stream.event(&ok(1)).await?;
            wire.keep(stream);
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "90: two calls answered out of order", async |wire, agent| {
            let (agent, endpoint) = (nameless(agent), endpoint("90"));
            let mut stream = old_stream(wire, 1, &agent, &endpoint).await?;
            for (id, tool) in [(1, "a"), (2, "b")] {
                let open = old_post(wire, 0, &agent, &endpoint, &call(id, tool)).await?;
                open.answer(accepted()).await?;
            }
            stream.event(&ok(2)).await?;
            stream.event(&tool_error(&json!(1))).await?;
            stream.leave();
            Ok(vec![("a", "ERROR"), ("b", "SUCCESS")])
        }),
        play(wire, "91: a stale endpoint, refused or silent", async |wire, agent| {
            let (agent, endpoint) = (nameless(agent), endpoint("91"));
            let open = old_post(wire, 0, &agent, &endpoint, &call(1, "a")).await?;
            open.answer(refusal("404 Not Found")).await?;
            let open = old_post(wire, 1, &agent, &endpoint, &call(1, "b")).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            open.leave();
            Ok(vec![("a", "ERROR"), ("b", "UNKNOWN")])
        }),
        play(wire, "92: the event stream goes before the answer", async |wire, agent| {
            let (agent, endpoint) = (nameless(agent), endpoint("92"));
            let stream = old_stream(wire, 0, &agent, &endpoint).await?;
            old_post(wire, 1, &agent, &endpoint, &call(1, "a")).await?.answer(accepted()).await?;
            stream.break_off(Step::Reset).await?;
            Ok(vec![("a", "UNKNOWN")])
        }),
        play(wire, "93: absolute and relative endpoints", async |wire, agent| {
            let agent = nameless(agent);
            let resolved = endpoint("93");
            let relative = resolved.replace("/mcp/", "");
            let absolute = format!("http://tools.example{resolved}");
            for (id, sent) in [(1, &resolved), (2, &relative), (3, &absolute)] {
                let mut stream = old_stream(wire, 0, &agent, sent).await?;
                let open = old_post(wire, 1, &agent, &resolved, &call(id, "a")).await?;
                open.answer(accepted()).await?;
                stream.event(&ok(id)).await?;
                stream.leave();
            }
            Ok(vec![("a", "SUCCESS"); 3])
        }),
        play(wire, "94: the same ids on two event streams", async |wire, agent| {
            let agent = nameless(agent);
            let (one, two) = (endpoint("94-one"), endpoint("94-two"));
            let mut first = old_stream(wire, 0, &agent, &one).await?;
            let mut second = old_stream(wire, 1, &agent, &two).await?;
            old_post(wire, 1, &agent, &one, &call(1, "a")).await?.answer(accepted()).await?;
            old_post(wire, 1, &agent, &two, &call(1, "b")).await?.answer(accepted()).await?;
            second.event(&ok(1)).await?;
            first.event(&tool_error(&json!(1))).await?;
            first.leave();
            second.leave();
            Ok(vec![("a", "ERROR"), ("b", "SUCCESS")])
        }),
        play(wire, "95: accepted, and then a parse error", async |wire, agent| {
            let (agent, endpoint) = (nameless(agent), endpoint("95"));
            let mut stream = old_stream(wire, 0, &agent, &endpoint).await?;
            old_post(wire, 0, &agent, &endpoint, &call(1, "a")).await?.answer(accepted()).await?;
            stream.event(&rpc_error(&Value::Null, -32700)).await?;
            stream.leave();
            Ok(vec![("a", "UNKNOWN")])
        }),
    )?;
    Ok(())
}

async fn eras(wire: &Wire) -> anyhow::Result<()> {
    tokio::try_join!(
        play(wire, "112: a subscription", async |wire, agent| {
            let agent = modern(agent);
            let listen = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen" });
            let mut stream = wire.stream(0, &agent, &listen).await?;
            stream.event(&json!({ "method": "notifications/subscriptions/acknowledged" })).await?;
            stream.event(&result(1, &json!({ "resultType": "complete" }))).await?;
            stream.done().await?;
            Ok(vec![])
        }),
        play(wire, "113: both eras at one address at once", async |wire, agent| {
            let new = modern(agent);
            let mut one = wire.stream(0, agent, &call(1, "old")).await?;
            let two = wire.post(0, &new, &call(1, "new")).await?;
            let three = wire.post(1, &new, &call(2, "new")).await?;
            three.leave();
            one.event(&tool_error(&json!(1))).await?;
            two.answer(json_response(&result(1, &json!({ "resultType": "complete" })))).await?;
            one.done().await?;
            Ok(vec![("new", "CANCELLED"), ("new", "SUCCESS"), ("old", "ERROR")])
        }),
        play(wire, "103, 134: input required, with a state that is secret", async |wire, agent| {
            let agent = modern(agent);
            let state = format!("{SECRET}-state");
            let input = json!({ "resultType": "input_required", "requestState": state, "inputRequests": {} });
            wire.ask(0, &agent, &call(1, "a"), json_response(&result(1, &input))).await?;
            let mut again = call(2, "a");
            again["params"]["requestState"] = json!(state);
            again["params"]["inputResponses"] = json!({});
            wire.ask(1, &agent, &again, json_ok(2)).await?;
            Ok(vec![("a", "HITL_REQUIRED"), ("a", "SUCCESS")])
        }),
    )?;
    Ok(())
}

/// The id of the case's only task.
fn task(case: u32) -> String {
    format!("{SECRET}-task-{case}")
}

/// A call that becomes a task of 2025-11-25.
async fn create(wire: &Wire, agent: &Agent, case: u32) -> anyhow::Result<()> {
    let created = result(1, &json!({ "task": { "taskId": task(case), "status": "working" } }));
    wire.ask(0, agent, &call(1, "a"), json_response(&created)).await?;
    Ok(())
}

/// A call that becomes a task of 2026-07-28.
async fn create_modern(wire: &Wire, agent: &Agent, case: u32) -> anyhow::Result<()> {
    let created =
        json!({ "resultType": "task", "taskId": task(case), "status": "working", "ttlMs": null });
    wire.ask(0, &modern(agent), &call(1, "a"), json_response(&result(1, &created))).await?;
    Ok(())
}

/// Asks about the case's task at another worker.
async fn ask_task(
    wire: &Wire,
    agent: &Agent,
    method: &str,
    case: u32,
    answer: &Value,
) -> anyhow::Result<()> {
    let body =
        json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "taskId": task(case) } });
    let agent = agent.with("mcp-name", &task(case));
    wire.ask(1, &agent, &body, json_response(&result(7, answer))).await?;
    Ok(())
}

async fn tasks_of_2025(wire: &Wire) -> anyhow::Result<()> {
    let stands = |case: u32, status: &str| json!({ "taskId": task(case), "status": status });
    let done = json!({ "content": [] });
    tokio::try_join!(
        play(wire, "118, 125: accepted, and nobody asks", async |wire, agent| {
            create(wire, agent, 118).await?;
            Ok(vec![("a", "UNKNOWN")])
        }),
        play(wire, "119, 120: polled, completed, and fetched twice", async |wire, agent| {
            create(wire, agent, 119).await?;
            for status in ["working", "working", "completed", "completed"] {
                ask_task(wire, agent, "tasks/get", 119, &stands(119, status)).await?;
            }
            ask_task(wire, agent, "tasks/result", 119, &done).await?;
            ask_task(wire, agent, "tasks/result", 119, &done).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "120: fetched twice at once, by both workers", async |wire, agent| {
            create(wire, agent, 120).await?;
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tasks/result", "params": { "taskId": task(120) } });
            let one = wire.post(0, agent, &body).await?;
            let two = wire.post(1, agent, &body).await?;
            let answer = json_response(&result(7, &done));
            tokio::try_join!(one.answer(answer.clone()), two.answer(answer.clone()))?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "121: failed", async |wire, agent| {
            create(wire, agent, 121).await?;
            ask_task(wire, agent, "tasks/get", 121, &stands(121, "failed")).await?;
            ask_task(wire, agent, "tasks/result", 121, &json!({ "isError": true })).await?;
            Ok(vec![("a", "ERROR")])
        }),
        play(wire, "122: cancelled", async |wire, agent| {
            create(wire, agent, 122).await?;
            ask_task(wire, agent, "tasks/cancel", 122, &stands(122, "cancelled")).await?;
            Ok(vec![("a", "CANCELLED")])
        }),
        play(wire, "123: told by a notification only", async |wire, agent| {
            let mut standing = wire.resume(1, agent).await?;
            create(wire, agent, 123).await?;
            let message = json!({ "method": "notifications/tasks/status", "params": stands(123, "completed") });
            standing.event(&message).await?;
            wire.keep(standing);
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "124: the wish for a task is overlooked", async |wire, agent| {
            let mut body = call(1, "a");
            body["params"]["task"] = json!({ "ttl": 60_000 });
            wire.ask(ANY, agent, &body, json_ok(1)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
    )?;
    Ok(())
}

async fn tasks_of_2026(wire: &Wire) -> anyhow::Result<()> {
    let ended = |case: u32, kind: &str, is_error: bool| json!({ "resultType": kind, "taskId": task(case), "status": "completed", "result": { "isError": is_error } });
    let working =
        |case: u32| json!({ "resultType": "complete", "taskId": task(case), "status": "working" });
    tokio::try_join!(
        play(wire, "126, 131: polled under the task's id", async |wire, agent| {
            create_modern(wire, agent, 126).await?;
            ask_task(wire, &modern(agent), "tasks/get", 126, &working(126)).await?;
            ask_task(wire, &modern(agent), "tasks/get", 126, &ended(126, "complete", false))
                .await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "127: completed with an error", async |wire, agent| {
            create_modern(wire, agent, 127).await?;
            ask_task(wire, &modern(agent), "tasks/get", 127, &ended(127, "complete", true)).await?;
            Ok(vec![("a", "ERROR")])
        }),
        play(wire, "128: completed, and called a task", async |wire, agent| {
            create_modern(wire, agent, 128).await?;
            ask_task(wire, &modern(agent), "tasks/get", 128, &ended(128, "task", false)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "129: pushed after it was polled, and polled again", async |wire, agent| {
            create_modern(wire, agent, 129).await?;
            let new = modern(agent);
            ask_task(wire, &new, "tasks/get", 129, &ended(129, "complete", false)).await?;
            let listen = json!({ "jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen" });
            let mut stream = wire.stream(0, &new, &listen).await?;
            let message =
                json!({ "method": "notifications/tasks", "params": ended(129, "complete", false) });
            stream.event(&message).await?;
            stream.event(&message).await?;
            stream.leave();
            ask_task(wire, &new, "tasks/get", 129, &ended(129, "complete", false)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "130: polled by somebody else", async |wire, agent| {
            create_modern(wire, agent, 130).await?;
            let other = modern(&Agent::new("130, other"));
            ask_task(wire, &other, "tasks/get", 130, &ended(130, "complete", false)).await?;
            Ok(vec![("a", "SUCCESS")])
        }),
        play(wire, "132: input, then a task, then its end", async |wire, agent| {
            let input =
                json!({ "resultType": "input_required", "requestState": format!("{SECRET}-132") });
            wire.ask(1, &modern(agent), &call(0, "a"), json_response(&result(0, &input))).await?;
            create_modern(wire, agent, 132).await?;
            ask_task(wire, &modern(agent), "tasks/get", 132, &ended(132, "complete", false))
                .await?;
            Ok(vec![("a", "HITL_REQUIRED"), ("a", "SUCCESS")])
        }),
    )?;
    Ok(())
}

/// The cases whose calls are not the expected ones.
fn wrong(books: &Books, wanted: &[(&'static str, Calls)]) -> Vec<String> {
    let mut booked = BTreeMap::<String, Vec<(String, String)>>::new();
    for data in books.tool_invocations() {
        let call = (text(data, "/tool_name"), text(data, "/execution_status"));
        booked.entry(text(data, "/agent_id")).or_default().push(call);
    }
    let mut wrong = Vec::new();
    for (name, calls) in wanted {
        let mut calls: Vec<(String, String)> =
            calls.iter().map(|(tool, status)| ((*tool).into(), (*status).into())).collect();
        calls.sort();
        let mut found = booked.remove(*name).unwrap_or_default();
        found.sort();
        if calls != found {
            wrong.push(format!("{name}: expected {calls:?}, found {found:?}"));
        }
    }
    wrong.extend(booked.iter().map(|(agent, calls)| format!("{agent}: {calls:?}")));
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_is_billed_as_the_list_says() -> anyhow::Result<()> {
    let retry = json!({
        "retry_on": "retriable-status-codes", "retriable_status_codes": [503], "num_retries": 1,
    });
    let options = Options {
        settings: vec![(format!("{ROUTE}/retry_policy"), retry)],
        ..Options::new(patient_for_two_seconds(), Some(release_module()?))
    };
    let wire = Wire::start(options).await?;
    wire.fill_pool().await?;
    tokio::try_join!(
        calls_that_are_sent_again(&wire),
        resumed_streams(&wire),
        streams_that_end(&wire),
        bodies(&wire),
        http_with_sse(&wire),
        eras(&wire),
        tasks_of_2025(&wire),
        tasks_of_2026(&wire),
    )?;
    let wanted = std::mem::take(&mut *lock(&wire.wanted));
    let settled = wire.rig.settled("all cases", |books| {
        let wrong = wrong(books, &wanted);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
    tokio::time::timeout(Duration::from_secs(20), settled).await.ok();
    // Nothing comes later.
    tokio::time::sleep(CALL_TIMEOUT).await;
    let books = wire.rig.settled("the end", |_| Ok(())).await?;
    let wrong = wrong(&books, &wanted);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    books.check(&wire.rig.stack()?.ledger()?).await?;

    let sessions = |case: &str| {
        let calls =
            books.tool_invocations().filter(|data| text(data, "/agent_id").starts_with(case));
        calls.map(|data| text(data, "/session_id")).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(sessions("34:"), 3, "34: each call is in the session that its header names");
    assert_eq!(sessions("35:"), 1, "35: whichever connection it comes by");
    assert_eq!(sessions("17:"), 2, "17: the new session is another");
    assert_eq!(sessions("93:"), 1, "93: all forms of the endpoint are one session");
    assert_eq!(sessions("94:"), 2, "94: each event stream is one");
    // 134: no event contains anything that names a session, a task or a state.
    for event in &books.events {
        assert!(!event.to_string().contains(SECRET), "134: in clear: {event}");
    }
    assert_eq!(wire.rig.log_lines(SECRET)?, [""; 0], "134: in clear");
    lock(&wire.open).clear();
    wire.rig.finish().await
}

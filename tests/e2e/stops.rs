//! Streams that a guard ends in the middle, in real Envoy: the clients get a whole last event,
//! Envoy cancels the requests to the server, and the usage is in the books.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Rig;
use crate::books::text;
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::llm::{chat_chunk, events, plugin, post, product};
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response, obliging, sse_event};

const HOST: &str = "llm.example";
const STREAMS: usize = 8;
/// The number of events of a stream, which lasts 30 s if nobody ends it.
const EVENTS: usize = 1500;
const PAUSE: Duration = Duration::from_millis(20);
/// How long it may take from the decision to the end: the accountant's tick and the worker's next
/// check.
const SOON: Duration = Duration::from_secs(3);

fn slowly(event: impl Fn(usize) -> String) -> Vec<Step> {
    let mut steps = vec![Step::Send(SSE_HEAD.as_bytes().to_vec())];
    for number in 0..EVENTS {
        steps.extend([Step::Send(chunk(event(number).as_bytes())), Step::Work(PAUSE)]);
    }
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    steps
}

/// A model that answers slowly, a tool that works slowly, and a request that costs 4 USD.
fn serve(request: &Message) -> Vec<Step> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    if body.contains("progress") {
        let params = |progress| json!({ "progressToken": 1, "progress": progress });
        return slowly(|number| {
            let method = "notifications/progress";
            sse_event(&json!({ "jsonrpc": "2.0", "method": method, "params": params(number) }))
        });
    }
    if body.contains("long") {
        return slowly(|number| events([chat_chunk(&format!("word {number} "))]));
    }
    if body.contains("gpt-4o") {
        let usage =
            json!({ "prompt_tokens": 0, "completion_tokens": 400_000, "total_tokens": 400_000 });
        let choice = json!({ "index": 0, "finish_reason": "stop" });
        let answer = json!({ "id": "c", "object": "chat.completion", "model": "gpt-4o",
            "choices": [choice], "usage": usage });
        return vec![Step::Send(json_response(&answer))];
    }
    obliging(request)
}

fn chat(customer: &str, text: &str) -> Vec<u8> {
    let messages = json!([{ "role": "user", "content": text }]);
    let body = json!({ "model": "gpt-4o", "stream": true, "messages": messages }).to_string();
    post(HOST, customer, "/v1/chat/completions", &[], body.as_bytes())
}

fn call(customer: &str) -> Vec<u8> {
    let agent = Agent { session: None, ..Agent::new(customer) };
    agent.post(
        json!({ "jsonrpc": "2.0", "id": "a call", "method": "tools/call",
            "params": { "name": "progress" } })
        .to_string()
        .as_bytes(),
    )
}

/// What one client got until its stream ended, and when.
async fn listen(
    listen: std::net::SocketAddr,
    request: Vec<u8>,
) -> anyhow::Result<(Message, Instant)> {
    let mut client = Client::connect(listen).await?;
    client.send(&request).await?;
    let answer = client.receive(|_| ()).await?;
    Ok((answer, Instant::now()))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_customer_that_is_blocked_end_with_a_whole_event_and_their_server_is_let_go()
-> anyhow::Result<()> {
    let mut plugin = plugin(&[product(HOST, &json!({ "provider": "openai" }))]);
    plugin["contracts"] = json!({ "customers": { "spender": { "revenue": "2.00" } } });
    plugin["guards"] = json!([{
        "id": "margin", "revenue": "contracted",
        "actions": { "level_3": {
            "threshold": "10%", "action": "block_request", "stop_streams": true,
        } },
    }]);
    let rig = Rig::start(Upstream::start(serve).await?, plugin).await?;
    let addr = rig.listen()?;
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let is_chat = number % 2 == 0;
        let request = if is_chat { chat("spender", "long") } else { call("spender") };
        streams.spawn(async move { anyhow::Ok((is_chat, listen(addr, request).await?)) });
    }
    let neighbour = tokio::spawn(listen(addr, chat("neighbour", "long")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(streams.try_join_next().is_none(), "ended before the decision");

    let spent = Client::connect(addr).await?.exchange(&chat("spender", "dear")).await?;
    assert_eq!(spent.status(), 200);
    let decided = Instant::now();
    while let Some(ended) = streams.join_next().await {
        let (is_chat, (answer, at)) = ended??;
        check(is_chat, &answer)?;
        let waited = at.duration_since(decided);
        ensure!(waited < SOON, "ended after {waited:?}");
    }
    ensure!(!neighbour.is_finished(), "another customer's stream was ended too");
    neighbour.abort();

    let stopped = u64::try_from(STREAMS)?;
    assert_eq!(rig.metric("guard_stopped").await?, stopped);
    let stats = rig.stack()?.envoy()?.stats("cluster.upstream.").await?;
    let reset = stats.get("cluster.upstream.upstream_cx_destroy_local_with_active_rq").copied();
    ensure!(reset >= Some(stopped), "{reset:?} requests to the server were given up");
    let books = rig
        .settled("every stream is told of", |books| {
            let calls = books.tool_invocations().count();
            let generations = books.generations().count();
            // Includes the neighbour's generation, and the one that cost.
            ensure!(
                calls == STREAMS / 2 && generations == STREAMS / 2 + 2,
                "{calls}, {generations}"
            );
            Ok(())
        })
        .await?;
    for call in books.tool_invocations() {
        assert_eq!(text(call, "/execution_status"), "CANCELLED");
    }
    let of_spender = books.generations().filter(|event| event["customer_id"] == "spender");
    let cut: Vec<&Value> = of_spender.filter(|event| event["streamed"] == true).collect();
    assert_eq!(cut.len(), STREAMS / 2);
    for generation in cut {
        assert_eq!(generation["estimated"], true, "{generation}");
        assert!(generation["tokens"]["output"].as_u64() > Some(20), "{generation}");
        assert!(generation["total_provider_cost"].is_string(), "{generation}");
    }
    rig.finish().await
}

/// Checks that the response is whole events, that the last ones give the reason, and that Envoy
/// then closed the connection.
fn check(is_chat: bool, answer: &Message) -> anyhow::Result<()> {
    let body = String::from_utf8(answer.body.clone())?;
    ensure!(!answer.is_complete, "Envoy has told an end: {body}");
    let events: Vec<&str> = body.strip_suffix("\n\n").context("cut")?.split("\n\n").collect();
    let datum = |event: &str| event.rsplit_once("data: ").map(|(_, data)| data.to_owned());
    let mut data = events.iter().map(|event| datum(event).context(event.to_string()));
    let mut data = data.by_ref().collect::<anyhow::Result<Vec<_>>>()?;
    if is_chat {
        ensure!(data.pop().as_deref() == Some("[DONE]"), "{body}");
    }
    let last: Value = serde_json::from_str(&data.pop().context("no event")?)?;
    if is_chat {
        assert_eq!(last["error"]["code"], "SERVICE_RESTRICTED_MARGIN", "{last}");
    } else {
        assert_eq!((&last["id"], &last["error"]["code"]), (&json!("a call"), &json!(-32_013)));
    }
    for datum in data {
        let event: Value = serde_json::from_str(&datum).with_context(|| datum.clone())?;
        ensure!(event["error"].is_null(), "told twice: {body}");
    }
    Ok(())
}

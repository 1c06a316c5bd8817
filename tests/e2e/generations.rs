//! Generations through real Envoy: the ledger must agree with the endpoint's own report of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_meter::llm_server::LlmOptions;
use agent_meter::stack::Options;
use agent_meter::wait;
use agent_meter_collector::UsageQuery;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::http1::Message;
use crate::llm::{
    by_agent, chat_chunk, cost, counts, events, generations, head, plugin, post, product, reported,
    usage_chunk,
};
use crate::load::check_workers;
use crate::streams::lock;
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response, obliging};
use crate::{LIMIT, Rig, release_module};

/// An API of the LLM endpoint: path, body, the host with a configured provider, and the host whose
/// provider the path decides.
type Api = (&'static str, Value, &'static str, &'static str);

const CLAUDE: &str = "anthropic.claude-sonnet-4-20250514-v1:0";

pub(crate) fn apis() -> Vec<Api> {
    let chat = |stream: bool| json!({ "model": "gpt-4o", "messages": [], "stream": stream, "stream_options": { "include_usage": true } });
    let responses = |stream: bool| json!({ "model": "gpt-4o-mini", "input": "", "stream": stream });
    let messages =
        |stream: bool| json!({ "model": "claude-sonnet-4-0", "messages": [], "stream": stream });
    let ollama = |stream: bool| json!({ "model": "llama3.2", "messages": [], "stream": stream });
    let contents = || json!({ "contents": [] });
    let (openai, compatible) = ("openai.test", "openai_compatible");
    let gemini = ("gemini.test", "gemini");
    vec![
        ("/llm/v1/chat/completions", chat(false), openai, compatible),
        ("/llm/v1/chat/completions", chat(true), openai, compatible),
        ("/llm/v1/responses", responses(false), openai, compatible),
        ("/llm/v1/responses", responses(true), openai, compatible),
        ("/llm/v1/messages", messages(false), "anthropic.test", "anthropic"),
        ("/llm/v1/messages", messages(true), "anthropic.test", "anthropic"),
        ("/llm/v1beta/models/gemini-2.5-flash:generateContent", contents(), gemini.0, gemini.1),
        (
            "/llm/v1beta/models/gemini-2.5-flash:streamGenerateContent",
            contents(),
            gemini.0,
            gemini.1,
        ),
        (
            "/llm/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            contents(),
            gemini.0,
            gemini.1,
        ),
        (
            "/llm/model/anthropic.claude-sonnet-4-20250514-v1%3A0/converse",
            json!({ "messages": [] }),
            "bedrock.test",
            "bedrock",
        ),
        ("/llm/api/chat", ollama(false), "ollama.test", "ollama"),
        ("/llm/api/chat", ollama(true), "ollama.test", "ollama"),
    ]
}

/// The LLM endpoint behind Envoy at `/llm/`, without any other server.
pub(crate) async fn llm_rig(plugin: Value, settings: Vec<(String, Value)>) -> anyhow::Result<Rig> {
    let llm = Some(LlmOptions::default());
    let options = Options { llm, settings, ..Options::new(plugin, Some(release_module()?)) };
    Rig::with(Upstream::start(obliging).await?, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_is_metered_as_its_endpoint_reports() -> anyhow::Result<()> {
    let configured = ["openai", "anthropic", "gemini", "bedrock", "ollama"];
    let mut products: Vec<Value> = configured
        .iter()
        .map(|name| product(&format!("{name}.test"), &json!({ "provider": name })))
        .collect();
    products.push(product("", &json!({})));
    let rig = llm_rig(plugin(&products), Vec::new()).await?;
    let mut asked: Vec<(u64, &str, &str)> = Vec::new();
    let mut clients = JoinSet::new();
    for (path, body, configured, by_path) in apis() {
        let by_name = configured.split('.').next().unwrap_or_default();
        // The configuration, the path or the host decides the provider.
        let mut hosts = vec![(configured, by_name), ("any.test", by_path)];
        if configured == "openai.test" {
            hosts.push(("api.openai.com", "openai"));
        }
        for (host, provider) in hosts {
            for coding in ["identity", "gzip"] {
                // The number of input tokens identifies each one.
                let number = 1000 + u64::try_from(asked.len())?;
                asked.push((number, provider, coding));
                let out = 7 * number;
                let tokens = format!("in={number},out={out},cached=500,written=100,reasoning=200");
                let headers = [("accept-encoding", coding), ("x-tokens", &tokens)];
                let request =
                    post(host, &format!("a{number}"), path, &headers, body.to_string().as_bytes());
                let listen = rig.listen()?;
                clients.spawn(async move {
                    let answer = Client::connect(listen).await?.exchange(&request).await?;
                    anyhow::Ok((number, answer))
                });
            }
        }
    }
    while let Some(answered) = clients.join_next().await {
        let (number, answer) = answered??;
        let (_, _, coding) = asked.iter().find(|asked| asked.0 == number).context("asked")?;
        ensure!(answer.status() == 200, "{answer:?}");
        let found = answer.header("content-encoding").unwrap_or("identity".to_owned());
        assert_eq!(&found, coding, "{number}");
    }
    let found = generations(&rig, asked.len()).await?;
    let found = by_agent(found.iter())?;
    let llm = rig.stack()?.llm().context("an endpoint")?;
    let mut total = Decimal::ZERO;
    let account = llm.generations();
    assert_eq!(account.len(), asked.len());
    for (number, provider, _) in asked {
        let report =
            account.iter().find(|report| report.reported.is_some_and(|it| it.input == number));
        let report = report.with_context(|| format!("{number} was not reported"))?;
        let event = found.get(&format!("a{number}")).context("an event of each")?;
        assert_eq!(event["provider"], provider, "{event}");
        assert_eq!(event["model"], report.model, "{event}");
        assert_eq!(Some(counts(event)), report.reported.map(reported), "{event}");
        assert_eq!(event["completeness"], "COMPLETE", "{event}");
        assert_eq!(event["usage_source"], "body", "{event}");
        assert_eq!(Some(cost(event)?), report.cost(), "{event}");
        assert!(provider != "bedrock" || event["model"] == CLAUDE);
        total += cost(event)?;
    }
    assert_eq!(total.normalize(), llm.account().cost());
    check_workers(&rig).await?;
    rig.finish().await
}

/// Envoy's resident memory now, and the highest since the last call with `starts_anew`, in bytes.
fn memory(rig: &Rig, starts_anew: bool) -> anyhow::Result<(u64, u64)> {
    let pid = rig.stack()?.envoy()?.pid().context("Envoy has no process")?;
    if starts_anew {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let read = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        anyhow::Ok(kib.with_context(|| format!("no {name}"))?.parse::<u64>()? * 1024)
    };
    Ok((read("VmRSS:")?, read("VmHWM:")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_fifty_megabytes_is_metered_in_bounded_memory() -> anyhow::Result<()> {
    const BYTES: usize = 50_000_000;
    /// Most of it is Envoy's own buffers; the stream is many times as long.
    const MEMORY_BYTES_MAX: u64 = 12 * 1024 * 1024;
    let piece = chat_chunk(&"w".repeat(4000));
    let mut text = events([&piece]).repeat(BYTES / 4000);
    let end = events([usage_chunk(12, 4_000_000).to_string(), "[DONE]".to_owned()]);
    let without = text.clone() + &events(["[DONE]"]);
    text.push_str(&end);
    let steps = |text: &str| {
        let mut steps = vec![Step::Send(SSE_HEAD.into())];
        steps.extend(text.as_bytes().chunks(1_000_000).map(|part| Step::Send(chunk(part))));
        steps.push(Step::Send(b"0\r\n\r\n".into()));
        steps
    };
    let (long, short) = (steps(&text), steps(&(events([&piece]).repeat(500) + &end)));
    let upstream = Upstream::start(move |request: &Message| {
        let is_first = request.header("x-agent-id").is_some_and(|it| it.starts_with("first"));
        if is_first { short.clone() } else { long.clone() }
    })
    .await?;
    let products = [
        product("plain.test", &json!({})),
        product("asks.test", &json!({ "ask_for_usage": true })),
    ];
    let mut options = Options::new(plugin(&products), Some(release_module()?));
    // One worker, so that the first responses, of 2 MB, warm up the worker that gets the others.
    options.concurrency = 1;
    let rig = Rig::with(upstream, options).await?;
    let ask = async |host: &str, agent: &str| {
        let body = json!({ "model": "gpt-4o", "stream": true }).to_string();
        let request = post(host, agent, "/v1/chat/completions", &[], body.as_bytes());
        Client::connect(rig.listen()?).await?.exchange(&request).await
    };
    for host in ["plain.test", "asks.test"] {
        ask(host, &format!("first at {host}")).await?;
    }
    for (host, expected) in [("plain.test", &text), ("asks.test", &without)] {
        let (before, _) = memory(&rig, true)?;
        let answer = ask(host, host).await?;
        let (_, highest) = memory(&rig, false)?;
        let grown = highest.saturating_sub(before);
        println!("{host}: {grown} bytes more of Envoy's memory at most");
        assert!(grown < MEMORY_BYTES_MAX, "{host}: {grown} bytes");
        assert!(answer.body == expected.as_bytes(), "{host}: {} bytes", answer.body.len());
    }
    for event in &generations(&rig, 4).await? {
        assert_eq!(counts(event), [12, 4_000_000, 0, 0, 0], "{event}");
        assert_eq!(event["completeness"], "COMPLETE", "{event}");
        assert_eq!(event["streamed"], true, "{event}");
    }
    rig.finish().await
}

/// What a client gets that leaves in the middle of a stream, by path.
fn half(path: &str) -> String {
    if path.ends_with("/messages") {
        let usage = json!({ "input_tokens": 50, "cache_read_input_tokens": 5, "output_tokens": 1 });
        let message = json!({ "id": "m", "model": "claude-sonnet-4-20250514", "usage": usage });
        return events([
            json!({ "type": "message_start", "message": message }),
            json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": "forty bytes of text, which are 10 tokens" } }),
        ]);
    }
    events([chat_chunk("twelve bytes")])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_in_the_middle_is_partial_or_missing_and_estimated_if_wanted()
-> anyhow::Result<()> {
    let upstream = Upstream::start(|request: &Message| {
        let half = chunk(half(&request.word(1)).as_bytes());
        vec![Step::Send(SSE_HEAD.into()), Step::Send(half), Step::Gate]
    });
    let products = ["bill_observed", "estimate", "waive"]
        .map(|policy| product(&format!("{policy}.test"), &json!({ "incomplete_usage": policy })));
    let rig = Rig::start(upstream.await?, plugin(&products)).await?;
    let (chat, messages) = ("/v1/chat/completions", "/v1/messages");
    // 64 bytes, so 16 tokens. Both models have a price at their provider.
    let body = format!("{:<64}", json!({ "model": "gpt-4o", "stream": true }).to_string());
    let rows = [
        ("bill_observed", chat, "MISSING", [0, 0], false, None, "0"),
        ("bill_observed", messages, "PARTIAL", [55, 1], false, Some("0.0001665"), "0.0001998"),
        ("estimate", chat, "MISSING", [16, 3], true, Some("0.00007"), "0.000084"),
        ("estimate", messages, "PARTIAL", [55, 10], true, Some("0.0003015"), "0.0003618"),
        ("waive", messages, "PARTIAL", [55, 1], false, Some("0.0001665"), "0"),
    ];
    for (policy, path, ..) in rows {
        let mut client = Client::connect(rig.listen()?).await?;
        let agent = format!("{policy} {path}");
        client.send(&post(&format!("{policy}.test"), &agent, path, &[], body.as_bytes())).await?;
        let (sender, mut seen) = watch::channel(0);
        let reading = tokio::spawn(async move {
            client.receive(|bytes| sender.send_modify(|seen| *seen = bytes)).await
        });
        let all = half(path).len();
        tokio::time::timeout(LIMIT, seen.wait_for(|seen| *seen >= all)).await??;
        reading.abort();
    }
    let found = generations(&rig, rows.len()).await?;
    let found = by_agent(found.iter())?;
    for (policy, path, completeness, tokens, estimated, cost, price) in rows {
        let event = found.get(&format!("{policy} {path}")).context("an event of each")?;
        assert_eq!(event["completeness"], completeness, "{event}");
        assert_eq!(counts(event)[..2], tokens, "{event}");
        assert_eq!(event["estimated"], estimated, "{event}");
        assert_eq!(event["total_provider_cost"], json!(cost), "{event}");
        assert_eq!(event["price"], price, "{event}");
        let is_unknown = cost.is_none();
        assert_eq!(event["tokens"].get("input").is_none(), is_unknown, "{event}");
        let reason = is_unknown.then_some(json!("unknown_usage"));
        assert_eq!(event.get("unpriced_reason"), reason.as_ref(), "{event}");
    }
    rig.finish().await
}

/// A response that is generated in the background, as the `polls`-th `GET` returns it.
fn stored(number: u64, polls: u64) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let is_done = polls > 1;
    let usage = json!({ "input_tokens": number, "output_tokens": 20, "total_tokens": number + 20 });
    json!({
        "id": format!("resp_{number}"), "object": "response", "model": "gpt-4o", "output": [],
        "created_at": now.map_or(0, |now| now.as_secs()),
        "status": (["queued", "in_progress", "completed"][usize::from(polls > 0) + usize::from(is_done)]),
        "usage": if is_done { usage } else { Value::Null },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_made_in_the_background_is_counted_once_however_often_workers_poll()
-> anyhow::Result<()> {
    const RESPONSES: u64 = 8;
    const POLLS: u64 = 12;
    let polls = Arc::<Mutex<BTreeMap<u64, u64>>>::default();
    let upstream = Upstream::start(move |request: &Message| {
        if request.method() == "POST" {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let number = body["metadata"]["number"].as_u64().unwrap_or_default();
            return vec![Step::Send(json_response(&stored(number, 0)))];
        }
        let path = request.word(1);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let number = path.rsplit('_').next().and_then(|it| it.parse().ok()).unwrap_or_default();
        let mut polls = lock(&polls);
        let count = polls.entry(number).or_insert(0);
        *count += 1;
        if query != "stream=true" {
            return vec![Step::Send(json_response(&stored(number, *count)))];
        }
        let message = json!({ "type": "response.completed", "response": stored(number, 9) });
        let bytes = chunk(events([message]).as_bytes());
        vec![Step::Send(SSE_HEAD.into()), Step::Send(bytes), Step::Send(b"0\r\n\r\n".into())]
    });
    let products = [product("openai.test", &json!({ "provider": "openai" }))];
    let rig = Rig::start(upstream.await?, plugin(&products)).await?;
    let listen = rig.listen()?;
    let mut clients = JoinSet::new();
    for number in 1..=RESPONSES {
        let agent = format!("agent-{number}");
        let body =
            json!({ "model": "gpt-4o", "background": true, "metadata": { "number": number } });
        let ask = post("openai.test", &agent, "/v1/responses", &[], body.to_string().as_bytes());
        let queued = Client::connect(listen).await?.exchange(&ask).await?;
        ensure!(queued.status() == 200, "{queued:?}");
        for poll in 0..POLLS {
            let query = if poll == POLLS - 1 { "?stream=true" } else { "" };
            let path = format!("/v1/responses/resp_{number}{query}");
            let get = [head("GET", "openai.test", &agent, &path, &[]), b"\r\n".into()].concat();
            clients.spawn(async move { Client::connect(listen).await?.exchange(&get).await });
        }
    }
    while let Some(answer) = clients.join_next().await {
        ensure!(answer??.status() == 200, "a poll was refused");
    }
    // All polls of each response, except the first one with the usage, repeat the usage.
    wait::until(LIMIT, "every poll is read", async || {
        let again = rig.metric("generations_told_again").await?;
        ensure!(again >= RESPONSES * (POLLS - 2), "{again} were told again");
        Ok(())
    })
    .await?;
    let found = generations(&rig, usize::try_from(RESPONSES)?).await?;
    let found = by_agent(found.iter())?;
    for number in 1..=RESPONSES {
        let event = found.get(&format!("agent-{number}")).context("an event of each")?;
        assert_eq!(counts(event), [number, 20, 0, 0, 0], "{event}");
        assert_eq!(event["completeness"], "COMPLETE", "{event}");
    }
    // The filter still remembers it when another poll comes later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let path = "/v1/responses/resp_1";
    let get = [head("GET", "openai.test", "late", path, &[]), b"\r\n".into()].concat();
    Client::connect(listen).await?.exchange(&get).await?;
    wait::until(LIMIT, "the late poll is read", async || {
        let again = rig.metric("generations_told_again").await?;
        ensure!(again > RESPONSES * (POLLS - 2), "{again} were told again");
        Ok(())
    })
    .await?;
    generations(&rig, usize::try_from(RESPONSES)?).await?;
    check_workers(&rig).await?;
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_truth_that_a_poll_tells_takes_the_place_of_what_a_client_left() -> anyhow::Result<()> {
    let upstream = Upstream::start(|request: &Message| {
        let mut response = stored(9000, 9);
        if request.method() == "GET" {
            return vec![Step::Send(json_response(&response))];
        }
        (response["status"], response["usage"]) = (json!("in_progress"), Value::Null);
        let created = json!({ "type": "response.created", "response": response });
        let delta = json!({ "type": "response.output_text.delta", "delta": "The kettle" });
        let bytes = chunk(events([created, delta]).as_bytes());
        vec![Step::Send(SSE_HEAD.into()), Step::Send(bytes), Step::Gate]
    });
    // What is not estimated is billed at once, so that the truth always comes later.
    let rules = json!({ "provider": "openai", "incomplete_usage": "bill_observed" });
    let rig = Rig::start(upstream.await?, plugin(&[product("openai.test", &rules)])).await?;
    let listen = rig.listen()?;
    let mut client = Client::connect(listen).await?;
    let body = json!({ "model": "gpt-4o", "stream": true }).to_string();
    client.send(&post("openai.test", "a", "/v1/responses", &[], body.as_bytes())).await?;
    let (sender, mut seen) = watch::channel(0);
    let reading = tokio::spawn(async move {
        client.receive(|bytes| sender.send_modify(|seen| *seen = bytes)).await
    });
    tokio::time::timeout(LIMIT, seen.wait_for(|seen| *seen > 0)).await??;
    reading.abort();
    let left = generations(&rig, 1).await?;
    assert_eq!(left[0]["completeness"], "MISSING", "{left:?}");
    let get = [head("GET", "openai.test", "b", "/v1/responses/resp_9000", &[]), b"\r\n".into()];
    for _ in 0..3 {
        let answer = Client::connect(listen).await?.exchange(&get.concat()).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    let found = generations(&rig, 2).await?;
    assert_eq!(found[1]["supersedes"], found[0]["generation_id"], "{found:?}");
    assert_eq!(counts(&found[1]), [9000, 20, 0, 0, 0], "{found:?}");
    assert_eq!(found[1]["agent_id"], "a", "{found:?}");
    assert_eq!(rig.metric("generations_corrected").await?, 1);
    let usage = rig.stack()?.ledger()?.usage(&UsageQuery::default())?;
    assert_eq!((usage.rows[0].generations, usage.rows[0].unknown_usage_generations), (1, 0));
    assert_eq!(usage.rows[0].tokens.input, 9000);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_a_batch_are_counted_once_when_they_are_fetched() -> anyhow::Result<()> {
    const RESULTS: u64 = 500;
    let line = |number: u64| {
        let usage = json!({ "prompt_tokens": number, "completion_tokens": 2,
            "total_tokens": number + 2 });
        let body = json!({ "id": format!("chatcmpl-{number}"), "object": "chat.completion",
            "model": "gpt-4o", "choices": [], "usage": usage });
        let response = json!({ "status_code": 200, "request_id": "r", "body": body });
        let id = format!("batch_req_{number}");
        json!({ "id": id, "custom_id": id, "response": response, "error": null }).to_string()
    };
    let file = (1..=RESULTS).map(line).collect::<Vec<_>>().join("\n").into_bytes();
    let upstream = Upstream::start(move |_: &Message| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
            file.len()
        );
        let mut steps = vec![Step::Send(head.into())];
        steps.extend(file.chunks(1000).map(|chunk| Step::Send(chunk.into())));
        steps
    });
    let products = [product("openai.test", &json!({ "provider": "openai" }))];
    let rig = Rig::start(upstream.await?, plugin(&products)).await?;
    let listen = rig.listen()?;
    let path = "/v1/files/file-out/content";
    let get = [head("GET", "openai.test", "a", path, &[]), b"\r\n".into()].concat();
    for _ in 0..3 {
        let answer = Client::connect(listen).await?.exchange(&get).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    wait::until(LIMIT, "every result is read", async || {
        let again = rig.metric("generations_told_again").await?;
        ensure!(again == 2 * RESULTS, "{again} were told again");
        Ok(())
    })
    .await?;
    let found = generations(&rig, usize::try_from(RESULTS)?).await?;
    let input: u64 = found.iter().map(|event| counts(event)[0]).sum();
    assert_eq!(input, RESULTS * (RESULTS + 1) / 2);
    assert!(found.iter().all(|event| event["service_tier"] == "batch"));
    rig.finish().await
}

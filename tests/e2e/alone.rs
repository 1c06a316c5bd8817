//! The wire cases, by the numbers of `tests/README.md`, that need an Envoy of their own: one that
//! loses a VM, one in front of a server that answers early, one with many streams.

use std::time::Duration;

use agent_meter::stack::{ANY_PORT, Options};
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::books::text;
use crate::client::{Agent, Client};
use crate::streams::{ANY, Wire, call, json_ok, ok, patient_for_two_seconds};
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, obliging};
use crate::{LIMIT, Rig, crash_module, impatient_plugin, release_module};

/// The place of the upstream's address in the bootstrap.
const ENDPOINTS: &str = "/static_resources/clusters/0/load_assignment/endpoints";
/// Longer than the timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// 60: the VM that saw the call dies; the response on the resumed stream belongs to no call.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_the_vm_died_is_not_billed_twice() -> anyhow::Result<()> {
    let module = Some(crash_module()?);
    let options = Options { concurrency: 1, ..Options::new(patient_for_two_seconds(), module) };
    let wire = Wire::start(options).await?;
    let agent = Agent::new("60: a VM dies");
    let call_cut = wire.stream(ANY, &agent, &call(1, "cut")).await?;
    // There is only one worker.
    let order = Agent::new("killer").with("x-agent-meter-crash", "worker");
    let answer =
        Client::connect(wire.rig.listen()?).await?.exchange(&order.call(1, "kill")).await?;
    ensure!(answer.status() == 503, "{answer:?}");
    ensure!(!wire.rig.log_lines("agent-meter panicked")?.is_empty(), "no VM died");
    call_cut.leave();
    // The worker answers 503 until its next VM runs.
    wait::until(LIMIT, "the next VM", async || {
        let probe = Agent::new("probe").call(1, "probe");
        let answer = Client::connect(wire.rig.listen()?).await?.exchange(&probe).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    for _ in 0..2 {
        let mut resumed = wire.resume(ANY, &agent).await?;
        resumed.event(&ok(1)).await?;
        resumed.leave();
    }
    wire.ask(ANY, &agent, &call(2, "after"), json_ok(2)).await?;
    tokio::time::sleep(CALL_TIMEOUT).await;
    let books = wire
        .rig
        .settled("the call after", |books| {
            ensure!(books.of_agent(&agent.name).len() >= 2, "not yet");
            Ok(())
        })
        .await?;
    let of = |tool: &str| books.tool_invocations().filter(|data| data["tool_name"] == tool).count();
    assert_eq!((of("cut"), of("after")), (0, 1));
    books.check(&wire.rig.stack()?.ledger()?).await?;
    wire.rig.finish_after_crashes().await
}

/// 88: a server answers when it has the message, before the end of the request.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_before_the_end_of_the_request() -> anyhow::Result<()> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    let port = listener.local_addr()?.port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(5).any(|bytes| bytes == b"}  \r\n" || bytes == b"early") {
                    if stream.read_buf(&mut seen).await? == 0 {
                        return Ok(());
                    }
                }
                stream.write_all(&json_ok(1)).await?;
                // The server reads on.
                while stream.read_buf(&mut seen).await? > 0 {}
                std::io::Result::Ok(())
            });
        }
    });
    let socket = json!({ "address": "127.0.0.1", "port_value": port });
    let endpoint =
        json!([{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }]);
    let options = Options {
        settings: vec![(ENDPOINTS.to_owned(), endpoint)],
        ..Options::new(patient_for_two_seconds(), Some(release_module()?))
    };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    let head = "POST /mcp HTTP/1.1\r\nhost: tools.example\r\nx-customer-id: acme\r\nx-agent-id: acme\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{}  ", call(1, "whole"));
    let (half, rest) = body.split_at(40);
    // The message is complete, the request is not.
    let mut client = Client::connect(rig.listen()?).await?;
    client.send(head.as_bytes()).await?;
    for piece in [half, rest] {
        client.send(&chunk(piece.as_bytes())).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer =
        tokio::time::timeout(LIMIT, client.receive(|_| ())).await.context("deadlock")??;
    ensure!(answer.status() == 200 && answer.is_complete, "{answer:?}");
    let _ = client.send(b"0\r\n\r\n").await;
    // The server answers before the message is complete: only the response shows that there was a
    // call.
    let mut client = Client::connect(rig.listen()?).await?;
    client.send(head.as_bytes()).await?;
    client.send(&chunk(b"{\"id\":1,\"params\":{\"name\":\"early\"},")).await?;
    let answer =
        tokio::time::timeout(LIMIT, client.receive(|_| ())).await.context("deadlock")??;
    ensure!(answer.status() == 200 && answer.is_complete, "{answer:?}");
    drop(client);
    let books = rig
        .settled("the call", |books| {
            ensure!(books.tool_invocations().count() >= 2, "not yet");
            Ok(())
        })
        .await?;
    let mut calls: Vec<_> = books
        .tool_invocations()
        .map(|data| (text(data, "/tool_name"), text(data, "/execution_status")))
        .collect();
    calls.sort();
    let expected = ["__unnamed__", "whole"].map(|tool| (tool.to_owned(), "SUCCESS".to_owned()));
    assert_eq!(calls, expected);
    serving.abort();
    rig.finish().await
}

/// 133: streams that stay open without a response.
#[tokio::test(flavor = "multi_thread")]
async fn many_open_streams_are_followed_in_bounded_memory() -> anyhow::Result<()> {
    const STREAMS: usize = 2000;
    /// Most of it is Envoy's own memory for a stream with two connections; the filter's is about 2
    /// KiB.
    const BYTES_EACH_MAX: u64 = 96 * 1024;
    let upstream = Upstream::start(|_| {
        let head = [SSE_HEAD.as_bytes(), &chunk(b": ping\n\n")].concat();
        vec![Step::Send(head), Step::Gate]
    });
    let rig = Rig::start(upstream.await?, impatient_plugin()).await?;
    let memory = || {
        let pid = rig.stack()?.envoy()?.pid().context("Envoy has no process")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        anyhow::Ok(kib.parse::<u64>()? * 1024)
    };
    let agent = Agent::new("133: many");
    let before = memory()?;
    let mut clients = Vec::new();
    for id in 0..STREAMS {
        let mut client = Client::connect(rig.listen()?).await?;
        client.send(&agent.call(u64::try_from(id)?, "open")).await?;
        clients.push(client);
    }
    wait::until(LIMIT, "all streams are open", async || {
        let open = rig.metric("exchanges").await?;
        ensure!(open == u64::try_from(STREAMS)?, "{open} streams");
        Ok(())
    })
    .await?;
    let each = memory()?.saturating_sub(before) / u64::try_from(STREAMS)?;
    println!("{each} bytes of Envoy's memory for each open stream");
    assert!(each < BYTES_EACH_MAX, "{each} bytes");
    drop(clients);
    let books = rig
        .settled("all calls", |books| {
            let count = books.tool_invocations().count();
            ensure!(count == STREAMS, "{count} of {STREAMS} calls");
            Ok(())
        })
        .await?;
    assert!(books.tool_invocations().all(|data| data["execution_status"] == "UNKNOWN"));
    for counter in ["exchanges_over_limit", "joins_over_limit", "facts_spilled"] {
        assert_eq!(rig.metric(counter).await?, 0, "{counter}");
    }
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

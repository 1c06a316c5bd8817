//! Tests which tool call a generation belongs to: hundreds of calls at once whose tool asks the LLM
//! behind the same Envoy, and tools that report their own usage.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_meter::llm_server::LlmOptions;
use agent_meter::mcp_server::Mode;
use agent_meter::stack::{Options, Upstream as Server};
use agent_meter_collector::{Dimension, UsageQuery};
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::text;
use crate::client::{Agent, Client, report};
use crate::http1::Message;
use crate::llm::{by_agent, cost, counts, events, generations, plugin, post, product, reported};
use crate::load::check_workers;
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response, response, rpc_of};
use crate::{Rig, release_module};

const CALLS: u64 = 300;
/// Calls of a tool that asks no LLM, at the same time.
const LOOKUPS: u64 = 60;
const ALONE: u64 = 60;

/// A trace for each number.
fn traceparent(number: u64) -> String {
    format!("00-{:032x}-00f067aa0ba902b7-01", 0xa9e7_0000_0000_0000 + number)
}

/// A call of the agent with this number; its trace is in the head or in the message.
fn call(agent: &str, number: u64, tool: &str, argument: &str, value: &str) -> Vec<u8> {
    let mut params = json!({ "name": tool, "arguments": { argument: value } });
    let mut agent = Agent { session: None, ..Agent::new(agent) }
        .with("mcp-protocol-version", "2025-06-18")
        .with("x-session-id", &format!("session-{}", number % 20));
    if number.is_multiple_of(2) {
        params["_meta"] = json!({ "traceparent": traceparent(number) });
    } else {
        agent = agent.with("traceparent", &traceparent(number));
    }
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    agent.post(body.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_generation_of_hundreds_of_calls_at_once_belongs_to_the_call_that_caused_it()
-> anyhow::Result<()> {
    let mut plugin = plugin(&[product("", &json!({ "provider": "openai" }))]);
    // The traces say whose call it is, and half of them are in the message.
    plugin["products"][0]["trace"] = json!("trust");
    // All sessions end within the test, so that it can check their final events.
    for product in plugin["products"].as_array_mut().context("products")? {
        product["session"] = json!({ "idle_timeout": "1s", "session_timeout": "2s" });
    }
    let rig = Rig::with_own_server(Options {
        upstream: Server::Demo(Mode::Json),
        // Long enough that all run at once.
        llm: Some(LlmOptions { delay: Duration::from_millis(300) }),
        ..Options::new(plugin, Some(release_module()?))
    })
    .await?;
    let listen = rig.listen()?;
    let mut clients = JoinSet::new();
    let mut spawn = |request: Vec<u8>| {
        clients.spawn(async move { Client::connect(listen).await?.exchange(&request).await });
    };
    for number in 0..CALLS {
        // The length of the text decides the tokens and the model of each call, so that they all
        // differ.
        let text = "t".repeat(usize::try_from(4 * number + 1)?);
        spawn(call(&format!("agent-{number}"), number, "summarise", "text", &text));
        if number < LOOKUPS {
            // In a trace that no generation has.
            let agent = format!("looks-up-{number}");
            spawn(call(&agent, CALLS + number, "lookup_customer", "customer_id", "c"));
        }
        if number < ALONE {
            let body = json!({ "model": "gpt-4o", "messages": ["alone".repeat(usize::try_from(number)?)] });
            // A trace that no call has, or none.
            let trace = traceparent(10_000 + number);
            let traced: &[(&str, &str)] = &[("traceparent", &trace)];
            let headers = if number.is_multiple_of(2) { traced } else { &[] };
            let body = body.to_string();
            let agent = format!("alone-{number}");
            spawn(post("any", &agent, "/llm/v1/chat/completions", headers, body.as_bytes()));
        }
    }
    while let Some(answer) = clients.join_next().await {
        let answer = answer??;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status() == 200 && !body.contains("isError\":true"), "{answer:?} {body}");
    }

    // The endpoint's own record, by trace.
    let llm = rig.stack()?.llm().context("an endpoint")?;
    let reports = llm.generations();
    assert_eq!(u64::try_from(reports.len())?, CALLS + ALONE);
    let mut by_trace = BTreeMap::new();
    for generation in &reports {
        if let Some(trace) = &generation.traceparent {
            let earlier = by_trace.insert(trace[3..35].to_owned(), generation);
            assert_eq!(earlier, None, "the test's own traces");
        }
    }
    let found = generations(&rig, reports.len()).await?;
    let (caused, alone): (Vec<_>, Vec<_>) =
        found.iter().partition(|event| event["attribution"] != "none");
    assert_eq!((u64::try_from(caused.len())?, u64::try_from(alone.len())?), (CALLS, ALONE));
    let books = rig
        .settled("all sessions are closed", |books| {
            let (closed, all) = (books.closed().count(), books.of_type("session_created").count());
            ensure!(closed == all, "{closed} of {all} are closed");
            Ok(())
        })
        .await?;
    let agent_of: BTreeMap<String, String> = books
        .tool_invocations()
        .map(|call| (text(call, "/call_id"), text(call, "/agent_id")))
        .collect();
    assert_eq!(u64::try_from(agent_of.len())?, CALLS + LOOKUPS);
    let mut causes = BTreeSet::new();
    let mut expected_cost = Decimal::ZERO;
    for event in caused {
        let agent = agent_of.get(&text(event, "/call_id")).context("the call is in the ledger")?;
        let number = agent.strip_prefix("agent-").context("a call of the tool")?.parse()?;
        let generation = by_trace[&traceparent(number)[3..35]];
        assert_eq!(Some(counts(event)), generation.reported.map(reported), "{agent}: {event}");
        assert_eq!(Some(cost(event)?), generation.cost(), "{agent}: {event}");
        assert_eq!(event["agent_id"], *agent, "{event}");
        assert_eq!(event["attribution"], "trace", "{event}");
        assert_eq!(event["tool_name"], "summarise", "{event}");
        assert_eq!(event["product_id"], "mcp", "{event}");
        assert!(causes.insert(number), "{agent} has caused two");
        expected_cost += generation.cost().context("a rate")?;
    }
    let alone = by_agent(alone.into_iter())?;
    assert!(alone.keys().all(|agent| agent.starts_with("alone-")), "{:?}", alone.keys());
    let rest = llm.account().cost() - expected_cost;
    assert!(rest > Decimal::ZERO && expected_cost > Decimal::ZERO);

    let query = UsageQuery { group_by: vec![Dimension::Tool], ..UsageQuery::default() };
    let usage = rig.stack()?.ledger()?.usage(&query)?;
    let rows: Vec<(&str, u64, u64, Decimal)> = usage
        .rows
        .iter()
        .map(|row| (&*row.dimensions[0].1, row.calls, row.generations, row.provider_cost))
        .collect();
    assert_eq!(
        rows,
        [
            ("__unattributed__", 0, ALONE, rest),
            ("lookup_customer", LOOKUPS, 0, Decimal::ZERO),
            ("summarise", CALLS, CALLS, expected_cost),
        ]
    );
    books.check(&rig.stack()?.ledger()?).await?;
    let collector = rig.stack()?.collector().context("a collector")?.addr();
    let ask = report("/v1/reconcile");
    let answer = Client::connect(collector).await?.exchange(&ask).await?;
    let sessions = books.closed().count();
    assert_eq!(
        serde_json::from_slice::<Value>(&answer.body)?,
        json!({ "sessions": sessions, "mismatches": [] })
    );
    for counter in ["attribution_over_limit", "facts_spilled", "facts_unreadable", "usage_unknown"]
    {
        assert_eq!(rig.metric(counter).await?, 0, "{counter}");
    }
    check_workers(&rig).await?;
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_reports_what_it_has_used_in_its_result_or_in_trusted_headers() -> anyhow::Result<()>
{
    let upstream = Upstream::start(|message: &Message| {
        let rpc = rpc_of(message);
        let tool = text(&rpc, "/params/name");
        let usage =
            json!({ "model": "gpt-4o", "input_tokens": 1000, "output_tokens": 20, "cached": 400 });
        let reporting = json!({ "jsonrpc": "2.0", "id": rpc["id"],
            "result": { "content": [], "_meta": { "usage": usage } } });
        let silent = json!({ "jsonrpc": "2.0", "id": rpc["id"], "result": { "content": [] } });
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "_meta": { "usage": { "input_tokens": 7 } } } });
        let headers = [
            ("content-type", "application/json"),
            ("x-usage-model", "gpt-4o-mini"),
            ("x-usage-in", "500"),
            ("x-usage-out", "5"),
        ];
        vec![Step::Send(match tool.as_str() {
            "result" => json_response(&reporting),
            "events" => {
                let body = chunk(events([progress, reporting]).as_bytes());
                [SSE_HEAD.as_bytes(), &body, b"0\r\n\r\n"].concat()
            }
            "headers" => response("200 OK", &headers, silent.to_string().as_bytes()),
            _ => json_response(&silent),
        })]
    });
    let mut plugin = plugin(&[]);
    plugin["products"][0]["reported_usage"] = json!({
        "provider": "openai",
        "result": {
            "model": "/_meta/usage/model", "input": "/_meta/usage/input_tokens",
            "output": "/_meta/usage/output_tokens", "cache_read": "/_meta/usage/cached",
        },
        "trusted_headers": {
            "model": "x-usage-model", "input": "x-usage-in", "output": "x-usage-out",
        },
    });
    plugin["products"][0]["pricing"]["tokens"] = json!({ "pass_through": true });
    let rig = Rig::start(upstream.await?, plugin).await?;
    let tools = ["result", "events", "headers", "silent"];
    for tool in tools {
        let agent = Agent::new(tool);
        let mut client = Client::connect(rig.listen()?).await?;
        ensure!(client.exchange(&agent.call(1, tool)).await?.status() == 200, "{tool}");
        client.exchange(&agent.delete()).await?;
    }
    let found = generations(&rig, 3).await?;
    let found = by_agent(found.iter())?;
    let books = rig
        .settled("all sessions are closed", |books| {
            ensure!(books.closed().count() == tools.len(), "not yet");
            Ok(())
        })
        .await?;
    // 600 × 2.5 + 400 × 1.25 + 20 × 10, and 500 × 0.15 + 5 × 0.6, for a million.
    for (tool, model, source, tokens, cost) in [
        ("result", "gpt-4o", "mcp_result", [1000, 20, 0, 400, 0], "0.0022"),
        ("events", "gpt-4o", "mcp_result", [1000, 20, 0, 400, 0], "0.0022"),
        ("headers", "gpt-4o-mini", "response_headers", [500, 5, 0, 0, 0], "0.000078"),
    ] {
        let event = found.get(tool).context("an event of each")?;
        let call = books.tool_invocations().find(|call| call["tool_name"] == tool);
        assert_eq!(Some(&event["call_id"]), call.map(|call| &call["call_id"]), "{event}");
        assert_eq!(event["attribution"], "result", "{event}");
        assert_eq!(event["usage_source"], source, "{event}");
        assert_eq!(event["model"], model, "{event}");
        assert_eq!(counts(event), tokens, "{event}");
        assert_eq!(event["total_provider_cost"], cost, "{event}");
        let closed = books.closed().find(|closed| closed["agent_id"] == tool);
        assert_eq!(closed.map(|closed| &closed["total_provider_cost"]), Some(&json!(cost)));
    }
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

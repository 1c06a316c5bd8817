//! Who bears the cost of a tool's generation when a neighbour is hostile: it knows the victim's trace, and uses it at
//! the same time, in calls of its own and in requests to the LLM.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_meter::llm_server::LlmOptions;
use agent_meter::mcp_server::Mode;
use agent_meter::stack::{Options, Upstream as Server};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::text;
use crate::client::{Agent, Client, request};
use crate::llm::{generations, plugin};
use crate::load::check_workers;
use crate::{Rig, release_module};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The LLM product of the README: it knows nobody.
fn config(rule: &str) -> Value {
    let mut plugin = plugin(&[json!({
        "id": "llm", "type": "AI_AGENT", "match": { "path_prefix": "/llm" },
        "llm": { "provider": "openai" }, "pricing": { "tokens": { "pass_through": true } },
    })]);
    plugin["products"][0]["trace"] = json!(rule);
    plugin
}

/// A customer's call of the tool that asks the LLM.
fn call(customer: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let agent = Agent { session: None, ..Agent::new(customer) };
    let agent = agent.with("mcp-protocol-version", "2025-06-18");
    let agent = headers.iter().fold(agent, |agent, (name, value)| agent.with(name, value));
    let params = json!({ "name": "summarise", "arguments": { "text": "a text" } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    agent.post(body.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_customer_pays_for_its_own_generation_though_all_use_one_trace() -> anyhow::Result<()>
{
    for rule in ["state", "own"] {
        let rig = Rig::with_own_server(Options {
            upstream: Server::Demo(Mode::Json),
            // Long enough that all run at once.
            llm: Some(LlmOptions { delay: Duration::from_millis(700) }),
            ..Options::new(config(rule), Some(release_module()?))
        })
        .await?;
        let listen = rig.listen()?;
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let traced = ("traceparent", parent.as_str());
        let forged = ("tracestate", "agent-meter=4bf92f3577b34da6a3ce929d0e0e4736,vendor=1");
        let chat = json!({ "model": "gpt-4o-mini", "messages": [] }).to_string();
        let ask = |headers: &[(&str, &str)]| {
            let mut head = vec![("content-type", "application/json")];
            head.extend(headers);
            request("POST", "/llm/v1/chat/completions", &head, chat.as_bytes())
        };
        let mut clients = JoinSet::new();
        for request in [
            call("victim", &[traced, ("tracestate", "a=1"), ("tracestate", "b=2")]),
            call("neighbour", &[traced, forged]),
            call("second-neighbour", &[traced, forged]),
            call("without-a-trace", &[]),
            ask(&[traced]),
            ask(&[traced, forged]),
        ] {
            clients.spawn(async move { Client::connect(listen).await?.exchange(&request).await });
        }
        while let Some(answer) = clients.join_next().await {
            let answer = answer??;
            ensure!(answer.status() == 200, "{answer:?}");
        }
        let found = generations(&rig, 6).await?;
        let books = rig.settled("all calls are there", |books| {
            ensure!(books.tool_invocations().count() == 4, "not yet");
            Ok(())
        });
        let books = books.await?;
        let mut payers: BTreeMap<String, u32> = BTreeMap::new();
        for event in &found {
            let customer = text(event, "/customer_id");
            let owner = books.tool_invocations().find(|call| call["customer_id"] == *customer);
            assert_eq!(event.get("call_id"), owner.map(|call| &call["call_id"]), "{rule} {event}");
            *payers.entry(customer).or_default() += 1;
        }
        let expected = [
            ("anonymous", 2),
            ("neighbour", 1),
            ("second-neighbour", 1),
            ("victim", 1),
            ("without-a-trace", 1),
        ];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(payers, BTreeMap::from(expected), "{rule}");
        // The clients' trace goes on to the LLM, unless the product replaces it.
        let traces = rig.stack()?.llm().context("an endpoint")?.traceparents();
        let of_clients = traces.iter().filter(|parent| parent[3..35] == *TRACE).count();
        assert_eq!((traces.len(), of_clients), (6, if rule == "state" { 5 } else { 2 }), "{rule}");
        check_workers(&rig).await?;
        rig.finish().await?;
    }
    Ok(())
}

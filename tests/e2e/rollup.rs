//! The steps, the models and the tools of one agent share a session if their products share a
//! group.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::Rig;
use crate::books::text;
use crate::client::{Client, request};
use crate::llm::{self, chat};
use crate::upstream::{Step, Upstream, json_response, obliging};

/// A product of an agent below this path, whose clients send their session in a header.
fn product(id: &str, kind: &str, price: &str, group: &str) -> Value {
    json!({
        "id": id, "type": kind, "match": { "path_prefix": format!("/{id}") },
        "identity": {
            "customer": { "trusted_header": "x-customer-id" }, "agent": { "value": "planner" },
        },
        "session": { "group": group, "close_path": format!("/{id}/close") },
        "pricing": {
            "currency": "USD", "default": { "price": price },
            "tokens": { "pass_through": true, "markup": "1" },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_tool_calls_and_tokens_of_one_agent_are_one_session() -> anyhow::Result<()> {
    let group = "the planner";
    let with_llm = |mut product: Value| {
        product["llm"] = json!({ "provider": "openai" });
        product
    };
    let mut plugin = llm::plugin(&[
        product("agent", "AI_AGENT", "0.1", group),
        with_llm(product("models", "AI_AGENT", "0.01", group)),
        with_llm(product("agentic", "AGENTIC_API", "0.02", group)),
        product("tools", "MCP_SERVER", "0.001", group),
        product("apart", "MCP_SERVER", "0.001", ""),
    ]);
    plugin["products"].as_array_mut().map(|products| products.remove(0));
    let upstream = Upstream::start(|request| {
        let path = request.word(1);
        let answer = match path.as_str() {
            "/agent" => json!({
                "jsonrpc": "2.0", "id": 1,
                "result": { "kind": "message", "messageId": "r", "role": "agent", "parts": [] },
            }),
            "/models/v1/responses" => json!({
                "object": "response", "id": request.header("x-customer-id"), "model": "gpt-4o", "status": "completed",
                "usage": { "input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100 },
            }),
            _ if path.contains("completions") => chat(1000, 100),
            _ => return obliging(request),
        };
        vec![Step::Send(json_response(&answer))]
    })
    .await?;
    let rig = Rig::start(upstream, plugin).await?;

    let send = json!({
        "jsonrpc": "2.0", "id": 1, "method": "message/send",
        "params": { "message": { "messageId": "m", "role": "user", "parts": [] } },
    });
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "search", "arguments": {} },
    });
    let asked = json!({ "model": "gpt-4o", "conversation": "another name" });
    for customer in ["acme", "rival"] {
        let headers = [
            ("content-type", "application/json"),
            ("x-customer-id", customer),
            ("x-session-id", "7"),
        ];
        for (method, path, body, status) in [
            ("POST", "/agent", &send, 200),
            ("POST", "/models/v1/chat/completions", &asked, 200),
            ("POST", "/models/v1/responses", &asked, 200),
            ("POST", "/agentic/v1/chat/completions", &asked, 200),
            ("POST", "/tools", &call, 200),
            ("POST", "/tools", &call, 200),
            ("POST", "/apart", &call, 200),
            // Any product of the group closes the session that they share.
            ("DELETE", "/models/close", &Value::Null, 204),
        ] {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let bytes = request(method, path, &headers, body.as_bytes());
            let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
            assert_eq!(answer.status(), status, "{path}: {answer:?}");
        }
    }

    let books = rig
        .settled("both sessions are closed", |books| {
            let closed = books.closed().count();
            ensure!(closed == 2, "{closed} sessions closed");
            let calls = books.tool_invocations().count();
            ensure!(calls == 6, "{calls} calls");
            Ok(())
        })
        .await?;
    for closed in books.closed() {
        for (name, value) in [
            ("close_reason", json!("closed")),
            // The step of A2A, the one of Responses, the API call and two calls of the tool.
            ("total_tool_calls", json!(5)),
            ("generations", json!(3)),
            ("total_provider_cost", json!("0.0105")),
            // The cost of the chat, which is part of neither a step nor an API call.
            ("unattributed_provider_cost", json!("0.0035")),
            ("total_revenue", json!("0.153")),
        ] {
            assert_eq!(closed[name], value, "{name}: {closed}");
        }
        let listed = |event_type: &str| -> Vec<(String, String)> {
            let all = books.of_type(event_type);
            let own = all.filter(|data| data["session_id"] == closed["session_id"]);
            let mut listed: Vec<_> =
                own.map(|data| (text(data, "/product_id"), text(data, "/product_type"))).collect();
            listed.sort_unstable();
            listed
        };
        let of = |products: &[(&str, &str)]| -> Vec<(String, String)> {
            products.iter().map(|(id, kind)| ((*id).to_owned(), (*kind).to_owned())).collect()
        };
        let (agent, models) = (("agent", "AI_AGENT"), ("models", "AI_AGENT"));
        let (agentic, tools) = (("agentic", "AGENTIC_API"), ("tools", "MCP_SERVER"));
        assert_eq!(listed("agent_step"), of(&[agent, models]));
        assert_eq!(listed("tool_invocation"), of(&[tools, tools]));
        assert_eq!(listed("api_call"), of(&[agentic]));
        assert_eq!(listed("token_consumption"), of(&[agentic, models, models]));
    }
    let customers: BTreeSet<String> =
        books.closed().map(|data| text(data, "/customer_id")).collect();
    assert_eq!(customers.len(), 2);
    let run = books.of_type("agent_step").find(|step| step["product_id"] == "models");
    let run = run.cloned().unwrap_or_default();
    assert_eq!(run["operation"], "responses.create", "{run}");
    let mut generations = books.generations();
    let made = generations.find(|generation| generation["call_id"] == run["call_id"]);
    assert_eq!(made.map(|made| &made["attribution"]), Some(&json!("result")));
    let apps = books.of_type("api_call").filter(|call| call["app_id"] == "planner").count();
    assert_eq!(apps, 2);
    let apart = books.tool_invocations().filter(|call| call["product_id"] == "apart");
    let sessions: BTreeSet<String> = books.closed().map(|data| text(data, "/session_id")).collect();
    for call in apart {
        assert!(!sessions.contains(&text(call, "/session_id")), "{call}");
    }
    books.check(&rig.stack()?.ledger()?).await?;
    rig.finish().await
}

//! The loop breaker in real Envoy, on two workers: it throttles an agent that repeats the same
//! call.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use agent_meter::wait;

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin};

fn call(agent: &Agent, id: u64, query: &str) -> Vec<u8> {
    let params = json!({ "name": "search", "arguments": { "query": query } });
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
    agent.post(body.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_calls_the_same_again_and_again_is_slowed_down_and_nobody_else()
-> anyhow::Result<()> {
    let mut plugin = plain_plugin();
    plugin["guards"] = json!([{
        "id": "loops", "scope": "session", "period": "session",
        "loop": { "calls": 10, "window": "1m" },
        "actions": { "level_2": { "throttle_rate": "1req/min", "notify": ["ops"] } },
    }]);
    let rig = Rig::start(Upstream::start(obliging).await?, plugin).await?;
    let (stuck, busy) = (Agent::new("stuck"), Agent::new("busy"));
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(rig.listen()?).await?);
    }
    // Both agents make as many calls; only one repeats the same call. Connections go to both
    // workers.
    for number in 0..11 {
        let client = &mut clients[number % 8];
        let id = u64::try_from(number)?;
        assert_eq!(client.exchange(&call(&stuck, id, "the same")).await?.status(), 200);
        let other = call(&busy, id, &format!("query {number}"));
        assert_eq!(client.exchange(&other).await?.status(), 200);
    }
    wait::until(LIMIT, "the loop is recognised", async || {
        let answer = clients[0].exchange(&call(&stuck, 99, "the same")).await?;
        ensure!(answer.status() == 429, "{}", answer.status());
        let body: Value = serde_json::from_slice(&answer.body)?;
        assert_eq!((&body["id"], &body["error"]["code"]), (&json!(99), &json!(-32_013)));
        assert_eq!(body["error"]["data"]["reason"], "throttled");
        Ok(())
    })
    .await?;
    for client in &mut clients {
        assert_eq!(client.exchange(&call(&stuck, 100, "the same")).await?.status(), 429);
        assert_eq!(client.exchange(&call(&busy, 100, "another")).await?.status(), 200);
    }
    let ledger = rig.stack()?.ledger()?;
    let books = wait::until(LIMIT, "the loop is told", async || {
        let books = Books::read(&ledger).await?;
        ensure!(books.all("loop_level_changed").count() > 0, "not told");
        Ok(books)
    })
    .await?;
    let changes: Vec<&Value> = books.of_type("loop_level_changed").collect();
    let [change] = changes.as_slice() else { anyhow::bail!("{changes:?}") };
    assert_eq!(change["level"], "L2_THROTTLE");
    assert_eq!(change["reason"], "repeated_call");
    assert_eq!(change["tool_name"], "search");
    assert_eq!(text(change, "/customer_id"), "stuck");
    let used: u64 = text(change, "/used").parse().context("used")?;
    assert!(used > 10, "{used}");
    rig.finish().await
}

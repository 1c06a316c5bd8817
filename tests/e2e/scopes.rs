//! Guards by user and API key in real Envoy, on two workers, and a customer that an operator pauses
//! and resumes by the control listener.

use std::net::SocketAddr;

use agent_meter::stack::{ANY_PORT, Options};
use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::{Agent, Client, request};
use crate::drain_order::control_listener;
use crate::http1::Message;
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const KEY: &str = "sk-live-a-secret";

fn scoped() -> Value {
    let mut plugin = plain_plugin();
    let identity = &mut plugin["products"][0]["identity"];
    identity["user"] = json!({ "trusted_header": "x-user" });
    identity["api_key"] = json!({ "trusted_header": "x-api-key" });
    identity["api_key_salt"] = json!("0123456789abcdef");
    let two = |scope: &str| {
        json!({
            "id": scope, "scope": scope, "period": "month", "budget": { "calls": 2 },
            "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
        })
    };
    plugin["guards"] = json!([two("user"), two("api_key")]);
    for (guard, customer) in [(0, "by-user"), (1, "by-key")] {
        plugin["guards"][guard]["customers"] = json!([customer]);
    }
    plugin
}

async fn answer(listen: SocketAddr, agent: &Agent) -> anyhow::Result<Message> {
    Client::connect(listen).await?.exchange(&agent.call(1, "t")).await
}

/// Waits until both workers answer an agent so.
async fn until(listen: SocketAddr, agent: &Agent, expected: u16) -> anyhow::Result<()> {
    wait::until(LIMIT, &format!("{} is answered {expected}", agent.name), async || {
        for _ in 0..10 {
            let status = answer(listen, agent).await?.status();
            ensure!(status == expected, "{status}");
        }
        Ok(())
    })
    .await
}

async fn order(control: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let answer = Client::connect(control).await?.exchange(&request("POST", path, &[], b"")).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(serde_json::from_slice(&answer.body)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_keys_have_budgets_and_who_is_paused_goes_on_where_it_was() -> anyhow::Result<()>
{
    let port = std::net::TcpListener::bind(ANY_PORT)?.local_addr()?.port();
    let control = SocketAddr::from(([127, 0, 0, 1], port));
    let settings = vec![("/static_resources/listeners/-".to_owned(), control_listener(port)?)];
    let options = Options { settings, ..Options::new(scoped(), Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    let listen = rig.listen()?;

    for (customer, header, mine, others) in
        [("by-user", "x-user", "ann", "bob"), ("by-key", "x-api-key", KEY, "another")]
    {
        let mine = Agent::new(customer).with(header, mine);
        for _ in 0..2 {
            assert_eq!(answer(listen, &mine).await?.status(), 200, "{customer}");
        }
        until(listen, &mine, 429).await?;
        let other = Agent::new(customer).with(header, others);
        assert_eq!(answer(listen, &other).await?.status(), 200, "{customer}: {others}");
        let nobody = answer(listen, &Agent::new(customer)).await?;
        assert_eq!(nobody.status(), 200, "{customer}: those without have a budget too");
    }

    let paused = Agent::new("paused");
    assert_eq!(answer(listen, &paused).await?.status(), 200);
    order(control, "/pause?customer=paused").await?;
    until(listen, &paused, 503).await?;
    let refused = answer(listen, &paused).await?;
    assert_eq!(refused.header("retry-after").as_deref(), Some("60"));
    assert_eq!(refused.header("x-margin-guard").as_deref(), Some("paused"));
    assert_eq!(answer(listen, &Agent::new("another")).await?.status(), 200);
    order(control, "/resume?customer=paused").await?;
    until(listen, &paused, 200).await?;

    let told = |books: &Books| {
        let changes = books.all("budget_level_changed").count();
        ensure!(changes == 2, "{changes} changes");
        Ok(())
    };
    let books = rig.settled("the levels are told", told).await?;
    let named: Vec<(String, usize)> = books
        .of_type("budget_level_changed")
        .map(|event| (text(event, "/scope"), text(event, "/api_key_hash").len()))
        .collect();
    ensure!(named.contains(&("api_key".to_owned(), 32)), "{named:?}");
    ensure!(!format!("{books:?}").contains(KEY), "a key is told in the clear");
    let sessions =
        books.of_type("session_created").filter(|event| event["customer_id"] == "paused");
    assert_eq!((sessions.count(), books.closed().count()), (1, 0), "a pause ends no session");
    rig.finish().await
}

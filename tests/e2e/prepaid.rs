//! A customer that pays in advance, at two Envoys and one collector: both spend one balance, and what was
//! refused runs again once more is paid.

use std::net::SocketAddr;

use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter::wait;
use agent_meter_collector::{BalancesQuery, Collector, Ledger, Page};
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::books::{Books, quantity};
use crate::client::{Agent, Client};
use crate::load::check_workers;
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const TOP_UP_URL: &str = "https://pay.example.com/top-up";

/// An Envoy at which each call costs 1 USD, paid in advance.
async fn rig(node: &str, events: SocketAddr) -> anyhow::Result<Rig> {
    let mut plugin = plain_plugin();
    plugin["products"][0]["pricing"] =
        json!({ "currency": "USD", "default": { "price": "1", "cost_tier": "standard" } });
    plugin["guards"] = json!([{
        "id": "prepaid",
        "budget": { "prepaid_balance": true },
        "fleet": true,
        "top_up_url": TOP_UP_URL,
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    }]);
    let options = Options {
        node_id: node.to_owned(),
        events: Events::At(events.into()),
        ..Options::new(plugin, Some(release_module()?))
    };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// Calls a tool once; the error that the client gets, if the call was refused.
async fn call(rig: &Rig) -> anyhow::Result<Option<Value>> {
    let request = Agent::new("acme").call(1, "t");
    let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
    match answer.status() {
        200 => Ok(None),
        402 => Ok(Some(serde_json::from_slice::<Value>(&answer.body)?["error"].take())),
        status => anyhow::bail!("{status}: {}", String::from_utf8_lossy(&answer.body)),
    }
}

/// Calls at one Envoy until a call passes. Returns how many passed, which is one.
async fn until_passed(rig: &Rig) -> anyhow::Result<u64> {
    wait::until(LIMIT, "a call passes", async || {
        let refused = call(rig).await?;
        ensure!(refused.is_none(), "{refused:?}");
        Ok(1)
    })
    .await
}

/// Calls at both Envoys by turns until each refuses ten in a row. Returns how many passed.
async fn until_spent(rigs: [&Rig; 2]) -> anyhow::Result<(u64, Value)> {
    let (mut passed, mut refused_in_a_row, mut last) = (0, 0, Value::Null);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while refused_in_a_row < 20 {
        ensure!(tokio::time::Instant::now() < deadline, "{passed} calls passed, none is refused");
        for rig in rigs {
            match call(rig).await? {
                Some(refused) => (refused_in_a_row, last) = (refused_in_a_row + 1, refused),
                None => (passed, refused_in_a_row) = (passed + 1, 0),
            }
        }
        // The fleet learns of what each has spent with its next batch.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok((passed, last))
}

fn top_up(ledger: &Ledger, id: &str, amount: &str) -> anyhow::Result<()> {
    let told =
        json!({ "top_up_id": id, "customer_id": "acme", "amount": amount, "currency": "USD" });
    ledger.top_up(&told, "a test")?;
    Ok(())
}

/// What the ledger says is left, and was spent.
fn left(ledger: &Ledger) -> anyhow::Result<(String, String)> {
    let query = BalancesQuery { customer: Some("acme".to_owned()), page: Page::default() };
    let found = serde_json::to_value(ledger.balances(&query)?)?;
    let account = &found["balances"][0];
    let member = |name: &str| account[name].as_str().map(str::to_owned).context(name.to_owned());
    Ok((member("balance")?, member("spent")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_in_advance_is_spent_at_all_envoys_and_no_further() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite:{}", dir.path().join("ledger.db").display());
    let collector = Collector::start(ANY_PORT, &url).await?;
    let (here, there) =
        (rig("here", collector.addr()).await?, rig("there", collector.addr()).await?);
    let ledger = collector.ledger();

    // Nothing is paid, so nothing runs.
    let refused = call(&here).await?.context("an unpaid call ran")?;
    assert_eq!(refused["code"], -32016, "{refused}");
    assert_eq!(refused["data"]["top_up_url"], TOP_UP_URL, "{refused}");

    top_up(&ledger, "p-1", "20")?;
    let mut passed = until_passed(&here).await? + until_passed(&there).await?;
    let (more, refused) = until_spent([&here, &there]).await?;
    passed += more;
    assert_eq!(refused["data"]["currency"], "USD", "{refused}");
    // Each Envoy may spend the same dollar until it hears of the other's: a few calls of 100 ms.
    ensure!((20..=40).contains(&passed), "{passed} calls of 20 paid ones passed");

    top_up(&ledger, "p-2", "30")?;
    passed += until_passed(&here).await? + until_passed(&there).await?;
    passed += until_spent([&here, &there]).await?.0;
    ensure!((50..=70).contains(&passed), "{passed} calls of 50 paid ones passed");

    wait::until(LIMIT, "everything has arrived", async || {
        let books = Books::read(&ledger).await?;
        let calls = books.tool_invocations().filter(|call| call["execution_status"] == "SUCCESS");
        let booked: u64 = calls.map(quantity).sum();
        ensure!(booked == passed, "{passed} calls passed, {booked} are booked");
        Ok(())
    })
    .await?;
    let spent = i64::try_from(passed)?;
    assert_eq!(left(&ledger)?, ((50 - spent).to_string(), spent.to_string()));
    for rig in [here, there] {
        check_workers(&rig).await?;
        rig.finish().await?;
    }
    collector.stop().await;
    Ok(())
}

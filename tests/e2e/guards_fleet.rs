//! Guards over several Envoys, in real Envoy, while the collector that adds up the totals goes away
//! and comes back, or sends outdated ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter::wait;
use agent_meter_collector::{Collector, Ledger};
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, quantity};
use crate::http1::Message;
use crate::ledgers::new_ledger;
use crate::load::check_workers;
use crate::spending::{
    Watch, call, generate, guarded, levels, owned, tools_and_models, until_status,
};
use crate::upstream::{Step, Upstream, json_response};
use crate::{LIMIT, Rig, release_module};

/// An Envoy of a fleet.
async fn rig(node: &str, events: SocketAddr, contracts: &Value) -> anyhow::Result<Rig> {
    let mut plugin = guarded(contracts, "50%");
    plugin["guards"][0]["fleet"] = json!(true);
    let options = Options {
        node_id: node.to_owned(),
        events: Events::At(events.into()),
        ..Options::new(plugin, Some(release_module()?))
    };
    Rig::with(Upstream::start(tools_and_models).await?, options).await
}

async fn spend(rig: &Rig, customer: &str, generations: u32) -> anyhow::Result<()> {
    for _ in 0..generations {
        let status = generate(rig.listen()?, customer).await?;
        ensure!(status == 200, "{customer}: {status}");
    }
    Ok(())
}

/// Waits until the ledger has everything that these Envoys made, once, and every call that they
/// counted: a worker adds up refused calls for a second before they are an event.
async fn delivered(rigs: [&Rig; 2], ledger: &Ledger) -> anyhow::Result<Books> {
    wait::until(LIMIT, "everything has arrived", async || {
        let (mut all, mut calls) = (0, 0);
        for rig in rigs {
            calls += rig.metric("calls").await?;
            let (made, acked) =
                (rig.metric("events_made").await?, rig.metric("events_acked").await?);
            ensure!(made == acked, "{made} events made, {acked} acknowledged");
            all += made;
        }
        let stored = ledger.count_events()?;
        ensure!(stored == all, "{all} events made, {stored} stored");
        let books = Books::read(ledger).await?;
        let told: u64 = books.tool_invocations().map(quantity).sum();
        ensure!(told == calls, "{calls} calls counted, the events say {told}");
        Ok(books)
    })
    .await
}

/// How often clients of a customer got 200 and 429, by the books, and the customer's generations.
fn counts(books: &Books, customer: &str) -> (u64, u64, u64) {
    let of_customer = |event: &&Value| event["customer_id"] == customer;
    let calls = |status: &str| {
        let calls = books.tool_invocations().filter(of_customer);
        calls.filter(|event| event["execution_status"] == *status).map(quantity).sum()
    };
    let generations = books.generations().filter(of_customer).count() as u64;
    (calls("SUCCESS"), calls("BLOCKED"), generations)
}

/// At both Envoys the poor stay blocked all the time, and the rich pass.
fn watch(here: &Rig, there: &Rig) -> anyhow::Result<[Watch; 4]> {
    let (here, there) = (here.listen()?, there.listen()?);
    Ok([
        Watch::start(here, "poor", 429),
        Watch::start(there, "poor", 429),
        Watch::start(here, "rich", 200),
        Watch::start(there, "rich", 200),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_goes_and_comes_back_blocks_nobody_frees_nobody_and_misses_nothing()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite:{}", dir.path().join("ledger.db").display());
    let collector = Collector::start(ANY_PORT, &url).await?;
    let addr = collector.addr();
    let ten = json!({ "revenue": "10" });
    let contracts = json!({ "poor": ten, "late": ten, "rich": { "revenue": "100" } });
    let (here, there) =
        (rig("here", addr, &contracts).await?, rig("there", addr, &contracts).await?);
    // Neither has spent the whole contract.
    for (rig, generations) in [(&here, 5), (&there, 4)] {
        spend(rig, "poor", generations).await?;
        spend(rig, "rich", generations).await?;
        spend(rig, "late", 1).await?;
    }
    for rig in [&here, &there] {
        until_status(rig, "poor", 429).await?;
    }

    let watches = watch(&here, &there)?;
    collector.stop().await;
    // Without the collector, nobody knows the sum.
    spend(&here, "late", 4).await?;
    spend(&there, "late", 3).await?;
    spend(&here, "rich", 3).await?;
    for rig in [&here, &there] {
        wait::until(LIMIT, "delivery fails", async || {
            let failed = rig.metric("batches_failed").await?;
            ensure!(failed >= 5, "{failed} batches failed");
            Ok(())
        })
        .await?;
        ensure!(rig.metric("outbox_events").await? > 0, "nothing waits");
        assert_eq!(call(rig.listen()?, "late").await?, 200);
    }
    let collector = Collector::start(addr, &url).await?;
    for rig in [&here, &there] {
        until_status(rig, "late", 429).await?;
    }
    let mut asked = Vec::new();
    for watch in watches {
        asked.push(watch.check().await?);
    }

    let ledger = collector.ledger();
    let books = delivered([&here, &there], &ledger).await?;
    books.check(&ledger).await?;
    let (poor, rich) = (counts(&books, "poor"), counts(&books, "rich"));
    assert_eq!((poor.2, rich), (9, (asked[2] + asked[3], 0, 12)));
    ensure!(poor.1 >= asked[0] + asked[1], "{poor:?} of {asked:?}");
    assert_eq!(levels(&books, "rich"), owned(&[]));
    for customer in ["poor", "late"] {
        let levels = levels(&books, customer);
        let blocked = levels.iter().filter(|(level, _)| level == "L3_BLOCK").count();
        let freed = levels.iter().filter(|(level, _)| level == "NONE").count();
        assert_eq!((blocked, freed), (2, 0), "{customer}: {levels:?}");
    }
    for rig in [here, there] {
        assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
        check_workers(&rig).await?;
        rig.finish().await?;
    }
    collector.stop().await;
    Ok(())
}

/// A collector whose replies are outdated once `is_stale` is set.
struct Stale {
    server: Upstream,
    ledger: Ledger,
    is_stale: Arc<AtomicBool>,
    /// How many outdated totals it has sent.
    sent: Arc<AtomicU64>,
}

impl Stale {
    async fn start() -> anyhow::Result<Self> {
        let ledger = Ledger::open(&new_ledger())?;
        let (is_stale, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = (ledger.clone(), Arc::clone(&is_stale), Arc::clone(&sent));
        let earlier = std::sync::Mutex::new(Vec::new());
        let answer = move |request: &Message| {
            let (ledger, is_stale, sent) = &shared;
            let media_type = request.header("content-type").unwrap_or_default();
            let Ok(receipt) = ledger.insert_batch(&request.body, &media_type) else {
                return Vec::new();
            };
            let mut receipt = json!(receipt);
            let mut earlier = earlier.lock().expect("nobody panics");
            let verdicts = receipt["verdicts"].as_array().cloned().unwrap_or_default();
            if is_stale.load(Ordering::SeqCst) {
                sent.fetch_add(earlier.len() as u64, Ordering::SeqCst);
                receipt["verdicts"] = json!(*earlier);
            } else {
                for verdict in verdicts {
                    earlier.extend(of_other_times(&verdict));
                }
            }
            vec![Step::Send(json_response(&receipt))]
        };
        Ok(Self { server: Upstream::start(answer).await?, ledger, is_stale, sent })
    }
}

/// The same scope before anything was spent, and with a fortune that was spent long ago.
fn of_other_times(verdict: &Value) -> [Value; 2] {
    let (mut before, mut long_ago) = (verdict.clone(), verdict.clone());
    for member in ["total_provider_cost", "total_revenue"] {
        (before[member], long_ago[member]) = (json!("0"), json!("1000000"));
    }
    (before["calls"], before["tokens"]) = (json!(0), json!(0));
    long_ago["period_started_at"] = json!("2001-01-01T00:00:00Z");
    [before, long_ago]
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_totals_of_a_collector_free_nobody_and_block_nobody() -> anyhow::Result<()> {
    let collector = Stale::start().await?;
    let addr = collector.server.addr();
    let contracts = json!({ "poor": { "revenue": "10" }, "rich": { "revenue": "100" } });
    let (here, there) =
        (rig("here", addr, &contracts).await?, rig("there", addr, &contracts).await?);
    for rig in [&here, &there] {
        spend(rig, "rich", 1).await?;
    }
    spend(&here, "poor", 8).await?;
    spend(&there, "poor", 1).await?;
    for rig in [&here, &there] {
        until_status(rig, "poor", 429).await?;
    }
    let watches = watch(&here, &there)?;
    collector.is_stale.store(true, Ordering::SeqCst);
    let unused = there.metric("verdicts_unused").await?;
    wait::until(LIMIT, "the collector tells what was", async || {
        let sent = collector.sent.load(Ordering::SeqCst);
        let more = there.metric("verdicts_unused").await?;
        ensure!(sent > 40 && more >= unused + 10, "{sent} told, {more} unused, {unused} before");
        Ok(())
    })
    .await?;
    for watch in watches {
        watch.check().await?;
    }
    // What each Envoy spends itself counts as before.
    let books = delivered([&here, &there], &collector.ledger).await?;
    let blocked = levels(&books, "poor").into_iter().filter(|(level, _)| level == "L3_BLOCK");
    assert_eq!(blocked.count(), 2, "{:?}", levels(&books, "poor"));
    assert!(levels(&books, "poor").iter().all(|(level, _)| level != "NONE"));
    assert_eq!(levels(&books, "rich"), owned(&[]));
    for rig in [here, there] {
        rig.finish().await?;
    }
    Ok(())
}

//! New configurations while Envoy runs, as control planes deliver them: by Envoy's extension
//! discovery, here from a file that Envoy watches. They are in force within seconds; sessions,
//! spend, levels and running calls carry over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_meter::plugin::deliver_to_harness;
use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::config::bootstrap_to_nowhere;
use crate::load::check_workers;
use crate::spending::{Watch, generate, guarded, levels, owned, tools_and_models, until_status};
use crate::upstream::Upstream;
use crate::{LIMIT, Rig, release_module};

/// The place of the filter in `envoy/envoy.yaml`.
const FILTER: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Envoy's stats of the filter's discovery.
pub(crate) const STATS: &str = "extension_config_discovery.http_filter.agent-meter.";
/// How long it may take from the change of the file to the first call billed by it; most of it is
/// for a busy machine.
const SECONDS: Duration = Duration::from_secs(10);

/// The file that Envoy watches.
pub(crate) struct FilterFile {
    dir: TempDir,
}

impl FilterFile {
    /// Makes the file, with a first configuration.
    pub(crate) fn new(plugin: &Value) -> anyhow::Result<Self> {
        let file = Self { dir: tempfile::tempdir()? };
        file.put(plugin)?;
        Ok(file)
    }

    /// Replaces the configuration; all else of the filter stays as in `envoy/envoy.yaml`.
    pub(crate) fn put(&self, plugin: &Value) -> anyhow::Result<()> {
        let mut plugin = plugin.clone();
        deliver_to_harness(&mut plugin)?;
        let root = bootstrap_to_nowhere(plugin, Vec::new())?.render()?;
        let config = root.pointer(&format!("{FILTER}/typed_config")).context("no filter")?;
        let resource = json!({ "@type": EXTENSION, "name": "agent-meter", "typed_config": config });
        self.put_text(&json!({ "resources": [resource] }).to_string())
    }

    /// Envoy reads the file when it is moved into place, so that it never reads half of one.
    fn put_text(&self, text: &str) -> anyhow::Result<()> {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.dir.path().join("filter.json"))?)
    }

    /// The bootstrap's filter, which Envoy discovers in the file.
    pub(crate) fn discovered(&self) -> (String, Value) {
        let source = json!({ "path": self.dir.path().join("filter.json") });
        let discovery = json!({
            "config_source": { "path_config_source": source, "resource_api_version": "V3" },
            "type_urls": [WASM],
        });
        (FILTER.to_owned(), json!({ "name": "agent-meter", "config_discovery": discovery }))
    }
}

/// A rig whose filter is configured by a file.
async fn rig(plugin: &Value) -> anyhow::Result<(Rig, FilterFile)> {
    let file = FilterFile::new(plugin)?;
    let options = Options::new(plugin.clone(), Some(release_module()?));
    let settings = vec![file.discovered()];
    let upstream = Upstream::start(tools_and_models).await?;
    Ok((Rig::with(upstream, Options { settings, ..options }).await?, file))
}

/// A configuration with this price for a tool call, which identifies it.
fn priced(plugin: &Value, price: &str) -> Value {
    let mut plugin = plugin.clone();
    plugin["products"][0]["pricing"]["default"]["price"] = json!(price);
    plugin
}

/// Waits until calls have this price, and returns how long that took.
async fn in_force(rig: &Rig, price: &str) -> anyhow::Result<Duration> {
    let (since, listen) = (Instant::now(), rig.listen()?);
    let ledger = rig.stack()?.ledger()?;
    wait::until(LIMIT, &format!("the price {price} is in force"), async || {
        let answer =
            Client::connect(listen).await?.exchange(&Agent::new("prober").call(1, "t")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        let books = Books::read(&ledger).await?;
        let last = books.tool_invocations().filter(|call| call["agent_id"] == "prober").last();
        ensure!(last.is_some_and(|call| call["price"] == *price), "{last:?}");
        Ok(())
    })
    .await?;
    Ok(since.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_in_force_within_seconds_and_frees_and_blocks_only_whom_it_says()
-> anyhow::Result<()> {
    let contracts = json!({ "poor": { "revenue": "10" }, "rich": { "revenue": "20" } });
    let first = priced(&guarded(&contracts, "50%"), "0.001");
    let (rig, file) = rig(&first).await?;
    let listen = rig.listen()?;
    for _ in 0..9 {
        assert_eq!(generate(listen, "poor").await?, 200);
    }
    for _ in 0..2 {
        assert_eq!(generate(listen, "rich").await?, 200);
    }
    until_status(&rig, "poor", 429).await?;
    // A call that outlives all changes.
    let mut waiting = Client::connect(listen).await?;
    waiting.send(&Agent::new("patient").call(1, "slow")).await?;

    // Another threshold, and the same contracts: nothing changes for any customer at any moment.
    let watches = [Watch::start(listen, "poor", 429), Watch::start(listen, "rich", 200)];
    file.put(&priced(&guarded(&contracts, "40%"), "0.002"))?;
    let took = in_force(&rig, "0.002").await?;
    ensure!(took < SECONDS, "it took {took:?}");
    for watch in watches {
        watch.check().await?;
    }
    let blocked = [("L1_ALERT", "threshold"), ("L3_BLOCK", "threshold")];
    let books = Books::read(&rig.stack()?.ledger()?).await?;
    assert_eq!(levels(&books, "poor"), owned(&blocked));
    assert_eq!(levels(&books, "rich"), owned(&[]));

    // What was spent before counts: exactly sixteen more reach the limit.
    for _ in 0..16 {
        assert_eq!(generate(listen, "rich").await?, 200);
    }
    until_status(&rig, "rich", 429).await?;

    // A larger contract unblocks the customer that has it.
    let raised = json!({ "poor": { "revenue": "100" }, "rich": { "revenue": "20" } });
    let watch = Watch::start(listen, "rich", 429);
    file.put(&priced(&guarded(&raised, "40%"), "0.003"))?;
    until_status(&rig, "poor", 200).await?;
    watch.check().await?;

    // The first configuration blocks it again. The end of a stream that began under it then changes
    // nothing.
    file.put(&first)?;
    until_status(&rig, "poor", 429).await?;
    rig.upstream.go_on();
    assert_eq!(waiting.receive(|_| ()).await?.status(), 200);
    drop(waiting);
    in_force(&rig, "0.001").await?;
    until_status(&rig, "poor", 429).await?;
    let books = rig.settled("everything is told", |_| Ok(())).await?;
    let ledger = rig.stack()?.ledger()?;
    let configured =
        [("NONE", "configuration"), ("L1_ALERT", "configuration"), ("L3_BLOCK", "configuration")];
    assert_eq!(levels(&books, "poor"), owned(&[&blocked[..], &configured[..]].concat()));
    assert_eq!(levels(&books, "rich"), owned(&blocked));
    let last = books.of_type("margin_level_changed").last().context("no change")?;
    assert_eq!((&last["total_provider_cost"], &last["total_revenue"]), (&json!("9"), &json!("10")));
    books.check(&ledger).await?;
    assert_eq!(books.closed().count(), 0, "sessions were closed");
    assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    check_workers(&rig).await?;
    rig.finish().await
}

/// One price for each configuration.
const PRICES: [&str; 4] = ["0.001", "0.002", "0.003", "0.004"];

/// Calls in a session of its own until it is stopped. Returns how many calls succeeded.
async fn play(
    listen: SocketAddr,
    name: String,
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
) -> anyhow::Result<(String, u64)> {
    let mut client = Client::connect(listen).await?;
    let agent = Agent::new(&name);
    for number in 0.. {
        let answer = client.exchange(&agent.call(number, "t")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        calls.fetch_add(1, Ordering::Relaxed);
        if is_over.load(Ordering::Relaxed) {
            let answer = client.exchange(&agent.delete()).await?;
            ensure!(answer.status() == 200, "{answer:?}");
            return Ok((name, number + 1));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    unreachable!("numbers end")
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_calls_under_way_go_over_to_new_configurations() -> anyhow::Result<()> {
    let configuration = |price: &str| priced(&guarded(&json!({}), "50%"), price);
    let (rig, file) = rig(&configuration(PRICES[0])).await?;
    let listen = rig.listen()?;
    let (is_over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let name = format!("client-{number}");
        clients.spawn(play(listen, name, Arc::clone(&is_over), Arc::clone(&calls)));
    }
    // This call gets its response at the very end.
    let slow = Agent::new("slow");
    let mut waiting = Client::connect(listen).await?;
    waiting.send(&slow.call(1, "slow")).await?;

    // The first price again: the configuration of a stream that is still open.
    for price in [PRICES[1], PRICES[2], PRICES[0], PRICES[3]] {
        let before = calls.load(Ordering::Relaxed);
        file.put(&configuration(price))?;
        in_force(&rig, price).await?;
        wait::until(LIMIT, "calls go on", async || {
            ensure!(calls.load(Ordering::Relaxed) > before + 80, "they do not");
            Ok(())
        })
        .await?;
    }
    is_over.store(true, Ordering::Relaxed);
    rig.upstream.go_on();
    assert_eq!(waiting.receive(|_| ()).await?.status(), 200);
    assert_eq!(waiting.exchange(&slow.delete()).await?.status(), 200);
    let mut done = vec![("slow".to_owned(), 1)];
    while let Some(client) = clients.join_next().await {
        done.push(client??);
    }

    let books = rig
        .settled("every session is closed", |books| {
            let closed = books.closed().count();
            ensure!(closed >= done.len(), "{closed} of {} sessions are closed", done.len());
            Ok(())
        })
        .await?;
    books.check(&rig.stack()?.ledger()?).await?;
    for (name, count) in done {
        let closed: Vec<&Value> = books.closed().filter(|data| data["agent_id"] == *name).collect();
        let [closed] = closed[..] else { anyhow::bail!("{name}: {closed:?}") };
        assert_eq!(closed["close_reason"], "client_delete", "{closed}");
        assert_eq!(closed["total_tool_calls"], count, "{closed}");
        assert_eq!(closed["calls_by_status"], json!({ "SUCCESS": count }), "{closed}");
        // Calls under each configuration, each at the price of the one under which it came.
        let prices: BTreeSet<String> = books
            .tool_invocations()
            .filter(|call| call["agent_id"] == *name)
            .map(|call| text(call, "/price"))
            .collect();
        let expected = if name == "slow" { vec!["0.001"] } else { PRICES.to_vec() };
        assert_eq!(prices, expected.into_iter().map(str::to_owned).collect(), "{name}");
    }
    assert!(rig.log_lines("agent-meter spill")?.is_empty(), "events were spilled");
    check_workers(&rig).await?;
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_refused_and_the_old_one_goes_on_guarding() -> anyhow::Result<()>
{
    let contracts = json!({ "poor": { "revenue": "1" }, "spender": { "revenue": "1" } });
    let good = priced(&guarded(&contracts, "50%"), "0.001");
    let (rig, file) = rig(&good).await?;
    let listen = rig.listen()?;
    assert_eq!(generate(listen, "poor").await?, 200);
    until_status(&rig, "poor", 429).await?;
    let watches = [Watch::start(listen, "poor", 429), Watch::start(listen, "rich", 200)];

    // It would unblock everyone, but names an unknown scope.
    let mut broken = priced(&guarded(&json!({}), "50%"), "0.002");
    broken["guards"][0]["scope"] = json!("planet");
    file.put(&broken)?;
    until_rejected(&rig, 1).await?;
    let reasons = rig.log_lines("agent-meter configuration refused: guards[0].scope: ")?;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    // Envoy does not even pass this to the filter, since it is no configuration.
    file.put_text(r#"{ "resources": ["#)?;
    until_rejected(&rig, 2).await?;
    assert_eq!(rig.log_lines("agent-meter configuration refused")?, reasons);

    assert_eq!(generate(listen, "spender").await?, 200);
    until_status(&rig, "spender", 429).await?;
    in_force(&rig, "0.001").await?;
    for watch in watches {
        watch.check().await?;
    }
    file.put(&priced(&guarded(&json!({}), "50%"), "0.003"))?;
    in_force(&rig, "0.003").await?;
    until_status(&rig, "poor", 200).await?;
    rig.finish().await
}

/// Waits until Envoy has refused this many updates of the filter, and has logged it.
async fn until_rejected(rig: &Rig, expected: u64) -> anyhow::Result<()> {
    wait::until(LIMIT, &format!("{expected} updates are rejected"), async || {
        let stats = rig.stack()?.envoy()?.stats(STATS).await?;
        let count = |name: &str| stats.get(&format!("{STATS}{name}")).copied().unwrap_or(0);
        ensure!(count("update_rejected") + count("update_failure") >= expected, "{stats:?}");
        let lines = rig.log_lines("Filesystem config update ")?.len();
        ensure!(u64::try_from(lines)? == expected, "{lines} lines in the log");
        Ok(())
    })
    .await
}

//! New configurations as listener discovery delivers them: Envoy drains the old filter chain, for ten
//! minutes by default, while the new one serves. Two configurations are live meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use agent_meter::plugin::deliver_to_harness;
use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter::wait;
use agent_meter_collector::Ledger;
use agent_meter_collector::recover::{self, Log, Target, recover};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::books::Books;
use crate::client::{Agent, Client};
use crate::config::bootstrap_to_nowhere;
use crate::ledgers::new_ledger;
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const LISTENER: &str = "/static_resources/listeners/0";
const FILTERS: &str = "/filter_chains/0/filters/0/typed_config/http_filters";
const TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The file from which Envoy discovers its listeners.
pub(crate) struct Listeners {
    dir: TempDir,
    /// The address of the first.
    pub(crate) addr: SocketAddr,
}

impl Listeners {
    pub(crate) fn new(plugins: &[&Value]) -> anyhow::Result<Self> {
        // Envoy binds the port, and with a second listener the one behind it, a moment later.
        let addr = loop {
            let addr = std::net::TcpListener::bind(ANY_PORT)?.local_addr()?;
            if std::net::TcpListener::bind((addr.ip(), addr.port().saturating_add(1))).is_ok() {
                break addr;
            }
        };
        let listeners = Self { dir: tempfile::tempdir()?, addr };
        listeners.put(plugins)?;
        Ok(listeners)
    }

    /// Replaces the listeners: one for each plugin configuration, on the ports from the first on.
    pub(crate) fn put(&self, plugins: &[&Value]) -> anyhow::Result<()> {
        let mut resources = Vec::new();
        for (at, plugin) in (0..).zip(plugins) {
            let mut plugin = (*plugin).clone();
            deliver_to_harness(&mut plugin)?;
            let mut root = bootstrap_to_nowhere(plugin, Vec::new())?.render()?;
            let mut listener = root.pointer_mut(LISTENER).context("a listener")?.take();
            listener["@type"] = json!(TYPE);
            listener["name"] = json!(format!("dynamic-{at}"));
            listener["address"]["socket_address"]["port_value"] = json!(self.addr.port() + at);
            resources.push(listener);
        }
        // Envoy reads the file when it is moved into place, so that it never reads half of one.
        let new = self.dir.path().join("new");
        std::fs::write(&new, json!({ "resources": resources }).to_string())?;
        Ok(std::fs::rename(new, self.file())?)
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("listeners.json")
    }

    /// Envoy with these listeners, and a static one that has no filter.
    pub(crate) async fn rig(&self, events: Option<SocketAddr>) -> anyhow::Result<Rig> {
        let source = json!({
            "resource_api_version": "V3", "path_config_source": { "path": self.file() },
        });
        let root = bootstrap_to_nowhere(plain_plugin(), Vec::new())?.render()?;
        let filters = root.pointer(&format!("{LISTENER}{FILTERS}"));
        let router = filters.and_then(Value::as_array).and_then(|all| all.last());
        let settings = vec![
            ("/dynamic_resources".to_owned(), json!({ "lds_config": source })),
            (format!("{LISTENER}{FILTERS}"), json!([router.context("a router")?])),
        ];
        let mut options = Options::new(plain_plugin(), Some(release_module()?));
        options.settings = settings;
        if let Some(addr) = events {
            options.events = Events::At(addr.into());
        }
        let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
        wait::until(LIMIT, "the dynamic listener serves", async || {
            self.call("first", "probe").await
        })
        .await?;
        Ok(rig)
    }

    /// A call on a connection of its own.
    async fn call(&self, agent: &str, tool: &str) -> anyhow::Result<()> {
        call(&mut Client::connect(self.addr).await?, agent, tool).await
    }
}

async fn call(client: &mut Client, agent: &str, tool: &str) -> anyhow::Result<()> {
    let answer = client.exchange(&Agent::new(agent).call(1, tool)).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

/// A configuration whose product has this id and this price.
pub(crate) fn priced(product: &str, price: &str) -> Value {
    let mut plugin = plain_plugin();
    plugin["products"][0]["id"] = json!(product);
    plugin["products"][0]["pricing"]["default"]["price"] = json!(price);
    plugin
}

/// The product and the price of each call of this tool.
fn prices(books: &Books, tool: &str) -> Vec<String> {
    let calls = books.tool_invocations().filter(|call| call["tool_name"] == tool);
    let mut prices: Vec<String> =
        calls.map(|call| format!("{} {}", call["product_id"], call["price"])).collect();
    prices.sort();
    prices
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_by_listener_discovery_is_in_force_while_the_old_one_drains()
-> anyhow::Result<()> {
    let listeners = Listeners::new(&[&priced("mcp", "0.01")])?;
    let rig = listeners.rig(None).await?;
    let mut old = Client::connect(listeners.addr).await?;
    call(&mut old, "old", "one").await?;

    listeners.put(&[&priced("mcp-v2", "0.05")])?;
    let ledger = rig.stack()?.ledger()?;
    wait::until(LIMIT, "the new price is in force", async || {
        listeners.call("new", "other").await?;
        let books = Books::read(&ledger).await?;
        ensure!(prices(&books, "other").iter().any(|price| price.contains("0.05")), "not yet");
        Ok(())
    })
    .await?;
    // The old connection goes on for as long as the drain; its calls have the price of before.
    for _ in 0..5 {
        call(&mut old, "old", "one").await?;
        listeners.call("new", "third").await?;
    }
    let books = rig
        .settled("all calls", |books| {
            let (one, third) = (prices(books, "one").len(), prices(books, "third").len());
            ensure!(one == 6 && third == 5, "{one} and {third} calls");
            Ok(())
        })
        .await?;
    assert_eq!(prices(&books, "one"), vec![r#""mcp" "0.01""#; 6]);
    assert_eq!(prices(&books, "third"), vec![r#""mcp-v2" "0.05""#; 5]);
    assert_eq!(rig.metric("product_unknown").await?, 0);
    rig.finish().await
}

/// Stops Envoy a while after an update that drains, with a collector that is down: the log has every
/// call once, and the end of every session.
async fn stop_while_draining(after: Duration) -> anyhow::Result<()> {
    let dead = std::net::TcpListener::bind(ANY_PORT)?;
    let listeners = Listeners::new(&[&priced("mcp", "0.01")])?;
    let mut rig = listeners.rig(Some(dead.local_addr()?)).await?;
    let mut old = Client::connect(listeners.addr).await?;
    for _ in 0..5 {
        call(&mut old, "old", "one").await?;
    }
    listeners.put(&[&priced("mcp-v2", "0.05")])?;
    tokio::time::sleep(after).await;
    for number in 0..30 {
        listeners.call(&format!("new-{}", number % 3), "third").await?;
    }
    call(&mut old, "old", "one").await?;
    let pid = rig.stack()?.envoy()?.pid().context("Envoy runs")?;
    let sent = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill: {sent}");
    tokio::time::timeout(LIMIT, rig.stack_mut()?.ended()).await.context("Envoy does not stop")?;

    let ledger = Ledger::open(&new_ledger())?;
    let log = Log::open(&rig.stack()?.dir().join("envoy.log"))?;
    let target = Target::Ledger { ledger: ledger.clone(), allows_older: false };
    let recovered = recover([log], &target, &recover::Options::default()).await?;
    ensure!(recovered.refused.is_empty() && recovered.unreadable.is_empty(), "{recovered:?}");
    let books = Books::read(&ledger).await?;
    let (one, third) = (prices(&books, "one"), prices(&books, "third"));
    ensure!(one == vec![r#""mcp" "0.01""#; 6], "{one:?}");
    ensure!(third.len() == 30, "{} calls after the update", third.len());
    let created = books.of_type("session_created").count();
    let closed = books.closed().count();
    ensure!(created == closed && created >= 4, "{created} sessions, {closed} closed");
    let gaps = ledger.gaps()?;
    ensure!(gaps.missing == 0, "{gaps:?}");
    // What the log has is in this ledger; nobody else waits for it.
    drop(dead);
    rig.discard().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_old_configuration_drains_loses_nothing() -> anyhow::Result<()> {
    for after_ms in [0, 100, 400, 1_500] {
        stop_while_draining(Duration::from_millis(after_ms))
            .await
            .with_context(|| format!("{after_ms} ms after the update"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_with_one_name_and_two_prices_are_billed_and_told() -> anyhow::Result<()> {
    let listeners = Listeners::new(&[&priced("mcp", "0.01"), &priced("mcp2", "0.07")])?;
    let rig = listeners.rig(None).await?;
    let second = SocketAddr::new(listeners.addr.ip(), listeners.addr.port() + 1);
    for _ in 0..10 {
        listeners.call("one", "one").await?;
        call(&mut Client::connect(second).await?, "two", "two").await?;
    }
    let books = rig
        .settled("all calls", |books| {
            ensure!(prices(books, "one").len() == 10 && prices(books, "two").len() == 10);
            Ok(())
        })
        .await?;
    assert_eq!(prices(&books, "one"), vec![r#""mcp" "0.01""#; 10]);
    assert_eq!(prices(&books, "two"), vec![r#""mcp2" "0.07""#; 10]);
    wait::until(LIMIT, "the two are told", async || {
        let told =
            rig.log_lines("agent-meter two configurations run under the name=agent-meter")?;
        ensure!(told.len() == 1, "{told:?}");
        Ok(())
    })
    .await?;
    assert_eq!(rig.metric("configurations_live").await?, 2);
    rig.finish().await
}

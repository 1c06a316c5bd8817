//! New configurations under load, and Envoy's end at moments before, during and after them, while
//! the configuration of before drains. The collector is down, so that nothing but Envoy's log tells
//! what was not sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::collectors::{Answer, Switched};
use super::faults::start;
use super::table::Row;
use super::trial::{End, PACE, Trial, quick_plugin};
use crate::drains::{Listeners, priced};
use crate::reload::{FilterFile, STATS};
use crate::{LIMIT, Rig, release_module};

/// How a new configuration comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By listener discovery: the old filter chain drains.
    Listener,
    /// By extension discovery.
    Extension,
}

/// When Envoy gets SIGTERM, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the file with the update is there.
    Before(u64),
    /// After the file is there; Envoy may have read it or not.
    After(u64),
    /// After Envoy has put the update in force.
    InForce(u64),
}

/// All moments of `make chaos`.
pub(super) const MOMENTS: [Moment; 8] = [
    Moment::Before(10),
    Moment::After(0),
    Moment::After(20),
    Moment::After(60),
    Moment::After(200),
    Moment::InForce(0),
    Moment::InForce(300),
    Moment::InForce(1_500),
];
/// Those of `make test`.
pub(super) const FEW_MOMENTS: [Moment; 2] = [Moment::After(20), Moment::InForce(300)];

/// As the table names it.
pub(super) fn name(way: Way, moment: Moment) -> String {
    let way = if way == Way::Listener { "listener" } else { "extension" };
    match moment {
        Moment::Before(ms) => format!("SIGTERM, {way} update {ms} ms later"),
        Moment::After(ms) => format!("{way} update, SIGTERM {ms} ms later"),
        Moment::InForce(ms) => format!("{way} update in force, SIGTERM {ms} ms later"),
    }
}

/// The file in which Envoy discovers its configuration.
enum Source {
    Listeners(Listeners),
    Filter(FilterFile),
}

/// A configuration with this product and price, which takes a tenth of the default times.
fn configuration(product: &str, price: &str) -> Value {
    let mut plugin = priced(product, price);
    let quick = quick_plugin();
    plugin["collector"] = quick["collector"].clone();
    plugin["delivery"] = quick["delivery"].clone();
    plugin
}

impl Source {
    fn new(way: Way) -> anyhow::Result<Self> {
        let first = configuration("mcp", "0.01");
        Ok(match way {
            Way::Listener => Source::Listeners(Listeners::new(&[&first])?),
            Way::Extension => Source::Filter(FilterFile::new(&first)?),
        })
    }

    /// Puts the second configuration in its place.
    fn update(&self) -> anyhow::Result<()> {
        let second = configuration("mcp-v2", "0.05");
        match self {
            Source::Listeners(listeners) => listeners.put(&[&second]),
            Source::Filter(file) => file.put(&second),
        }
    }

    /// An Envoy with the first configuration, and where it listens.
    async fn rig(&self, events: SocketAddr) -> anyhow::Result<(Rig, SocketAddr)> {
        match self {
            Source::Listeners(listeners) => {
                Ok((listeners.rig(Some(events)).await?, listeners.addr))
            }
            Source::Filter(file) => {
                let options = Options::new(quick_plugin(), Some(release_module()?));
                let settings = vec![file.discovered()];
                let rig = start(events, Options { settings, ..options }).await?;
                let listen = rig.listen()?;
                Ok((rig, listen))
            }
        }
    }

    async fn until_in_force(&self, rig: &Rig) -> anyhow::Result<()> {
        let (prefix, name, least) = match self {
            // What the update replaces drains.
            Source::Listeners(_) => ("listener_manager.total_", "_draining", 1),
            Source::Filter(_) => (STATS, "config_reload", 2),
        };
        wait::until(LIMIT, "the update is in force", async || {
            let stats = rig.stack()?.envoy()?.stats(prefix).await?;
            let counted = stats.iter().filter(|(stat, _)| stat.ends_with(name));
            let count: u64 = counted.map(|(_, value)| value).sum();
            ensure!(count >= least, "{stats:?}");
            Ok(())
        })
        .await
    }
}

/// An update under load, and SIGTERM at this moment.
pub(super) async fn update(way: Way, moment: Moment) -> anyhow::Result<Row> {
    let mut collector = Switched::start(Answer::Error).await?;
    let source = Arc::new(Source::new(way)?);
    let (rig, listen) = source.rig(collector.addr).await?;
    let trial = Trial::start(rig, collector.ledger.clone(), &[listen], PACE).await?;
    let before = trial.failures().await?;
    collector.leave().await?;
    trial.until_failures(before, 1).await?;
    match moment {
        Moment::Before(ms) => {
            let later = Arc::clone(&source);
            let updated = tokio::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                later.update()
            });
            let row = trial.end(End::Term, None).await;
            updated.await??;
            return row;
        }
        Moment::After(ms) => {
            source.update()?;
            sleep(Duration::from_millis(ms)).await;
        }
        Moment::InForce(ms) => {
            source.update()?;
            source.until_in_force(&trial.rig).await?;
            sleep(Duration::from_millis(ms)).await;
        }
    }
    trial.end(End::Term, None).await
}

/// Two listeners with two configurations under one name, while the collector is up or down.
pub(super) async fn two_configurations(is_up: bool) -> anyhow::Result<Row> {
    let mut collector = Switched::start(Answer::Error).await?;
    let (one, two) = (configuration("mcp", "0.01"), configuration("mcp2", "0.07"));
    let listeners = Listeners::new(&[&one, &two])?;
    let rig = listeners.rig(Some(collector.addr)).await?;
    let port = listeners.addr.port().checked_add(1).context("a port")?;
    let listens = [listeners.addr, SocketAddr::new(listeners.addr.ip(), port)];
    let trial = Trial::start(rig, collector.ledger.clone(), &listens, PACE).await?;
    wait::until(LIMIT, "both are in force", async || {
        let live = trial.rig.metric("configurations_live").await?;
        ensure!(live == 2, "{live} configurations");
        Ok(())
    })
    .await?;
    let before = trial.failures().await?;
    if !is_up {
        collector.leave().await?;
        trial.until_failures(before, 2).await?;
    }
    sleep(Duration::from_millis(500)).await;
    trial.end(End::Term, None).await
}

//! Several collectors in front of one ledger, as `envoy/collectors-cluster.yaml` sets them up: they
//! share the batches, each batch is with one at a time, and who is down is replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use agent_meter::stack::{ANY_PORT, Options};
use agent_meter::wait;
use agent_meter_collector::Ledger;
use anyhow::ensure;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::delivery::{Deed, Scripted, collector};
use crate::ledgers::new_ledger;
use crate::upstream::{Upstream, obliging, response};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const SAMPLE: &str = include_str!("../../envoy/collectors-cluster.yaml");
const CLUSTER: &str = "/static_resources/clusters/1";
const PHASE: u64 = 30;

/// One of the collectors: whether it is down, and the ids of the events that it was sent while it was
/// up, in their order.
#[derive(Clone, Default)]
struct Seen {
    is_down: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    async fn serve(&self, ledger: &Ledger) -> anyhow::Result<Scripted> {
        let seen = self.clone();
        collector(TcpListener::bind(ANY_PORT).await?, ledger.clone(), move |_, batch| {
            if seen.is_down.load(Ordering::SeqCst) {
                return Deed::Answer(response("503 Service Unavailable", &[], b""));
            }
            let events: Vec<Value> = serde_json::from_str(batch).unwrap_or_default();
            let ids = events.iter().map(|event| format!("{} {}", event["source"], event["id"]));
            seen.events.lock().expect("no panic").extend(ids);
            Deed::Take
        })
    }

    fn put_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().expect("no panic"))
    }
}

async fn call(rig: &Rig, calls: std::ops::Range<u64>) -> anyhow::Result<()> {
    for number in calls {
        let mut client = Client::connect(rig.listen()?).await?;
        let answer = client.exchange(&Agent::new("agent-0").call(number, "tool")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until the ledger has so many calls, once each.
async fn has(ledger: &Ledger, calls: u64) -> anyhow::Result<()> {
    wait::until(LIMIT, "the calls are in the ledger", async || {
        let books = Books::read(ledger).await?;
        let mut ids: Vec<String> =
            books.tool_invocations().map(|call| text(call, "/call_id")).collect();
        ids.sort_unstable();
        ids.dedup();
        let all = books.tool_invocations().count();
        ensure!(ids.len() == all, "{} of {all} calls are there again", all - ids.len());
        ensure!(u64::try_from(all)? == calls, "{all} of {calls} calls");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_share_the_batches_and_take_over_from_those_that_are_down() -> anyhow::Result<()>
{
    let ledger = Ledger::open(&new_ledger())?;
    let [first, second, spare] = [Seen::default(), Seen::default(), Seen::default()];
    let mut cluster: Value = serde_yaml_ng::from_str(SAMPLE)?;
    let mut servers = Vec::new();
    for (seen, place) in
        [(&first, "0/lb_endpoints/0"), (&second, "0/lb_endpoints/1"), (&spare, "1/lb_endpoints/0")]
    {
        let server = seen.serve(&ledger).await?;
        let address = format!("/load_assignment/endpoints/{place}/endpoint/address/socket_address");
        let address = cluster.pointer_mut(&address).expect("three collectors");
        address["port_value"] = json!(server.server.addr().port());
        servers.push(server);
    }
    let settings = vec![(CLUSTER.to_owned(), cluster)];
    let options = Options { settings, ..Options::new(plain_plugin(), Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;

    // Two share the batches; nobody is sent what another was.
    call(&rig, 0..PHASE).await?;
    has(&ledger, PHASE).await?;
    let (by_first, by_second) = (first.take(), second.take());
    ensure!(!by_first.is_empty() && !by_second.is_empty(), "{by_first:?} {by_second:?}");
    ensure!(spare.take().is_empty(), "the spare waits");
    ensure!(by_first.iter().all(|id| !by_second.contains(id)), "{by_first:?} {by_second:?}");
    // The other takes over from one of them, and the spare helps, as Envoy gives it a part of what a
    // level that is half down would get; then the spare takes over from both.
    first.put_down(true);
    call(&rig, PHASE..2 * PHASE).await?;
    has(&ledger, 2 * PHASE).await?;
    let (by_first, by_second, by_spare) = (first.take(), second.take(), spare.take());
    ensure!(by_first.is_empty(), "{by_first:?}");
    ensure!(!by_second.is_empty() || !by_spare.is_empty(), "nobody took over");
    second.put_down(true);
    call(&rig, 2 * PHASE..3 * PHASE).await?;
    has(&ledger, 3 * PHASE).await?;
    ensure!(first.take().is_empty() && second.take().is_empty() && !spare.take().is_empty());
    // And back.
    first.put_down(false);
    second.put_down(false);
    call(&rig, 3 * PHASE..4 * PHASE).await?;
    has(&ledger, 4 * PHASE).await?;
    wait::until(LIMIT, "the first ones serve again", async || {
        call(&rig, 0..1).await?;
        ensure!(!first.take().is_empty() || !second.take().is_empty(), "not yet");
        Ok(())
    })
    .await?;
    let gaps = ledger.gaps()?;
    ensure!(gaps.missing == 0, "{gaps:?}");
    ensure!(rig.log_lines("agent-meter spill")?.is_empty());
    rig.discard().await
}

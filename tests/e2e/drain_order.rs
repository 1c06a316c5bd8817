//! An operator drains Envoy by the control listener of `envoy/control-listener.yaml`, then stops it:
//! nothing is left for Envoy's log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_meter::stack::{ANY_PORT, Events, Options};
use agent_meter_collector::Ledger;
use anyhow::ensure;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::books::Books;
use crate::client::{Agent, Client, request};
use crate::delivery::{Deed, collector};
use crate::ledgers::new_ledger;
use crate::upstream::{Upstream, obliging, response};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const SAMPLE: &str = include_str!("../../envoy/control-listener.yaml");
const SESSIONS: usize = 5;

/// The listener of the sample with this port and the built module.
pub(crate) fn control_listener(port: u16) -> anyhow::Result<Value> {
    let mut listener: Value = serde_yaml_ng::from_str(SAMPLE)?;
    listener["address"]["socket_address"]["port_value"] = json!(port);
    let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
    let code = format!("{filters}/0/typed_config/config/vm_config/code/local/filename");
    let filename = listener.pointer_mut(&code).expect("the sample names a module");
    *filename = json!(release_module()?);
    Ok(listener)
}

async fn order(control: SocketAddr, query: &str) -> anyhow::Result<(u16, Value)> {
    let path = format!("/drain{query}");
    let mut client = Client::connect(control).await?;
    let post = request("POST", &path, &[], b"");
    let answer = tokio::time::timeout(LIMIT, client.exchange(&post)).await??;
    Ok((answer.status(), serde_json::from_slice(&answer.body)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_drain_envoy_stops_and_its_log_has_no_event() -> anyhow::Result<()> {
    let (is_down, ledger) = (Arc::new(AtomicBool::new(false)), Ledger::open(&new_ledger())?);
    let switch = Arc::clone(&is_down);
    let collector = collector(TcpListener::bind(ANY_PORT).await?, ledger.clone(), move |_, _| {
        if switch.load(Ordering::SeqCst) {
            Deed::Answer(response("503 Service Unavailable", &[], b""))
        } else {
            Deed::Take
        }
    })?;
    let port = std::net::TcpListener::bind(ANY_PORT)?.local_addr()?.port();
    let control = SocketAddr::from(([127, 0, 0, 1], port));
    let settings = vec![("/static_resources/listeners/-".to_owned(), control_listener(port)?)];
    let events = Events::At(collector.server.addr().into());
    let options =
        Options { settings, events, ..Options::new(plain_plugin(), Some(release_module()?)) };
    let mut rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    for number in 0..SESSIONS {
        let mut client = Client::connect(rig.listen()?).await?;
        let answer =
            client.exchange(&Agent::new(&format!("agent-{number}")).call(1, "tool")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    // A wrong order is answered at once, and so is one while the collector is down, at its deadline.
    let (status, told) = order(control, "?deadline=soon").await?;
    ensure!(status == 400 && told["error"].is_string(), "{status} {told}");
    is_down.store(true, Ordering::SeqCst);
    let (status, told) = order(control, "?sessions=keep&deadline=2s").await?;
    ensure!(status == 504 && told["state"] == "draining", "{status} {told}");
    is_down.store(false, Ordering::SeqCst);
    let (status, told) = order(control, "?deadline=60s&intake=stop").await?;
    ensure!(status == 200 && told["state"] == "drained", "{status} {told}");
    ensure!(told["open_sessions"] == 0 && told["events_waiting"] == 0, "{told}");
    let mut client = Client::connect(rig.listen()?).await?;
    let begin = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let headers = [("x-customer-id", "agent-9"), ("content-type", "application/json")];
    let refused = client.exchange(&request("POST", "/mcp", &headers, begin)).await?;
    ensure!(refused.status() == 503, "{refused:?}");

    let pid = rig.stack()?.envoy()?.pid().expect("Envoy runs").to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status()?;
    ensure!(sent.success(), "kill: {sent}");
    tokio::time::timeout(LIMIT, rig.stack_mut()?.ended()).await?;
    ensure!(rig.log_lines("agent-meter spill")?.is_empty(), "{:?}", rig.log_lines("spill")?);
    let books = Books::read(&ledger).await?;
    let closed: Vec<&Value> = books.closed().collect();
    ensure!(closed.len() == SESSIONS, "{closed:?}");
    ensure!(closed.iter().all(|closed| closed["close_reason"] == "drain"), "{closed:?}");
    ensure!(books.tool_invocations().count() == SESSIONS, "{books:?}");
    rig.discard().await
}

//! `agent-meter run`: meters the user's own server until Ctrl-C or SIGTERM.

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_meter_collector::Extras;
use agent_meter_collector::recover::Recovered;
use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::envoy::{Endpoint, Route};
use crate::health::watch;
use crate::stack::{Events, Options, Stack, Upstream};
use crate::stdio::{self, Relay};

/// How long to wait for another's collector at the end: what it does not take stays in Envoy's log.
const PATIENCE: Duration = Duration::from_secs(5);

/// The `ready` line, for other programs; the members keep this order.
#[derive(Serialize)]
struct Ready {
    listen: SocketAddr,
    collector: Option<String>,
    envoy_admin: SocketAddr,
    /// The own collector's.
    page: Option<String>,
}

/// The metered server.
#[derive(Debug, Clone)]
pub enum Served {
    /// It speaks HTTP, and runs already.
    At(Endpoint),
    /// It speaks stdio; a relay starts it for each session.
    Stdio(stdio::Options),
}

/// The options of `run`.
#[derive(Debug, Clone)]
pub struct Run {
    /// The metered server.
    pub upstream: Served,
    /// Further servers behind the same filter.
    pub routes: Vec<Route>,
    /// The address that clients connect to; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address of Envoy's admin interface; port 0 takes a free one.
    pub admin: SocketAddr,
    /// The collector that receives the events.
    pub events: Events,
    /// The plugin configuration.
    pub plugin: Value,
    /// Worker threads of Envoy.
    pub concurrency: u32,
    /// The filter's module.
    pub wasm: PathBuf,
}

/// Runs until a signal stops it; an error if Envoy ends earlier. `extras` are what the own collector
/// does besides keeping its ledger.
pub async fn run(options: Run, extras: Extras) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    is_free("--listen", options.listen).await?;
    is_free("--admin", options.admin).await?;
    let (upstream, relay) = match &options.upstream {
        Served::At(endpoint) => (endpoint.clone(), None),
        Served::Stdio(stdio) => {
            let say = Arc::new(|line| eprintln!("{line}"));
            let relay = Relay::start(stdio.clone(), say).await.context("--stdio")?;
            (relay.addr().into(), Some(relay))
        }
    };
    let ended = serve(options, upstream, extras, &mut signals).await;
    if let Some(relay) = relay {
        tokio::select! {
            () = relay.stop() => {}
            () = signals.stop() => {}
        }
    }
    ended
}

/// Meters `upstream` until a signal stops it.
async fn serve(
    options: Run,
    upstream: Endpoint,
    extras: Extras,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let node_id = "agent-meter".to_owned();
    let Run { upstream: _, routes, listen, admin, events, plugin, concurrency, wasm } = options;
    let upstream = Upstream::At(upstream);
    let wasm = Some(wasm);
    let external = match &events {
        Events::At(endpoint) => Some(endpoint.authority()),
        Events::Own { .. } => None,
    };
    let settings = Vec::new();
    let options = Options {
        concurrency,
        plugin,
        wasm,
        listen,
        admin,
        upstream,
        llm: None,
        routes,
        events,
        node_id,
        settings,
        environment: Vec::new(),
    };
    let mut stack = tokio::select! {
        stack = Stack::start_with(options, extras) => stack?,
        () = signals.stop() => return Ok(()),
    };
    let envoy = stack.envoy()?;
    let own = stack.collector().map(|collector| collector.addr().to_string());
    let page = own.as_ref().map(|own| format!("http://{own}/"));
    let (listen, envoy_admin) = (envoy.listen(), envoy.admin());
    let ready = Ready { listen, collector: own.or(external), envoy_admin, page };
    println!("ready {}", serde_json::to_string(&ready)?);
    let (counters, servers) = (envoy.counters(), stack.servers());
    let ended = tokio::select! {
        () = signals.stop() => None,
        error = stack.ended() => Some(error),
        never = watch(&counters, servers, |line| eprintln!("{line}")) => match never {},
    };
    if ended.is_none() {
        eprintln!(
            "stopping: Envoy ends, and its last events go to the collector; Ctrl-C again stops at once"
        );
    }
    stop(stack, signals).await
}

/// Stops the stack, and brings what Envoy had not delivered to the collector. The next signal ends the
/// wait.
pub async fn stop(stack: Stack, signals: &mut Signals) -> anyhow::Result<()> {
    let command = stack.recover_command()?;
    // Dropped early, it would kill Envoy, which may be writing events to its log. Without the drop,
    // the leash ends Envoy when this process has ended.
    let mut stopping = ManuallyDrop::new(Box::pin(stack.stop_within(Some(PATIENCE))));
    tokio::select! {
        stopped = stopping.as_mut() => {
            let stopped = stopped?;
            report_recovered(&stopped.recovered);
            stopped.envoy
        }
        () = signals.stop() => bail!(
            "stopped at once: what Envoy had not delivered is in its log, for `{command}`"
        ),
    }
}

/// Checks that nobody listens on an address. Envoy itself shares a port with another Envoy of the same
/// user, so that two of them would meter half of the traffic each.
async fn is_free(option: &str, addr: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await;
    listener.map(drop).with_context(|| format!("{option}: cannot listen on {addr}"))
}

/// Reports on stderr what became of the events that Envoy had not delivered.
pub fn report_recovered(recovered: &Recovered) {
    let new = recovered.taken.saturating_sub(recovered.known);
    if new > 0 {
        eprintln!("recovered {new} events from Envoy's log");
    }
    for loss in recovered.losses() {
        eprintln!("warning: Envoy's log: {loss}");
    }
}

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process.
    pub fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

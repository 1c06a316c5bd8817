//! End-to-end tests: the built module in real Envoy, between a scripted client, a scripted upstream
//! and the collector. Each file tests one topic; this file has what they share. See
//! `tests/README.md`.

mod a2a;
mod access_log;
mod alone;
mod already_metered;
mod ask_for_usage;
mod attribution;
mod books;
mod browsers;
mod certainty;
mod chaos;
mod client;
mod collectors;
mod config;
mod crash;
mod crash_generations;
mod delivery;
#[path = "../../filter/core/tests/dice.rs"]
mod dice;
mod drain_order;
mod drains;
mod formats;
mod forms;
mod generations;
mod golden;
mod guards;
mod guards_fleet;
mod heads;
mod honest;
mod hostile;
mod http1;
mod identity;
mod issuer;
#[path = "../../harness/collector/tests/ledgers/mod.rs"]
mod ledgers;
mod llm;
mod load;
mod loops;
mod matching;
mod metadata;
mod module;
mod origins;
mod owners;
#[path = "../../filter/core/tests/plan.rs"]
mod plan;
#[path = "../../filter/core/tests/play.rs"]
mod play;
mod plays;
mod prepaid;
mod products;
mod recovery;
mod reload;
mod rollup;
mod scopes;
mod sellers;
mod sessions;
mod sources;
mod spending;
mod spoofing;
mod stops;
mod streams;
mod traffic;
mod upstream;
mod websocket;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_meter::stack::{Events, Options, Stack};
use agent_meter::{stack, wait};
use agent_meter_collector::Ledger;
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::books::Books;
use crate::ledgers::new_ledger;
use crate::upstream::Upstream;

/// How long a test waits for anything; only a failure takes that long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const MODULE: &str = "wasm32-unknown-unknown/release/agent_meter_filter.wasm";
/// How many lines of Envoy's log a failure shows.
const LOG_LINES: usize = 60;

/// The shipped module.
pub(crate) fn release_module() -> anyhow::Result<PathBuf> {
    module_in("", "make build")
}

/// The module that panics on request.
pub(crate) fn crash_module() -> anyhow::Result<PathBuf> {
    module_in("crash-test", "make crash-build")
}

fn module_in(directory: &str, command: &str) -> anyhow::Result<PathBuf> {
    // Tests are in target/PROFILE/deps.
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(3).context("this test lies in no target directory")?;
    let module = target.join(directory).join(MODULE);
    ensure!(module.is_file(), "there is no {}: run `{command}`", module.display());
    Ok(module)
}

/// As `plain_plugin`; a call whose response may come on another stream times out after two seconds.
pub(crate) fn impatient_plugin() -> Value {
    let mut plugin = plain_plugin();
    plugin["products"][0]["call_timeout"] = json!("2s");
    plugin
}

/// One product at `/mcp` with these session rules, 0.001 USD a call, delivered at once.
pub(crate) fn plugin(session: &Value) -> Value {
    json!({
        "delivery": { "flush_interval": "100ms", "retry_initial": "100ms", "retry_max": "500ms" },
        "products": [{
            "id": "mcp",
            "type": "MCP_SERVER",
            "match": { "path": "/mcp" },
            "identity": {
                "customer": { "trusted_header": "x-customer-id" },
                "agent": { "trusted_header": "x-agent-id" },
            },
            "session": session,
            "pricing": {
                "currency": "USD",
                "default": { "price": "0.001", "cost_tier": "standard" },
            },
        }],
    })
}

/// The same, with sessions that outlive the test.
pub(crate) fn plain_plugin() -> Value {
    plugin(&json!({}))
}

/// The same options, with a new ledger where one in memory would be.
fn kept(options: Options) -> Options {
    let events = match options.events {
        Events::Own { listen, ledger } if ledger == "sqlite::memory:" => {
            Events::Own { listen, ledger: new_ledger() }
        }
        events => events,
    };
    Options { events, ..options }
}

/// A stack around a scripted upstream. Dropped before [`Rig::finish`], as after a failure, it
/// prints the end of Envoy's log.
pub(crate) struct Rig {
    stack: Option<Stack>,
    pub(crate) upstream: Upstream,
}

impl Rig {
    /// Starts the shipped module with two workers and an own collector.
    pub(crate) async fn start(upstream: Upstream, plugin: Value) -> anyhow::Result<Self> {
        Self::with(upstream, Options::new(plugin, Some(release_module()?))).await
    }

    /// Starts with these options, except for the upstream.
    pub(crate) async fn with(upstream: Upstream, options: Options) -> anyhow::Result<Self> {
        let at = stack::Upstream::At(upstream.addr().into());
        let stack = Stack::start(kept(Options { upstream: at, ..options })).await?;
        Ok(Self { stack: Some(stack), upstream })
    }

    /// Starts with the options' own MCP server behind Envoy; the scripted upstream is idle.
    pub(crate) async fn with_own_server(options: Options) -> anyhow::Result<Self> {
        let upstream = Upstream::start(|_| Vec::new()).await?;
        Ok(Self { stack: Some(Stack::start(kept(options)).await?), upstream })
    }

    pub(crate) fn stack(&self) -> anyhow::Result<&Stack> {
        self.stack.as_ref().context("the stack was stopped")
    }

    pub(crate) fn stack_mut(&mut self) -> anyhow::Result<&mut Stack> {
        self.stack.as_mut().context("the stack was stopped")
    }

    /// The address that clients connect to.
    pub(crate) fn listen(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stack()?.envoy()?.listen())
    }

    /// Envoy's log so far.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        let log = std::fs::read(self.stack()?.dir().join("envoy.log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// The filter's lines in Envoy's log that contain `part`.
    pub(crate) fn log_lines(&self, part: &str) -> anyhow::Result<Vec<String>> {
        let log = self.log()?;
        let lines = log.lines().filter(|line| line.contains(part));
        Ok(lines.map(ToOwned::to_owned).collect())
    }

    /// The value of a metric of the filter.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let name = format!("wasmcustom.agent_meter.{name}");
        let stats = self.stack()?.envoy()?.stats(&name).await?;
        Ok(stats.get(&name).copied().unwrap_or_default())
    }

    /// The own collector's books, once every event has arrived and the books satisfy `condition`.
    pub(crate) async fn settled(
        &self,
        what: &str,
        condition: impl Fn(&Books) -> anyhow::Result<()>,
    ) -> anyhow::Result<Books> {
        self.settled_in(&self.stack()?.ledger()?, what, condition).await
    }

    /// The same as [`Rig::settled`] with another ledger.
    pub(crate) async fn settled_in(
        &self,
        ledger: &Ledger,
        what: &str,
        condition: impl Fn(&Books) -> anyhow::Result<()>,
    ) -> anyhow::Result<Books> {
        wait::until(LIMIT, what, async || {
            let (made, acked) =
                (self.metric("events_made").await?, self.metric("events_acked").await?);
            let stored = ledger.count_events()?;
            ensure!(made == acked, "{made} events made, {acked} acknowledged, {stored} stored");
            let books = Books::read(ledger).await?;
            condition(&books)?;
            // Signs of life are stored too, and may come in between.
            ensure!(acked <= stored, "{acked} events acknowledged, {stored} stored");
            Ok(books)
        })
        .await
    }

    /// Checks that no VM has died.
    pub(crate) fn check_vms(&self) -> anyhow::Result<()> {
        let mut dead = self.log_lines("agent-meter panicked")?;
        // Envoy logs this when a VM ends for another reason.
        dead.extend(self.log_lines("][wasm] [source/extensions/common/wasm/wasm_vm.cc")?);
        ensure!(dead.is_empty(), "a VM died: {dead:?}");
        Ok(())
    }

    /// Checks that no VM has died, and stops everything.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        self.check_vms()?;
        self.finish_after_crashes().await
    }

    /// Removes what is left of an Envoy that has ended, of which a test has read everything.
    pub(crate) async fn discard(mut self) -> anyhow::Result<()> {
        self.stack.take().context("the stack was stopped")?.discard().await
    }

    /// Stops everything; delivers Envoy's remaining events to the collector, which must not refuse
    /// any.
    pub(crate) async fn finish_after_crashes(mut self) -> anyhow::Result<()> {
        let stack = self.stack.take().context("the stack was stopped")?;
        let recovered = stack.stop().await?;
        ensure!(recovered.refused.is_empty() && recovered.unreadable.is_empty(), "{recovered:?}");
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.stack.is_some()
            && let Ok(log) = self.log()
        {
            // Leaves out Envoy's start, which is long and always the same.
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| !line.contains("][info][") || line.contains("[wasm]"))
                .collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
            eprintln!("the end of Envoy's log:\n  {tail}");
        }
    }
}

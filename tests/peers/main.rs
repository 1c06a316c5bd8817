//! Tests with real MCP clients and servers around the built module in real Envoy: the ledger must
//! have what a client saw, once each. See `tests/README.md`.

#[path = "../e2e/books.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod books;
#[path = "../e2e/client.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod client;
#[path = "../../filter/core/tests/dice.rs"]
mod dice;
mod fastmcp;
mod focus;
mod gateways;
#[path = "../e2e/http1.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod http1;
mod litellm;
#[path = "../../filter/core/tests/differential/mutate.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod mutate;
mod mutations;
mod npm;
mod payments;
mod posts;
mod prices;
mod process;
mod python;
mod readings;
mod sinks;
mod tools;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use agent_meter::mcp_server::Mode;
use agent_meter::stack::{Options, Stack, Upstream};
use agent_meter::wait;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::books::{Books, differences, quantity, text};

/// How long a test waits for anything; only a failure takes that long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Calls by tool and `execution_status`.
pub(crate) type Seen = BTreeMap<(String, String), u64>;

/// The build's target directory.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    // Tests are in target/PROFILE/deps.
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(3).context("this test lies in no target directory")?;
    Ok(target.to_owned())
}

/// Puts these members into an object, in place of those with the same names.
fn put(object: &mut Value, members: &Value) {
    for (name, value) in members.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
}

fn at(port: u16) -> Upstream {
    Upstream::At(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}

/// How a stack meters its server.
struct Plugin {
    matcher: Value,
    pricing: Value,
    /// Further options of the product.
    product: Value,
    /// Further options of the plugin.
    more: Value,
    /// Changes of Envoy's bootstrap, by their pointers.
    settings: Vec<(String, Value)>,
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            matcher: json!({ "path_prefix": "/" }),
            pricing: json!({
                "currency": "USD", "default": { "price": "0.001", "cost_tier": "standard" },
            }),
            product: json!({}),
            more: json!({}),
            settings: Vec::new(),
        }
    }
}

/// A stack with the shipped module in front of a real server.
pub(crate) struct Metered {
    stack: Stack,
}

impl Metered {
    /// In front of a server of another process.
    pub(crate) async fn around(port: u16) -> anyhow::Result<Self> {
        Self::start(at(port), Plugin::default()).await
    }

    /// The same, for clients that cannot say who they are.
    pub(crate) async fn around_for_anyone(port: u16) -> anyhow::Result<Self> {
        let product = json!({ "identity": { "on_missing": "meter_as_anonymous" } });
        Self::start(at(port), Plugin { product, ..Plugin::default() }).await
    }

    /// In front of a server of another process, metered at `/mcp` only, whose tools have prices of
    /// their own, with further options of the plugin.
    pub(crate) async fn priced(port: u16, more: &Value) -> anyhow::Result<Self> {
        let pricing = json!({
            "default": { "price": "0.001" },
            "tools": [
                { "tool": "lookup_*", "price": "0.002" },
                { "tool": "analyze_*", "price": "0.10" },
            ],
        });
        let matcher = json!({ "path": "/mcp" });
        Self::start(at(port), Plugin { matcher, pricing, more: more.clone(), ..Plugin::default() })
            .await
    }

    /// The same, metered at `/mcp` only, by an Envoy that passes paths on as they came.
    pub(crate) async fn around_raw_paths(port: u16) -> anyhow::Result<Self> {
        let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let off = ["normalize_path", "merge_slashes"];
        let settings = off.map(|name| (format!("{manager}/{name}"), json!(false)));
        let matcher = json!({ "path": "/mcp" });
        Self::start(at(port), Plugin { matcher, settings: settings.to_vec(), ..Plugin::default() })
            .await
    }

    /// In front of the harness's own server, which is made with rmcp.
    pub(crate) async fn around_rmcp(mode: Mode) -> anyhow::Result<Self> {
        Self::start(Upstream::Demo(mode), Plugin::default()).await
    }

    async fn start(upstream: Upstream, plugin: Plugin) -> anyhow::Result<Self> {
        let Plugin { matcher, pricing, product, more, settings } = plugin;
        let module = target()?.join("wasm32-unknown-unknown/release/agent_meter_filter.wasm");
        ensure!(module.is_file(), "there is no {}: run `make build`", module.display());
        let mut plugin = json!({
            "delivery": { "flush_interval": "100ms", "retry_initial": "100ms", "retry_max": "500ms" },
            "products": [{
                "id": "mcp",
                "type": "MCP_SERVER",
                "match": matcher,
                "identity": {
                    "customer": { "trusted_header": "x-customer-id" },
                    "agent": { "trusted_header": "x-agent-id" },
                },
                "pricing": pricing,
            }],
        });
        put(&mut plugin["products"][0], &product);
        put(&mut plugin, &more);
        let stack =
            Stack::start(Options { upstream, settings, ..Options::new(plugin, Some(module)) })
                .await?;
        Ok(Self { stack })
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The URL of this path at Envoy.
    pub(crate) fn url(&self, path: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}{path}", self.stack.envoy()?.listen()))
    }

    async fn metrics(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let prefix = "wasmcustom.agent_meter.";
        let stats = self.stack.envoy()?.stats(prefix).await?;
        let named = stats
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value)));
        Ok(named.collect())
    }

    /// Waits until the ledger has every event and exactly these calls, and checks what must be true
    /// for every real peer; returns the books and the filter's metrics.
    pub(crate) async fn billed(&self, seen: &Seen) -> anyhow::Result<Billed> {
        let ledger = self.stack.ledger()?;
        let billed = wait::until(LIMIT, "what the client saw is in the ledger", async || {
            let metrics = self.metrics().await?;
            let books = Books::read(&ledger).await?;
            let wrong = differences(&expected(seen), &by_tool(&books));
            ensure!(wrong.is_empty(), "{}", wrong.join("; "));
            let metric = |name: &str| metrics.get(name).copied().unwrap_or_default();
            let (made, acked) = (metric("events_made"), metric("events_acked"));
            ensure!(made == acked, "{made} events made, {acked} acknowledged");
            Ok(Billed { books, metrics })
        })
        .await?;
        billed.books.check(&ledger).await?;
        check_prices(&billed.books)?;
        println!("calls: {seen:?}, evidence_unused: {}", billed.metric("evidence_unused"));
        for counter in ["request_unparsed", "response_unparsed", "exchanges_over_limit"] {
            ensure!(billed.metric(counter) == 0, "{counter} is {}", billed.metric(counter));
        }
        Ok(billed)
    }

    /// Waits until clients have closed this many sessions.
    pub(crate) async fn closed_by_client(&self, count: usize) -> anyhow::Result<()> {
        let ledger = self.stack.ledger()?;
        wait::until(LIMIT, "the sessions are closed", async || {
            let books = Books::read(&ledger).await?;
            let reasons: Vec<String> =
                books.closed().map(|data| text(data, "/close_reason")).collect();
            ensure!(reasons == vec!["client_delete"; count], "closed: {reasons:?}");
            Ok(())
        })
        .await
    }

    /// Stops everything, and checks the whole ledger, and that it still has what the client saw.
    pub(crate) async fn finish(self, seen: &Seen) -> anyhow::Result<()> {
        let books = self.stop().await?;
        let wrong = differences(&expected(seen), &by_tool(&books));
        ensure!(wrong.is_empty(), "after the stop: {}", wrong.join("; "));
        Ok(())
    }

    /// Stops everything, and checks the whole ledger: every session is closed, and nothing is
    /// missing.
    pub(crate) async fn stop(self) -> anyhow::Result<Books> {
        let log = std::fs::read_to_string(self.stack.dir().join("envoy.log"))?;
        ensure!(!log.contains("agent-meter panicked"), "a VM died");
        let ledger = self.stack.ledger()?;
        let recovered = self.stack.stop().await?;
        ensure!(recovered.refused.is_empty() && recovered.unreadable.is_empty(), "{recovered:?}");
        let books = Books::read(&ledger).await?;
        books.check(&ledger).await?;
        let (created, closed) = (books.of_type("session_created").count(), books.closed().count());
        ensure!(created == closed, "{created} sessions were created, {closed} closed");
        ensure!(books.revenue()? == books.closed_revenue()?, "the final events differ");
        Ok(books)
    }
}

/// The ledger and the filter's metrics, once everything is delivered.
pub(crate) struct Billed {
    pub(crate) books: Books,
    metrics: BTreeMap<String, u64>,
}

impl Billed {
    /// A metric of the filter.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.metrics.get(name).copied().unwrap_or_default()
    }

    /// Fails if a response belonged to no call, or came again for a call that had ended more than a
    /// minute before.
    pub(crate) fn without_strays(&self) -> anyhow::Result<()> {
        for counter in ["evidence_unused", "answer_unmatched"] {
            ensure!(self.metric(counter) == 0, "{counter} is {}", self.metric(counter));
        }
        Ok(())
    }
}

/// Fails unless each success costs the default price of [`Plugin`], and nothing else anything.
fn check_prices(books: &Books) -> anyhow::Result<()> {
    for call in books.tool_invocations() {
        let is_success = text(call, "/execution_status") == "SUCCESS";
        let price: Decimal = text(call, "/price").parse()?;
        let expected = if is_success { Decimal::new(1, 3) } else { Decimal::ZERO };
        ensure!(price == expected, "expected the price {expected}: {call}");
        ensure!(!is_success || quantity(call) == 1, "more than one success: {call}");
    }
    Ok(())
}

/// All agents together, under an empty name.
fn by_tool(books: &Books) -> books::Calls {
    let mut calls = books::Calls::new();
    for ((_, tool, status), count) in books.calls() {
        *calls.entry((String::new(), tool, status)).or_default() += count;
    }
    calls
}

fn expected(seen: &Seen) -> books::Calls {
    let calls = seen.iter();
    calls
        .map(|((tool, status), count)| ((String::new(), tool.clone(), status.clone()), *count))
        .collect()
}

/// Adds calls to those of other clients.
pub(crate) fn add(together: &mut Seen, seen: Seen) {
    for (key, count) in seen {
        *together.entry(key).or_default() += count;
    }
}

/// A call for a client in another process.
pub(crate) fn call(tool: &str, arguments: &Value) -> Value {
    json!({ "tool": tool, "arguments": arguments })
}

/// A client's report of its calls, as the ledger would put it.
pub(crate) fn seen(calls: &[Value], outcomes: &Value) -> anyhow::Result<Seen> {
    let outcomes = outcomes.as_array().context("the client printed no outcomes")?;
    ensure!(outcomes.len() == calls.len(), "{} outcomes of {} calls", outcomes.len(), calls.len());
    let mut seen = Seen::new();
    for (call, outcome) in calls.iter().zip(outcomes) {
        let status = match outcome.as_str().context("an outcome is a string")? {
            status @ ("SUCCESS" | "ERROR" | "GAVE_UP") => status,
            "-32602" => "VALIDATION_FAILED",
            _ => "ERROR",
        };
        *seen.entry((text(call, "/tool"), status.to_owned())).or_default() += 1;
    }
    Ok(seen)
}

//! `agent-meter demo`: agents call tools through Envoy. The demo compares the ledger with what the
//! agents did and with the LLM endpoint's own account, and prints the invoice.

mod account;
pub mod margin;
#[cfg(test)]
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use agent_meter_collector::Ledger;
use agent_meter_collector::invoice::{Invoice, invoices};
use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::llm_server::{self, LlmOptions, LlmServer};
use crate::mcp_client::{Agent, Call};
use crate::mcp_server::{Calls, Outcome};
use crate::run::{Signals, stop};
use crate::stack::{ANY_PORT, Events, Options, Stack};
use crate::{plugin, wait};

use account::{Account, ByCustomer, Costs, read_account};

const CUSTOMERS: [&str; 2] = ["acme", "globex"];
/// How long delivery may take: several flushes and one retry.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// The scenarios of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Agents of two customers call tools; every call and token is on an invoice.
    Calls,
    /// A customer's agents spend more than the contract pays: the guard warns, throttles and blocks
    /// them, once without and once with reservation. It has its own agents, prices and ledgers: it
    /// takes no --config.
    Margin,
}

/// How to run the scenario [`Scenario::Calls`].
#[derive(Debug, Clone)]
pub struct Demo {
    /// The number of agent sessions, which all run at once.
    pub sessions: u32,
    /// The number of tool calls in each session.
    pub calls: u32,
    /// Worker threads of Envoy.
    pub concurrency: u32,
    /// The ledger's URL.
    pub ledger: String,
    /// The plugin configuration; `None` for the demo's own prices.
    pub plugin: Option<Value>,
    /// The filter's module.
    pub wasm: PathBuf,
    /// True to print only the totals, as JSON on stdout.
    pub json: bool,
    /// True to stay up until Ctrl-C.
    pub keep: bool,
}

/// Runs the demo; an error if the ledger differs in anything from what the agents did.
pub async fn run(demo: Demo) -> anyhow::Result<()> {
    ensure!(demo.sessions > 0 && demo.calls > 0, "expected at least one session and one call");
    let mut signals = Signals::new()?;
    tokio::select! {
        () = signals.stop() => bail!("interrupted"),
        played = play(&demo) => {
            let (stack, totals) = played?;
            conclude(stack, &totals, demo.json, demo.keep, &mut signals).await
        }
    }
}

/// Stops the stack, with `keep` only at the next signal, and prints the totals if the user wants
/// them.
async fn conclude(
    stack: Stack,
    totals: &Value,
    json: bool,
    keep: bool,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    if keep {
        let url = stack.mcp_url()?;
        say(json, format_args!("\nThe stack stays up until Ctrl-C; MCP endpoint {url}"));
        if let Some(collector) = stack.collector() {
            say(json, format_args!("The ledger's page is http://{}/", collector.addr()));
        }
        signals.stop().await;
    }
    stop(stack, signals).await?;
    if json {
        println!("{totals}");
    }
    Ok(())
}

/// Plays the demo and returns its totals; on an error the stack keeps its files.
async fn play(demo: &Demo) -> anyhow::Result<(Stack, Value)> {
    let priced_as_documented = demo.plugin.is_none();
    let options = Options {
        concurrency: demo.concurrency,
        llm: Some(LlmOptions::default()),
        events: Events::Own { listen: ANY_PORT, ledger: demo.ledger.clone() },
        ..Options::new(demo.plugin.clone().unwrap_or_else(plugin::demo), Some(demo.wasm.clone()))
    };
    let stack = Stack::start(options).await?;
    let ledger = stack.ledger()?;
    let earlier = sources(&ledger).await?;
    say(
        demo.json,
        format_args!(
            "Envoy with {} workers meters {} at {}\n{} agent sessions for {} customers call {} tools each ...",
            demo.concurrency,
            stack.server()?.addr(),
            stack.envoy()?.listen(),
            demo.sessions,
            CUSTOMERS.len(),
            demo.calls,
        ),
    );
    let done = converse(demo, &stack.mcp_url()?).await?;
    same("the MCP server", &by_tool(&done), &stack.server()?.executed())?;

    let llm = stack.llm().map(LlmServer::account).unwrap_or_default();
    let expected = expected(demo, done, &llm, priced_as_documented);
    let account = settle(&stack, &ledger, &earlier, &expected).await?;
    compare(&expected, &account, &llm, priced_as_documented)?;
    reconcile(&ledger).await?;

    let stats = stack.envoy()?.stats(STATS).await?;
    let (made, acked) = (stat(&stats, "events_made"), stat(&stats, "events_acked"));
    let calls: u64 = account.calls.values().sum();
    say(
        demo.json,
        format_args!(
            "{calls} tool calls, {} of them billable; {} sessions closed\n\
         {made} events made, {acked} acknowledged, {} in the ledger, {} missing\n\
         The ledger holds exactly what the agents did.",
            account.billable_calls, account.sessions_closed, account.events, account.missing,
        ),
    );
    say(demo.json, format_args!("\n{}", Costs { account: &account, llm: &llm }));
    for invoice in in_background(&ledger, |ledger| invoices(&ledger)).await? as Vec<Invoice> {
        say(demo.json, format_args!("\n{invoice}"));
    }
    let totals = json!({
        "tool_calls": calls,
        "billable_calls": account.billable_calls,
        "sessions_closed": account.sessions_closed,
        "events_made": made,
        "events_acked": acked,
        "ledger_events": account.events,
        "revenue": account.revenue.normalize().to_string(),
        "generations": account.generations,
        "unpriced_generations": account.unpriced_generations,
        "tokens": account.tokens,
        "provider_cost": account.provider_cost.normalize().to_string(),
        "llm_account_cost": llm.cost().to_string(),
        "gaps": account.missing,
    });
    Ok((stack, totals))
}

/// Fails on any difference between the ledger, what the agents did, and the LLM endpoint's own
/// account.
fn compare(
    expected: &Account,
    account: &Account,
    llm: &llm_server::Account,
    priced: bool,
) -> anyhow::Result<()> {
    let differences = expected.differences(account, priced);
    ensure!(
        differences.is_empty(),
        "the ledger differs from what the agents did: {}",
        differences.join("; ")
    );
    let asks_llm = expected.calls.keys().any(|(_, tool, _)| tool == "summarise");
    ensure!(
        !(priced && asks_llm) || expected.generations > 0,
        "agents called `summarise`, but nobody asked the LLM endpoint"
    );
    if expected.generations > 0 {
        let differences = account.differences_from(llm);
        ensure!(
            differences.is_empty(),
            "the ledger differs from the LLM endpoint's own account: {}",
            differences.join("; ")
        );
    }
    Ok(())
}

/// Plays all sessions at once and returns what the agents saw.
async fn converse(demo: &Demo, url: &str) -> anyhow::Result<ByCustomer> {
    let total = u64::from(demo.sessions) * u64::from(demo.calls);
    let progress = ProgressBar::new(total)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} tool calls, {elapsed}")?);
    let mut sessions = JoinSet::new();
    for (index, customer) in (0..demo.sessions).zip(CUSTOMERS.into_iter().cycle()) {
        let agent = Agent::new(url, customer, &format!("agent-{}", index + 1));
        let script: Vec<Call> = (0..demo.calls).map(|call| scripted(index + call)).collect();
        let progress = progress.clone();
        sessions.spawn(async move {
            let session = agent.open().await?;
            session.tools().await?;
            let mut done = Vec::new();
            for call in script {
                let outcome = session.call(&call).await.with_context(|| agent.agent.clone())?;
                done.push((agent.customer.clone(), call.tool, outcome.to_string()));
                progress.inc(1);
            }
            session.close().await?;
            anyhow::Ok(done)
        });
    }
    let mut calls = ByCustomer::new();
    while let Some(session) = sessions.join_next().await {
        for call in session?? {
            *calls.entry(call).or_default() += 1;
        }
    }
    progress.finish_and_clear();
    Ok(calls)
}

/// One of ten calls: three lookups, two writes, two that ask an LLM, one analysis, one that fails,
/// one that the server refuses.
fn scripted(index: u32) -> Call {
    match index % 10 {
        2 | 6 => Call::new("write_record", "record", "a new address"),
        4 => Call::new("analyze_report", "report", "third quarter"),
        3 => Call::new("summarise", "text", "the minutes of a meeting about the third quarter"),
        8 => Call::new("summarise", "text", "a short note"),
        7 => Call::new("fail", "reason", "the database is read-only"),
        9 if index % 20 == 9 => Call::new("drop_table", "table", "customers"),
        9 => Call::new("write_record", "rekord", "a misspelt argument"),
        _ => Call::new("lookup_customer", "customer_id", "c-1001"),
    }
}

/// What the ledger should have; money and generations are zero unless the prices are the
/// documented ones.
fn expected(demo: &Demo, calls: ByCustomer, llm: &llm_server::Account, priced: bool) -> Account {
    let mut account = Account { sessions_closed: demo.sessions.into(), ..Account::default() };
    for ((_, tool, status), count) in &calls {
        if priced && *status == Outcome::Success.to_string() {
            account.billable_calls += count;
            account.revenue += documented_price(tool) * Decimal::from(*count);
        }
    }
    account.calls = calls;
    if priced {
        account.generations = llm.entries.iter().map(|entry| entry.generations).sum();
        account.provider_cost = llm.cost();
        account.revenue += llm.cost() * (Decimal::ONE + plugin::TOKEN_MARKUP);
    }
    account
}

/// The price of each successful call in USD, as in [`plugin::demo`].
fn documented_price(tool: &str) -> Decimal {
    match tool {
        "write_record" => Decimal::new(5, 2),
        "analyze_report" => Decimal::new(10, 2),
        _ => Decimal::new(1, 3),
    }
}

const STATS: &str = "wasmcustom.agent_meter.";

fn stat(stats: &BTreeMap<String, u64>, name: &str) -> u64 {
    stats.get(&format!("{STATS}{name}")).copied().unwrap_or_default()
}

/// Waits until the collector has stored and acknowledged every event of the expected calls and
/// sessions.
async fn settle(
    stack: &Stack,
    ledger: &Ledger,
    earlier: &BTreeSet<String>,
    expected: &Account,
) -> anyhow::Result<Account> {
    let progress = ProgressBar::new_spinner().with_message("waiting for the ledger");
    progress.enable_steady_tick(Duration::from_millis(100));
    let calls: u64 = expected.calls.values().sum();
    let account = wait::until(DELIVERY_LIMIT, "the ledger has everything", async || {
        let stats = stack.envoy()?.stats(STATS).await?;
        let account = in_background(ledger, {
            let earlier = earlier.clone();
            move |ledger| read_account(&ledger, &earlier)
        });
        let account = account.await?;
        let (made, acked) = (stat(&stats, "events_made"), stat(&stats, "events_acked"));
        let stored: u64 = account.calls.values().sum();
        ensure!(
            stored >= calls
                && account.generations >= expected.generations
                && account.sessions_closed >= expected.sessions_closed
                && made == acked
                && made == account.events,
            "{stored} of {calls} calls, {} of {} generations and {} of {} closed sessions in the \
             ledger; {made} events made, {acked} acknowledged, {} stored",
            account.generations,
            expected.generations,
            account.sessions_closed,
            expected.sessions_closed,
            account.events,
        );
        Ok(account)
    })
    .await?;
    progress.finish_and_clear();
    Ok(account)
}

/// The names of the sources in the ledger.
async fn sources(ledger: &Ledger) -> anyhow::Result<BTreeSet<String>> {
    let gaps = in_background(ledger, |ledger| ledger.gaps()).await?;
    Ok(gaps.sources.into_iter().map(|source| source.source).collect())
}

/// Compares each session's final event with its calls and generations, over the whole ledger.
async fn reconcile(ledger: &Ledger) -> anyhow::Result<()> {
    let found = in_background(ledger, |ledger| ledger.reconcile()).await?.mismatches;
    let lines = found.iter().map(|mismatch| {
        format!(
            "session {}: {}: {} in its final event, {} by its calls and generations",
            mismatch.session_id, mismatch.field, mismatch.event, mismatch.calls
        )
    });
    ensure!(
        found.is_empty(),
        "final events differ from what they sum up: {}",
        lines.collect::<Vec<_>>().join("; ")
    );
    Ok(())
}

/// Runs a report of the ledger outside the async threads.
async fn in_background<T: Send + 'static>(
    ledger: &Ledger,
    report: impl FnOnce(Ledger) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let ledger = ledger.clone();
    tokio::task::spawn_blocking(move || report(ledger)).await?
}

/// Calls by tool and status.
type ByTool = BTreeMap<(String, String), u64>;

fn by_tool(calls: &ByCustomer) -> ByTool {
    let mut tools = BTreeMap::new();
    for ((_, tool, status), count) in calls {
        *tools.entry((tool.clone(), status.clone())).or_default() += count;
    }
    tools
}

fn same(whose: &str, agents: &ByTool, executed: &Calls) -> anyhow::Result<()> {
    let executed: ByTool = executed
        .iter()
        .map(|((tool, outcome), count)| ((tool.clone(), outcome.to_string()), *count))
        .collect();
    ensure!(*agents == executed, "{whose} executed {executed:?}, its clients saw {agents:?}");
    Ok(())
}

/// Prints a line for a human reader, unless the output is JSON.
fn say(json: bool, line: fmt::Arguments<'_>) {
    if !json {
        // A reader that closes the output early, as `head` does, is not a failure of the demo.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

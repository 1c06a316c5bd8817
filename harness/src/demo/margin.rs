//! `agent-meter demo --scenario margin`: a customer's agents spend more than the contract pays, and
//! the guard warns, throttles and blocks them; once without and once with reservation.

mod agents;
mod books;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use agent_meter_collector::Ledger;
use anyhow::{Context, bail, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::llm_server::{self, LlmOptions, LlmServer};
use crate::mcp_server::Mode;
use crate::run::{Signals, report_recovered};
use crate::stack::{Options, Stack, Upstream};
use crate::{plugin, wait};

use super::{DELIVERY_LIMIT, STATS, conclude, in_background, say, stat};
use agents::Seen;
use books::Books;
use report::Figures;

/// The customer whose agents cost too much.
const TENANT: &str = "acme";
/// The customer whose agent stays within limits.
const NEIGHBOUR: &str = "globex";
/// What each of the two customers pays in a period, in USD.
const CONTRACT: Decimal = Decimal::from_parts(200, 0, 0, false, 2);
/// The number of the tenant's agents, which all run at once.
const AGENTS: u32 = 50;
/// Each level, and the margin in per cent at which it begins.
const LEVELS: [(&str, u32); 3] = [("L1_ALERT", 50), ("L2_THROTTLE", 30), ("L3_BLOCK", 10)];
/// How many calls a second the guard lets pass in a scope at level 2.
const THROTTLE: &str = "20req/sec";
/// How long the agents run at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to read new levels from the ledger.
const LEVELS_PAUSE: Duration = Duration::from_millis(50);

/// How to run the scenario.
#[derive(Debug, Clone)]
pub struct Margin {
    /// Worker threads of Envoy.
    pub concurrency: u32,
    /// The filter's module.
    pub wasm: PathBuf,
    /// True to print only the figures, as JSON on stdout.
    pub json: bool,
    /// True to keep the second stack up until Ctrl-C.
    pub keep: bool,
}

/// One of the two runs. Each has its own stack.
#[derive(Debug, Clone, Copy)]
struct Run {
    title: &'static str,
    /// USD for a million tokens of any kind: the run raises the price of the demo's model.
    per_million: Decimal,
    /// How long the model works on an answer.
    thinks: Duration,
    /// True if the guard reserves the cost of each call before it runs.
    reserves: bool,
}

/// The tenant spends about 0.3 USD a second, and 0.05 while throttled.
const BY_LEVEL: Run = Run {
    title: "Without reservation",
    per_million: Decimal::from_parts(50, 0, 0, false, 0),
    thinks: Duration::from_millis(400),
    reserves: false,
};

/// Calls cost so much and run so fast that half the contract is under way at once.
const BY_RESERVATION: Run = Run {
    title: "With reservation, eight times as dear and many times as fast",
    per_million: Decimal::from_parts(400, 0, 0, false, 0),
    thinks: Duration::from_millis(30),
    reserves: true,
};
/// What the guard reserves for a call of that run until it knows the cost of the last one, in USD:
/// more than a call costs, which is 0.0212.
const ESTIMATE: &str = "0.03";

impl Run {
    /// The demo's subscription, with contracts, the raised prices and the guard.
    fn plugin(&self) -> Value {
        let mut plugin = plugin::demo();
        let price = self.per_million.to_string();
        for rate in plugin["rate_cards"][0]["rates"].as_array_mut().into_iter().flatten() {
            for kind in ["input", "cache_read", "output"] {
                rate[kind] = json!(price);
            }
        }
        let contract = json!({ "revenue": CONTRACT.to_string() });
        plugin["contracts"] = json!({ "customers": { TENANT: contract, NEIGHBOUR: contract } });
        let [alert, throttle, block] = LEVELS.map(|(_, margin)| format!("{margin}%"));
        let mut guard = json!({
            "id": "margin",
            "revenue": "contracted",
            "min_margin": block,
            "actions": {
                "level_1": { "threshold": alert, "notify": ["finance-ops"] },
                "level_2": { "threshold": throttle, "throttle_rate": THROTTLE },
                "level_3": { "threshold": block, "action": "block_request" },
            },
        });
        if self.reserves {
            guard["reserve"] = json!({ "estimate": ESTIMATE, "last_cost": true });
            guard["products"] = json!(["crm-tools"]);
        }
        plugin["guards"] = json!([guard]);
        plugin
    }

    /// The cost of all tokens in the LLM endpoint's own account at this run's price, in USD.
    fn cost(&self, llm: &llm_server::Account) -> Decimal {
        let tokens = llm.entries.iter().map(|entry| entry.tokens.input + entry.tokens.output);
        Decimal::from(tokens.sum::<u64>()) * self.per_million / Decimal::from(1_000_000)
    }
}

/// What the tenant may spend before the guard blocks it, in USD.
fn limit() -> Decimal {
    let [.., (_, floor)] = LEVELS;
    CONTRACT * Decimal::new(i64::from(100 - floor), 2)
}

/// Runs the scenario; an error if a guard does not do what it promises.
pub async fn run(margin: Margin) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    tokio::select! {
        () = signals.stop() => bail!("interrupted"),
        played = play(&margin) => {
            let (stack, figures) = played?;
            conclude(stack, &figures, margin.json, margin.keep, &mut signals).await
        }
    }
}

/// Plays both runs; returns the second one's stack.
async fn play(margin: &Margin) -> anyhow::Result<(Stack, Value)> {
    say(
        margin.json,
        format_args!(
            "{TENANT} and {NEIGHBOUR} have a contract of {CONTRACT} USD each. {AGENTS} agents of {TENANT} call the tool \
             summarise at once, again and again;\neach call asks an LLM through the same Envoy. \
             One agent of {NEIGHBOUR} does so now and then.\n\
             Guard: at a margin of {} % alert, at {} % let {THROTTLE} pass, at {} % block: when {} USD are spent.",
            LEVELS[0].1,
            LEVELS[1].1,
            LEVELS[2].1,
            limit().normalize(),
        ),
    );
    let (stack, by_level) = play_one(margin, &BY_LEVEL).await?;
    report_recovered(&stack.stop().await?);
    let (stack, by_reservation) = play_one(margin, &BY_RESERVATION).await?;
    let figures = json!({
        "without_reservation": by_level.to_json(),
        "with_reservation": by_reservation.to_json(),
    });
    Ok((stack, figures))
}

/// Plays one run and returns its figures; on an error the stack keeps its files.
async fn play_one(margin: &Margin, run: &Run) -> anyhow::Result<(Stack, Figures)> {
    let options = Options {
        concurrency: margin.concurrency,
        upstream: Upstream::Demo(Mode::Json),
        llm: Some(LlmOptions { delay: run.thinks }),
        ..Options::new(run.plugin(), Some(margin.wasm.clone()))
    };
    let stack = Stack::start(options).await?;
    let ledger = stack.ledger()?;
    say(
        margin.json,
        format_args!(
            "\n{}: Envoy with {} workers, {} USD for a million tokens\n{}",
            run.title,
            margin.concurrency,
            run.per_million,
            report::LEVELS_HEAD
        ),
    );
    let url = stack.mcp_url()?;
    let began_ms = chrono::Utc::now().timestamp_millis();
    let seen = tokio::select! {
        seen = agents::play(&url) => seen?,
        failed = follow(&ledger, margin.json, began_ms) => return Err(failed),
    };
    let [tenant, neighbour] = seen;
    let books = settle(&stack, &ledger, [&tenant, &neighbour]).await?;
    let llm = stack.llm().map(LlmServer::account).unwrap_or_default();
    let figures = Figures::new(began_ms, tenant, neighbour, &books, run.cost(&llm))?;
    say(margin.json, format_args!("{figures}"));
    let broken = figures.broken(run.reserves);
    ensure!(broken.is_empty(), "{}: {}", run.title.to_lowercase(), broken.join("; "));
    Ok((stack, figures))
}

/// Prints each level as soon as it is in the ledger; returns only if it cannot read the ledger.
async fn follow(ledger: &Ledger, json: bool, began_ms: i64) -> anyhow::Error {
    let mut printed = 0;
    loop {
        let levels = match in_background(ledger, |ledger| books::levels(&ledger)).await {
            Ok(levels) => levels,
            Err(error) => return error.context("the levels in the ledger"),
        };
        for level in &levels[printed..] {
            say(json, format_args!("{}", level.row(began_ms)));
        }
        printed = levels.len();
        tokio::time::sleep(LEVELS_PAUSE).await;
    }
}

/// Reads the books once the ledger has every event, and every call that passed has its cost.
async fn settle(stack: &Stack, ledger: &Ledger, seen: [&Seen; 2]) -> anyhow::Result<Books> {
    let asked: u64 = seen.iter().map(|seen| seen.asked()).sum();
    let passed: u64 = seen.iter().map(|seen| seen.passed).sum();
    wait::until(DELIVERY_LIMIT, "the ledger has everything", async || {
        let stats = stack.envoy()?.stats(STATS).await?;
        let (made, acked) = (stat(&stats, "events_made"), stat(&stats, "events_acked"));
        let stored = in_background(ledger, |ledger| ledger.count_events()).await?;
        ensure!(
            made == acked && made == stored,
            "{made} events made, {acked} acknowledged, {stored} stored"
        );
        let books = in_background(ledger, |ledger| Books::read(&ledger)).await?;
        let calls: u64 = books.calls.iter().map(|call| call.quantity).sum();
        ensure!(
            calls >= asked && books.generations >= passed,
            "{calls} of {asked} calls and {} of {passed} generations in the ledger",
            books.generations
        );
        Ok(books)
    })
    .await
    .context("not all that the agents did is metered")
}

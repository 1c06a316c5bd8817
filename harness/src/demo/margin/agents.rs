//! The agents of the margin scenario: what they call, and what responses they get.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{AGENTS, NEIGHBOUR, PATIENCE, TENANT};
use crate::trace::{self, TRACEPARENT};

/// How long a refused agent waits before it calls again: less than the refusal asks for, since
/// agents are impatient.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// How long the neighbour's agent waits between two calls.
const NEIGHBOUR_PAUSE: Duration = Duration::from_millis(200);
/// How many refusals by a block an agent takes before it gives up.
const BLOCKS: u64 = 3;

/// The responses to calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Calls that the server executed.
    pub(super) passed: u64,
    /// Of these, calls whose response says that the customer is throttled.
    pub(super) marked: u64,
    /// Calls refused because too many came in this second.
    pub(super) throttled: u64,
    /// Calls refused because running calls have reserved what remains.
    pub(super) no_room: u64,
    /// Calls refused because the margin is used up.
    pub(super) blocked: u64,
}

impl Seen {
    /// The number of all calls.
    pub(super) fn asked(&self) -> u64 {
        self.passed + self.refused()
    }

    /// The number of calls that were not executed.
    pub(super) fn refused(&self) -> u64 {
        self.throttled + self.no_room + self.blocked
    }

    fn add(&mut self, other: &Self) {
        let Self { passed, marked, throttled, no_room, blocked } = other;
        self.passed += passed;
        self.marked += marked;
        self.throttled += throttled;
        self.no_room += no_room;
        self.blocked += blocked;
    }
}

/// Runs all agents until the guard has blocked the tenant's for good. Returns what the tenant's
/// agents saw, and the neighbour's.
pub(super) async fn play(url: &str) -> anyhow::Result<[Seen; 2]> {
    let (over, is_over) = watch::channel(false);
    let neighbour = tokio::spawn(call_now_and_then(Agent::new(url, NEIGHBOUR, 0)?, is_over));
    let mut agents = JoinSet::new();
    for number in 1..=AGENTS {
        agents.spawn(call_until_blocked(Agent::new(url, TENANT, number)?));
    }
    let all = tokio::time::timeout(PATIENCE, async {
        let mut all = Seen::default();
        while let Some(seen) = agents.join_next().await {
            all.add(&seen??);
        }
        anyhow::Ok(all)
    });
    let all =
        all.await.with_context(|| format!("{TENANT} was not blocked within {PATIENCE:?}"))??;
    over.send(true).context("the neighbour's agent has ended")?;
    Ok([all, neighbour.await??])
}

async fn call_until_blocked(mut agent: Agent) -> anyhow::Result<Seen> {
    while agent.seen.blocked < BLOCKS {
        let refused = agent.seen.refused();
        agent.call().await?;
        if agent.seen.refused() > refused {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
    Ok(agent.seen)
}

/// Calls until the tenant is blocked, and once more after that.
async fn call_now_and_then(
    mut agent: Agent,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<Seen> {
    loop {
        let is_last = *is_over.borrow();
        agent.call().await?;
        if is_last {
            return Ok(agent.seen);
        }
        tokio::time::sleep(NEIGHBOUR_PAUSE).await;
    }
}

/// One agent with a connection of its own. [`crate::mcp_client::Agent`] will not do: it does not
/// show the HTTP response of a refusal.
struct Agent {
    http: Client,
    url: String,
    customer: &'static str,
    name: String,
    seen: Seen,
}

impl Agent {
    fn new(url: &str, customer: &'static str, number: u32) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().pool_max_idle_per_host(1).build()?;
        let (url, name) = (url.to_owned(), format!("agent-{number}"));
        Ok(Self { http, url, customer, name, seen: Seen::default() })
    }

    /// Calls the expensive tool once, in a trace of its own.
    async fn call(&mut self) -> anyhow::Result<()> {
        let id = format!("{}-{}", self.name, self.seen.asked());
        let params = json!({ "name": "summarise", "arguments": { "text": "a costly text" } });
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let request = self
            .http
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-06-18")
            .header("x-customer-id", self.customer)
            .header("x-agent-id", &self.name)
            .header(TRACEPARENT, trace::fresh());
        let answer = request.json(&body).send().await?;
        let status = answer.status();
        let has = |name: &str| answer.headers().get(name).is_some();
        let (is_marked, has_retry_after) = (has("x-aforo-throttle"), has("retry-after"));
        let text = answer.text().await?;
        let body: Value =
            serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?;
        self.count(status, is_marked, has_retry_after, &body, &id)
            .with_context(|| format!("{} of {}", self.name, self.customer))
    }

    fn count(
        &mut self,
        status: StatusCode,
        is_marked: bool,
        has_retry_after: bool,
        body: &Value,
        id: &str,
    ) -> anyhow::Result<()> {
        ensure!(body["id"] == id, "call {id} was answered {body}");
        let seen = &mut self.seen;
        if status == StatusCode::OK {
            ensure!(body["result"]["isError"] != true, "call {id} failed: {body}");
            seen.passed += 1;
            seen.marked += u64::from(is_marked);
            return Ok(());
        }
        ensure!(status == StatusCode::TOO_MANY_REQUESTS, "{status}: {body}");
        ensure!(has_retry_after, "a refusal without retry-after: {body}");
        match body["error"]["data"]["reason"].as_str() {
            Some("throttled") => seen.throttled += 1,
            Some("no_room") => seen.no_room += 1,
            Some("margin") => seen.blocked += 1,
            _ => bail!("refused for no reason that is known: {body}"),
        }
        Ok(())
    }
}

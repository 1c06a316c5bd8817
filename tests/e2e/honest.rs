//! Ten honest tenants, for `hostile.rs`: what they do, and what the ledger must say of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::LIMIT;
use crate::books::{Account, text};
use crate::client::{Client, request};
use crate::http1::Message;
use crate::load::{KINDS, KindOfCall, answer};
use crate::upstream::{SSE_HEAD, Step, chunk, response, rpc_of, sse_response, success};

/// The answer comes on another stream.
pub(crate) const WAITING: KindOfCall = ("wait", "SUCCESS", "0.25");
/// What the tenants with a budget may call.
pub(crate) const BUDGET: u64 = 20;
/// The levels of a budget, and how many calls reach each.
pub(crate) const LEVELS: [(&str, u64); 3] =
    [("L1_ALERT", 10), ("L2_THROTTLE", 15), ("L3_BLOCK", BUDGET)];
/// The time that honest tenants wait between two calls.
const PACE: Duration = Duration::from_millis(50);

/// Answers the honest tenants.
pub(crate) fn honest_answer(message: &Message) -> Vec<Step> {
    if let Some(id) = message.header("last-event-id") {
        return vec![Step::Send(sse_response(&[success(&json!(id))]))];
    }
    let rpc = rpc_of(message);
    if rpc["method"] == "tools/list" {
        let level = message.header("x-aforo-margin-level").unwrap_or_default();
        return vec![Step::Send(response("200 OK", &[("x-seen-level", &level)], b"{}"))];
    }
    if text(&rpc, "/params/name").starts_with(WAITING.0) {
        return begun(&text(&rpc, "/id"));
    }
    answer(message)
}

/// Begins an event stream on which nothing more comes.
pub(crate) fn begun(event_id: &str) -> Vec<Step> {
    let event = chunk(format!("id: {event_id}\ndata:\n\n").as_bytes());
    let head = [SSE_HEAD.as_bytes(), &event].concat();
    vec![Step::Send(head), Step::Work(Duration::from_secs(5)), Step::Close]
}

/// An honest agent with one session.
pub(crate) struct Agent {
    listen: SocketAddr,
    client: Client,
    /// Calls go over both connections by turns.
    other: Client,
    pub(crate) customer: String,
    pub(crate) name: String,
    /// What it did; it ends with Envoy, unless the agent ends it before.
    account: Account,
    ids: u64,
}

/// All agents' accounts.
pub(crate) type Accounts = Vec<(String, Account)>;

impl Agent {
    async fn new(listen: SocketAddr, customer: &str, name: &str) -> anyhow::Result<Self> {
        let account = Account { close_reason: "shutdown".to_owned(), ..Account::default() };
        let client = Client::connect(listen).await?;
        let other = Client::connect(listen).await?;
        let (customer, name) = (customer.to_owned(), name.to_owned());
        Ok(Self { listen, client, other, customer, name, account, ids: 0 })
    }

    fn request(&self, method: &str, more: &[(&str, &str)], body: &str) -> Vec<u8> {
        let own = [
            ("x-customer-id", self.customer.as_str()),
            ("x-agent-id", &self.name),
            ("mcp-session-id", &self.name),
            ("content-type", "application/json"),
        ];
        request(method, "/mcp", &[&own, more].concat(), body.as_bytes())
    }

    /// A call, and its id.
    fn next_call(&mut self, tool: &str) -> (String, Vec<u8>) {
        self.ids += 1;
        let id = self.ids.to_string();
        let params = json!({ "name": tool, "arguments": {} });
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        (id, self.request("POST", &[], &body.to_string()))
    }

    async fn call(&mut self, (kind, status, price): KindOfCall) -> anyhow::Result<()> {
        let tool = format!("{kind}_{}", self.ids % 3);
        let (_, request) = self.next_call(&tool);
        let answer = self.client.exchange(&request).await?;
        std::mem::swap(&mut self.client, &mut self.other);
        let expected = if status == "BLOCKED" { 429 } else { 200 };
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status() == expected, "{} {tool}: {answer:?} {body}", self.name);
        ensure!(!body.contains("over_share"), "{}: {body}", self.name);
        self.account.add(&tool, status, 1, Decimal::from_str_exact(price)?);
        Ok(())
    }

    /// Makes calls of all kinds by turns.
    async fn calls(&mut self, count: u64) -> anyhow::Result<()> {
        for number in 0..count {
            self.call(KINDS[usize::try_from(number % 8)?]).await?;
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// Calls, and leaves before the answer. Returns the call's id.
    async fn leave(&mut self) -> anyhow::Result<String> {
        let tool = format!("{}_{}", WAITING.0, self.ids % 3);
        let (id, request) = self.next_call(&tool);
        let answer = leave_early(self.listen, &request).await?;
        ensure!(answer.is_none(), "{}: {answer:?}", self.name);
        self.account.add(&tool, WAITING.1, 1, Decimal::from_str_exact(WAITING.2)?);
        Ok(id)
    }

    /// Gets the answer to a call that it has left.
    async fn resume(&mut self, id: &str) -> anyhow::Result<()> {
        let request = self.request("GET", &[("last-event-id", id)], "");
        let answer = Client::connect(self.listen).await?.exchange(&request).await?;
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status() == 200 && body.contains("done"), "{answer:?} {body}");
        Ok(())
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        let answer = self.client.exchange(&self.request("DELETE", &[], "")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
        self.account.close_reason = "client_delete".to_owned();
        Ok(())
    }

    /// Waits until the guard has told the workers this level.
    async fn reaches(&mut self, level: &str) -> anyhow::Result<()> {
        let body = r#"{"jsonrpc":"2.0","id":0,"method":"tools/list"}"#;
        let request = self.request("POST", &[], body);
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            let answer = self.client.exchange(&request).await?;
            let seen = answer.header("x-seen-level").unwrap_or_default();
            if seen == level {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < end, "{level}: {seen:?}: {answer:?}");
            tokio::time::sleep(PACE).await;
        }
    }

    /// Makes calls that its guard refuses.
    async fn is_refused(&mut self, calls: u64) -> anyhow::Result<()> {
        for _ in 0..calls {
            let (_, request) = self.next_call("lookup_0");
            let answer = self.client.exchange(&request).await?;
            let body: Value = serde_json::from_slice(&answer.body)?;
            let reason = text(&body, "/error/data/reason");
            ensure!(answer.status() == 429, "{answer:?}");
            ensure!(["budget", "no_room"].contains(&&*reason), "{body}");
            self.account.add("lookup_0", "BLOCKED", 1, Decimal::ZERO);
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    fn done(self) -> (String, Account) {
        (self.name, self.account)
    }
}

/// Sends a request and leaves as soon as the body of the answer has begun; the answer if it came
/// before.
pub(crate) async fn leave_early(
    listen: SocketAddr,
    request: &[u8],
) -> anyhow::Result<Option<Message>> {
    let mut client = Client::connect(listen).await?;
    client.send(request).await?;
    let has_begun = Notify::new();
    let seen = |bytes| {
        if bytes > 0 {
            has_begun.notify_one()
        }
    };
    tokio::select! {
        biased;
        answer = client.receive(seen) => Ok(Some(answer?)),
        () = has_begun.notified() => Ok(None),
    }
}

/// Says when the flood is over.
pub(crate) type IsOver = Arc<AtomicBool>;

pub(crate) fn is_over(over: &IsOver) -> bool {
    over.load(Ordering::Relaxed)
}

/// Calls at a steady rate in one session.
pub(crate) async fn steady(
    listen: SocketAddr,
    name: String,
    over: IsOver,
) -> anyhow::Result<Accounts> {
    let mut agent = Agent::new(listen, &name, &name).await?;
    while !is_over(&over) {
        agent.calls(8).await?;
    }
    Ok(vec![agent.done()])
}

/// Opens one session after another, and ends each.
pub(crate) async fn ending(
    listen: SocketAddr,
    name: String,
    over: IsOver,
) -> anyhow::Result<Accounts> {
    let mut accounts = Accounts::new();
    while !is_over(&over) {
        let session = format!("{name}.{}", accounts.len());
        let mut agent = Agent::new(listen, &name, &session).await?;
        agent.calls(12).await?;
        agent.delete().await?;
        accounts.push(agent.done());
    }
    Ok(accounts)
}

/// Leaves calls and gets their answers on resumed streams: of the first at the end of the flood.
pub(crate) async fn resuming(
    listen: SocketAddr,
    name: String,
    over: IsOver,
) -> anyhow::Result<Accounts> {
    let mut agent = Agent::new(listen, &name, &name).await?;
    let first = agent.leave().await?;
    while !is_over(&over) {
        let id = agent.leave().await?;
        tokio::time::sleep(PACE).await;
        agent.resume(&id).await?;
    }
    agent.resume(&first).await?;
    Ok(vec![agent.done()])
}

/// Goes to each level of its budget and waits until it is told, so each is reached by one call.
pub(crate) async fn stepping(
    listen: SocketAddr,
    name: String,
    over: IsOver,
) -> anyhow::Result<Accounts> {
    let mut agent = Agent::new(listen, &name, &name).await?;
    for number in 1..=BUDGET {
        agent.call(KINDS[0]).await?;
        if let Some((level, _)) = LEVELS.iter().find(|(_, calls)| *calls == number) {
            agent.reaches(level).await?;
        }
    }
    while !is_over(&over) {
        agent.is_refused(8).await?;
    }
    Ok(vec![agent.done()])
}

/// Calls without a pause, until there is no room; the guard lets through exactly its budget.
pub(crate) async fn reserving(
    listen: SocketAddr,
    name: String,
    over: IsOver,
) -> anyhow::Result<Accounts> {
    // The flood runs already.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut agent = Agent::new(listen, &name, &name).await?;
    for _ in 0..BUDGET {
        agent.call(KINDS[0]).await?;
    }
    while !is_over(&over) {
        agent.is_refused(8).await?;
    }
    Ok(vec![agent.done()])
}

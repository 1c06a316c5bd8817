//! One hostile tenant floods all that tenants share, in every way at once, beside ten honest ones.
//! The honest ones' calls, prices, sessions and levels are right to the last one, and each call
//! that the upstream executed for the hostile one is in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_meter::wait;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books::{Account, Books, quantity, text};
use crate::client::{Client, request};
use crate::honest::{
    Accounts, BUDGET, IsOver, LEVELS, WAITING, begun, ending, honest_answer, is_over, leave_early,
    reserving, resuming, steady, stepping,
};
use crate::http1::Message;
use crate::load::{KINDS, check_workers};
use crate::upstream::{Step, Upstream, response};
use crate::{LIMIT, Rig, plain_plugin};

const BRIEF: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(60);
const HOSTILE: &str = "hostile";
const BATCH: u64 = 1000;
/// Calls that the filter lets wait for an answer elsewhere.
const WAITING_MAX: u64 = 10_000;
/// The most sessions at once.
const SESSIONS: u64 = 200;
/// Calls of one body that the filter follows.
const CALLS_MAX: u64 = 1024;
fn configuration() -> Value {
    let mut plugin = plain_plugin();
    let tools: Vec<Value> = KINDS
        .iter()
        .chain([&WAITING])
        .map(|(kind, _, price)| {
            // Calls without a charge have a price too, which nobody may pay.
            let price = if *price == "0" { "7" } else { price };
            json!({ "tool": format!("{kind}_*"), "price": price, "cost_tier": kind })
        })
        .collect();
    plugin["products"][0]["pricing"]["tools"] = json!(tools);
    let mut open = plugin["products"][0].clone();
    (open["id"], open["match"]) = (json!("open"), json!({ "path": "/open" }));
    plugin["products"].as_array_mut().into_iter().for_each(|products| products.push(open.clone()));
    let guard = |id: &str, scope: &str, calls: u64, customer: &str| {
        json!({
            "id": id, "scope": scope, "period": "month", "products": ["mcp"],
            "customers": [customer], "budget": { "calls": calls },
            "actions": {
                "level_1": { "threshold": "50%" },
                "level_2": { "threshold": "25%", "throttle_rate": "1000req/sec" },
                "level_3": { "threshold": "0%", "action": "block_request" },
            },
        })
    };
    let mut reserving = guard("reserving", "customer", BUDGET, "reserving");
    reserving["reserve"] = json!({});
    plugin["guards"] = json!([
        guard("each-tool", "tool", 5, HOSTILE),
        guard("stepping", "customer", BUDGET, "stepping"),
        reserving,
    ]);
    plugin["sessions_max"] = json!(SESSIONS);
    plugin
}

/// What the upstream executed for the hostile tenant.
#[derive(Debug, Default)]
struct Executed {
    /// Calls that it answered.
    answered: AtomicU64,
    /// What these cost, in thousandths of a USD.
    worth: AtomicU64,
    /// Calls whose client left before the answer.
    left: AtomicU64,
    /// Calls of bodies with more messages than are metered.
    smuggled: AtomicU64,
}

impl Executed {
    fn answer(&self, message: &Message) -> Vec<Step> {
        let number = |name| message.header(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (calls, worth) = (number("x-calls"), number("x-worth"));
        match message.header("x-flood").as_deref() {
            None => honest_answer(message),
            Some("leave") => {
                self.left.fetch_add(calls, Ordering::Relaxed);
                begun("1")
            }
            Some("smuggle") => {
                self.smuggled.fetch_add(calls, Ordering::Relaxed);
                vec![Step::Send(results(calls))]
            }
            Some(_) => {
                self.answered.fetch_add(calls, Ordering::Relaxed);
                self.worth.fetch_add(worth, Ordering::Relaxed);
                vec![Step::Send(results(calls))]
            }
        }
    }
}

/// Answers a batch of calls.
fn results(calls: u64) -> Vec<u8> {
    let result = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#);
    let body = format!("[{}]", (0..calls).map(result).collect::<Vec<_>>().join(","));
    response("200 OK", &[("content-type", "application/json")], body.as_bytes())
}

/// What the hostile tenant saw.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    /// Calls that were answered.
    passed: AtomicU64,
    /// Calls that its guard refused.
    blocked: AtomicU64,
    /// Requests that were refused because it has the most of what waits.
    over_share: AtomicU64,
    /// Requests that were refused because of their many messages.
    too_many: AtomicU64,
    /// Requests that it left before the answer.
    left: AtomicU64,
    /// Requests without an answer.
    cut: AtomicU64,
}

/// A flood: what it does to whom.
#[derive(Clone)]
struct Flood {
    listen: SocketAddr,
    over: IsOver,
    seen: Arc<Seen>,
}

/// A request of the hostile tenant with this many calls, worth this much.
fn attack(flood: &str, path: &str, session: &str, calls: u64, worth: u64, body: &str) -> Vec<u8> {
    let (calls, worth) = (calls.to_string(), worth.to_string());
    let headers = [
        ("x-customer-id", HOSTILE),
        ("x-agent-id", HOSTILE),
        ("mcp-session-id", session),
        ("content-type", "application/json"),
        ("x-flood", flood),
        ("x-calls", &calls),
        ("x-worth", &worth),
    ];
    let method = if body.is_empty() { "DELETE" } else { "POST" };
    request(method, path, &headers, body.as_bytes())
}

/// A batch of calls of these tools.
fn batch(calls: u64, tool: impl Fn(u64) -> String) -> String {
    let call = |id| {
        let tool = tool(id);
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#
        )
    };
    format!("[{}]", (0..calls).map(call).collect::<Vec<_>>().join(","))
}

impl Flood {
    /// Sends what `next` makes of a number, again and again.
    async fn run(self, calls: u64, next: impl Fn(u64) -> Vec<u8>) -> anyhow::Result<()> {
        let mut client = Client::connect(self.listen).await?;
        for number in 0.. {
            if is_over(&self.over) {
                break;
            }
            let answer = client.exchange(&next(number)).await;
            let is_kept = answer
                .as_ref()
                .is_ok_and(|answer| answer.header("connection").as_deref() != Some("close"));
            self.note(calls, answer.ok())?;
            if !is_kept {
                client = Client::connect(self.listen).await?;
            }
        }
        Ok(())
    }

    /// Leaves before the answer, again and again.
    async fn leave(self) -> anyhow::Result<()> {
        let request = to_leave();
        while !is_over(&self.over) {
            self.leave_once(&request).await;
        }
        Ok(())
    }

    async fn leave_once(&self, request: &[u8]) {
        leave_early(self.listen, request).await.ok();
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        self.seen.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Fills the tables of sessions and of calls that wait, and more, before the other floods slow
    /// this down.
    async fn fill(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(self.listen).await?;
        for number in 0..2 * SESSIONS {
            let answer = client.exchange(&of_new_session(9, number)).await?;
            self.note(1, Some(answer))?;
        }
        let request = to_leave();
        for _ in 0..WAITING_MAX / BATCH + 2 {
            self.leave_once(&request).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn note(&self, calls: u64, answer: Option<Message>) -> anyhow::Result<()> {
        let Seen { requests, passed, blocked, over_share, too_many, cut, .. } = &*self.seen;
        requests.fetch_add(1, Ordering::Relaxed);
        let (counter, count) = match answer.as_ref().map(Message::status) {
            None => (cut, 1),
            Some(200) => (passed, calls),
            Some(413) => (too_many, 1),
            Some(429) => {
                let body = answer.map(|answer| answer.body).unwrap_or_default();
                let is_over_share = String::from_utf8_lossy(&body).contains("over_share");
                if is_over_share { (over_share, 1) } else { (blocked, calls) }
            }
            Some(status) => anyhow::bail!("{status}: {answer:?}"),
        };
        counter.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

/// Calls whose client leaves.
fn to_leave() -> Vec<u8> {
    let body = batch(BATCH, |_| "analyze_x".to_owned());
    attack("leave", "/open", "leave", BATCH, 0, &body)
}

/// A call in a session of its own.
fn of_new_session(connection: u64, number: u64) -> Vec<u8> {
    let body = batch(1, |_| "lookup_x".to_owned());
    attack("sessions", "/open", &format!("session-{connection}-{number}"), 1, 1, &body)
}

/// Starts all floods of the hostile tenant: of facts, scopes, sessions, calls that wait, messages in
/// one body, refused calls, ends of sessions, and what is told of calls that nobody made.
fn start_floods(flood: &Flood, floods: &mut JoinSet<anyhow::Result<()>>) {
    // Executed calls, by 4 connections.
    let price = |id: u64| if id.is_multiple_of(2) { "analyze_x" } else { "lookup_x" };
    let body = batch(BATCH, |id| price(id).to_owned());
    // Half of them cost 0.1, the others 0.001.
    let facts = attack("facts", "/open", "facts", BATCH, 101 * BATCH / 2, &body);
    for _ in 0..4 {
        let facts = facts.clone();
        floods.spawn(flood.clone().run(BATCH, move |_| facts.clone()));
    }
    floods.spawn(flood.clone().run(BATCH, |number| {
        let body = batch(BATCH, |id| format!("invented_{number}_{id}"));
        attack("scopes", "/mcp", "scopes", BATCH, BATCH, &body)
    }));
    for connection in 0..2 {
        floods.spawn(flood.clone().run(1, move |number| of_new_session(connection, number)));
    }
    floods.spawn(flood.clone().leave());
    // What is no call takes no call's place; there is one call too many.
    let calls = batch(CALLS_MAX + 1, |_| "analyze_x".to_owned());
    let ping = |id| format!(r#"{{"jsonrpc":"2.0","id":"p{id}","method":"ping"}}"#);
    let pings = (0..CALLS_MAX).map(ping).collect::<Vec<_>>().join(",");
    let body = format!("[{pings},{}", &calls[1..]);
    let smuggle = attack("smuggle", "/mcp", "smuggle", CALLS_MAX + 1, 0, &body);
    floods.spawn(flood.clone().run(CALLS_MAX + 1, move |_| smuggle.clone()));
    // Its budget of this tool is used up at once.
    let hammer =
        attack("hammer", "/mcp", "hammer", BATCH, BATCH, &batch(BATCH, |_| "x".to_owned()));
    floods.spawn(flood.clone().run(BATCH, move |_| hammer.clone()));
    floods.spawn(
        flood
            .clone()
            .run(0, |number| attack("ends", "/open", &format!("never-{number}"), 0, 0, "")),
    );
    let cancel = |id| {
        let params = json!({ "requestId": format!("c{id}") });
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })
    };
    let cancels = Value::Array((0..2 * BATCH).map(cancel).collect()).to_string();
    let cancels = attack("cancels", "/open", "cancels", 0, 0, &cancels);
    floods.spawn(flood.clone().run(0, move |_| cancels.clone()));
}

fn start_honest(listen: SocketAddr, over: &IsOver) -> JoinSet<anyhow::Result<Accounts>> {
    let mut honest = JoinSet::new();
    for number in 0..4 {
        honest.spawn(steady(listen, format!("steady-{number}"), Arc::clone(over)));
    }
    for number in 0..3 {
        honest.spawn(ending(listen, format!("ending-{number}"), Arc::clone(over)));
    }
    honest.spawn(resuming(listen, "resuming".to_owned(), Arc::clone(over)));
    honest.spawn(stepping(listen, "stepping".to_owned(), Arc::clone(over)));
    honest.spawn(reserving(listen, "reserving".to_owned(), Arc::clone(over)));
    honest
}

/// Waits until the accountant has read all that the workers told, and delivered what it made of it.
async fn calm(rig: &Rig) -> anyhow::Result<()> {
    let mut before = None;
    wait::until(LIMIT, "all is told", async || {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let mut now = Vec::new();
        for name in ["events_made", "events_acked", "events_spilled", "calls"] {
            now.push(rig.metric(name).await?);
        }
        let same = before.replace(now.clone()) == Some(now.clone());
        ensure!(same && now[0] == now[1] + now[2], "{now:?}");
        Ok(())
    })
    .await
}

async fn play(duration: Duration) -> anyhow::Result<()> {
    let executed = Arc::<Executed>::default();
    let server = Arc::clone(&executed);
    let upstream = Upstream::start(move |message| server.answer(message)).await?;
    let rig = Rig::start(upstream, configuration()).await?;
    let listen = rig.listen()?;
    let over = IsOver::default();
    let flood = Flood { listen, over: Arc::clone(&over), seen: Arc::default() };
    flood.fill().await?;
    let mut floods = JoinSet::new();
    start_floods(&flood, &mut floods);
    let mut honest = start_honest(listen, &over);
    let end = tokio::time::Instant::now() + duration;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The test would keep all bodies otherwise.
        rig.upstream.take_requests();
    }
    over.store(true, Ordering::Relaxed);
    let mut accounts = Accounts::new();
    while let Some(account) = honest.join_next().await {
        accounts.extend(account??);
    }
    while let Some(flood) = floods.join_next().await {
        flood??;
    }
    check_workers(&rig).await?;
    calm(&rig).await?;
    check_bounds(&rig).await?;
    eprintln!("{:?}\n{executed:?}", flood.seen);
    let ledger = rig.stack()?.ledger()?;
    rig.finish().await?;
    let books = Books::read(&ledger).await?;
    books.check(&ledger).await?;
    check_honest(&books, &accounts)?;
    check_levels(&books);
    check_hostile(&books, &executed, &flood.seen)
}

/// Checks that each flood overflowed something; without that, the test proves less than it claims.
async fn check_bounds(rig: &Rig) -> anyhow::Result<()> {
    for name in [
        "calls_folded",
        "calls_over_limit",
        "evidence_unused",
        "guard_scopes_over_limit",
        "joins_over_limit",
        "journal_full",
        "requests_over_share",
        "session_end_unused",
    ] {
        let count = rig.metric(name).await?;
        eprintln!("{name}: {count}");
        ensure!(count > 0, "nothing was {name}");
    }
    // These are in Envoy's log, and those of events in the ledger once the stack has stopped.
    for name in ["events_made", "events_spilled", "facts_spilled"] {
        eprintln!("{name}: {}", rig.metric(name).await?);
    }
    Ok(())
}

fn price(call: &Value) -> anyhow::Result<Decimal> {
    Ok(Decimal::from_str_exact(&text(call, "/price"))?)
}

/// Checks that the ledger has the accounts of the honest agents, and nothing more of anybody but
/// the hostile one.
fn check_honest(books: &Books, accounts: &Accounts) -> anyhow::Result<()> {
    let mut of_calls = BTreeMap::<String, Account>::new();
    let is_honest = |data: &&Value| data["customer_id"] != HOSTILE;
    for call in books.tool_invocations().filter(is_honest) {
        let account = of_calls.entry(text(call, "/agent_id")).or_default();
        let (tool, status) = (text(call, "/tool_name"), text(call, "/execution_status"));
        account.add(&tool, &status, quantity(call), price(call)?);
    }
    for closed in books.closed().filter(is_honest) {
        let agent = text(closed, "/agent_id");
        let account = of_calls.get_mut(&agent).with_context(|| agent.clone())?;
        ensure!(account.close_reason.is_empty(), "closed twice: {closed}");
        account.close_reason = text(closed, "/close_reason");
        account.check_closed(closed)?;
    }
    let expected: BTreeMap<&String, &Account> = accounts.iter().map(|(a, b)| (a, b)).collect();
    let found: BTreeMap<&String, &Account> = of_calls.iter().collect();
    let agents: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let unequal: Vec<String> = agents
        .into_iter()
        .filter(|agent| expected.get(*agent) != found.get(*agent))
        .map(|agent| format!("{agent}: {:?}\nledger: {:?}", expected.get(agent), found.get(agent)))
        .collect();
    assert!(unequal.is_empty(), "{}", unequal.join("\n"));
    eprintln!(
        "{} honest sessions, {} calls",
        accounts.len(),
        accounts.iter().flat_map(|(_, account)| account.calls.values()).sum::<u64>()
    );
    Ok(())
}

/// Checks that the tenants with a budget reached each level once, in order, at the right call.
fn check_levels(books: &Books) {
    for tenant in ["stepping", "reserving"] {
        let changes = books.of_type("budget_level_changed");
        let changes = changes.filter(|change| change["customer_id"] == tenant);
        let found: Vec<(String, u64)> = changes
            .map(|change| (text(change, "/level"), text(change, "/used").parse().unwrap_or(0)))
            .collect();
        let names: Vec<&str> = found.iter().map(|(level, _)| level.as_str()).collect();
        assert_eq!(names, LEVELS.map(|(level, _)| level), "{tenant}: {found:?}");
        for ((_, used), (level, calls)) in found.iter().zip(LEVELS) {
            // Who does not wait for the level makes further calls within a tick.
            let is_right =
                if tenant == "stepping" { *used == calls } else { (calls..=BUDGET).contains(used) };
            assert!(is_right, "{tenant}: {level} at {used}");
        }
    }
    let of_others = books.of_type("budget_level_changed").filter(|change| {
        !["stepping", "reserving", HOSTILE].contains(&&*text(change, "/customer_id"))
    });
    assert_eq!(of_others.count(), 0);
}

/// Checks that each call that was executed for the hostile tenant is in the ledger, at its price,
/// and each that its guard refused.
fn check_hostile(books: &Books, executed: &Executed, seen: &Seen) -> anyhow::Result<()> {
    let mut by_status = BTreeMap::<String, u64>::new();
    let (mut events, mut revenue) = (0_u64, Decimal::ZERO);
    for call in books.tool_invocations().filter(|data| data["customer_id"] == HOSTILE) {
        *by_status.entry(text(call, "/execution_status")).or_default() += quantity(call);
        revenue += price(call)?;
        events += 1;
    }
    eprintln!("hostile: {by_status:?} in {events} events, {revenue} USD");
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let worth = Decimal::new(load(&executed.worth).try_into()?, 3);
    let wanted = [
        ("BLOCKED".to_owned(), load(&seen.blocked) + CALLS_MAX * load(&seen.too_many)),
        ("SUCCESS".to_owned(), load(&executed.answered)),
        ("UNKNOWN".to_owned(), load(&executed.left)),
    ];
    assert_eq!(by_status, BTreeMap::from(wanted));
    assert_eq!(revenue, worth);
    assert_eq!(load(&executed.smuggled), 0, "bodies with too many calls were executed");
    let full = books.closed().filter(|closed| closed["close_reason"] == "table_full");
    assert!(full.count() > 0, "its sessions did not fill the table");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the flood needs the machine for itself: `make test-e2e` runs it"]
async fn a_hostile_tenant_takes_nothing_from_ten_honest_ones() -> anyhow::Result<()> {
    play(BRIEF).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: `make hostile` runs it"]
async fn a_hostile_tenant_takes_nothing_in_a_minute_either() -> anyhow::Result<()> {
    play(LONG).await
}

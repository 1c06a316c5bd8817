//! The plans of `filter/core/tests/plan.rs` in real Envoy, over whichever workers the connections
//! come to.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use agent_meter::stack::Options;
use anyhow::{anyhow, ensure};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

use crate::books::{Books, text};
use crate::client::Agent;
use crate::dice::Dice;
use crate::plan::{check, plan};
use crate::play::{OwnStream, Play};
use crate::streams::{ANY, Wire, patient_for_two_seconds};
use crate::upstream::{Step, response};
use crate::{LIMIT, release_module};

const PLANS: u64 = 60;

fn agent(seed: u64, session: u64) -> Agent {
    let name = format!("plan {seed}");
    Agent { session: Some(format!("session {session} of {name}")), ..Agent::new(&name) }
}

/// A call, and what comes on its own stream.
async fn call(wire: &Wire, agent: &Agent, play: &Play) -> anyhow::Result<()> {
    let mut stream = wire.request(ANY, agent, "POST", "/mcp", play.request().as_bytes()).await?;
    let (status, media_type, body) = play.response();
    match play.own {
        OwnStream::Cut => {
            stream.begin(media_type).await?;
            stream.break_off(Step::Close).await
        }
        _ => {
            let head = [("content-type", media_type)];
            let answer = response(&format!("{status} Fine"), &head, body.as_bytes());
            stream.answer(answer).await.map(drop)
        }
    }
}

/// An answer comes on another stream of the session.
async fn answer_elsewhere(wire: &Wire, agent: &Agent, event: &str) -> anyhow::Result<()> {
    let mut stream = wire.resume(ANY, agent).await?;
    stream.write(event).await?;
    stream.break_off(Step::Close).await
}

/// Plays the plan of a seed, in an order that the seed decides.
async fn run(wire: &Wire, seed: u64) -> anyhow::Result<Vec<Play>> {
    let mut dice = Dice(seed);
    let plays = plan(seed, &mut dice);
    let mut late: Vec<(u64, String)> = Vec::new();
    let (mut calls, mut is_over) = (plays.iter(), false);
    while !is_over || !late.is_empty() {
        if late.is_empty() || dice.below(3) == 0 {
            match calls.next() {
                Some(play) => {
                    call(wire, &agent(seed, play.session), play).await?;
                    late.extend(play.elsewhere.clone().map(|event| (play.session, event)));
                }
                None => is_over = true,
            }
        } else {
            let at = usize::try_from(dice.below(late.len() as u64))?;
            let (session, event) = late[at].clone();
            if dice.below(4) > 0 {
                late.remove(at);
            }
            answer_elsewhere(wire, &agent(seed, session), &event).await?;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
    }
    Ok(plays)
}

/// Plays all plans at once. Returns them by their seeds.
async fn run_all(wire: &Rc<Wire>) -> anyhow::Result<BTreeMap<u64, Vec<Play>>> {
    let mut players = JoinSet::new();
    for seed in 0..PLANS {
        let wire = Rc::clone(wire);
        players.spawn_local(async move { anyhow::Ok((seed, run(&wire, seed).await?)) });
    }
    let mut plans = BTreeMap::new();
    while let Some(played) = players.join_next().await {
        let (seed, plays) = played??;
        plans.insert(seed, plays);
    }
    Ok(plans)
}

/// Checks that the calls of each plan are what was answered.
fn check_plans(books: &Books, plans: &BTreeMap<u64, Vec<Play>>) -> anyhow::Result<()> {
    let calls: usize = plans.values().map(Vec::len).sum();
    let told = books.tool_invocations().count();
    ensure!(told == calls, "{calls} calls, but {told} events");
    for (seed, plays) in plans {
        let name = agent(*seed, 0).name;
        let of_plan = books.tool_invocations().filter(|data| text(data, "/agent_id") == name);
        let status = |data| (text(data, "/tool_name"), text(data, "/execution_status"));
        check(plays, &of_plan.map(status).collect())
            .map_err(|why| anyhow!("seed {seed}: {why} in {plays:#?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_counts_once_whatever_stream_it_comes_on() -> anyhow::Result<()> {
    let mut plugin = patient_for_two_seconds();
    plugin["products"][0]["call_timeout"] = json!("20s");
    plugin["products"][0]["session"] = json!({ "idle_timeout": "60s" });
    let wire = Rc::new(Wire::start(Options::new(plugin, Some(release_module()?))).await?);
    let plans = LocalSet::new().run_until(run_all(&wire)).await?;
    let settled = wire.rig.settled("all calls", |books| check_plans(books, &plans));
    tokio::time::timeout(LIMIT, settled).await??;
    let wire = Rc::into_inner(wire).ok_or_else(|| anyhow!("somebody plays on"))?;
    wire.rig.finish().await
}

//! Compares what the module costs with `costs.json`.
//!
//! `ACCEPT_COSTS=1` writes the file anew. `COST_PROFILE=name` prints where the fuel of a workload is
//! used, if the module was built with names (`CARGO_PROFILE_RELEASE_STRIP=none make module`).

use std::collections::BTreeMap;
use std::path::Path;

use agent_meter_cost::vm::{Program, release_module};
use agent_meter_cost::workload::ALL;
use agent_meter_cost::{Cost, profile};
use anyhow::{Context as _, ensure};

/// By how much a figure may grow without a word, in per cent: another order of functions, or a
/// constant that needs one byte more.
const GROWTH_MAX: u64 = 2;

#[test]
fn no_workload_costs_more_than_the_file_says() -> anyhow::Result<()> {
    let program = Program::load(&release_module()?)?;
    if let Ok(name) = std::env::var("COST_PROFILE") {
        let workload = ALL.iter().find(|each| each.name == name).context("no such workload")?;
        println!("{}", profile::profile(&program, workload)?);
        return Ok(());
    }
    let mut costs = BTreeMap::new();
    for workload in ALL {
        let cost = workload.cost(&program).with_context(|| workload.name)?;
        let calls: u64 = cost.host_calls_per_100.values().sum();
        println!(
            "{:28} {:>9} fuel {:>9} at once {:>3}.{:02} host calls {:>8} bytes {:>3}.{:02} allocations",
            workload.name,
            cost.fuel,
            cost.fuel_most,
            calls / 100,
            calls % 100,
            cost.copied_bytes,
            cost.host_allocations_per_100 / 100,
            cost.host_allocations_per_100 % 100,
        );
        costs.insert(workload.name.to_owned(), cost);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("costs.json");
    if std::env::var_os("ACCEPT_COSTS").is_some() {
        std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&costs)?))?;
        return Ok(());
    }
    let accepted = std::fs::read(&file).context("costs.json")?;
    let accepted: BTreeMap<String, Cost> = serde_json::from_slice(&accepted)?;
    let grown = grown(&accepted, &costs);
    ensure!(
        grown.is_empty(),
        "the module costs more than {} says:\n{}\nIf that is what it is worth, run this with \
         ACCEPT_COSTS=1 and commit the file",
        file.display(),
        grown.join("\n")
    );
    Ok(())
}

/// What has grown, and workloads that the file does not know or knows alone.
fn grown(accepted: &BTreeMap<String, Cost>, costs: &BTreeMap<String, Cost>) -> Vec<String> {
    let mut lines = Vec::new();
    for name in accepted.keys().filter(|name| !costs.contains_key(*name)) {
        lines.push(format!("{name} is no longer measured"));
    }
    for (name, cost) in costs {
        let Some(before) = accepted.get(name) else {
            lines.push(format!("{name} is new"));
            continue;
        };
        let mut compare = |what: &str, before: u64, now: u64| {
            if now > before + before * GROWTH_MAX / 100 {
                lines.push(format!("{name}: {what} from {before} to {now}"));
            }
        };
        compare("fuel", before.fuel, cost.fuel);
        compare("most fuel at once", before.fuel_most, cost.fuel_most);
        compare("bytes copied", before.copied_bytes, cost.copied_bytes);
        let allocations = (before.host_allocations_per_100, cost.host_allocations_per_100);
        compare("the host's allocations in 100", allocations.0, allocations.1);
        for (call, now) in &cost.host_calls_per_100 {
            let before = before.host_calls_per_100.get(call).copied().unwrap_or(0);
            compare(&format!("{call} in 100"), before, *now);
        }
    }
    lines
}

#[test]
fn what_has_grown_is_told_and_what_has_shrunk_is_not() {
    let cost = |fuel: u64, calls: u64| Cost {
        fuel,
        host_calls_per_100: BTreeMap::from([("log".to_owned(), calls)]),
        ..Cost::default()
    };
    let all = |cost: Cost| BTreeMap::from([("one".to_owned(), cost)]);
    let before = all(cost(1_000, 100));
    for (now, expected) in [
        (all(cost(1_020, 102)), vec![]),
        (all(cost(1_021, 100)), vec!["one: fuel from 1000 to 1021"]),
        (all(cost(500, 103)), vec!["one: log in 100 from 100 to 103"]),
        (BTreeMap::new(), vec!["one is no longer measured"]),
    ] {
        assert_eq!(grown(&before, &now), expected);
    }
    assert_eq!(grown(&BTreeMap::new(), &before), ["one is new"]);
}

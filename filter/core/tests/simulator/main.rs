//! Thousands of seeded schedules of the real worker and accountant code over a model of the host with faults, each
//! checked for conservation: calls done = calls in the ledger + calls named as lost, each once; and what guards hold is
//! what was used.
//!
//! `SIMULATOR_SEED=n` runs one schedule, `SIMULATOR_SCHEDULES=n` that many from `SIMULATOR_FIRST` on.
//! A seed that fails becomes a row of `SEEDS_THAT_FAILED`.

#![cfg(not(target_arch = "wasm32"))]
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "it is told which schedules to run, runs them on all cores, and prints what they did"
)]

mod answers;
#[path = "../dice.rs"]
mod dice;
mod guards;
#[path = "../play.rs"]
mod play;
mod schedule;
mod streams;
mod verdict;
mod world;

use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use schedule::{Report, run};
use world::{Died, Sabotage};

/// Seeds that once found a bug.
const SEEDS_THAT_FAILED: &[u64] = &[6877, 7054, 14341, 48666];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What schedules did, and the seed and reason of the first that failed.
type Outcome = (Report, Option<(u64, String)>);

/// Runs schedules on all cores; gives what they did, and the first failure.
fn run_many(first: u64, count: u64, sabotage: Sabotage) -> Outcome {
    let next = Arc::new(AtomicU64::new(first));
    let outcome: Arc<Mutex<Outcome>> = Arc::default();
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (next, outcome) = (Arc::clone(&next), Arc::clone(&outcome));
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || outcome.lock().unwrap().1.is_some() {
                        return;
                    }
                    let result = run(seed, sabotage);
                    let mut outcome = outcome.lock().unwrap();
                    match result {
                        Ok(report) => outcome.0.add(&report),
                        Err(failure) => {
                            outcome.1.get_or_insert((seed, failure));
                        }
                    }
                }
            });
        }
    });
    std::mem::take(&mut *outcome.lock().unwrap())
}

/// A VM that dies on purpose does so in silence.
fn quiet_deaths() {
    let standard = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Died>() {
            standard(info);
        }
    }));
}

#[test]
fn every_call_is_counted_once_whatever_happens() {
    quiet_deaths();
    for &seed in SEEDS_THAT_FAILED {
        run(seed, Sabotage::Nothing).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    if let Some(seed) = setting("SIMULATOR_SEED") {
        let report =
            run(seed, Sabotage::Nothing).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("seed {seed}: {report:?}");
        return;
    }
    let first = setting("SIMULATOR_FIRST").unwrap_or(0);
    let count = setting("SIMULATOR_SCHEDULES").unwrap_or(10_000);
    println!("simulating {count} schedules from seed {first}");
    let (report, failure) = run_many(first, count, Sabotage::Nothing);
    if let Some((seed, why)) = failure {
        panic!("SIMULATOR_SEED={seed}: {why}");
    }
    println!("{report:?}");
    // A simulator whose faults do not happen proves nothing.
    let happened = [
        report.calls,
        report.answers,
        report.deaths,
        report.takeovers,
        report.pieces,
        report.reloads,
        report.drains,
        report.batches_failed,
        report.spilled,
        report.shutdowns,
        report.interleavings,
        report.refused,
        report.levels,
        report.verdicts_unused,
    ];
    let has_happened = happened.iter().all(|&times| times > 100) && report.holds_leaked > 0;
    assert!(count < 1000 || has_happened, "{report:?}");
}

#[test]
fn a_bug_that_is_put_in_on_purpose_is_found() {
    quiet_deaths();
    for sabotage in [
        Sabotage::VersionsIgnored,
        Sabotage::RedoSkipped,
        Sabotage::CursorsSkipped,
        Sabotage::PagesSkipped,
        Sabotage::ScopesSkipped,
        Sabotage::VerdictsSkipped,
        Sabotage::AnswersSkipped,
    ] {
        let (_, failure) = run_many(0, 2_000, sabotage);
        let (seed, why) = failure.unwrap_or_else(|| panic!("{sabotage:?} was not found"));
        println!("{sabotage:?}: found by seed {seed}: {why}");
    }
}

#[test]
fn a_seed_has_one_history() {
    quiet_deaths();
    for seed in 0..100 {
        let [first, second] = [(); 2].map(|()| run(seed, Sabotage::Nothing));
        assert_eq!(first, second, "seed {seed}");
    }
}

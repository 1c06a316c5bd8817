//! The runs of models that one response lists: turns of a loop with tools that the provider runs, a
//! context that was compacted, an adviser, a fallback model, images that a tool made. Some are within
//! the counts of the response, others beside them, and each may be of another model.

use crate::base::limits::FURTHER_RUNS_MAX;
use crate::domain::usage::{FurtherRun, Usage};
use crate::protocol::llm::generation::{Generation, Place, Run};
use crate::protocol::llm::within_or_beside;

fn sum<'a>(runs: impl Iterator<Item = &'a FurtherRun>) -> Usage {
    runs.fold(Usage::default(), |sum, run| sum.plus(run.usage))
}

/// Ends a generation: what only all of its counts tell.
pub(super) fn finish(generation: &mut Generation) {
    let complete = match generation.is_openai_shaped {
        true => within_or_beside::settle,
        false => within_or_beside::fill,
    };
    generation.is_inconsistent |= complete(&mut generation.usage);
    settle(generation);
}

/// Tells the runs beside the response's own from those within it.
fn settle(generation: &mut Generation) {
    let runs = core::mem::take(&mut generation.runs);
    let (beside, listed): (Vec<_>, Vec<_>) =
        runs.into_iter().partition(|run| run.place == Place::Beside);
    for Run { run, .. } in beside {
        add(generation, run);
    }
    if listed.is_empty() {
        return;
    }
    let counts = |usage: &Usage| (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    let own = counts(&generation.usage);
    let all = sum(listed.iter().map(|listed| &listed.run));
    let answering = listed.iter().filter(|listed| listed.place == Place::Answering);
    let of_answering = counts(&sum(answering.map(|listed| &listed.run)));
    let (within, beside): (Vec<_>, Vec<_>) = if counts(&all) != own && of_answering == own {
        listed.into_iter().partition(|listed| listed.place == Place::Answering)
    } else {
        if counts(&all) != own {
            // The dearer reading counts.
            generation.is_inconsistent = true;
            generation.usage = generation.usage.max(Usage { context_input: None, ..all });
        }
        (listed, Vec::new())
    };
    for Run { run, .. } in beside {
        add(generation, run);
    }
    let is_own = |run: &FurtherRun| run.model.is_none() || run.model == generation.model;
    let (own, of_others): (Vec<_>, Vec<_>) =
        within.into_iter().map(|listed| listed.run).partition(is_own);
    for run in of_others {
        generation.usage = generation.usage.minus(run.usage);
        add(generation, run);
    }
    if own.len() > 1 {
        generation.usage.context_input = sum(own.iter()).context_input;
    }
}

/// Adds a run beside the response's own to those for the same purpose by the same model.
fn add(generation: &mut Generation, mut run: FurtherRun) {
    // A run of which only the total, or a part, can be read is one.
    if run.usage.counts().all(|(_, count)| count.unwrap_or(0) == 0) {
        return;
    }
    run.model = run.model.or_else(|| generation.model.clone());
    let further = &mut generation.further;
    let is_same =
        |other: &&mut FurtherRun| other.purpose == run.purpose && other.model == run.model;
    if let Some(same) = further.iter_mut().find(is_same) {
        same.usage = same.usage.plus(run.usage);
    } else if further.len() < FURTHER_RUNS_MAX {
        further.push(run);
    } else if let Some(last) = further.last_mut() {
        last.usage = last.usage.plus(run.usage);
        generation.is_inconsistent = true;
    }
}

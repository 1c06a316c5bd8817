//! Where fuel is used: a run that is given too little stops at a place that depends on nothing else,
//! so runs with more and more of it are samples of where the instructions are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use wasmtime::{Trap, WasmBacktrace};

use crate::vm::Program;
use crate::workload::Workload;

const SAMPLES: u64 = 1_000;
const LINES: usize = 60;
const CALLERS: usize = 4;

/// The functions in which a workload uses most fuel: in them alone, and with what they call.
pub fn profile(program: &Program, workload: &Workload) -> anyhow::Result<String> {
    let mut vm = workload.warm(program)?;
    workload.run(&mut vm)?;
    let all = vm.spent()?;
    let (mut own, mut with_callees) = (BTreeMap::new(), BTreeMap::new());
    let mut by_callers = BTreeMap::new();
    for sample in 0..SAMPLES {
        let mut vm = workload.warm(program)?;
        vm.limit(all * sample / SAMPLES + 1)?;
        let Err(error) = workload.run(&mut vm) else { continue };
        if error.downcast_ref::<Trap>() != Some(&Trap::OutOfFuel) {
            return Err(error);
        }
        let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { continue };
        let names = trace.frames().iter().map(|frame| {
            frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), short)
        });
        let names: Vec<String> = names.collect();
        if let Some(first) = names.first() {
            *own.entry(first.clone()).or_insert(0_u64) += 1;
            let callers = names.iter().take(CALLERS).map(String::as_str).collect::<Vec<_>>();
            *by_callers.entry(callers.join("\n        from ")).or_insert(0_u64) += 1;
        }
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            *with_callees.entry(name).or_insert(0_u64) += 1;
        }
    }
    let mut text = format!("{}: {all} fuel in {} units\n", workload.name, workload.units());
    for (title, counts) in [
        ("in the function", own),
        ("with what it calls", with_callees),
        ("in the function, by callers", by_callers),
    ] {
        let mut sorted: Vec<_> = counts.into_iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        writeln!(text, "\nper mille {title}")?;
        for (name, count) in sorted.into_iter().take(LINES) {
            writeln!(text, "{:>5} {name}", count * 1_000 / SAMPLES)?;
        }
    }
    Ok(text)
}

/// A mangled name without its lengths, as far as it can be read.
fn short(name: &str) -> String {
    let name = name.strip_prefix("_ZN").unwrap_or(name).replace("16agent_meter_core", "");
    let name = name.split("17h").next().unwrap_or(&name);
    name.chars().take(120).collect()
}

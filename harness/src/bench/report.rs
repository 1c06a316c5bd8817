//! What the benchmark found, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::listeners::Variant;
use super::load::CONNECTIONS;
use super::messages::{CALL_BYTES, RESULT_BYTES, Scenario};
use super::scanner::Throughput;
use super::stats::Quartiles;

/// One listener in one round, for each request; times in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// One listener over all rounds: medians, and quartiles of the differences to `no filter` in the same round.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(skip)]
    variant: Variant,
    listener: &'static str,
    cpu_us: f64,
    added_cpu_us: Quartiles,
    added_user_us: Quartiles,
    added_system_us: Quartiles,
    latency_p50_us: f64,
    latency_p99_us: f64,
    added_latency_p50_us: Quartiles,
    added_latency_p99_us: Quartiles,
}

impl Row {
    /// Slices of the same index belong to the same round.
    pub(super) fn of(variant: Variant, slices: &[Slice], reference: &[Slice]) -> Self {
        type Figure = fn(&Slice) -> f64;
        let all = |of: &[Slice], figure: Figure| of.iter().map(figure).collect::<Vec<f64>>();
        let median = |figure: Figure| Quartiles::median(&all(slices, figure));
        let added = |figure: Figure| {
            Quartiles::of_differences(&all(slices, figure), &all(reference, figure))
        };
        Self {
            variant,
            listener: variant.name(),
            cpu_us: median(|slice| slice.cpu_us),
            added_cpu_us: added(|slice| slice.cpu_us),
            added_user_us: added(|slice| slice.user_us),
            added_system_us: added(|slice| slice.cpu_us - slice.user_us),
            latency_p50_us: median(|slice| slice.p50_us),
            latency_p99_us: median(|slice| slice.p99_us),
            added_latency_p50_us: added(|slice| slice.p50_us),
            added_latency_p99_us: added(|slice| slice.p99_us),
        }
    }
}

/// The size of a module.
#[derive(Debug, Serialize)]
pub(super) struct ModuleSize {
    pub(super) module: &'static str,
    pub(super) bytes: u64,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) scenario: Scenario,
    pub(super) rounds: u32,
    pub(super) requests: u32,
    pub(super) seed: u64,
    pub(super) envoy: String,
    pub(super) cores: String,
    pub(super) optimised: bool,
    pub(super) listeners: Vec<Row>,
    pub(super) calls_sent: u32,
    pub(super) tool_invocations: usize,
    pub(super) scanner: Vec<Throughput>,
    pub(super) modules: Vec<ModuleSize>,
}

impl Report {
    fn added(&self, variant: Variant) -> Quartiles {
        let row = self.listeners.iter().find(|row| row.variant == variant);
        row.map_or(Quartiles::of(Vec::new()), |row| row.added_cpu_us)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, rounds, requests, seed, envoy, cores, .. } = self;
        writeln!(f, "Envoy {envoy}, 1 worker; {cores}")?;
        writeln!(
            f,
            "one exchange: tools/call of {CALL_BYTES} bytes, result of {RESULT_BYTES} bytes, as {scenario}"
        )?;
        writeln!(
            f,
            "{rounds} rounds of {requests} requests for each listener on {CONNECTIONS} connections, shuffled with seed {seed:#x}"
        )?;
        writeln!(
            f,
            "medians over the rounds; added: difference to `no filter` in the same round (quartiles)\n"
        )?;
        let head = ["listener", "CPU", "added CPU", "of it user", "added p50", "added p99"];
        let units = ["", "us/request", "us/request", "us/request", "us", "us"];
        for [listener, cpu, added, user, p50, p99] in [head, units] {
            writeln!(f, "{listener:<18} {cpu:>10} {added:>22} {user:>10} {p50:>20} {p99:>22}")?;
        }
        for row in &self.listeners {
            write!(f, "{:<18} {:>10.1}", row.listener, row.cpu_us)?;
            if row.variant == Variant::NoFilter {
                let (p50, p99) = (row.latency_p50_us, row.latency_p99_us);
                writeln!(
                    f,
                    " {:>22} {:>10} {:>20} {:>22}",
                    "-",
                    "-",
                    format!("[{p50:.0}]"),
                    format!("[{p99:.0}]")
                )?;
                continue;
            }
            let added = spread(row.added_cpu_us, 1);
            let user = row.added_user_us.median;
            let p50 = spread(row.added_latency_p50_us, 0);
            let p99 = spread(row.added_latency_p99_us, 0);
            writeln!(f, " {added:>22} {user:>10.1} {p50:>20} {p99:>22}")?;
        }
        let noise = spread(self.added(Variant::NoFilterAgain), 1);
        writeln!(
            f,
            "\n[ ]: not added but whole; latency with {CONNECTIONS} calls under way at once"
        )?;
        writeln!(
            f,
            "noise of this machine: {noise} us/request, what `no filter again` adds; ratios within one run only"
        )?;
        let ours = self.added(Variant::AgentMeter).median;
        let ratio = |other| ours / self.added(other).median;
        writeln!(
            f,
            "agent-meter adds {:.1} times the CPU of the empty Wasm filter, {:.1} times the native mcp filter's, {:.1} times the Lua filter's",
            ratio(Variant::EmptyWasm),
            ratio(Variant::NativeMcp),
            ratio(Variant::Lua),
        )?;
        writeln!(
            f,
            "it delivered {} tool_invocation events for {} calls while it was measured",
            self.tool_invocations, self.calls_sent
        )?;
        writeln!(
            f,
            "\n{:<24} {:>14} {:>20} {:>18}",
            "tools/call of 1 MB", "MessageReader", "serde_json borrowed", "serde_json Value"
        )?;
        writeln!(f, "{:<24} {:>14} {:>20} {:>18}", "", "MB/s", "MB/s (times)", "MB/s (times)")?;
        for body in &self.scanner {
            let beside = |mb_s: f64| format!("{mb_s:.0} ({:.2})", mb_s / body.reader_mb_s);
            writeln!(
                f,
                "{:<24} {:>14.0} {:>20} {:>18}",
                body.body,
                body.reader_mb_s,
                beside(body.serde_borrowed_mb_s),
                beside(body.serde_value_mb_s)
            )?;
        }
        if !self.optimised {
            writeln!(
                f,
                "this harness is a development build: these rates mean nothing; use --release"
            )?;
        }
        writeln!(f, "\n{:<24} {:>14}", "module", "bytes")?;
        for ModuleSize { module, bytes } in &self.modules {
            writeln!(f, "{module:<24} {bytes:>14}")?;
        }
        Ok(())
    }
}

fn spread(Quartiles { q1, median, q3 }: Quartiles, digits: usize) -> String {
    format!("{median:.digits$} ({q1:.digits$} to {q3:.digits$})")
}

//! The results of the benchmark, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::load::CONNECTIONS;
use super::messages::{CALL_BYTES, RESULT_BYTES, Scenario};
use super::ratios::{Interval, Ratio};
use super::scanner::Throughput;
use super::stats::{Quartiles, differences, midmean_difference, tenths};
use super::variant::Variant;

/// One listener in one round; the times are for each request, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// Envoy's.
    pub(super) cpu_us: f64,
    /// The external processor's, if calls go through it.
    pub(super) processor_us: f64,
    pub(super) workers_us: f64,
    pub(super) user_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Slice {
    /// CPU of Envoy and of the external processor.
    pub(super) fn whole_us(&self) -> f64 {
        self.cpu_us + self.processor_us
    }
}

/// One listener over all rounds: medians, and differences to `no filter` in the same round.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(skip)]
    variant: Variant,
    listener: &'static str,
    #[serde(serialize_with = "tenths")]
    cpu_us: f64,
    /// By Envoy alone.
    added_cpu_us: Quartiles,
    /// By Envoy and the external processor; the same where there is none.
    added_cpu_with_processor_us: Quartiles,
    /// The median of both, with its interval of 95 %.
    added_cpu_interval_us: Interval,
    /// The median of the CPU time that the filter adds in the worker.
    #[serde(serialize_with = "tenths")]
    added_worker_us: f64,
    /// The user time that the filter adds: the mean of the middle half of the rounds.
    #[serde(serialize_with = "tenths")]
    added_user_us: f64,
    /// The system time that the filter adds: the mean of the middle half of the rounds.
    #[serde(serialize_with = "tenths")]
    added_system_us: f64,
    #[serde(serialize_with = "tenths")]
    latency_p50_us: f64,
    #[serde(serialize_with = "tenths")]
    latency_p99_us: f64,
    added_latency_p50_us: Quartiles,
    added_latency_p99_us: Quartiles,
}

impl Row {
    /// Makes a row; slices with the same index belong to the same round.
    pub(super) fn of(variant: Variant, slices: &[Slice], reference: &[Slice]) -> Self {
        type Figure = fn(&Slice) -> f64;
        let all = |of: &[Slice], figure: Figure| of.iter().map(figure).collect::<Vec<f64>>();
        let median = |figure: Figure| Quartiles::median(&all(slices, figure));
        let added = |figure: Figure| {
            Quartiles::of_differences(&all(slices, figure), &all(reference, figure))
        };
        let mean =
            |figure: Figure| midmean_difference(&all(slices, figure), &all(reference, figure));
        let whole = |slices: &[Slice]| all(slices, Slice::whole_us);
        let added_whole = differences(&whole(slices), &whole(reference));
        Self {
            variant,
            listener: variant.name(),
            cpu_us: median(|slice| slice.cpu_us),
            added_cpu_us: added(|slice| slice.cpu_us),
            added_cpu_with_processor_us: added(Slice::whole_us),
            added_cpu_interval_us: Interval::of(&added_whole, Quartiles::median),
            added_worker_us: added(|slice| slice.workers_us).median,
            added_user_us: mean(|slice| slice.user_us),
            added_system_us: mean(|slice| slice.cpu_us - slice.user_us),
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

/// What came of the calls, by which the listeners prove that they do what they are measured for; each is as
/// many as were sent.
#[derive(Debug, Serialize)]
pub(super) struct Proven {
    /// To the listeners of agent-meter whose product matches.
    pub(super) calls_sent: u32,
    pub(super) tool_invocations: usize,
    /// That came from the filter that buffers.
    pub(super) exchanges_buffered: usize,
    /// That agent-meter let through without a product.
    pub(super) requests_unmatched: u64,
    /// Calls that the external processor understood.
    pub(super) ext_proc_understood: u64,
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
    /// False if the external processor is a development build: it is compared with nothing then.
    pub(super) ext_proc_optimised: bool,
    pub(super) listeners: Vec<Row>,
    pub(super) ratios: Vec<Ratio>,
    #[serde(flatten)]
    pub(super) proven: Proven,
    pub(super) scanner: Vec<Throughput>,
    pub(super) modules: Vec<ModuleSize>,
}

impl Report {
    fn row(&self, variant: Variant) -> Option<&Row> {
        self.listeners.iter().find(|row| row.variant == variant)
    }

    fn added(&self, variant: Variant) -> Quartiles {
        self.row(variant).map_or(Quartiles::of(Vec::new()), |row| row.added_cpu_us)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, rounds, requests, seed, envoy, cores, .. } = self;
        writeln!(
            f,
            "Envoy {envoy}, 1 worker; {cores}\n\
             {rounds} rounds, shuffled with seed {seed:#x}; in each, for each listener, {requests} calls on \
             {CONNECTIONS} connections for CPU and {requests} one by one for latency\n\
             a call is tools/call of {CALL_BYTES} bytes with a result of {RESULT_BYTES} bytes, as {scenario}\n\
             medians over the rounds; added: difference to `no filter` in the same round, with its quartiles\n"
        )?;
        self.write_listeners(f)?;
        writeln!(
            f,
            "\n[ ]: the whole, not what is added; user time is sampled by the kernel: a mean of the middle half of the rounds\n\
             machine noise: `no filter again` adds {} us/call CPU; ratios within one run only",
            spread(self.added(Variant::NoFilterAgain), 1)
        )?;
        if let Some(row) = self.row(Variant::ExtProc) {
            writeln!(
                f,
                "{}: {} us/call added CPU with the processor",
                row.listener,
                spread(row.added_cpu_with_processor_us, 1)
            )?;
        }
        writeln!(
            f,
            "\nadded CPU, the processor's too, as a multiple, with its interval of 95 % if the rounds are drawn anew"
        )?;
        for ratio in &self.ratios {
            writeln!(f, "{ratio}")?;
        }
        if !self.ext_proc_optimised {
            let name = Variant::ExtProc.name();
            writeln!(f, "{name}: no ratio, as its processor is a development build")?;
        }
        let Proven { calls_sent, tool_invocations, .. } = &self.proven;
        let Proven { exchanges_buffered, requests_unmatched, ext_proc_understood, .. } =
            &self.proven;
        writeln!(
            f,
            "\nthe collector got {tool_invocations} tool_invocation events for {calls_sent} calls, with guards and without, \
             and {exchanges_buffered} exchanges;\n\
             {requests_unmatched} calls were unmatched, and the external processor understood {ext_proc_understood}: \
             all that were sent"
        )?;
        self.write_scanner(f)?;
        writeln!(f, "\n{:<26} {:>13}", "module", "size, bytes")?;
        for ModuleSize { module, bytes } in &self.modules {
            writeln!(f, "{module:<26} {bytes:>13}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_listeners(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "listener",
            "CPU",
            "added CPU",
            "of it worker",
            "of it user",
            "added p50",
            "added p99",
        ];
        let units = ["", "us/call", "us/call", "us/call", "us/call", "us", "us"];
        for row in [head, units] {
            columns(f, row)?;
        }
        for row in &self.listeners {
            let cpu = format!("{:.1}", row.cpu_us);
            if row.variant == Variant::NoFilter {
                let p50 = format!("[{:.0}]", row.latency_p50_us);
                let p99 = format!("[{:.0}]", row.latency_p99_us);
                columns(f, [row.listener, &cpu, "", "", "", &p50, &p99])?;
                continue;
            }
            let added = spread(row.added_cpu_us, 1);
            let worker = format!("{:.1}", row.added_worker_us);
            let user = format!("{:.1}", row.added_user_us);
            let p50 = spread(row.added_latency_p50_us, 0);
            let p99 = spread(row.added_latency_p99_us, 0);
            columns(f, [row.listener, &cpu, &added, &worker, &user, &p50, &p99])?;
        }
        Ok(())
    }

    fn write_scanner(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "core, native: call of 1 MB",
            "MessageReader",
            "serde_json borrowed",
            "serde_json Value",
        ];
        let units = ["", "MB/s", "MB/s (ratio)", "MB/s (ratio)"];
        writeln!(f)?;
        let mut line = |[body, reader, borrowed, value]: [&str; 4]| {
            writeln!(f, "{body:<28} {reader:>13} {borrowed:>20} {value:>17}")
        };
        line(head)?;
        line(units)?;
        for body in &self.scanner {
            let reader = format!("{:.0}", body.reader_mb_s);
            let ratio = |mb_s: f64| format!("{mb_s:.0} ({:.2})", mb_s / body.reader_mb_s);
            let (borrowed, value) = (ratio(body.serde_borrowed_mb_s), ratio(body.serde_value_mb_s));
            line([body.body, &reader, &borrowed, &value])?;
        }
        if !self.optimised {
            writeln!(f, "these rates mean nothing: the harness is a development build")?;
        }
        Ok(())
    }
}

fn columns(f: &mut fmt::Formatter<'_>, row: [&str; 7]) -> fmt::Result {
    let [listener, cpu, added, worker, user, p50, p99] = row;
    writeln!(f, "{listener:<19} {cpu:>7} {added:>22} {worker:>12} {user:>10} {p50:>19} {p99:>21}")
}

pub(super) fn spread(Quartiles { q1, median, q3 }: Quartiles, digits: usize) -> String {
    format!("{median:.digits$} ({q1:.digits$} to {q3:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_cpu_is_added_to_envoys_and_shown_beside_it() {
        let slice = |cpu_us, processor_us| Slice {
            cpu_us,
            processor_us,
            workers_us: 0.0,
            user_us: 0.0,
            p50_us: 0.0,
            p99_us: 0.0,
        };
        let reference = [slice(40.0, 0.0), slice(50.0, 0.0), slice(60.0, 0.0)];
        let slices = [slice(140.0, 70.0), slice(151.0, 71.0), slice(162.0, 72.0)];
        let row = Row::of(Variant::ExtProc, &slices, &reference);
        assert_eq!(row.cpu_us, 151.0);
        assert_eq!(row.added_cpu_us.median, 101.0);
        assert_eq!(row.added_cpu_with_processor_us.median, 172.0);
        let Interval { low, median, high } = row.added_cpu_interval_us;
        assert_eq!((low, median, high), (170.0, 172.0, 174.0));
    }
}

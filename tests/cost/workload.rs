//! What is measured.

use serde_json::Value;

use crate::Cost;
use crate::configurations::{api, both, guarded, joined, reserving, tools};
use crate::exchanges::{
    Exchange, api_call, batch, generation, get, gzip_call, json_call, large_call, list,
    new_session, sse_call, stateless_call, stream, unmatched,
};
use crate::vm::{Program, Vm};

/// Units before the measurement: tables have their size, the journal its pages, and the filter no
/// longer asks each stream whether it is an attempt of a cluster.
const WARM_UP: u64 = 272;
/// Units over which most are measured. Those that take long have fewer, and fewer before.
const UNITS: u64 = 256;
/// What happens again and again.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// The exchange of this number.
    Exchange(fn(u64) -> anyhow::Result<Exchange>),
    /// A tick of the accountant behind this many calls, with the delivery of their events.
    Tick { calls: u64 },
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name in the file of costs.
    pub name: &'static str,
    configuration: fn() -> Value,
    unit: Unit,
    /// Over how many units it is measured.
    units: u64,
}

/// All of them.
pub const ALL: &[Workload] = &[
    exchanges("mcp_json", tools, json_call),
    exchanges("mcp_json_beside_llm", both, json_call),
    exchanges("mcp_json_guards_at_ease", guarded, json_call),
    exchanges("mcp_json_with_reservation", reserving, json_call),
    exchanges("mcp_json_new_session", tools, new_session),
    exchanges("mcp_json_joined", joined, json_call),
    exchanges("mcp_json_gzip", tools, gzip_call),
    exchanges("mcp_sse", tools, sse_call),
    exchanges("mcp_stateless", tools, stateless_call),
    exchanges("mcp_batch_of_10", tools, batch),
    Workload { units: 8, ..exchanges("mcp_json_1_mb", tools, large_call) },
    exchanges("mcp_tools_list", tools, list),
    exchanges("mcp_get_without_body", tools, get),
    exchanges("llm_plain", both, generation),
    Workload { units: 8, ..exchanges("llm_stream_of_2000_chunks", both, stream) },
    exchanges("api_call", api, api_call),
    exchanges("unmatched", tools, unmatched),
    Workload { unit: Unit::Tick { calls: 0 }, ..exchanges("tick_idle", tools, json_call) },
    Workload {
        unit: Unit::Tick { calls: 64 },
        units: 16,
        ..exchanges("tick_with_64_calls", both, json_call)
    },
    Workload {
        unit: Unit::Tick { calls: 1_000 },
        units: 16,
        ..exchanges("tick_with_1000_calls", both, json_call)
    },
];

const fn exchanges(
    name: &'static str,
    configuration: fn() -> Value,
    exchange: fn(u64) -> anyhow::Result<Exchange>,
) -> Workload {
    Workload { name, configuration, unit: Unit::Exchange(exchange), units: UNITS }
}

impl Workload {
    /// Runs it until everything has its size.
    pub fn warm(&self, program: &Program) -> anyhow::Result<Vm> {
        let mut vm = Vm::start(program, &(self.configuration)())?;
        for _ in 0..16 {
            vm.tick()?;
        }
        let warm_up = if self.units < UNITS { self.units } else { WARM_UP };
        for number in 0..warm_up {
            self.once(&mut vm, number)?;
        }
        if matches!(self.unit, Unit::Exchange(_)) {
            for _ in 0..8 {
                vm.tick()?;
                vm.deliver()?;
            }
            // The journal's page begins anew.
            for number in warm_up..warm_up + 8 {
                self.once(&mut vm, number)?;
            }
        }
        vm.reset();
        Ok(vm)
    }

    /// Measures it.
    pub fn cost(&self, program: &Program) -> anyhow::Result<Cost> {
        let mut vm = self.warm(program)?;
        self.run(&mut vm)?;
        Ok(vm.cost(self.units))
    }

    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    /// Runs all units that are measured.
    pub fn run(&self, vm: &mut Vm) -> anyhow::Result<()> {
        (1_000..1_000 + self.units).try_for_each(|number| self.once(vm, number))
    }

    fn once(&self, vm: &mut Vm, number: u64) -> anyhow::Result<()> {
        match self.unit {
            Unit::Exchange(exchange) => vm.exchange(&exchange(number)?),
            Unit::Tick { calls } => {
                vm.uncounted(|vm| {
                    (0..calls).try_for_each(|call| vm.exchange(&json_call(number * calls + call)?))
                })?;
                vm.tick()?;
                vm.deliver()?;
                Ok(())
            }
        }
    }
}

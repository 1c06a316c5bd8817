//! How costs grow: the same work with ever more of one thing. Fuel grows as the size to the power of
//! an exponent: 0 where the size does not matter, 1 where each further one costs the same.

use std::ops::Range;

use serde_json::{Value, json};

use crate::configurations::{both, guarded, tools};
use crate::exchanges::{
    Exchange, answer_of, batch_of, call_in, call_of, generation, json_call, set_header, stream_of,
};
use crate::vm::{Program, Vm};

/// What grows, and what is measured meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What there is more of.
    pub name: &'static str,
    /// Of what the fuel is told.
    pub unit: &'static str,
    /// How many, or how large.
    pub sizes: &'static [u64],
    /// Further sizes, which take long.
    pub larger: &'static [u64],
    /// The exponent from one size to the next may not be larger.
    pub exponent_max: f64,
    measure: fn(&Program, u64) -> anyhow::Result<u64>,
}

/// A cost of a call, in the worker and in the accountant, with the event's delivery.
const CALL: &str = "call";

const fn axis(
    name: &'static str,
    unit: &'static str,
    sizes: &'static [u64],
    exponent_max: f64,
    measure: fn(&Program, u64) -> anyhow::Result<u64>,
) -> Axis {
    Axis { name, unit, sizes, larger: &[], exponent_max, measure }
}

const DECADES: &[u64] = &[1, 10, 100, 1_000];
const LIVE: &[u64] = &[100, 1_000];
const BYTES: &[u64] = &[1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// All of them.
pub const ALL: &[Axis] = &[
    axis("bytes of a request", "request", BYTES, 1.05, |program, bytes| {
        once(program, &tools(), &call_of(1, usize::try_from(bytes)?, 16_384)?)
    })
    .up_to(&[64_000_000]),
    axis("bytes of an answer", "request", BYTES, 1.05, |program, bytes| {
        once(program, &tools(), &answer_of(1, usize::try_from(bytes)?)?)
    })
    .up_to(&[64_000_000]),
    axis("chunks of 1 MB", "request", &[1, 10, 100, 1_000, 10_000], 1.05, |program, chunks| {
        once(program, &tools(), &call_of(1, 1_000_000, usize::try_from(1_000_000 / chunks)?)?)
    }),
    axis("chunks of a stream", "generation", &[10, 100, 1_000, 10_000], 1.05, |program, chunks| {
        once(program, &both(), &stream_of(1, usize::try_from(chunks)?)?)
    }),
    axis("calls of a list", "request", DECADES, 1.05, |program, calls| {
        each(program, &tools(), 1, |number| batch_of(number, calls))
    }),
    axis("products", CALL, DECADES, 1.0, |program, products| {
        let mut plugin = tools();
        let metered = plugin["products"][0].clone();
        let others = (1..products).map(|number| {
            let mut other = metered.clone();
            other["id"] = json!(format!("other-{number}"));
            other["match"] = json!({ "path": format!("/other/{number}/mcp") });
            other
        });
        plugin["products"] = others.chain([metered.clone()]).collect();
        each(program, &plugin, CALLS, json_call)
    }),
    axis("tools with a price", CALL, DECADES, 1.0, |program, priced| {
        let mut plugin = tools();
        plugin["products"][0]["pricing"]["tools"] = (1..priced)
            .map(|number| format!("other_{number}"))
            .chain(["lookup_customer".to_owned()])
            .map(|tool| json!({ "tool": tool, "price": "0.001", "cost_tier": "lookup" }))
            .collect();
        each(program, &plugin, CALLS, json_call)
    }),
    axis("models with a rate", "generation", DECADES, 1.0, |program, rates| {
        let mut plugin = both();
        let rate = plugin["rate_cards"][0]["rates"][0].clone();
        let others = (1..rates).map(|number| {
            let mut other = rate.clone();
            other["model"] = json!(format!("other-{number}"));
            other["aliases"] = json!([]);
            other
        });
        plugin["rate_cards"][0]["rates"] = others.chain([rate.clone()]).collect();
        each(program, &plugin, CALLS, generation)
    }),
    axis("guards", CALL, &[1, 2, 5, 10, 20], 1.0, |program, guards| {
        let mut plugin = guarded();
        let budget = plugin["guards"][1].clone();
        plugin["guards"] = (0..guards)
            .map(|number| {
                let mut guard = budget.clone();
                guard["id"] = json!(format!("budget-{number}"));
                guard
            })
            .collect();
        each(program, &plugin, CALLS, json_call)
    }),
    axis("customers with guards", CALL, LIVE, 0.1, |program, customers| {
        let call = |number: u64| {
            let mut exchange = json_call(number)?;
            set_header(&mut exchange, "x-customer-id", &format!("customer-{}", number % customers));
            Ok(exchange)
        };
        among(program, &guarded(), customers, call)
    })
    .up_to(&[10_000]),
    axis("live sessions", CALL, LIVE, 0.1, |program, sessions| {
        let mut plugin = tools();
        plugin["sessions_max"] = json!(100_000);
        among(program, &plugin, sessions, |number| call_in(number, number % sessions))
    })
    .up_to(&[10_000, 100_000]),
    axis("events that wait", CALL, LIVE, 0.1, behind).up_to(&[10_000, 100_000]),
    axis("calls of a tick", CALL, &[10, 100, 1_000], 0.1, |program, per_tick| {
        each(program, &both(), per_tick, json_call)
    }),
];

impl Axis {
    const fn up_to(self, larger: &'static [u64]) -> Self {
        Self { larger, ..self }
    }

    /// The fuel at one size.
    ///
    /// # Errors
    ///
    /// If the module refuses the configuration or answers a request.
    pub fn fuel(&self, program: &Program, size: u64) -> anyhow::Result<u64> {
        (self.measure)(program, size)
    }
}

/// The exponent between two sizes: the smallest that explains the growth.
#[must_use]
pub fn exponent(from: (u64, u64), to: (u64, u64)) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let ratio = |from: u64, to: u64| (to as f64 / from as f64).ln();
    ratio(from.1, to.1) / ratio(from.0, to.0)
}

/// Calls between two ticks.
const CALLS: u64 = 64;
/// Ticks over which is measured.
const TICKS: u64 = 4;

fn started(program: &Program, configuration: &Value) -> anyhow::Result<Vm> {
    let mut vm = Vm::start(program, configuration)?;
    (0..16).try_for_each(|_| vm.tick())?;
    Ok(vm)
}

/// The fuel of one exchange.
fn once(program: &Program, configuration: &Value, exchange: &Exchange) -> anyhow::Result<u64> {
    let mut vm = started(program, configuration)?;
    vm.exchange(&json_call(0)?)?;
    vm.reset();
    vm.exchange(exchange)?;
    vm.spent()
}

/// The fuel of each exchange, with its part of the ticks after so many, and its delivery.
fn each(
    program: &Program,
    configuration: &Value,
    per_tick: u64,
    exchange: impl Fn(u64) -> anyhow::Result<Exchange>,
) -> anyhow::Result<u64> {
    let mut vm = started(program, configuration)?;
    let calls = TICKS * per_tick;
    delivered(&mut vm, 0..calls, per_tick, &exchange)?;
    vm.reset();
    delivered(&mut vm, calls..2 * calls, per_tick, &exchange)?;
    Ok(vm.spent()? / calls)
}

/// The same where each of `live` had two calls before.
fn among(
    program: &Program,
    configuration: &Value,
    live: u64,
    exchange: impl Fn(u64) -> anyhow::Result<Exchange>,
) -> anyhow::Result<u64> {
    let mut vm = started(program, configuration)?;
    delivered(&mut vm, 0..2 * live, 500, &exchange)?;
    // Events come a second later, and what was written last is read with the next ticks.
    (0..8).try_for_each(|_| taken_tick(&mut vm))?;
    vm.reset();
    let calls = TICKS * CALLS;
    // Those that are asked for are not beside each other.
    let spread = |number: u64| exchange(2 * live + number * 7);
    delivered(&mut vm, 0..calls, CALLS, &spread)?;
    Ok(vm.spent()? / calls)
}

/// The same while so many events wait for a collector that does not answer.
fn behind(program: &Program, waiting: u64) -> anyhow::Result<u64> {
    let mut vm = started(program, &tools())?;
    between_ticks(&mut vm, 0..waiting, CALLS, &json_call, Vm::tick)?;
    vm.reset();
    let calls = TICKS * CALLS;
    between_ticks(&mut vm, waiting..waiting + calls, CALLS, &json_call, Vm::tick)?;
    Ok(vm.spent()? / calls)
}

/// Plays exchanges; after so many, a tick, and all that it sends is taken.
fn delivered(
    vm: &mut Vm,
    numbers: Range<u64>,
    per_tick: u64,
    exchange: &impl Fn(u64) -> anyhow::Result<Exchange>,
) -> anyhow::Result<()> {
    between_ticks(vm, numbers, per_tick, exchange, taken_tick)
}

/// Plays exchanges, and after so many a tick as `tick` does it.
fn between_ticks(
    vm: &mut Vm,
    numbers: Range<u64>,
    per_tick: u64,
    exchange: &impl Fn(u64) -> anyhow::Result<Exchange>,
    tick: impl Fn(&mut Vm) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for number in numbers {
        vm.exchange(&exchange(number)?)?;
        if number % per_tick == per_tick - 1 {
            tick(vm)?;
        }
    }
    Ok(())
}

fn taken_tick(vm: &mut Vm) -> anyhow::Result<()> {
    vm.tick()?;
    vm.deliver().map(drop)
}

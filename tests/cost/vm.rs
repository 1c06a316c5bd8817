//! One VM: the module, its host, and the callbacks by which Envoy drives it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wasmtime::{Config, Engine, InstancePre, Linker, Module, Store, WasmParams, WasmResults};

use crate::Cost;
use crate::abi;
use crate::exchanges::Exchange;
use crate::host::{
    CONFIGURATION, Host, REPLY_BODY, REPLY_HEADERS, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_BODY,
    RESPONSE_HEADERS,
};

const MODULE: &str = "wasm32-unknown-unknown/release/agent_meter_filter.wasm";
/// The context of the plugin, of which the streams' are numbered on.
const ROOT: u32 = 1;
/// When the host's clock begins.
const BEGINNING_NS: u64 = 1_780_000_000_000_000_000;
const TICK_NS: u64 = 250_000_000;
/// No workload comes near.
const FUEL: u64 = u64::MAX;

/// The compiled module.
pub struct Program {
    engine: Engine,
    linked: InstancePre<Host>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Program")
    }
}

impl Program {
    /// Compiles the module.
    pub fn load(module: &Path) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.consume_fuel(true).cranelift_opt_level(wasmtime::OptLevel::None);
        let engine = Engine::new(&config)?;
        let module = Module::from_file(&engine, module)?;
        let mut linker = Linker::new(&engine);
        abi::define(&mut linker)?;
        linker.define_unknown_imports_as_traps(&module)?;
        Ok(Self { linked: linker.instantiate_pre(&module)?, engine })
    }
}

/// The release module beside the test that runs.
pub fn release_module() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("COST_MODULE") {
        return Ok(path.into());
    }
    // Tests are in target/PROFILE/deps.
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(3).context("this test lies in no target directory")?;
    let module = target.join(MODULE);
    ensure!(module.is_file(), "there is no {}: run `make module`", module.display());
    Ok(module)
}

/// A VM that runs.
pub struct Vm {
    store: Store<Host>,
    instance: wasmtime::Instance,
    last_context: u32,
    cost: Cost,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Vm {
    /// Starts a VM with this configuration of the plugin.
    pub fn start(program: &Program, configuration: &Value) -> anyhow::Result<Self> {
        let host = Host { clock_ns: BEGINNING_NS, ..Host::default() };
        let mut store = Store::new(&program.engine, host);
        store.set_fuel(FUEL)?;
        let instance = program.linked.instantiate(&mut store)?;
        let memory = abi::memory(instance.get_export(&mut store, "memory"))?;
        let allocate = instance.get_typed_func(&mut store, "malloc")?;
        let host = store.data_mut();
        (host.memory, host.allocate) = (Some(memory), Some(allocate));
        host.properties.insert(b"plugin_name".to_vec(), b"agent-meter".to_vec());
        host.properties.insert(b"xds\0node\0id".to_vec(), b"cost".to_vec());
        let configuration = serde_json::to_vec(configuration)?;
        let size = u32::try_from(configuration.len())?;
        host.buffers.insert(CONFIGURATION, configuration);
        let mut vm = Self { store, instance, last_context: ROOT, cost: Cost::default() };
        vm.call::<(), ()>("_initialize", ())?;
        vm.call::<(u32, u32), ()>("proxy_on_context_create", (ROOT, 0))?;
        vm.call::<(u32, u32), u32>("proxy_on_vm_start", (ROOT, 0))?;
        let is_taken = vm.call::<(u32, u32), u32>("proxy_on_configure", (ROOT, size))?;
        ensure!(is_taken == 1, "the configuration was refused: {:?}", vm.store.data().log);
        Ok(vm)
    }

    /// Calls back into the module.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        parameters: P,
    ) -> anyhow::Result<R> {
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, name)?;
        let before = self.store.get_fuel()?;
        let result = function.call(&mut self.store, parameters)?;
        let used = before - self.store.get_fuel()?;
        self.cost.fuel += used;
        self.cost.fuel_most = self.cost.fuel_most.max(used);
        let name = name.strip_prefix("proxy_").unwrap_or(name).to_owned();
        *self.cost.fuel_by_callback.entry(name).or_default() += used;
        Ok(result)
    }

    /// Leaves this much fuel: the module stops where it is used up.
    pub fn limit(&mut self, fuel: u64) -> anyhow::Result<()> {
        Ok(self.store.set_fuel(fuel)?)
    }

    /// The fuel that was used since the last [`Vm::reset`].
    pub fn spent(&self) -> anyhow::Result<u64> {
        Ok(self.cost.fuel)
    }

    /// Does something that does not count.
    pub(crate) fn uncounted(
        &mut self,
        act: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let cost = self.cost.clone();
        let host = self.store.data();
        let (calls, bytes, allocations) = (host.calls.clone(), host.copied_bytes, host.allocations);
        act(self)?;
        self.cost = cost;
        let host = self.store.data_mut();
        (host.calls, host.copied_bytes, host.allocations) = (calls, bytes, allocations);
        Ok(())
    }

    /// The text of the last lines that the module logged.
    pub fn log(&self) -> &[String] {
        &self.store.data().log
    }

    /// Puts the clock forward by a quarter of a second, in which the module's timer fires as often
    /// as it has asked for.
    pub fn tick(&mut self) -> anyhow::Result<()> {
        let until_ns = self.store.data().clock_ns + TICK_NS;
        loop {
            let host = self.store.data_mut();
            ensure!(host.tick_period_ns > 0, "the module asks for no ticks");
            let fires_ns = host.clock_ns + host.tick_period_ns;
            host.clock_ns = fires_ns.min(until_ns);
            if fires_ns > until_ns {
                return Ok(());
            }
            self.call::<u32, ()>("proxy_on_tick", ROOT)?;
        }
    }

    /// Answers all requests to the collector. Returns how many events they held.
    pub fn deliver(&mut self) -> anyhow::Result<usize> {
        let mut delivered = 0;
        while !self.store.data().dispatches.is_empty() {
            let dispatch = self.store.data_mut().dispatches.remove(0);
            let events: Vec<Value> = serde_json::from_slice(&dispatch.body)?;
            delivered += events.len();
            let host = self.store.data_mut();
            let json = ("content-type".to_owned(), b"application/json".to_vec());
            host.maps.insert(REPLY_HEADERS, vec![(":status".to_owned(), b"200".to_vec()), json]);
            let body = json!({ "accepted": events.len() }).to_string().into_bytes();
            let size = u32::try_from(body.len())?;
            host.buffers.insert(REPLY_BODY, body);
            let reply = (ROOT, dispatch.token, 2, size, 0);
            self.call::<(u32, u32, u32, u32, u32), ()>("proxy_on_http_call_response", reply)?;
        }
        Ok(delivered)
    }

    /// Plays one exchange: what Envoy calls from the request's head to the end of the stream.
    pub fn exchange(&mut self, exchange: &Exchange) -> anyhow::Result<()> {
        self.last_context += 1;
        let stream = self.last_context;
        let host = self.store.data_mut();
        host.next_stream();
        host.maps.insert(REQUEST_HEADERS, exchange.request.clone());
        self.call::<(u32, u32), ()>("proxy_on_context_create", (stream, ROOT))?;
        let size = u32::try_from(exchange.request.len())?;
        let is_end = exchange.request_body.is_empty();
        self.callback("proxy_on_request_headers", (stream, size, u32::from(is_end)))?;
        self.body(stream, &exchange.request_body, REQUEST_BODY, "proxy_on_request_body")?;
        self.store.data_mut().maps.remove(&REQUEST_HEADERS);
        let size = u32::try_from(exchange.response.len())?;
        self.store.data_mut().maps.insert(RESPONSE_HEADERS, exchange.response.clone());
        let is_end = exchange.response_body.is_empty();
        self.callback("proxy_on_response_headers", (stream, size, u32::from(is_end)))?;
        self.body(stream, &exchange.response_body, RESPONSE_BODY, "proxy_on_response_body")?;
        self.call::<u32, ()>("proxy_on_log", stream)?;
        self.call::<u32, u32>("proxy_on_done", stream)?;
        self.call::<u32, ()>("proxy_on_delete", stream)?;
        let answered = self.store.data().answered;
        ensure!(answered.is_none(), "the module answered {answered:?}: {:?}", self.log());
        Ok(())
    }

    /// Shows a body chunk by chunk; what the module holds comes again with the next.
    fn body(
        &mut self,
        stream: u32,
        chunks: &[Vec<u8>],
        buffer: u32,
        name: &str,
    ) -> anyhow::Result<()> {
        let mut shown = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            shown.extend_from_slice(chunk);
            let size = u32::try_from(shown.len())?;
            self.store.data_mut().buffers.insert(buffer, shown.clone());
            let is_end = u32::from(at + 1 == chunks.len());
            if self.callback(name, (stream, size, is_end))? == 0 {
                shown.clear();
            }
        }
        Ok(())
    }

    fn callback(&mut self, name: &str, parameters: (u32, u32, u32)) -> anyhow::Result<u32> {
        self.call::<(u32, u32, u32), u32>(name, parameters)
    }

    /// Forgets what was counted so far.
    pub fn reset(&mut self) {
        self.cost = Cost::default();
        let host = self.store.data_mut();
        host.calls.clear();
        (host.copied_bytes, host.allocations) = (0, 0);
    }

    /// What was counted since the last [`Vm::reset`], for each of `units`.
    pub fn cost(&self, units: u64) -> Cost {
        let host = self.store.data();
        let calls = host.calls.iter();
        Cost {
            fuel: self.cost.fuel / units,
            fuel_most: self.cost.fuel_most,
            fuel_by_callback: self
                .cost
                .fuel_by_callback
                .iter()
                .map(|(name, fuel)| (name.clone(), fuel / units))
                .collect(),
            host_calls_per_100: calls
                .map(|(name, calls)| ((*name).to_owned(), calls * 100 / units))
                .collect(),
            copied_bytes: host.copied_bytes / units,
            host_allocations_per_100: host.allocations * 100 / units,
        }
    }
}

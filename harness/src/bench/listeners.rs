//! The listeners to compare: `envoy/envoy.yaml` with one listener for each variant. The listeners
//! differ in one filter.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::messages::TOOL;
use crate::envoy::{Bootstrap, Envoy, Program};
use crate::plugin;
use crate::stack::ANY_PORT;

const SCRIPT: &str = include_str!("extract.lua");
/// The place of a listener's HTTP filters.
const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const MCP_FILTER: &str = "envoy.filters.http.mcp";
const LUA_FILTER: &str = "envoy.filters.http.lua";

/// The filter between a listener and its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// No filter: all differences are differences to this variant.
    NoFilter,
    /// No filter, a second time: its differences are noise.
    NoFilterAgain,
    EmptyWasm,
    /// Asks the host for all that metering needs, and decides nothing.
    ReadingWasm,
    AgentMeter,
    /// Another module of agent-meter, such as the one of before a change; only if there is one.
    Beside,
    /// The filter with a margin guard and a budget, both within limits.
    Guarded,
    /// The same, and the guard reserves the cost of each call before it runs.
    Reserving,
    /// Envoy's own filter in C++; it reads only requests.
    NativeMcp,
    Lua,
}

impl Variant {
    /// Every variant, the reference first.
    pub(super) const ALL: [Self; 10] = [
        Self::NoFilter,
        Self::NoFilterAgain,
        Self::EmptyWasm,
        Self::ReadingWasm,
        Self::AgentMeter,
        Self::Beside,
        Self::Guarded,
        Self::Reserving,
        Self::NativeMcp,
        Self::Lua,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoFilter => "no filter",
            Self::NoFilterAgain => "no filter again",
            Self::EmptyWasm => "empty Wasm filter",
            Self::ReadingWasm => "reading Wasm filter",
            Self::AgentMeter => "agent-meter",
            Self::Beside => "agent-meter beside",
            Self::Guarded => "with guards",
            Self::Reserving => "with reservation",
            Self::NativeMcp => "native mcp filter",
            Self::Lua => "Lua filter",
        }
    }

    /// True if its calls make events.
    pub(super) fn is_metered(self) -> bool {
        matches!(self, Self::AgentMeter | Self::Beside | Self::Guarded | Self::Reserving)
    }

    /// The guards of a metered listener: far from every level, so that they change nothing for a
    /// call.
    fn guards(self) -> Option<Value> {
        let actions = json!({
            "level_1": { "threshold": "50%" },
            "level_2": { "threshold": "30%", "throttle_rate": "20req/sec" },
            "level_3": { "threshold": "10%", "action": "block_request" },
        });
        let mut margin = json!({ "id": "margin", "revenue": "contracted", "actions": actions });
        match self {
            Self::Guarded => {}
            // Reserves the estimate and not the last cost, which is zero here.
            Self::Reserving => {
                margin["reserve"] = json!({ "estimate": "0.01", "last_cost": false })
            }
            _ => return None,
        }
        let budget =
            json!({ "id": "budget", "budget": { "calls": 1_000_000_000 }, "actions": actions });
        Some(json!([margin, budget]))
    }

    /// The name of a second listener with the same filter, which logs what the filter has found and
    /// is not measured. `None` if there is none.
    pub(super) fn proof(self) -> Option<String> {
        match self {
            Self::NativeMcp | Self::Lua => Some(format!("{}, logged", self.name())),
            Self::NoFilter | Self::NoFilterAgain | Self::EmptyWasm | Self::ReadingWasm => None,
            Self::AgentMeter | Self::Beside | Self::Guarded | Self::Reserving => None,
        }
    }
}

/// What the listeners are built from.
#[derive(Debug)]
pub(super) struct Rig<'a> {
    pub(super) upstream: SocketAddr,
    pub(super) collector: SocketAddr,
    pub(super) filter: &'a Path,
    pub(super) empty_filter: &'a Path,
    /// Another module of agent-meter, to compare with.
    pub(super) beside: Option<&'a Path>,
    pub(super) dir: &'a Path,
}

impl Rig<'_> {
    /// What it compares, the reference first.
    pub(super) fn variants(&self) -> Vec<Variant> {
        let is_there = |variant: &Variant| *variant != Variant::Beside || self.beside.is_some();
        Variant::ALL.into_iter().filter(is_there).collect()
    }

    /// Renders the bootstrap with all listeners on free ports.
    pub(super) fn bootstrap(&self) -> anyhow::Result<Value> {
        // The demo's prices, delivered with the default settings.
        let mut plugin = plugin::demo();
        plugin
            .as_object_mut()
            .context("the demo's configuration is no mapping")?
            .remove("delivery");
        plugin::deliver_to_harness(&mut plugin)?;
        let bootstrap = Bootstrap {
            node_id: "agent-meter-bench".to_owned(),
            listen: ANY_PORT,
            admin: ANY_PORT,
            upstream: self.upstream.into(),
            collector: self.collector.into(),
            wasm: Some(self.filter.to_owned()),
            plugin,
            settings: Vec::new(),
        };
        let mut root = bootstrap.render()?;
        let template = root["static_resources"]["listeners"][0].take();
        let mut listeners = Vec::new();
        for variant in self.variants() {
            listeners.push(self.listener(&template, variant, None)?);
            if let Some(name) = variant.proof() {
                listeners.push(self.listener(&template, variant, Some(&name))?);
            }
        }
        root["static_resources"]["listeners"] = json!(listeners);
        Ok(root)
    }

    /// Starts an Envoy with the listeners of these variants alone, after `change` has changed the
    /// filter's options.
    pub(super) async fn start(
        &self,
        program: &Program,
        variants: &[Variant],
        change: impl Fn(&mut Value),
    ) -> anyhow::Result<Envoy> {
        let mut root = self.bootstrap()?;
        let listeners = root["static_resources"]["listeners"].as_array_mut();
        let listeners = listeners.context("no listeners")?;
        listeners.retain(|listener| variants.iter().any(|of| listener["name"] == of.name()));
        for listener in listeners {
            let pointer = format!("{MANAGER}/http_filters/0/typed_config/config/configuration");
            let Some(plugin) = listener.pointer_mut(&pointer) else { continue };
            // A `StringValue`, as Istio passes it.
            let text = plugin["value"].as_str().context("no configuration of the filter")?;
            let mut options: Value = serde_json::from_str(text)?;
            change(&mut options);
            plugin["value"] = json!(options.to_string());
        }
        let config = self.dir.join("some.json");
        std::fs::write(&config, format!("{root:#}\n"))?;
        Envoy::start_from(program, config, self.dir, 1).await
    }

    fn listener(
        &self,
        template: &Value,
        variant: Variant,
        proof: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut listener = template.clone();
        let name = proof.unwrap_or(variant.name());
        listener["name"] = json!(name);
        let manager = listener.pointer_mut(MANAGER).context("envoy/envoy.yaml has no manager")?;
        manager["stat_prefix"] = json!(name);
        let [wasm, router] = manager["http_filters"].as_array().map_or(&[][..], Vec::as_slice)
        else {
            anyhow::bail!("envoy/envoy.yaml: expected the filter and the router")
        };
        let filter = match variant {
            Variant::NoFilter | Variant::NoFilterAgain => None,
            Variant::EmptyWasm => Some(self.empty(wasm.clone())),
            Variant::ReadingWasm => {
                let mut filter = self.empty(wasm.clone());
                let config = &mut filter["typed_config"]["config"];
                config["vm_config"]["vm_id"] = json!("reading");
                config["configuration"] = json!({
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": "read",
                });
                Some(filter)
            }
            Variant::AgentMeter => Some(wasm.clone()),
            Variant::Beside => {
                let mut filter = wasm.clone();
                let vm = &mut filter["typed_config"]["config"]["vm_config"];
                vm["vm_id"] = json!("beside");
                vm["code"]["local"] = json!({ "filename": self.beside });
                Some(filter)
            }
            Variant::Guarded | Variant::Reserving => Some(guarded(variant, wasm.clone())?),
            Variant::NativeMcp => Some(extension(MCP_FILTER, "mcp.v3.Mcp", json!({}))),
            Variant::Lua => {
                let script = json!({ "default_source_code": { "inline_string": SCRIPT } });
                Some(extension(LUA_FILTER, "lua.v3.Lua", script))
            }
        };
        manager["http_filters"] = filter.into_iter().chain([router.clone()]).collect();
        if proof.is_some() {
            manager["access_log"] = json!([{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": self.proof_file(),
                    "log_format": { "json_format": {
                        "mcp": format!("%DYNAMIC_METADATA({MCP_FILTER})%"),
                        "lua": format!("%DYNAMIC_METADATA({LUA_FILTER})%"),
                    } },
                },
            }]);
        }
        Ok(listener)
    }

    fn empty(&self, mut filter: Value) -> Value {
        let config = &mut filter["typed_config"]["config"];
        config["name"] = json!("empty");
        config["vm_config"]["vm_id"] = json!("empty");
        config["vm_config"]["code"]["local"] = json!({ "filename": self.empty_filter });
        config.as_object_mut().map(|config| config.remove("configuration"));
        filter
    }

    fn proof_file(&self) -> PathBuf {
        self.dir.join("proof.log")
    }

    /// Checks that each compared filter found what it is measured for. Envoy completes the log file
    /// only when it ends.
    pub(super) fn check_proof(&self) -> anyhow::Result<()> {
        let log =
            std::fs::read_to_string(self.proof_file()).context("no log of the other filters")?;
        let lines: Vec<Value> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let has = |filter: &str, pointer: &str, expected: &Value| {
            lines.iter().any(|line| line[filter].pointer(pointer) == Some(expected))
        };
        for (filter, pointer, expected) in [
            ("mcp", "/method", json!("tools/call")),
            ("mcp", "/params/name", json!(TOOL)),
            ("lua", "/method", json!("tools/call")),
            ("lua", "/tool", json!(TOOL)),
            ("lua", "/is_error", json!(false)),
        ] {
            ensure!(
                has(filter, pointer, &expected),
                "the {filter} filter did not find {pointer}: {expected}: {log}"
            );
        }
        Ok(())
    }
}

/// The filter with the variant's guards and an accountant of its own.
fn guarded(variant: Variant, mut filter: Value) -> anyhow::Result<Value> {
    let config = &mut filter["typed_config"]["config"];
    config["vm_config"]["vm_id"] = json!(variant.name());
    // A `StringValue`, as Istio passes it.
    let plugin = &mut config["configuration"]["value"];
    let text = plugin.as_str().context("no configuration of the filter")?;
    let mut options: Value = serde_json::from_str(text)?;
    options["contracts"] = json!({ "customers": { "acme": { "revenue": "1000000" } } });
    options["guards"] = json!(variant.guards());
    *plugin = json!(options.to_string());
    Ok(filter)
}

fn extension(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{message}"));
    json!({ "name": name, "typed_config": config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_differ_in_name_and_filter_only() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let (filter, empty_filter, dir) =
            (Path::new("f.wasm"), Path::new("e.wasm"), Path::new("d"));
        let beside = Some(Path::new("b.wasm"));
        let rig = Rig { upstream: addr, collector: addr, filter, empty_filter, beside, dir };
        let root = rig.bootstrap().expect("renders");
        let listeners = root["static_resources"]["listeners"].as_array().expect("a list");
        assert_eq!(listeners.len(), Variant::ALL.len() + 2);
        let bare = |listener: &Value| {
            let mut listener = listener.clone();
            listener["name"] = json!(null);
            let manager = listener.pointer_mut(MANAGER).expect("a manager");
            manager["stat_prefix"] = json!(null);
            manager["http_filters"] = json!(null);
            manager.as_object_mut().expect("a mapping").remove("access_log");
            listener
        };
        for listener in listeners {
            assert_eq!(bare(listener), bare(&listeners[0]), "{}", listener["name"]);
        }
        let text = root.to_string();
        for part in
            ["f.wasm", "e.wasm", "b.wasm", "mcp.v3.Mcp", "lua.v3.Lua", "d/proof.log", "reserve"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("flush_interval"), "not the default delivery: {text}");
    }
}

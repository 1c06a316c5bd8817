//! The listeners to compare: `envoy/envoy.yaml` with one listener for each variant. The listeners
//! differ in one filter.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::messages::TOOL;
use super::variant::Variant;
use crate::envoy::{Bootstrap, Envoy, Program};
use crate::plugin;
use crate::stack::ANY_PORT;

const SCRIPT: &str = include_str!("extract.lua");
/// The place of a listener's HTTP filters.
const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const MCP_FILTER: &str = "envoy.filters.http.mcp";
const AI_FILTER: &str = "envoy.filters.http.ai_protocol_manager";
const LUA_FILTER: &str = "envoy.filters.http.lua";
const EXT_PROC_FILTER: &str = "envoy.filters.http.ext_proc";
/// The cluster of the external processor.
const EXT_PROC_CLUSTER: &str = "ext_proc";
/// The module with the empty filter, the reading one and the buffering one.
const RIVALS: &str = "agent_meter_empty_filter.wasm";

/// What the listeners are built from.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) upstream: SocketAddr,
    pub(super) collector: SocketAddr,
    /// The external processor; without one there is no listener for it.
    pub(super) processor: Option<SocketAddr>,
    pub(super) filter: PathBuf,
    /// The module with the empty filter, which is beside the measured one.
    pub(super) rivals: PathBuf,
    /// Another module of agent-meter, to compare with.
    pub(super) beside: Option<PathBuf>,
    /// Envoy's working directory.
    pub(super) dir: PathBuf,
}

/// Where the module with the empty filter has to be.
pub(super) fn rivals(bench: &Bench) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(bench.wasm.with_file_name(RIVALS))?)
}

impl Listeners {
    /// Those of a benchmark, without an external processor.
    pub(super) fn of(
        bench: &Bench,
        upstream: SocketAddr,
        collector: SocketAddr,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            upstream,
            collector,
            processor: None,
            filter: std::path::absolute(&bench.wasm)?,
            rivals: rivals(bench)?,
            beside: bench.beside.as_ref().map(std::path::absolute).transpose()?,
            dir: dir.to_owned(),
        })
    }

    /// What is compared, the reference first.
    pub(super) fn variants(&self) -> Vec<Variant> {
        let is_there = |variant: &Variant| match variant {
            Variant::Beside => self.beside.is_some(),
            Variant::ExtProc => self.processor.is_some(),
            _ => true,
        };
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
            wasm: Some(self.filter.clone()),
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
        if let Some(processor) = self.processor {
            let clusters = root["static_resources"]["clusters"].as_array_mut();
            clusters.context("envoy/envoy.yaml has no clusters")?.push(ext_proc_cluster(processor));
        }
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
            change_options(plugin, &change)?;
        }
        let config = self.dir.join("some.json");
        std::fs::write(&config, format!("{root:#}\n"))?;
        Envoy::start_from(program, config, &self.dir, 1).await
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
        let filters = self.filters(variant, wasm)?;
        manager["http_filters"] = filters.into_iter().chain([router.clone()]).collect();
        if proof.is_some() {
            manager["access_log"] = json!([{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": self.proof_file(),
                    "log_format": { "json_format": {
                        "listener": name,
                        "mcp": format!("%DYNAMIC_METADATA({MCP_FILTER})%"),
                        "lua": format!("%DYNAMIC_METADATA({LUA_FILTER})%"),
                    } },
                },
            }]);
        }
        Ok(listener)
    }

    /// The filters before the router; `wasm` is agent-meter's.
    fn filters(&self, variant: Variant, wasm: &Value) -> anyhow::Result<Vec<Value>> {
        let mcp = || extension(MCP_FILTER, "mcp.v3.Mcp", json!({}));
        Ok(match variant {
            Variant::NoFilter | Variant::NoFilterAgain => Vec::new(),
            Variant::EmptyWasm => vec![self.rival(wasm, "empty", None)],
            Variant::ReadingWasm => vec![self.rival(wasm, "reading", Some("read"))],
            Variant::BufferingWasm => vec![self.rival(wasm, "buffering", Some("buffer"))],
            Variant::AgentMeter => vec![wasm.clone()],
            Variant::Beside => {
                let mut filter = wasm.clone();
                let vm = &mut filter["typed_config"]["config"]["vm_config"];
                vm["vm_id"] = json!("beside");
                vm["code"]["local"] = json!({ "filename": self.beside });
                vec![filter]
            }
            Variant::Unmatched => vec![with_options(variant, wasm, |options| {
                options["products"][0]["match"] = json!({ "path": "/elsewhere" });
            })?],
            Variant::Guarded | Variant::Reserving => {
                vec![with_options(variant, wasm, |options| {
                    options["contracts"] =
                        json!({ "customers": { "acme": { "revenue": "1000000" } } });
                    options["guards"] = json!(variant.guards());
                })?]
            }
            Variant::NativeMcp => vec![mcp()],
            Variant::NativeMcpAndAi => vec![mcp(), ai_protocol_manager()],
            Variant::Lua => {
                let script = json!({ "default_source_code": { "inline_string": SCRIPT } });
                vec![extension(LUA_FILTER, "lua.v3.Lua", script)]
            }
            Variant::ExtProc => vec![ext_proc()],
        })
    }

    /// A filter of the module that meters nothing.
    fn rival(&self, wasm: &Value, id: &str, configuration: Option<&str>) -> Value {
        let mut filter = wasm.clone();
        let config = &mut filter["typed_config"]["config"];
        config["name"] = json!(id);
        config["vm_config"]["vm_id"] = json!(id);
        config["vm_config"]["code"]["local"] = json!({ "filename": self.rivals });
        config.as_object_mut().map(|config| config.remove("configuration"));
        if let Some(configuration) = configuration {
            config["configuration"] = json!({
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration,
            });
        }
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
        let listener = |variant: Variant| variant.proof().unwrap_or_default();
        let (native, both) = (Variant::NativeMcp, Variant::NativeMcpAndAi);
        for (variant, filter, pointer, expected) in [
            (native, "mcp", "/method", json!("tools/call")),
            (native, "mcp", "/params/name", json!(TOOL)),
            (both, "mcp", "/method", json!("tools/call")),
            (both, "mcp", "/params/name", json!(TOOL)),
            (Variant::Lua, "lua", "/method", json!("tools/call")),
            (Variant::Lua, "lua", "/tool", json!(TOOL)),
            (Variant::Lua, "lua", "/is_error", json!(false)),
        ] {
            let name = listener(variant);
            let mut own = lines.iter().filter(|line| line["listener"] == name.as_str());
            let has = own.any(|line| line[filter].pointer(pointer) == Some(&expected));
            ensure!(has, "{name}: the {filter} filter did not find {pointer}: {expected}: {log}");
        }
        Ok(())
    }
}

/// agent-meter with changed options and an accountant of its own.
fn with_options(
    variant: Variant,
    wasm: &Value,
    change: impl FnOnce(&mut Value),
) -> anyhow::Result<Value> {
    let mut filter = wasm.clone();
    let config = &mut filter["typed_config"]["config"];
    config["vm_config"]["vm_id"] = json!(variant.name());
    change_options(&mut config["configuration"], change)?;
    Ok(filter)
}

/// Changes options in a `StringValue`, as Istio passes it.
fn change_options(plugin: &mut Value, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
    let text = plugin["value"].as_str().context("no configuration of the filter")?;
    let mut options: Value = serde_json::from_str(text)?;
    change(&mut options);
    plugin["value"] = json!(options.to_string());
    Ok(())
}

/// Envoy's filter for LLM traffic. Without routes that are declared to it, it has to try every body.
fn ai_protocol_manager() -> Value {
    let config = json!({
        "request_handling": { "parse_unconfigured_routes": true },
        "response_handling": { "token_usage": { "include_unconfigured_routes": true } },
    });
    extension(AI_FILTER, "ai_protocol_manager.v3.AiProtocolManager", config)
}

/// Sends both heads and both bodies to the processor. `BUFFERED` takes four messages for each call, the
/// fewest there are: `FULL_DUPLEX_STREAMED` takes one more for each chunk and for the trailers, and has the
/// processor send all bodies back.
fn ext_proc() -> Value {
    let config = json!({
        "grpc_service": { "envoy_grpc": { "cluster_name": EXT_PROC_CLUSTER } },
        "processing_mode": {
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_body_mode": "BUFFERED",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        // The default of 200 ms would fail calls when the machine is busy.
        "message_timeout": "5s",
    });
    extension(EXT_PROC_FILTER, "ext_proc.v3.ExternalProcessor", config)
}

fn ext_proc_cluster(processor: SocketAddr) -> Value {
    let (address, port) = (processor.ip().to_string(), processor.port());
    json!({
        "name": EXT_PROC_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": EXT_PROC_CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": address, "port_value": port },
            } } }] }],
        },
    })
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
        let rig = Listeners {
            upstream: addr,
            collector: addr,
            processor: Some(SocketAddr::from(([127, 0, 0, 1], 4317))),
            filter: PathBuf::from("f.wasm"),
            rivals: PathBuf::from("e.wasm"),
            beside: Some(PathBuf::from("b.wasm")),
            dir: PathBuf::from("d"),
        };
        let root = rig.bootstrap().expect("renders");
        let listeners = root["static_resources"]["listeners"].as_array().expect("a list");
        assert_eq!(listeners.len(), Variant::ALL.len() + 3);
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
        for part in [
            "f.wasm",
            "e.wasm",
            "b.wasm",
            "mcp.v3.Mcp",
            "AiProtocolManager",
            "lua.v3.Lua",
            "ExternalProcessor",
            "4317",
            "/elsewhere",
            "d/proof.log",
            "reserve",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("flush_interval"), "not the default delivery: {text}");
    }
}

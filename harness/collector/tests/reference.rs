//! `envoy/REFERENCE.md` is made from the code: the schema of the configuration, the list of routes, the
//! metrics as a collector answers them, the counters of the filter, and its refusals.
//! `AGENT_METER_WRITE=1 cargo test -p agent-meter-collector --test reference` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use agent_meter_collector::{Collector, Extras, Secret, Sinks, Webhook, Webhooks, http_routes};
use agent_meter_core::admission::refusal::replies;
use agent_meter_core::config::product::ProductType;
use agent_meter_core::config::schema::schema;
use agent_meter_core::guard::refusal_list::refusals;
use agent_meter_core::host::counter::{Counter, Gauge};
use serde_json::Value;

const HEAD: &str = "# Reference

Made from the code by `AGENT_METER_WRITE=1 cargo test -p agent-meter-collector --test reference`; a test fails where it is old.
[filter.yaml](filter.yaml) shows the options in their places, [EVENTS.md](../filter/EVENTS.md) explains events and their members, [the collector's README](../harness/collector/README.md) what its routes and metrics are for.
";

#[tokio::test]
async fn the_reference_is_what_the_code_says() -> anyhow::Result<()> {
    let mut text = HEAD.to_owned();
    options(&mut text)?;
    routes(&mut text)?;
    metrics_of_the_filter(&mut text)?;
    metrics_of_the_collector(&mut text).await?;
    refusals_by_the_head(&mut text)?;
    refusals_of_requests(&mut text)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../envoy/REFERENCE.md");
    if env::var_os("AGENT_METER_WRITE").is_some() {
        fs::write(&file, &text)?;
    }
    let written = fs::read_to_string(&file)?;
    let old = text.lines().find(|line| !written.lines().any(|other| other == *line));
    assert!(written == text, "the reference is old, AGENT_METER_WRITE=1 writes it anew: {old:?}");
    Ok(())
}

/// Text for a cell of a table, without links of Rust's documentation.
fn cell(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, behind)) = link.split_once("`]") else { break };
        let _ = write!(plain, "{before}`{name}`");
        rest = match behind.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, behind)) => behind,
            None => behind,
        };
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn table(text: &mut String, title: &str, about: &str, head: &[&str]) {
    let line = head.iter().map(|_| "---").collect::<Vec<_>>().join("|");
    let _ = write!(text, "\n## {title}\n\n{about}\n\n| {} |\n|{line}|\n", head.join(" | "));
}

fn options(text: &mut String) -> anyhow::Result<()> {
    let about = "Of the plugin's configuration. `[]` stands for each element of a list, `*` for each name of a map. An option without a default is required, or is an object whose members have theirs. [filter.schema.json](filter.schema.json) is the same for editors.";
    table(text, "Options", about, &["option", "type", "default", "meaning"]);
    let schema = schema();
    let mut walk = Walk { schema: &schema, text, open: Vec::new() };
    walk.members("", "Config");
    walk.members("control.", "Control");
    Ok(())
}

/// Writes the options, each definition inside those that contain it.
struct Walk<'a> {
    schema: &'a Value,
    text: &'a mut String,
    /// The definitions that are being written.
    open: Vec<String>,
}

impl Walk<'_> {
    /// The name of the definition that a schema is, or of the other one beside null.
    fn name_of(schema: &Value) -> Option<&str> {
        let parts = schema["anyOf"].as_array().into_iter().flatten();
        let mut all = std::iter::once(schema).chain(parts);
        all.find_map(|part| part["$ref"].as_str()?.strip_prefix("#/$defs/"))
    }

    fn definition(&self, name: &str) -> &Value {
        &self.schema["$defs"][name]
    }

    fn members(&mut self, prefix: &str, name: &str) {
        if self.open.iter().any(|open| open == name) {
            return;
        }
        self.open.push(name.to_owned());
        let definition = self.definition(name).clone();
        let required: BTreeSet<&str> = definition["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (member, option) in definition["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{member}");
            let default = match option.get("default") {
                Some(default) => format!("`{default}`"),
                None if required.contains(member.as_str()) => "required".to_owned(),
                None => String::new(),
            };
            let kind = self.kind(option);
            let meaning = self.meaning(option);
            let _ = writeln!(self.text, "| `{path}` | {kind} | {default} | {meaning} |");
            self.inside(&path, option);
        }
        self.open.pop();
    }

    /// Writes the members of what an option contains.
    fn inside(&mut self, path: &str, option: &Value) {
        if let Some(name) = Self::name_of(option).map(str::to_owned) {
            let definition = self.definition(&name).clone();
            if definition["properties"].is_object() {
                return self.members(&format!("{path}."), &name);
            }
            return self.inside_of_variants(path, &definition);
        }
        if option["items"].is_object() {
            return self.inside(&format!("{path}[]"), &option["items"].clone());
        }
        if option["additionalProperties"].is_object() {
            self.inside(&format!("{path}.*"), &option["additionalProperties"].clone());
        }
    }

    /// Writes the variants of an enum with contents, once: the first option that takes it.
    fn inside_of_variants(&mut self, path: &str, definition: &Value) {
        let Some(name) = Self::name_of(definition).map(str::to_owned) else { return };
        let variants = self.definition(&name).clone();
        for variant in variants["oneOf"].as_array().into_iter().flatten() {
            for (member, option) in variant["properties"].as_object().into_iter().flatten() {
                let meaning = cell(variant["description"].as_str().unwrap_or_default());
                let kind = self.kind(option);
                let _ = writeln!(self.text, "| `{path}.{member}` | {kind} | | {meaning} |");
            }
        }
    }

    /// What a value is, in a word or two.
    fn kind(&self, option: &Value) -> String {
        if let Some(name) = Self::name_of(option) {
            let definition = self.definition(name);
            let kind = match name {
                "Duration" => "duration".to_owned(),
                "Price" => "decimal".to_owned(),
                "Share" => "share".to_owned(),
                "ThrottleRate" => "rate of requests".to_owned(),
                "Instant" => "date or time".to_owned(),
                "Sources" => "source, or list of sources".to_owned(),
                _ => self.kind(definition),
            };
            let is_null = |part: &Value| part["type"] == "null";
            let parts = option["anyOf"].as_array();
            return match parts {
                Some(parts) if parts.iter().any(is_null) => format!("{kind} or null"),
                Some(_) => format!("{kind} or `auto`"),
                None => kind,
            };
        }
        if option["oneOf"].is_array() {
            return "word".to_owned();
        }
        if option["items"].is_object() {
            return format!("list of {}", self.kind(&option["items"]));
        }
        if option["additionalProperties"].is_object() {
            return format!("map of {}", self.kind(&option["additionalProperties"]));
        }
        let word = |kind: &str| match kind {
            "string" => "text".to_owned(),
            "boolean" => "true or false".to_owned(),
            "integer" => "whole number".to_owned(),
            kind => kind.to_owned(),
        };
        match &option["type"] {
            Value::String(kind) => word(kind),
            Value::Array(kinds) => {
                kinds.iter().filter_map(Value::as_str).map(word).collect::<Vec<_>>().join(" or ")
            }
            _ => "text, or list of text".to_owned(),
        }
    }

    /// What an option means, and each of its words.
    fn meaning(&self, option: &Value) -> String {
        let mut meaning = cell(option["description"].as_str().unwrap_or_default());
        let of_items = Self::name_of(&option["items"]);
        let definition = Self::name_of(option).or(of_items).map(|name| self.definition(name));
        for word in definition.and_then(|found| found["oneOf"].as_array()).into_iter().flatten() {
            let Some(name) = word["const"].as_str() else { continue };
            let about = cell(word["description"].as_str().unwrap_or_default());
            let _ = write!(meaning, "<br>`{name}`: {about}");
        }
        meaning
    }
}

fn routes(text: &mut String) -> anyhow::Result<()> {
    let about = "Of the collector. What is not 2xx is `{\"error\": \"...\"}`.";
    table(text, "HTTP routes", about, &["method", "path", "what it does"]);
    for route in http_routes() {
        writeln!(text, "| {} | `{}` | {} |", route.method, route.path, cell(route.about))?;
    }
    Ok(())
}

fn metrics_of_the_filter(text: &mut String) -> anyhow::Result<()> {
    let about =
        "In Envoy's stats as `wasmcustom.agent_meter.NAME`, for Prometheus as `agent_meter_NAME`.";
    table(text, "Metrics of the filter", about, &["name", "kind", "meaning"]);
    for counter in Counter::ALL {
        let meaning = cell(counter.description());
        writeln!(text, "| `{}` | counter | {meaning} |", counter.name())?;
    }
    for gauge in Gauge::ALL {
        writeln!(text, "| `{}` | gauge | {} |", gauge.name(), cell(gauge.description()))?;
    }
    Ok(())
}

/// A collector with everything that has metrics of its own.
async fn collector(folder: &Path) -> anyhow::Result<Collector> {
    let hook = Webhook { name: "finance".to_owned(), url: "http://127.0.0.1:9/".parse()? };
    let webhooks = Webhooks::new(vec![hook], Secret::parse("a secret for webhooks")?)?;
    let (file, lines) = (folder.join("sinks.yaml"), folder.join("events.jsonl"));
    fs::write(
        &file,
        format!("sinks: {{archive: {{type: json_lines, file: '{}'}}}}", lines.display()),
    )?;
    let sinks = Some(Sinks::read(&file)?);
    let extras = Extras { webhooks: Some(webhooks), sinks, ..Extras::default() };
    Collector::start_with("127.0.0.1:0".parse()?, "sqlite::memory:", extras).await
}

async fn metrics_of_the_collector(text: &mut String) -> anyhow::Result<()> {
    let about = "At `GET /metrics`; those of webhooks and sinks where there are some.";
    table(text, "Metrics of the collector", about, &["name", "kind", "meaning"]);
    let folder = tempfile::tempdir()?;
    let collector = collector(folder.path()).await?;
    let told = reqwest::get(format!("http://{}/metrics", collector.addr())).await?.text().await?;
    collector.stop().await;
    let mut help = "";
    for line in told.lines() {
        if let Some((_, about)) = line.strip_prefix("# HELP ").and_then(|help| help.split_once(' '))
        {
            help = about;
        }
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|kind| kind.split_once(' '))
        {
            writeln!(text, "| `{name}` | {kind} | {} |", cell(help))?;
        }
    }
    Ok(())
}

fn refusals_by_the_head(text: &mut String) -> anyhow::Result<()> {
    let about = "Answers of the filter by a request's head, before its body is read. Clients of MCP and A2A get the JSON-RPC error where one is named, with the id `null`; all others `{\"error\": ..., \"error_description\": ...}`.";
    let head = ["HTTP status", "`error`", "JSON-RPC code", "headers", "when"];
    table(text, "Refusals by the head", about, &head);
    let http = replies(ProductType::StandardApi);
    let mcp = replies(ProductType::McpServer);
    let a2a = replies(ProductType::AiAgent);
    for (((when, reply), (_, of_mcp)), (_, of_a2a)) in http.into_iter().zip(mcp).zip(a2a) {
        let body: Value = serde_json::from_str(&reply.body)?;
        let code = |body: &str| -> anyhow::Result<Option<i64>> {
            Ok(serde_json::from_str::<Value>(body)?["error"]["code"].as_i64())
        };
        let codes = match (code(&of_mcp.body)?, code(&of_a2a.body)?) {
            (Some(mcp), Some(a2a)) if mcp == a2a => mcp.to_string(),
            (Some(mcp), Some(a2a)) => format!("{mcp} (MCP), {a2a} (A2A)"),
            _ => String::new(),
        };
        let error = body["error"].as_str().unwrap_or_default();
        let headers: Vec<String> =
            reply.headers.iter().map(|(name, _)| format!("`{name}`")).collect();
        let headers = headers.join(", ");
        writeln!(text, "| {} | `{error}` | {codes} | {headers} | {when} |", reply.status)?;
    }
    Ok(())
}

fn refusals_of_requests(text: &mut String) -> anyhow::Result<()> {
    let about = "Answers of the filter to what guards, plans, an operator or a doubt refuse. Clients of MCP and A2A get the JSON-RPC code, all others `error.code`; `data.reason` is in both.";
    let head = ["HTTP status", "JSON-RPC code", "`error.code`", "`data.reason`", "message"];
    table(text, "Refusals of requests", about, &head);
    for row in refusals() {
        let (status, rpc, code) = (row.status, row.json_rpc_code, row.code);
        writeln!(text, "| {status} | {rpc} | `{code}` | `{}` | {} |", row.reason, row.message)?;
    }
    Ok(())
}

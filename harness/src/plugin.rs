//! Plugin configurations: the user's file, and the defaults of `run` and `demo`.
//!
//! Only the filter knows what a configuration means; the harness passes it on as a tree.

use std::path::Path;

use agent_meter_collector::yaml_or_json;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Reads a plugin configuration in YAML or JSON.
pub fn read(file: &Path) -> anyhow::Result<Value> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let plugin = yaml_or_json(&text).with_context(|| format!("{name} is neither YAML nor JSON"))?;
    ensure!(plugin.is_object(), "{name}: expected a mapping with `products`");
    Ok(plugin)
}

/// Sends the events to the collector's cluster in the harness's bootstrap, wherever the file would
/// send them.
///
/// The collector's path and timeout stay as configured.
pub fn deliver_to_harness(plugin: &mut Value) -> anyhow::Result<()> {
    let plugin = plugin.as_object_mut().context("the plugin configuration is no mapping")?;
    let collector = plugin.entry("collector").or_insert_with(|| json!({}));
    // If the collector is not a mapping, the filter refuses it.
    if let Some(collector) = collector.as_object_mut() {
        collector.insert("cluster".to_owned(), json!("agent_meter_collector"));
        collector.insert("authority".to_owned(), json!("agent-meter-collector"));
    }
    Ok(())
}

/// The path of the events at the collector.
pub fn collector_path(plugin: &Value) -> &str {
    plugin.pointer("/collector/path").and_then(Value::as_str).unwrap_or("/v1/events")
}

/// The secret that the filter shares with the collector, if there is one.
pub fn collector_secret(plugin: &Value) -> Option<&str> {
    let secret = plugin.pointer("/collector/secret").and_then(Value::as_str);
    secret.filter(|secret| !secret.is_empty())
}

/// Meters every path and every tool at price 0, and takes the identity from headers.
pub fn everything_free() -> Value {
    json!({
        "products": [{
            "id": "mcp",
            "type": "MCP_SERVER",
            "match": { "path_prefix": "/" },
            "identity": identity(),
            "pricing": { "currency": "USD", "default": { "price": "0", "cost_tier": "standard" } },
        }],
    })
}

/// What the demo's customers pay on top of the operator's token cost, as a share: a fifth.
pub const TOKEN_MARKUP: Decimal = Decimal::from_parts(2, 0, 0, false, 1);

/// The subscription of the demo: lookups 0.001, database writes 0.05, analyses 0.10 USD.
pub fn demo() -> Value {
    let mut plugin = demo_tools();
    meter_llm(&mut plugin);
    plugin
}

/// Adds the demo's LLM: its cost is by OpenAI's list prices, and customers pay it with
/// [`TOKEN_MARKUP`].
pub fn meter_llm(plugin: &mut Value) {
    plugin["rate_cards"] = json!([{
        "version": "demo",
        "currency": "USD",
        "rates": [
            { "provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"],
              "input": "2.5", "cache_read": "1.25", "output": "10" },
            { "provider": "openai", "model": "gpt-4o-mini", "aliases": ["gpt-4o-mini-2024-07-18"],
              "input": "0.15", "cache_read": "0.075", "output": "0.6" },
        ],
    }]);
    // The tools' own requests name nobody: their cost goes to the calls that they belong to.
    let mut caller = identity();
    caller["on_missing"] = json!("meter_as_anonymous");
    let tokens = json!({ "pass_through": true, "markup": TOKEN_MARKUP.to_string() });
    let product = json!({
        "id": "llm",
        "type": "AI_AGENT",
        "match": { "path_prefix": "/llm" },
        "identity": caller,
        "llm": { "provider": "openai" },
        "pricing": { "currency": "USD", "tokens": tokens },
    });
    if let Some(products) = plugin["products"].as_array_mut() {
        products.push(product);
    }
}

fn demo_tools() -> Value {
    json!({
        "delivery": { "flush_interval": "100ms", "retry_initial": "100ms" },
        "products": [{
            "id": "crm-tools",
            "type": "MCP_SERVER",
            "match": { "path": "/mcp" },
            "identity": identity(),
            "pricing": {
                "currency": "USD",
                "billable_statuses": ["SUCCESS"],
                "default": { "price": "0.001", "cost_tier": "standard" },
                "tools": [
                    { "tool": "lookup_*", "price": "0.001", "cost_tier": "lookup" },
                    { "tool": "write_*", "price": "0.05", "cost_tier": "database-write" },
                    { "tool": "analyze_*", "price": "0.10", "cost_tier": "analysis" },
                ],
            },
        }],
    })
}

fn identity() -> Value {
    json!({
        "customer": { "trusted_header": "x-customer-id" },
        "agent": { "trusted_header": "x-agent-id" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_to_the_harness_whatever_the_file_says() {
        let mut plugin = json!({ "collector": { "cluster": "billing", "path": "/in" } });
        deliver_to_harness(&mut plugin).expect("a mapping");
        assert_eq!(plugin["collector"]["cluster"], "agent_meter_collector");
        assert_eq!(collector_path(&plugin), "/in");
        let mut plugin = json!({ "products": [] });
        deliver_to_harness(&mut plugin).expect("a mapping");
        assert_eq!(plugin["collector"]["authority"], "agent-meter-collector");
        assert_eq!(collector_path(&plugin), "/v1/events");
    }
}

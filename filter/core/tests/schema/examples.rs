//! Every configuration that the repository shows, in YAML files and in the code blocks of Markdown, is
//! one that the filter takes and its schema too.

use std::fs;

use agent_meter_core::config::control::PluginConfig;
use agent_meter_core::config::schema::schema;
use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::definitions::{resolved, validator};
use crate::{files, read, root};

/// A configuration, and where it stands.
pub(crate) struct Example {
    pub(crate) place: String,
    pub(crate) config: Value,
}

/// The documents of a YAML text, as far as it is one.
fn documents(text: &str) -> Vec<Value> {
    let read = |document| {
        let mut document = serde_yaml_ng::Value::deserialize(document).ok()?;
        document.apply_merge().ok()?;
        serde_json::to_value(document).ok()
    };
    serde_yaml_ng::Deserializer::from_str(text).map_while(read).collect()
}

/// Collects the configurations inside a document: by themselves, in a resource, or in a text.
fn collect(place: &str, value: &Value, found: &mut Vec<Example>) {
    let is_config = |value: &Value| value["products"].is_array() || value["control"].is_object();
    match value {
        _ if is_config(value) => {
            found.push(Example { place: place.to_owned(), config: value.clone() });
        }
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, member)| collect(&format!("{place} {name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(place, item, found)),
        // The text of a StringValue.
        Value::String(text) if text.contains("products") || text.contains("control") => {
            let inner = documents(text).into_iter().filter(Value::is_object);
            inner.for_each(|document| collect(place, &document, found));
        }
        _ => {}
    }
}

/// A part of a configuration, as documentation shows it, with the product that it lacks.
fn completed(mut part: Value) -> Option<Value> {
    let schema = schema();
    let options = resolved(&schema, &schema["else"])["properties"].as_object()?.clone();
    let members = part.as_object_mut()?;
    let is_part = !members.is_empty() && members.keys().all(|name| options.contains_key(name));
    let product = json!({ "id": "mcp", "type": "MCP_SERVER", "match": { "path": "/mcp" } });
    members.entry("products").or_insert_with(|| json!([product]));
    is_part.then_some(part)
}

/// All examples of the repository.
pub(crate) fn examples() -> anyhow::Result<Vec<Example>> {
    let mut found = Vec::new();
    for name in files(".yaml")?.into_iter().chain(files(".yml").unwrap_or_default()) {
        let documents = documents(&read(&name)?);
        documents.iter().for_each(|document| collect(&name, document, &mut found));
    }
    for name in files(".md")? {
        let text = read(&name)?;
        for (at, block) in text.split("\n```").skip(1).step_by(2).enumerate() {
            let place = format!("{name}, block {}", at + 1);
            let Some((language, text)) = block.split_once('\n') else { continue };
            if !["yaml", "json"].contains(&language) {
                continue;
            }
            for document in documents(text) {
                let before = found.len();
                collect(&place, &document, &mut found);
                let part = completed(document).filter(|_| found.len() == before);
                found.extend(part.map(|config| Example { place: place.clone(), config }));
            }
        }
    }
    Ok(found)
}

#[test]
fn every_example_fits_the_schema_and_the_filter() -> anyhow::Result<()> {
    let validator = validator()?;
    let examples = examples()?;
    for Example { place, config } in &examples {
        let faults: Vec<String> = validator
            .iter_errors(config)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(faults.is_empty(), "{place}: {faults:?}");
        PluginConfig::from_bytes(config.to_string().as_bytes()).with_context(|| place.clone())?;
    }
    let places: Vec<&str> = examples.iter().map(|example| example.place.as_str()).collect();
    for file in [
        "envoy/filter.yaml",
        "envoy/envoy.yaml",
        "envoy/control-listener.yaml",
        "envoy/istio/wasmplugin-gateway.yaml",
        "envoy/istio/wasmplugin-sidecar.yaml",
        "harness/docker-plugin.yaml",
        "README.md",
    ] {
        ensure!(places.iter().any(|place| place.starts_with(file)), "{file}: no example found");
    }
    Ok(())
}

#[test]
fn files_that_are_a_configuration_name_its_schema() -> anyhow::Result<()> {
    for name in files(".yaml")? {
        let text = read(&name)?;
        if !documents(&text).iter().any(|document| document["products"].is_array()) {
            continue;
        }
        let named =
            text.lines().find_map(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let named = named.with_context(|| format!("{name} names no schema"))?;
        let folder = root().join(&name);
        let schema = folder.parent().context("a folder")?.join(named);
        ensure!(
            fs::canonicalize(&schema)?
                == fs::canonicalize(root().join("envoy/filter.schema.json"))?,
            "{name} names {named}"
        );
    }
    Ok(())
}

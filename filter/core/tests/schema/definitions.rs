//! The schema: its file, its descriptions and its defaults.

use agent_meter_core::config::Config;
use agent_meter_core::config::schema::schema;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::is_current;

/// What checks configurations.
pub(crate) fn validator() -> anyhow::Result<Validator> {
    Ok(jsonschema::draft202012::new(&schema())?)
}

/// The definition that a schema refers to, else the schema itself.
pub(crate) fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
    name.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

#[test]
fn the_file_is_what_the_command_prints() -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&schema())?;
    is_current("envoy/filter.schema.json", &format!("{text}\n"))
}

#[test]
fn the_schema_is_one() -> anyhow::Result<()> {
    jsonschema::meta::validate(&schema()).map_err(|error| anyhow::anyhow!("{error}"))?;
    validator().map(drop)
}

#[test]
fn every_option_and_every_word_is_described() {
    let mut bare = Vec::new();
    find_bare("", &schema(), &mut bare);
    assert!(bare.is_empty(), "without a description: {bare:?}");
}

/// Collects the properties and the words of enums without a description.
fn find_bare(path: &str, schema: &Value, bare: &mut Vec<String>) {
    let Some(members) = schema.as_object() else { return };
    let is_described = |option: &Value| {
        let text = option["description"].as_str().unwrap_or_default();
        !text.is_empty() && !text.contains('\n') && !text.contains("`None`") && !text.contains("](")
    };
    for (name, option) in schema["properties"].as_object().into_iter().flatten() {
        // `control` is described where its type is; the only member of a variant, beside it.
        if name != "control" && !is_described(option) && !is_described(schema) {
            bare.push(format!("{path}/{name}"));
        }
    }
    for word in schema["oneOf"].as_array().into_iter().flatten() {
        if !is_described(word) {
            bare.push(format!("{path}: {word}"));
        }
    }
    for (name, member) in members {
        match member {
            Value::Array(parts) => {
                parts.iter().for_each(|part| find_bare(&format!("{path}/{name}"), part, bare));
            }
            _ => find_bare(&format!("{path}/{name}"), member, bare),
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_code() -> anyhow::Result<()> {
    let least = json!({
        "collector": {}, "delivery": {}, "cors": {}, "contracts": {}, "correlation": {},
        "already_metered": {},
        "rate_cards": [{ "version": "1", "rates": [{ "provider": "openai", "model": "gpt", "input": "1" }] }],
        "guards": [{ "id": "guard", "actions": { "level_1": { "threshold": "10%" } } }],
        "products": [
            { "id": "mcp", "type": "MCP_SERVER", "match": { "path": "/mcp", "headers": [{ "name": "x" }] },
              "pricing": { "tools": [{ "tool": "a", "price": "1" }] } },
            { "id": "llm", "type": "AI_AGENT", "match": { "path_prefix": "/v1" }, "llm": {} },
        ],
    });
    let schema = schema();
    let mut filled = least.clone();
    let mut count = 0;
    fill(&schema, resolved(&schema, &schema["else"]), &mut filled, &mut count);
    let read = |value: &Value| Config::from_bytes(value.to_string().as_bytes());
    assert_eq!(read(&filled)?, read(&least)?);
    assert!(count > 100, "only {count} defaults");
    Ok(())
}

/// Adds to a value the defaults of all that it leaves out.
fn fill(root: &Value, schema: &Value, value: &mut Value, count: &mut u32) {
    let schema = resolved(root, schema);
    if let Some(part) = schema["anyOf"].as_array().and_then(|parts| parts.first()) {
        return fill(root, part, value, count);
    }
    if let Value::Array(items) = value {
        return items.iter_mut().for_each(|item| fill(root, &schema["items"], item, count));
    }
    let Value::Object(members) = value else { return };
    for (name, option) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = option.get("default") {
            members.entry(name).or_insert_with(|| {
                *count += 1;
                default.clone()
            });
        } else if resolved(root, option)["properties"].is_object()
            && resolved(root, option).get("required").is_none()
        {
            members.entry(name).or_insert_with(|| json!({}));
        }
        if let Some(member) = members.get_mut(name) {
            fill(root, option, member, count);
        }
    }
}

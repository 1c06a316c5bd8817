//! The JSON Schema (draft 2020-12) of the plugin's configuration, for editors and for the reference.
//!
//! It never refuses what the filter takes, but for one form that nobody writes: a word of an enum as
//! an object (`unmatched: { pass: null }`). It takes more than the filter does: relations between
//! options are left to `agent-meter check config`.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::config::control::ControlConfig;

/// The schema of what Envoy gives to the module: a configuration that meters, or one with `control`.
///
/// Each option has its description, and its default where it need not be given. Members are in the
/// order of their names.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let metering = generator.subschema_for::<Config>();
    let control = generator.subschema_for::<ControlConfig>();
    let mut definitions = generator.take_definitions(true);
    definitions.values_mut().for_each(tidy);
    definitions.insert("ControlOnly".to_owned(), only("control", &control));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of the agent-meter filter",
        "description": "What Envoy gives to the module: a configuration that meters, or one with the only member `control`.",
        "$defs": definitions,
        "if": { "type": "object", "required": ["control"] },
        "then": { "$ref": "#/$defs/ControlOnly" },
        "else": metering,
    })
}

/// The schema of an object with this one member.
fn only(name: &str, member: &Schema) -> Value {
    json!({
        "type": "object",
        "properties": { name: member },
        "required": [name],
        "additionalProperties": false,
    })
}

/// Writes each description in one line, and the defaults that follow from the type: a list, a map or a
/// null that need not be given is empty.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(tidy),
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            add_empty_defaults(members);
            members.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// Gives the optional members of an object that have no default the empty one.
fn add_empty_defaults(object: &mut Map<String, Value>) {
    let required = object.get("required").cloned().unwrap_or_default();
    let is_required =
        |name: &str| required.as_array().is_some_and(|all| all.contains(&name.into()));
    let Some(Value::Object(options)) = object.get_mut("properties") else { return };
    for (name, option) in options {
        let Value::Object(option) = option else { continue };
        if is_required(name) || option.contains_key("default") {
            continue;
        }
        if let Some(empty) = empty(option) {
            option.insert("default".to_owned(), empty);
        }
    }
}

/// The empty value of a schema: null where it may be, else of a list or a map.
fn empty(option: &Map<String, Value>) -> Option<Value> {
    let is_null = |part: &Value| part.get("type").is_some_and(|kind| kind == "null");
    let any_of = option.get("anyOf").and_then(Value::as_array);
    let may_be_null = option.get("type").and_then(Value::as_array);
    if any_of.is_some_and(|parts| parts.iter().any(is_null))
        || may_be_null.is_some_and(|kinds| kinds.contains(&"null".into()))
    {
        return Some(Value::Null);
    }
    match option.get("type").and_then(Value::as_str) {
        Some("array") => Some(json!([])),
        Some("object") if option.get("additionalProperties").is_some_and(Value::is_object) => {
            Some(json!({}))
        }
        _ => None,
    }
}

//! Parts of the configuration's JSON Schema (draft 2020-12), for types that read themselves.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value};

/// The schema of a text of this form. The pattern must take all that the type's reader takes.
pub(crate) fn text(description: &str, pattern: &str, examples: &[&str]) -> Schema {
    let mut schema = json_schema!({ "type": "string", "description": description });
    if !pattern.is_empty() {
        schema.insert("pattern".to_owned(), pattern.into());
    }
    if !examples.is_empty() {
        schema.insert("examples".to_owned(), examples.into());
    }
    schema
}

/// The schema of an object whose names have this form, and whose values have this schema.
pub(crate) fn map(description: &str, names: &str, values: Schema) -> Schema {
    let mut schema = json_schema!({ "type": "object", "description": description });
    schema.insert("additionalProperties".to_owned(), values.to_value());
    if !names.is_empty() {
        schema.insert("propertyNames".to_owned(), json_schema!({ "pattern": names }).to_value());
    }
    schema
}

/// The schema of an object with these members and no other.
pub(crate) fn object(
    description: &str,
    required: &[&str],
    members: impl IntoIterator<Item = (&'static str, &'static str, Schema)>,
) -> Schema {
    let described = |(name, description, mut schema): (&str, &str, Schema)| {
        schema.insert("description".to_owned(), description.into());
        (name.to_owned(), schema.to_value())
    };
    let members: Map<String, Value> = members.into_iter().map(described).collect();
    let mut schema = json_schema!({ "type": "object", "additionalProperties": false });
    schema.insert("description".to_owned(), description.into());
    schema.insert("properties".to_owned(), members.into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

/// Gives a type the schema of a text; `$pattern` is a regular expression of ECMA-262.
macro_rules! text_schema {
    ($type:ident, $description:expr, $pattern:expr, $examples:expr) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::base::schema::text($description, $pattern, &$examples)
            }
        }
    };
}

pub(crate) use text_schema;

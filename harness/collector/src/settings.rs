//! Files of settings: YAML or JSON in which no name stands twice.

use agent_meter_core::base::document::Document;
use serde_json::Value;

/// Reads YAML or JSON. YAML reads most of JSON, but not all of it.
///
/// # Errors
///
/// With line and column, if the text is neither, or a mapping has a name twice.
pub fn yaml_or_json(text: &str) -> Result<Value, serde_yaml_ng::Error> {
    let Document(value) = match serde_json::from_str(text) {
        Ok(read) => read,
        Err(_) => serde_yaml_ng::from_str(text)?,
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_an_error_with_its_place() {
        for (text, expected) in [
            (
                "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n",
                "b: \"c\" stands there twice at line 5 column 3",
            ),
            ("{\"a\": 1,\n \"a\": 2}", "\"a\" stands there twice at line 2 column 2"),
            ("- {x: 1}\n- {x: 1, x: 1}\n", ".[1]: \"x\" stands there twice at line 2 column 10"),
        ] {
            assert_eq!(yaml_or_json(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert_eq!(
            yaml_or_json("a: {b: 1}\nc: {b: 1}\n").unwrap(),
            json!({"a": {"b": 1}, "c": {"b": 1}})
        );
        // YAML alone does not know this escape.
        assert_eq!(yaml_or_json("{\"a\": \"\\/\"}").unwrap(), json!({"a": "/"}));
        assert!(
            yaml_or_json("a: .nan").unwrap_err().to_string().contains("expected a finite number")
        );
    }
}

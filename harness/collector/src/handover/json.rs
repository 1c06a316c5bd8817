//! Writes JSON objects with their members in the order in which they are written, so that an event
//! has the same bytes at each try. Amounts are written digit by digit, never by way of a float.

use rust_decimal::Decimal;

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Object {
        Object(String::from("{"))
    }

    /// A member whose value is JSON already.
    pub(crate) fn raw(mut self, name: &str, value: &str) -> Object {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Object {
        let value = quoted(value);
        self.raw(name, &value)
    }

    pub(crate) fn number(self, name: &str, value: Decimal) -> Object {
        self.raw(name, &value.normalize().to_string())
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    // A string has a string's JSON: there is nothing that can fail.
    serde_json::to_string(text).unwrap_or_default()
}

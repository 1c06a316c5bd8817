//! Reads a serialised `google.protobuf.Struct` (protobuf 3, struct.proto). Envoy 1.40 passes one to
//! a plugin whose configuration is a `Struct` in Envoy's file.

use serde_json::{Map, Number, Value};

use crate::wire::protobuf::{Field, field};

/// The depth that protobuf's own readers allow.
const DEPTH_MAX: u32 = 100;

/// The `Struct` in `bytes`, or `None` if they are something else.
pub(super) fn read_struct(bytes: &[u8]) -> Option<Value> {
    object(bytes, DEPTH_MAX)
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// `Struct`: field 1, repeated, is an entry of the map.
fn object(bytes: &[u8], depth: u32) -> Option<Value> {
    let mut members = Map::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (1, Field::Bytes(entry), behind) = field(rest)? else { return None };
        rest = behind;
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut entry = entry;
        while !entry.is_empty() {
            let (number, content, behind) = field(entry)?;
            entry = behind;
            match (number, content) {
                (1, Field::Bytes(bytes)) => key = text(bytes)?,
                (2, Field::Bytes(bytes)) => value = any(bytes, depth.checked_sub(1)?)?,
                _ => return None,
            }
        }
        // Who wrote a map wrote each key once.
        if members.insert(key, value).is_some() {
            return None;
        }
    }
    Some(Value::Object(members))
}

/// `ListValue`: field 1, repeated, is a value.
fn list(bytes: &[u8], depth: u32) -> Option<Value> {
    let mut values = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (1, Field::Bytes(value), behind) = field(rest)? else { return None };
        rest = behind;
        values.push(any(value, depth.checked_sub(1)?)?);
    }
    Some(Value::Array(values))
}

/// `Value`: one field of 1 to 6 by kind.
fn any(bytes: &[u8], depth: u32) -> Option<Value> {
    let mut value = Value::Null;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, content, behind) = field(rest)?;
        rest = behind;
        value = match (number, content) {
            (1, Field::Varint(_)) => Value::Null,
            (2, Field::Fixed64(bytes)) => Value::Number(self::number(f64::from_le_bytes(bytes))?),
            (3, Field::Bytes(bytes)) => Value::String(text(bytes)?),
            (4, Field::Varint(flag)) => Value::Bool(flag != 0),
            (5, Field::Bytes(bytes)) => object(bytes, depth)?,
            (6, Field::Bytes(bytes)) => list(bytes, depth)?,
            _ => return None,
        };
    }
    Some(value)
}

/// A `Struct` contains only doubles. A whole number becomes an integer, as in protobuf's JSON form.
fn number(value: f64) -> Option<Number> {
    let written = value.to_string();
    written.parse::<i64>().map_or_else(|_| Number::from_f64(value), |whole| Some(whole.into()))
}

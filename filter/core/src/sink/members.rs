//! Reads members of an event's data, and writes objects. The functions are called from many places,
//! and inlined they would make the module larger.

use serde_json::Value;

/// A member of an object; `None` if there is none.
#[inline(never)]
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name)
}

/// A member that is a text.
#[inline(never)]
pub(super) fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

/// A member that is a whole number, not below zero.
#[inline(never)]
pub(super) fn count(object: &Value, name: &str) -> Option<u64> {
    object.get(name)?.as_u64()
}

/// The sum of those members of `data.tokens` that are known; `None` if none is. A difference that a
/// ledger tells may be negative.
#[inline(never)]
pub(super) fn tokens(data: &Value, names: &[&str]) -> Option<i64> {
    let tokens = data.get("tokens")?;
    names.iter().filter_map(|name| tokens.get(*name)?.as_i64()).reduce(i64::saturating_add)
}

/// Reads JSON; null if it is none.
#[inline(never)]
pub(super) fn read(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_default()
}

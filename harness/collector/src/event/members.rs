//! Reads the members of one JSON object; every error begins with the path of the member.

use std::borrow::Cow;

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::money;
use crate::query::millis;

/// A JSON object and its place in the event.
pub(crate) struct Members<'a> {
    /// Empty, or a path that ends in a point.
    pub(crate) path: Cow<'static, str>,
    pub(crate) object: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    pub(crate) fn get(&self, member: &str) -> Result<&'a Value, String> {
        self.object.get(member).ok_or_else(|| format!("{}{member}: missing", self.path))
    }

    pub(crate) fn wrong(&self, member: &str, expected: &str) -> String {
        let found = self.object.get(member).unwrap_or(&Value::Null);
        format!("{}{member}: must be {expected}, found {}", self.path, shown(found))
    }

    fn str(&self, member: &str) -> Result<&'a str, String> {
        self.get(member)?.as_str().ok_or_else(|| self.wrong(member, "a string"))
    }

    pub(crate) fn text(&self, member: &str) -> Result<String, String> {
        self.str(member).map(str::to_owned)
    }

    pub(crate) fn name(&self, member: &str) -> Result<String, String> {
        let text = self.text(member)?;
        if text.is_empty() { Err(self.wrong(member, "a string, not empty")) } else { Ok(text) }
    }

    pub(crate) fn exactly(&self, member: &str, expected: &str) -> Result<(), String> {
        if self.str(member)? == expected {
            return Ok(());
        }
        Err(self.wrong(member, &shown(&Value::from(expected))))
    }

    pub(crate) fn time(&self, member: &str) -> Result<(String, i64), String> {
        let text = self.text(member)?;
        let ms = millis(&text).ok_or_else(|| self.wrong(member, "an RFC 3339 time"))?;
        Ok((text, ms))
    }

    /// Always 20 digits, and `id` the same digits: so `source` + `sequence` is as unique as
    /// `source` + `id`, and ids sort as their numbers do (`gaps.rs` relies on both).
    pub(crate) fn sequence(&self, member: &str) -> Result<i64, String> {
        let text = self.str(member)?;
        let digits = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok().filter(|number| *number > 0) } else { None };
        number.ok_or_else(|| self.wrong(member, "20 decimal digits, from 1"))
    }

    /// An integer that the ledger can keep: 0 to `i64::MAX`.
    pub(crate) fn count(&self, member: &str) -> Result<i64, String> {
        let count = self.get(member)?.as_i64().filter(|count| *count >= 0);
        count.ok_or_else(|| self.wrong(member, "an integer of at least 0"))
    }

    pub(crate) fn total(&self, member: &str) -> Result<u64, String> {
        self.count(member).map(i64::unsigned_abs)
    }

    pub(crate) fn flag(&self, member: &str) -> Result<bool, String> {
        self.get(member)?.as_bool().ok_or_else(|| self.wrong(member, "true or false"))
    }

    pub(crate) fn money(&self, member: &str) -> Result<Decimal, String> {
        let amount = self.get(member)?.as_str().and_then(money::parse);
        amount.ok_or_else(|| self.wrong(member, "a decimal string of at least 0"))
    }

    /// A share of one; negative if more is lost than was earned.
    pub(crate) fn share(&self, member: &str) -> Result<Decimal, String> {
        let share = self.get(member)?.as_str().and_then(|text| {
            let (negative, digits) = text.strip_prefix('-').map_or((false, text), |d| (true, d));
            money::parse(digits).map(|share| if negative { -share } else { share })
        });
        share.ok_or_else(|| self.wrong(member, "a decimal string"))
    }

    pub(crate) fn currency(&self, member: &str) -> Result<String, String> {
        let text = self.text(member)?;
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Ok(text);
        }
        Err(self.wrong(member, "an ISO 4217 code"))
    }

    pub(crate) fn one_of(
        &self,
        member: &str,
        known: &[&'static str],
    ) -> Result<&'static str, String> {
        let text = self.str(member)?;
        let found = known.iter().find(|name| **name == text).copied();
        found.ok_or_else(|| self.wrong(member, &format!("one of {}", known.join(", "))))
    }

    pub(crate) fn hex32(&self, member: &str) -> Result<String, String> {
        let text = self.text(member)?;
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(text);
        }
        Err(self.wrong(member, "32 hexadecimal digits"))
    }

    pub(crate) fn members(&self, member: &str) -> Result<Members<'a>, String> {
        let Value::Object(object) = self.get(member)? else {
            return Err(self.wrong(member, "an object"));
        };
        Ok(Members { path: Cow::Owned(format!("{}{member}.", self.path)), object })
    }

    /// The objects of an array.
    pub(crate) fn list(&self, member: &str) -> Result<Vec<Members<'a>>, String> {
        let Value::Array(entries) = self.get(member)? else {
            return Err(self.wrong(member, "an array"));
        };
        let entry = |(index, entry): (usize, &'a Value)| {
            let path = format!("{}{member}[{index}]", self.path);
            let Value::Object(object) = entry else {
                return Err(format!("{path}: must be an object, found {}", shown(entry)));
            };
            Ok(Members { path: Cow::Owned(format!("{path}.")), object })
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// The strings of an array; none may be empty.
    pub(crate) fn names(&self, member: &str) -> Result<Vec<&'a str>, String> {
        let entries = self.get(member)?.as_array().map(|entries| {
            entries.iter().map(|entry| entry.as_str().filter(|name| !name.is_empty())).collect()
        });
        entries.flatten().ok_or_else(|| self.wrong(member, "an array of strings, not empty"))
    }

    /// Refuses members of other names, for a file in which a misspelt one must not pass.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self.object.keys().find(|member| !known.contains(&member.as_str()));
        unknown.map_or(Ok(()), |member| {
            let known = known.join(", ");
            Err(format!("{}{member}: unknown, expected one of {known}", self.path))
        })
    }

    /// Reads a member that may be missing or `null`.
    pub(crate) fn optional<T>(
        &self,
        member: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.has(member).then(|| read(self, member)).transpose()
    }

    /// True if the member is there and is not `null`.
    pub(crate) fn has(&self, member: &str) -> bool {
        self.object.get(member).is_some_and(|value| !value.is_null())
    }
}

/// A value as an error shows it: JSON, cut at 60 characters, because the sender logs the reason.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

//! What is plausible. A number beyond these bounds is a mistake or an attack, and would spoil every
//! sum that it is in; the ledger keeps such an event apart until somebody has looked at it.
//!
//! The filter has the same bounds, so that it makes no event that is kept apart here.

use serde_json::{Map, Value};

use crate::event::members::shown;

/// Tokens in one count of one generation.
const TOKENS_MAX: u64 = 10_000_000_000;
/// Money in one amount of one event, in any currency.
const MONEY_MAX: u64 = 1_000_000_000_000;
/// Of one unit beside tokens in one generation.
const UNITS_MAX: u64 = 1_000_000_000_000;
/// Everything else that is counted: bytes, milliseconds, totals of a session or of a scope.
const COUNT_MAX: u64 = 1_000_000_000_000_000;
/// How old an event may be when it arrives: 35 days.
const AGE_MAX_MS: i64 = 35 * 24 * 3600 * 1000;
/// How far the sender's clock may be ahead.
const AHEAD_MAX_MS: i64 = 5 * 60 * 1000;

/// Members that are amounts of money, wherever they stand.
const MONEY: [&str; 11] = [
    "price",
    "cost",
    "rate",
    "rate_per_million",
    "provider_cost",
    "revenue",
    "reported_cost",
    "total_provider_cost",
    "total_revenue",
    "unattributed_provider_cost",
    "contracted_revenue",
];

/// What of an event is not plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// More tokens than one generation can have.
    Tokens,
    /// More money than one event can be worth.
    Money,
    /// More of a unit than one generation can use.
    Units,
    /// More of something else that is counted.
    Count,
    /// A time too long ago, or in the future.
    Time,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 5] =
        [Reason::Tokens, Reason::Money, Reason::Units, Reason::Count, Reason::Time];

    /// The name in the ledger, in answers and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Tokens => "tokens",
            Reason::Money => "money",
            Reason::Units => "units",
            Reason::Count => "count",
            Reason::Time => "time",
        }
    }
}

/// Why an event is kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// What is not plausible.
    pub reason: Reason,
    /// The path of the first such member, what it is and what it may be.
    pub detail: String,
}

/// What a container is about, so that its numbers and texts have a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// A generation's own data or cost lines.
    Generation,
    /// Counts of tokens of one generation.
    Tokens,
    /// Quantities of units.
    Units,
    /// Amounts of money by currency.
    Money,
    /// Anything else.
    Other,
}

/// The first number in the data of an event that is not plausible.
pub(crate) fn of_data(event_type: &str, data: &Map<String, Value>) -> Option<Beyond> {
    let about = if event_type == "token_consumption" { About::Generation } else { About::Other };
    of_object("data.", about, data)
}

fn of_object(path: &str, about: About, object: &Map<String, Value>) -> Option<Beyond> {
    object.iter().find_map(|(member, value)| of_member(path, about, member, value))
}

fn of_member(path: &str, about: About, member: &str, value: &Value) -> Option<Beyond> {
    let inner = match (about, member) {
        (About::Generation, "tokens") => About::Tokens,
        (About::Generation, "units") => About::Units,
        (About::Generation, "cost_lines") => About::Generation,
        (_, "provider_cost" | "revenue") => About::Money,
        _ => About::Other,
    };
    match value {
        Value::Object(object) => of_object(&format!("{path}{member}."), inner, object),
        Value::Array(entries) => entries.iter().enumerate().find_map(|(index, entry)| {
            let Value::Object(object) = entry else { return None };
            of_object(&format!("{path}{member}[{index}]."), inner, object)
        }),
        Value::Number(number) => {
            let (reason, most) = match (about, member) {
                (About::Tokens, _) | (About::Generation, "tokens") => (Reason::Tokens, TOKENS_MAX),
                // The sum of two counts.
                (About::Generation, "quantity") => (Reason::Tokens, 2 * TOKENS_MAX),
                _ => (Reason::Count, COUNT_MAX),
            };
            let is_beyond = match number.as_u64() {
                Some(count) => count > most,
                // Only a number that is no integer, or too large for one, is left to `as_f64`.
                None => number.as_f64().is_some_and(|count| count >= u64::MAX as f64),
            };
            is_beyond.then(|| beyond(path, member, value, reason, most))
        }
        Value::String(text) => {
            let (reason, most) = match (about, member) {
                (About::Units, _) | (About::Generation, "quantity") => (Reason::Units, UNITS_MAX),
                (About::Money, _) => (Reason::Money, MONEY_MAX),
                (_, member) if MONEY.contains(&member) => (Reason::Money, MONEY_MAX),
                _ => return None,
            };
            is_more(text, most).then(|| beyond(path, member, value, reason, most))
        }
        Value::Null | Value::Bool(_) => None,
    }
}

fn beyond(path: &str, member: &str, found: &Value, reason: Reason, most: u64) -> Beyond {
    let detail =
        format!("{path}{member}: is not plausible, at most {most}, found {}", shown(found));
    Beyond { reason, detail }
}

/// Whether a decimal text, with a sign or not, is more than `most`, however many digits it has.
fn is_more(text: &str, most: u64) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let whole = whole.trim_start_matches('0');
    if whole.is_empty() {
        return false;
    }
    match whole.parse::<u64>() {
        Ok(whole) => whole > most || (whole == most && fraction.bytes().any(|byte| byte != b'0')),
        Err(_) => true,
    }
}

/// Why an event that happened at `time_ms` cannot have happened, by the clock of who receives it at
/// `now_ms`; both in milliseconds since 1970.
pub(crate) fn of_time(member: &str, time_ms: i64, text: &str, now_ms: i64) -> Option<Beyond> {
    let expected = if time_ms < now_ms.saturating_sub(AGE_MAX_MS) {
        "at most 35 days before it arrives"
    } else if time_ms > now_ms.saturating_add(AHEAD_MAX_MS) {
        "at most 5 minutes after it arrives"
    } else {
        return None;
    };
    let detail = format!("{member}: is not plausible, {expected}, found {text:?}");
    Some(Beyond { reason: Reason::Time, detail })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_number_of_an_event_has_a_bound() {
        for (event_type, data, expected) in [
            ("token_consumption", json!({"tokens": {"input": 10_000_000_000_u64}}), None),
            ("token_consumption", json!({"tokens": {"input": 10_000_000_001_u64}}), Some("tokens")),
            ("token_consumption", json!({"tokens": {"x": 1_u64 << 61}}), Some("tokens")),
            ("token_consumption", json!({"tokens": {"x": u64::MAX}}), Some("tokens")),
            ("token_consumption", json!({"tokens": {"x": 1e30}}), Some("tokens")),
            ("token_consumption", json!({"tokens": {"x": -5, "y": 10.7}}), None),
            ("token_consumption", json!({"quantity": 20_000_000_000_u64}), None),
            ("token_consumption", json!({"quantity": 20_000_000_001_u64}), Some("tokens")),
            ("token_consumption", json!({"cost_lines": [{"tokens": 1_u64 << 40}]}), Some("tokens")),
            ("token_consumption", json!({"cost_lines": [{"quantity": "1e9"}]}), None),
            (
                "token_consumption",
                json!({"cost_lines": [{}, {"quantity": "1000000000000.1"}]}),
                Some("units"),
            ),
            ("token_consumption", json!({"units": {"pages": "1000000000001"}}), Some("units")),
            ("token_consumption", json!({"units": {"pages": "1000000000000"}}), None),
            ("token_consumption", json!({"reported_cost": "1000000000000.5"}), Some("money")),
            ("tool_invocation", json!({"price": "1000000000000"}), None),
            ("tool_invocation", json!({"price": "1000000000000.00"}), None),
            ("tool_invocation", json!({"price": "0001000000000000"}), None),
            ("tool_invocation", json!({"price": "1000000000000.01"}), Some("money")),
            ("tool_invocation", json!({"price": "-1000000000001"}), Some("money")),
            ("tool_invocation", json!({"price": "9".repeat(60)}), Some("money")),
            ("tool_invocation", json!({"price": "1e99"}), None),
            ("tool_invocation", json!({"tool_name": "9".repeat(60)}), None),
            ("api_call", json!({"request_bytes": 1_u64 << 62}), Some("count")),
            ("session_closed", json!({"total_tokens": {"input": 1_000_000_000_000_000_u64}}), None),
            ("session_closed", json!({"total_tokens": {"input": u64::MAX}}), Some("count")),
            (
                "session_closed",
                json!({"usage_by_model": [{"revenue": "2000000000000"}]}),
                Some("money"),
            ),
            ("guard_totals", json!({"tokens": 1_u64 << 63}), Some("count")),
            ("heartbeat", json!({"provider_cost": {"USD": "2000000000000"}}), Some("money")),
        ] {
            let Value::Object(object) = &data else { panic!("{data}") };
            let found = of_data(event_type, object).map(|beyond| beyond.reason.name());
            assert_eq!(found, expected, "{event_type} {data}");
        }
    }

    #[test]
    fn an_event_is_from_the_last_35_days() {
        let now_ms = 1_800_000_000_000;
        let day_ms = 24 * 3600 * 1000;
        for (time_ms, is_beyond) in [
            (now_ms, false),
            (now_ms - 35 * day_ms, false),
            (now_ms - 35 * day_ms - 1, true),
            (now_ms + 5 * 60_000, false),
            (now_ms + 5 * 60_000 + 1, true),
            (i64::MIN, true),
            (i64::MAX, true),
        ] {
            assert_eq!(of_time("time", time_ms, "", now_ms).is_some(), is_beyond, "{time_ms}");
        }
    }
}

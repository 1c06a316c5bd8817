//! Reads the data of `heartbeat`: that a source is alive, and how much it has told so far.

use std::collections::BTreeMap;

use crate::event::members::Members;

/// How often a source tells that it is alive, unless it says otherwise, in milliseconds.
const INTERVAL_DEFAULT_MS: i64 = 10_000;
/// The longest interval: a day.
const INTERVAL_MAX_MS: i64 = 24 * 3600 * 1000;
/// The most currencies of a running total.
const CURRENCIES_MAX: usize = 32;

/// What a source tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The highest sequence number that it has given so far.
    pub sequence_max: i64,
    /// When the next one comes at the latest, in milliseconds.
    pub interval_ms: i64,
    /// Sessions that are not closed.
    pub open_sessions: i64,
    /// Events that it has made, this one included.
    pub events: i64,
    /// Calls that have ended.
    pub calls: i64,
    /// What the generations cost so far, by currency, as JSON of decimal strings.
    pub provider_cost: String,
    /// What was earned so far, by currency, as JSON of decimal strings.
    pub revenue: String,
    /// True if the source ends with it.
    pub is_last: bool,
}

/// Reads one; an error begins with the path of the member.
pub(crate) fn heartbeat(data: &Members<'_>) -> Result<Heartbeat, String> {
    let interval_ms = data.optional("interval_ms", Members::count)?;
    let interval_ms = interval_ms.unwrap_or(INTERVAL_DEFAULT_MS);
    if !(1..=INTERVAL_MAX_MS).contains(&interval_ms) {
        return Err(data.wrong("interval_ms", "an integer of 1 to 86400000"));
    }
    Ok(Heartbeat {
        sequence_max: data.sequence("sequence_max")?,
        interval_ms,
        open_sessions: data.count("open_sessions")?,
        events: data.count("events")?,
        calls: data.count("calls")?,
        provider_cost: by_currency(data, "provider_cost")?,
        revenue: by_currency(data, "revenue")?,
        is_last: data.flag("is_last")?,
    })
}

/// Reads an object of decimal strings by ISO 4217 code; it may be missing.
fn by_currency(data: &Members<'_>, member: &str) -> Result<String, String> {
    let Some(amounts) = data.optional(member, Members::members)? else { return Ok("{}".into()) };
    if amounts.object.len() > CURRENCIES_MAX {
        return Err(data.wrong(member, "an object of at most 32 currencies"));
    }
    let mut read = BTreeMap::new();
    for currency in amounts.object.keys() {
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(data.wrong(member, "an object by ISO 4217 code"));
        }
        read.insert(currency, amounts.money(currency)?.to_string());
    }
    // Strings by string keys: there is nothing that can fail.
    serde_json::to_string(&read).map_err(|error| format!("{member}: {error}"))
}

//! Prices by the hour and the weekday in LiteLLM's list.

use anyhow::Context;
use serde_json::Value;

use super::tokens::Name;
use crate::prices::builder::Builder;
use crate::prices::card::{Table, When};
use crate::prices::list::Object;

/// The member: prices, and the windows of time in which they apply.
pub(super) const OFF_PEAK: &str = "off_peak_pricing";

const WINDOWS: &str = "windows";

/// The list counts them from 1.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// How the list writes a whole day.
const ALL_DAY: &str = "00:00-00:00";

/// The tables of a model with these standard prices, each with the time in which it applies.
pub(super) fn read(
    listed: &str,
    model: &Object,
    standard: &Table,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Vec<(When, Table)>> {
    let Some(off_peak) = model.read::<Object>(OFF_PEAK)? else { return Ok(Vec::new()) };
    let mut leave_out = |reason: &str| {
        builder.leave_out_price(OFF_PEAK, reason, listed);
        Ok(Vec::new())
    };
    if !standard.context_tiers.is_empty() || !standard.service_tiers.is_empty() {
        return leave_out("beside prices by context or service tier; the standard price is taken");
    }
    let zone = off_peak.read::<String>("weekday_timezone")?;
    if zone.is_some_and(|zone| zone != "UTC") {
        return leave_out("by weekdays of another zone than UTC; the standard price is taken");
    }
    let Some(windows) = off_peak.read::<Vec<Object>>(WINDOWS)? else {
        return leave_out("not by windows of time; the standard price is taken");
    };
    let mut table = standard.clone();
    for (name, value) in off_peak.iter().filter(|(name, _)| *name != WINDOWS) {
        let member = format!("{OFF_PEAK}.{name}");
        match Name::parse(name) {
            Some(Name { kind, service_tier: None, above: 0 }) => {
                if let Some(rate) = builder.price_of_million(listed, &member, value, 0)? {
                    table.rates.insert(kind, rate);
                }
            }
            _ => builder.leave_out_price(&member, "no kind of tokens in a card", listed),
        }
    }
    let mut found = Vec::new();
    for window in &windows {
        let mut weekdays = Vec::new();
        for day in window.read::<Vec<usize>>("weekdays")?.unwrap_or_default() {
            let name = day.checked_sub(1).and_then(|day| WEEKDAYS.get(day));
            weekdays.push(*name.context("weekdays: expected numbers from 1 to 7")?);
        }
        let hours = match window.read::<Value>("hours_utc")? {
            Some(Value::String(hours)) => vec![hours],
            Some(Value::Array(hours)) => {
                hours.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => vec![ALL_DAY.to_owned()],
        };
        for hours in hours {
            let hours_utc = Some(hours).filter(|hours| hours != ALL_DAY);
            let when = When { location: None, hours_utc, weekdays: weekdays.clone() };
            found.push((when, table.clone()));
        }
    }
    Ok(found)
}

//! Prices by the hour and the weekday in LiteLLM's list.

use chrono::NaiveTime;

use super::tokens::Name;
use crate::prices::builder::Builder;
use crate::prices::card::{Table, When};
use crate::prices::list::Object;

/// The member: prices, and the windows of time in which they apply.
pub(super) const OFF_PEAK: &str = "off_peak_pricing";

const WINDOWS: &str = "windows";

/// The list counts them from 1.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Of which calendar the weekdays are.
const ZONE: &str = "weekday_timezone";

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
    let zone = off_peak.read::<String>(ZONE)?;
    if zone.is_some_and(|zone| zone != "UTC") {
        return leave_out("by weekdays of another zone than UTC; the standard price is taken");
    }
    let Some(windows) = off_peak.read::<Vec<Object>>(WINDOWS)? else {
        return leave_out("not by windows of time; the standard price is taken");
    };
    let is_known = |name: &str| name == WINDOWS || name == ZONE || name.contains("_cost");
    if off_peak.iter().any(|(name, value)| !is_known(name) && value.get() != "null") {
        return leave_out(UNKNOWN);
    }
    let mut table = standard.clone();
    for (name, value) in off_peak.iter().filter(|(name, _)| name.contains("_cost")) {
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
        match times(window) {
            Some(times) => found.extend(times.into_iter().map(|when| (when, table.clone()))),
            None => builder.leave_out_price(&format!("{OFF_PEAK}.{WINDOWS}"), UNKNOWN, listed),
        }
    }
    Ok(found)
}

const UNKNOWN: &str = "by a condition that a card cannot say; the standard price is taken";

/// When a window is open; `None` if it is not by hours, or by more than a card can say. A window
/// without hours is never open in LiteLLM.
fn times(window: &Object) -> Option<Vec<When>> {
    let is_known = |name: &str| matches!(name, "hours_utc" | "weekdays");
    if window.iter().any(|(name, value)| !is_known(name) && value.get() != "null") {
        return None;
    }
    let weekdays: Vec<_> = match window.read::<Vec<usize>>("weekdays").ok()? {
        None => Vec::new(),
        Some(days) if days.is_empty() => return None,
        Some(days) => {
            let name = |day: usize| WEEKDAYS.get(day.checked_sub(1)?).copied();
            days.into_iter().map(name).collect::<Option<_>>()?
        }
    };
    let hours: Vec<String> = match window.read("hours_utc") {
        Ok(one) => vec![one?],
        Err(_) => window.read("hours_utc").ok()??,
    };
    let time = |hours: &String| {
        let clock = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let (from, to) = hours.split_once('-')?;
        let (from, to) = (clock(from)?, clock(to)?);
        // The list writes a whole day as one that ends when it begins.
        let hours_utc =
            (from != to).then(|| format!("{}-{}", from.format("%H:%M"), to.format("%H:%M")));
        Some(When { location: None, hours_utc, weekdays: weekdays.clone() })
    };
    let times: Option<Vec<When>> = hours.iter().map(time).collect();
    times.filter(|times| !times.is_empty())
}

//! Periods by name: a month or a day of a time zone.

use anyhow::Context;
use chrono::{DateTime, Days, Months, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::query::Period;

/// The period of a month such as `2026-07`, or of a day such as `2026-07-01`, in a time zone such as
/// `Europe/Berlin` or `UTC`.
///
/// # Errors
///
/// If it is neither, or if there is no such time zone.
pub fn named_period(name: &str, time_zone: &str) -> anyhow::Result<Period> {
    let zone: Tz = time_zone.parse().ok().with_context(|| {
        format!("no time zone {time_zone:?}, expected one such as Europe/Berlin")
    })?;
    let is_ascii = name.is_ascii();
    let month = || NaiveDate::parse_from_str(&format!("{name}-01"), "%Y-%m-%d").ok();
    let day = || NaiveDate::parse_from_str(name, "%Y-%m-%d").ok();
    let (first, next) = match name.len() {
        7 if is_ascii => month().map(|first| (first, first.checked_add_months(Months::new(1)))),
        10 if is_ascii => day().map(|first| (first, first.checked_add_days(Days::new(1)))),
        _ => None,
    }
    .with_context(|| {
        format!("expected a month such as 2026-07, or a day such as 2026-07-01, found {name:?}")
    })?;
    let next = next.context("the period has no end")?;
    Ok(Period { from_ms: Some(begin_ms(first, zone)?), to_ms: Some(begin_ms(next, zone)?) })
}

/// A period that is shown to whom it is of: in the local time of its zone, with the offset.
pub(super) fn shown_period(from: Option<&str>, to: Option<&str>, time_zone: &str) -> String {
    let zone: Tz = time_zone.parse().unwrap_or(Tz::UTC);
    let local = |time: &str| match DateTime::parse_from_rfc3339(time) {
        Ok(time) => time.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::AutoSi, true),
        Err(_) => time.to_owned(),
    };
    let from = from.map_or("the beginning".to_owned(), local);
    let to = to.map_or("now".to_owned(), local);
    format!("{from} to {to} ({time_zone})")
}

/// When a day begins, in milliseconds since 1970: at midnight, or, where the clocks skip midnight,
/// as soon as the day has a time.
fn begin_ms(day: NaiveDate, zone: Tz) -> anyhow::Result<i64> {
    let mut local = day.and_time(NaiveTime::MIN);
    // Clocks have been set forward by up to a day, where a country changed sides of the date line.
    for _ in 0..=96 {
        if let Some(time) = zone.from_local_datetime(&local).earliest() {
            return Ok(time.timestamp_millis());
        }
        local = local.checked_add_signed(TimeDelta::minutes(15)).context("no such day")?;
    }
    anyhow::bail!("the day {day} does not exist in {zone}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::rfc3339;

    #[test]
    fn a_period_begins_and_ends_with_the_days_of_its_time_zone() {
        for (name, zone, from, to) in [
            ("2026-07", "UTC", "2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z"),
            ("2026-12", "UTC", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2026-03", "Europe/Berlin", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
            ("2026-10-25", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("2026-07", "Asia/Kathmandu", "2026-06-30T18:15:00Z", "2026-07-31T18:15:00Z"),
            // Midnight of this day does not exist.
            ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
        ] {
            let period = named_period(name, zone).expect(name);
            let shown = (period.from_ms.map(rfc3339), period.to_ms.map(rfc3339));
            assert_eq!(shown, (Some(from.to_owned()), Some(to.to_owned())), "{name} {zone}");
        }
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for (name, zone) in [
            ("2026-13", "UTC"),
            ("2026", "UTC"),
            ("2026-02-30", "UTC"),
            ("2026-7", "UTC"),
            ("", "UTC"),
            ("２０２６", "UTC"),
            ("2026-07", "Mars/Olympus"),
            ("2026-07", ""),
        ] {
            assert!(named_period(name, zone).is_err(), "{name} {zone}");
        }
    }
}

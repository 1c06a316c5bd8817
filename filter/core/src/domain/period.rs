//! Billing periods, in UTC.

use jiff::tz::Offset;
use serde::Deserialize;

use crate::base::time::Timestamp;

/// How long a guard adds up totals before it starts again from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// An hour of the clock.
    Hour,
    /// A day.
    Day,
    /// A calendar month.
    #[default]
    Month,
    /// The lifetime of the session.
    Session,
}

const HOUR_MS: u64 = 3_600_000;

const DAY_MS: u64 = 86_400_000;

impl Period {
    /// The name in the configuration and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Session => "session",
        }
    }

    /// The start and the end of the period that contains `at`; a session has no end.
    pub fn around(self, at: Timestamp) -> (Timestamp, Option<Timestamp>) {
        let of_length = |length: u64| {
            let start = at.0.saturating_sub(at.0.checked_rem(length).unwrap_or(0));
            (Timestamp(start), Some(Timestamp(start.saturating_add(length))))
        };
        match self {
            Self::Hour => of_length(HOUR_MS),
            Self::Day => of_length(DAY_MS),
            Self::Month => month_around(at).unwrap_or_else(|| of_length(DAY_MS)),
            Self::Session => (Timestamp(0), None),
        }
    }
}

fn month_around(at: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    let first = Offset::UTC.to_datetime(at).date().first_of_month();
    let next = first.last_of_month().tomorrow().ok()?;
    let start = |date: jiff::civil::Date| {
        let time = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Timestamp)
    };
    Some((start(first)?, Some(start(next)?)))
}

#[cfg(test)]
mod tests {
    use super::{Period, Timestamp};

    #[test]
    fn periods_begin_where_the_calendar_says() {
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            Timestamp(u64::try_from(time.as_millisecond()).unwrap())
        };
        for (period, now, start, end) in [
            (
                Period::Hour,
                "2026-11-23T09:59:59.999Z",
                "2026-11-23T09:00:00Z",
                "2026-11-23T10:00:00Z",
            ),
            (Period::Day, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
            (Period::Month, "2026-11-23T09:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            (Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ] {
            assert_eq!(period.around(at(now)), (at(start), Some(at(end))), "{period:?} {now}");
        }
        assert_eq!(Period::Session.around(Timestamp(5)), (Timestamp(0), None));
    }
}

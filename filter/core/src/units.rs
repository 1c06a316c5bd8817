//! Points in time and spans of time. It does not read a clock: `now` is always an argument.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC, by the host's wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A span of milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// A span of `seconds`.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

impl Timestamp {
    /// The time since `earlier`; zero if the clock stepped back in between.
    pub fn saturating_since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// This time and `span` later.
    pub fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// RFC 3339 in UTC with milliseconds, such as `2026-11-23T09:30:00.250Z`.
    pub fn to_rfc3339(self) -> String {
        const DAY_SECONDS: u64 = 86_400;
        // The year 9999 is the last that RFC 3339 can write.
        let milliseconds = self.0.min(253_402_300_799_999);
        let seconds = milliseconds / 1000;
        let (year, month, day) = civil_from_days(seconds / DAY_SECONDS);
        let second_of_day = seconds % DAY_SECONDS;
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second_of_day / 3600,
            second_of_day % 3600 / 60,
            second_of_day % 60,
            milliseconds % 1000,
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01.
///
/// Counts in 400-year eras that start on 1 March, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

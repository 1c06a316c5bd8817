//! Points in time and spans of time. No function here reads a clock: `now` is always an argument.

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC, by the host's wall clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

/// A span of milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// A span of `seconds`.
    pub(crate) const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

impl Timestamp {
    /// The time since `earlier`; zero if the clock stepped back in between.
    pub(crate) fn saturating_since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The time `span` after this one.
    pub fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The time of a date and a clock in UTC; `None` if there is none such, or before 1970.
    pub(crate) fn of_utc(date: [i16; 3], [hour, minute, second]: [i16; 3]) -> Option<Self> {
        let [year, month, day] = date;
        let [month, day, hour, minute, second] =
            [month, day, hour, minute, second].map(|number| i8::try_from(number).unwrap_or(-1));
        let date = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let time = jiff::tz::Offset::UTC.to_timestamp(date).ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }

    /// RFC 3339 in UTC with milliseconds, like `2026-11-23T09:30:00.250Z`; at most the year 9999.
    pub(crate) fn to_rfc3339(self) -> String {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        let time = i64::try_from(self.0)
            .ok()
            .and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        PRINTER.timestamp_to_string(&time)
    }
}

/// Converts a length or count in memory to `u64`, the type for sums and for output.
pub(crate) fn len_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

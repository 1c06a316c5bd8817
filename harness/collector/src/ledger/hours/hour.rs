//! The hours of the clock in UTC.

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The start of the hour of a time, both in milliseconds since 1970, UTC.
pub(crate) fn hour_of(time_ms: i64) -> i64 {
    time_ms.saturating_sub(time_ms.rem_euclid(HOUR_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_at_or_before_its_times() {
        for (time_ms, expected) in [
            (0, 0),
            (1, 0),
            (HOUR_MS - 1, 0),
            (HOUR_MS, HOUR_MS),
            (-1, -HOUR_MS),
            (-HOUR_MS, -HOUR_MS),
            (i64::MIN, i64::MIN),
        ] {
            assert_eq!(hour_of(time_ms), expected, "{time_ms}");
        }
    }
}

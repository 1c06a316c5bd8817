//! A date or a time, as a rate card writes it.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

use crate::base::time::Timestamp;

/// A date, which begins at midnight in UTC, or a time in UTC: RFC 3339 as far as a price list needs
/// it.
#[derive(Clone, Copy)]
pub(super) struct Instant(pub(super) Timestamp);

impl Instant {
    fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
        let clock = numbers(time.strip_suffix('Z')?, ':')?;
        Timestamp::of_utc(numbers(date, '-')?, clock).map(Self)
    }
}

/// Reads three numbers of two digits each; the first number of a date has four.
fn numbers(text: &str, between: char) -> Option<[i16; 3]> {
    let mut parts = text.split(between).map(|part| {
        let is_plain = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i16>().ok().filter(|_| is_plain && matches!(part.len(), 2 | 4))
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(feature = "schema")]
crate::base::schema::text_schema! {
    Instant,
    "A date, which begins at midnight in UTC, or a time in UTC (RFC 3339, with `Z`); not before 1970.",
    "^[0-9]{4}(-([0-9]{2}){1,2}){2}(T([0-9]{2}){1,2}(:([0-9]{2}){1,2}){2}Z)?$",
    ["2026-01-01", "2026-01-01T08:00:00Z"]
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = "a date such as \"2026-01-01\" or a time such as \"2026-01-01T08:00:00Z\", not before 1970";
        Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

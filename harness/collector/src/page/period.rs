//! The period of a view: `hour`, `day`, `month` for the one that runs, `2026-11`, `2026-11-28` or
//! `2026-11-28T13` for one by name, or `FROM..TO` of two times or days. All of it is in UTC.

use chrono::{DateTime, Months, Utc};

use crate::books::named_period;
use crate::query::{BadQuery, Parameters, Period, millis, rfc3339};
use crate::report::overview::{Compared, OverviewQuery};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The most steps of a course.
const STEPS_MAX: i64 = 62;

/// The parameters that name a period.
pub(super) const PARAMETERS: [&str; 3] = ["period", "from", "to"];

/// A period with both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// As in URLs.
    pub(super) name: String,
    /// For people.
    pub(super) title: String,
    /// Milliseconds since 1970, UTC; half-open.
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hour,
    Day,
    Month,
    Custom,
}

const EXPECTED: &str = "expected hour, day, month, a month such as 2026-11, a day such as \
     2026-11-28, an hour such as 2026-11-28T13, or FROM..TO of days or RFC 3339 times";

impl Span {
    /// Takes `period`, or `from` and `to`, which a form sends; the day that runs without any.
    pub(super) fn take(parameters: &mut Parameters, now_ms: i64) -> Result<Span, BadQuery> {
        let (from, to) = (parameters.take("from"), parameters.take("to"));
        let named = parameters.take("period");
        match (from, to) {
            (None, None) => Span::parse(named.as_deref().unwrap_or("day"), now_ms),
            (Some(from), Some(to)) => Span::parse(&format!("{from}..{to}"), now_ms),
            (Some(from), None) => Span::parse(&format!("{from}..{}", rfc3339(now_ms)), now_ms),
            (None, Some(_)) => Err(BadQuery::new("from: is missing, to has an end only")),
        }
    }

    pub(super) fn parse(text: &str, now_ms: i64) -> Result<Span, BadQuery> {
        let now = rfc3339(now_ms);
        let of_now = |digits: usize| now.get(..digits).unwrap_or_default().to_owned();
        let mut span = match text {
            "hour" => Span::named(&of_now(13)),
            "day" => Span::named(&of_now(10)),
            "month" => Span::named(&of_now(7)),
            text => match text.split_once("..") {
                Some((from, to)) => Span::custom(from, to),
                None => Span::named(text),
            },
        }
        .ok_or_else(|| BadQuery::new(format!("period: {EXPECTED}, found {text:?}")))?;
        if span.to_ms <= span.from_ms {
            return Err(BadQuery::new(format!("period: must end after it begins, found {text:?}")));
        }
        text.clone_into(&mut span.name);
        Ok(span)
    }

    /// An hour, a day or a month by its name.
    fn named(name: &str) -> Option<Span> {
        let span = |title: String, kind, from_ms, to_ms| {
            Some(Span { name: name.to_owned(), title, from_ms, to_ms, kind })
        };
        if let Some((day, hour)) = name.split_once('T') {
            let begin = DateTime::parse_from_rfc3339(&format!("{day}T{hour}:00:00Z"));
            let from_ms = begin.ok().filter(|_| hour.len() == 2)?.timestamp_millis();
            let title = format!("{day}, {hour}:00 to {hour}:59 UTC");
            return span(title, Kind::Hour, from_ms, from_ms.checked_add(HOUR_MS)?);
        }
        let period = named_period(name, "UTC").ok()?;
        let kind = if name.len() == 7 { Kind::Month } else { Kind::Day };
        span(format!("{name} UTC"), kind, period.from_ms?, period.to_ms?)
    }

    /// A day at the end is in it.
    fn custom(from: &str, to: &str) -> Option<Span> {
        let day = |text: &str| named_period(text, "UTC").ok().filter(|_| text.len() == 10);
        let from_ms = millis(from).or_else(|| day(from)?.from_ms)?;
        let to_ms = millis(to).or_else(|| day(to)?.to_ms)?;
        let title = format!("{from} to {to} UTC");
        Some(Span { name: String::new(), title, from_ms, to_ms, kind: Kind::Custom })
    }

    pub(super) fn period(&self) -> Period {
        Period { from_ms: Some(self.from_ms), to_ms: Some(self.to_ms) }
    }

    /// The names of the periods before and after it.
    pub(super) fn neighbours(&self) -> [String; 2] {
        [self.before_ms(), (self.to_ms, self.to_ms.saturating_add(self.to_ms - self.from_ms))].map(
            |(from_ms, to_ms)| {
                let text = rfc3339(from_ms);
                let digits = match self.kind {
                    Kind::Hour => 13,
                    Kind::Day => 10,
                    Kind::Month => 7,
                    Kind::Custom => return format!("{text}..{}", rfc3339(to_ms)),
                };
                text.get(..digits).unwrap_or(&text).to_owned()
            },
        )
    }

    /// The period before it, of the same kind.
    fn before_ms(&self) -> (i64, i64) {
        let from_ms = match self.kind {
            Kind::Month => DateTime::<Utc>::from_timestamp_millis(self.from_ms)
                .and_then(|begin| begin.checked_sub_months(Months::new(1)))
                .map(|begin| begin.timestamp_millis()),
            _ => None,
        };
        let length_ms = self.to_ms.saturating_sub(self.from_ms);
        (from_ms.unwrap_or(self.from_ms.saturating_sub(length_ms)), self.from_ms)
    }

    /// What to read of it. Of a period that runs, its whole hours are compared with as many of the
    /// period before: part of an hour would need all rows of that hour.
    pub(super) fn overview(&self, now_ms: i64) -> OverviewQuery {
        let whole_ms = now_ms.saturating_sub(now_ms.rem_euclid(HOUR_MS));
        let until_ms = if now_ms < self.to_ms { whole_ms } else { self.to_ms };
        let (before_from_ms, before_to_ms) = self.before_ms();
        let part_ms = until_ms.saturating_sub(self.from_ms);
        // All of a period with all of the one before, though months are not of the same length.
        let before_to_ms = match until_ms == self.to_ms {
            true => before_to_ms,
            false => before_from_ms.saturating_add(part_ms).min(before_to_ms),
        };
        let compared = (part_ms > 0).then_some(Compared { until_ms, before_from_ms, before_to_ms });
        let length_ms = self.to_ms.saturating_sub(self.from_ms);
        let lengths = [HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS].into_iter();
        let step_ms = lengths.into_iter().find(|step_ms| length_ms / step_ms < STEPS_MAX);
        let step_ms = step_ms.unwrap_or(length_ms / STEPS_MAX + 1);
        OverviewQuery { from_ms: self.from_ms, to_ms: self.to_ms, step_ms, compared }
    }

    /// What a change is against, in words.
    pub(super) fn compared_with(&self, query: &OverviewQuery) -> Option<String> {
        let compared = query.compared?;
        let before = match self.kind {
            Kind::Hour => "the hour before",
            Kind::Day => "the day before",
            Kind::Month => "the month before",
            Kind::Custom => "the period before",
        };
        Some(match compared.until_ms < self.to_ms {
            true => {
                let until = rfc3339(compared.until_ms);
                format!(
                    "until {} UTC, against the same hours of {before}",
                    until.get(..16)?.replace('T', " ")
                )
            }
            false => format!("against {before}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-28T13:25:00Z.
    const NOW_MS: i64 = 1_795_872_300_000;

    #[test]
    fn a_period_has_a_name_two_ends_and_neighbours() {
        for (text, from, to, before, after) in [
            (
                "hour",
                "2026-11-28T13:00:00Z",
                "2026-11-28T14:00:00Z",
                "2026-11-28T12",
                "2026-11-28T14",
            ),
            ("day", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z", "2026-11-27", "2026-11-29"),
            ("month", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-10", "2026-12"),
            ("2026-03", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", "2026-02", "2026-04"),
            (
                "2026-11-01..2026-11-02",
                "2026-11-01T00:00:00Z",
                "2026-11-03T00:00:00Z",
                "2026-10-30T00:00:00Z..2026-11-01T00:00:00Z",
                "2026-11-03T00:00:00Z..2026-11-05T00:00:00Z",
            ),
        ] {
            let span = Span::parse(text, NOW_MS).expect(text);
            assert_eq!((rfc3339(span.from_ms), rfc3339(span.to_ms)), (from.into(), to.into()));
            assert_eq!(span.neighbours(), [before, after], "{text}");
            let [before, _] = span.neighbours();
            let before = Span::parse(&before, NOW_MS).expect("the period before");
            assert_eq!(before.to_ms, span.from_ms, "{text}");
        }
        for text in [
            "",
            "week",
            "2026",
            "2026-13",
            "2026-11-28T24",
            "2026-11-28T1",
            "a..b",
            "..",
            "2026-11-02..2026-11-01",
            "２０２６-11",
        ] {
            assert!(Span::parse(text, NOW_MS).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_period_that_runs_is_compared_by_its_whole_hours() {
        let compared = |text: &str| {
            let compared = Span::parse(text, NOW_MS).expect(text).overview(NOW_MS).compared?;
            Some([compared.until_ms, compared.before_from_ms, compared.before_to_ms].map(rfc3339))
        };
        let whole = |text: [&str; 3]| Some(text.map(str::to_owned));
        assert_eq!(compared("hour"), None);
        let day = ["2026-11-28T13:00:00Z", "2026-11-27T00:00:00Z", "2026-11-27T13:00:00Z"];
        assert_eq!(compared("day"), whole(day));
        let march = ["2026-04-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"];
        assert_eq!(compared("2026-03"), whole(march));
        for (text, step_ms) in
            [("day", HOUR_MS), ("month", DAY_MS), ("2025-01-01..2025-12-31", 7 * DAY_MS)]
        {
            assert_eq!(Span::parse(text, NOW_MS).expect(text).overview(NOW_MS).step_ms, step_ms);
        }
        let ages = Span::parse("1970-01-01..2200-01-01", NOW_MS).expect("ages").overview(NOW_MS);
        assert!((ages.to_ms - ages.from_ms) / ages.step_ms <= STEPS_MAX, "{ages:?}");
    }
}

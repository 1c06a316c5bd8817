//! When a rate applies: conditions on where and when a model runs, and how.

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use crate::base::pattern::is_fit;
use crate::base::time::Timestamp;
use crate::domain::price_factors::{Modifier, PriceFactors, Word};
use crate::pricing::circumstances::Circumstances;

const MINUTES_OF_A_DAY: u64 = 24 * 60;

/// Conditions, all of which must hold. Without any, a rate applies always.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    /// Locations, or patterns in which `*` stands for any text. One of them must be told.
    location: Option<Places>,
    /// A part of the day in UTC, such as `16:30-00:30`.
    hours_utc: Option<Hours>,
    /// Days of the week in UTC, such as `mon`.
    weekdays: Option<Box<[Weekday]>>,
    /// Whether the model thought.
    thinking: Option<bool>,
    /// The `speed` of the generation.
    speed: Option<Word>,
    /// The `inference_geo` of the generation.
    inference_geo: Option<Word>,
    /// The latency class of the generation.
    latency: Option<Word>,
}

impl When {
    /// Whether all conditions hold.
    pub(super) fn holds(&self, circumstances: &Circumstances) -> bool {
        let Circumstances { ended_at, factors, .. } = circumstances;
        let PriceFactors { location, is_thinking, modifiers, .. } = factors;
        let special = |modifier| {
            let mut special = modifiers.special();
            special.find(|(named, _)| *named == modifier).map(|(_, word)| word)
        };
        let is_place = |places: &Places| location.is_some_and(|word| places.has(word.as_str()));
        self.location.as_ref().is_none_or(is_place)
            && self.hours_utc.is_none_or(|hours| hours.has(*ended_at))
            && self.weekdays.as_ref().is_none_or(|days| days.contains(&Weekday::of(*ended_at)))
            && self.thinking.is_none_or(|thinking| thinking == *is_thinking)
            && Modifier::ALL.into_iter().all(|modifier| {
                self.word(modifier).is_none_or(|word| special(modifier) == Some(word))
            })
    }

    /// The word that a modifier must have, and for which the rates stand.
    pub(super) fn word(&self, modifier: Modifier) -> Option<Word> {
        match modifier {
            Modifier::Speed => self.speed,
            Modifier::InferenceGeo => self.inference_geo,
            Modifier::Latency => self.latency,
        }
    }

    /// How many conditions there are: of the rates that apply, the one with the most goes first.
    pub(super) fn conditions(&self) -> usize {
        let words = Modifier::ALL.into_iter().filter(|modifier| self.word(*modifier).is_some());
        [
            self.location.is_some(),
            self.hours_utc.is_some(),
            self.weekdays.is_some(),
            self.thinking.is_some(),
        ]
        .into_iter()
        .filter(|is_there| *is_there)
        .count()
        .saturating_add(words.count())
    }
}

/// One pattern, or several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Places {
    One(Box<str>),
    Several(Box<[Box<str>]>),
}

impl Places {
    fn has(&self, location: &str) -> bool {
        match self {
            Self::One(pattern) => is_fit(pattern, location),
            Self::Several(patterns) => patterns.iter().any(|pattern| is_fit(pattern, location)),
        }
    }
}

/// From the first minute to before the second one, perhaps of the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hours {
    from: u64,
    to: u64,
}

impl Hours {
    fn parse(text: &str) -> Option<Self> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let number = |text: &str| {
                let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u64>().ok().filter(|_| is_plain)
            };
            let (hour, minute) = (number(hour)?, number(minute)?);
            (hour < 24 && minute < 60).then(|| hour.saturating_mul(60).saturating_add(minute))
        };
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        (from != to).then_some(Self { from, to })
    }

    fn has(self, at: Timestamp) -> bool {
        let minute = (at.0 / 60_000).checked_rem(MINUTES_OF_A_DAY).unwrap_or_default();
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

#[cfg(feature = "schema")]
crate::base::schema::text_schema! {
    Hours,
    "A part of the day in UTC, from the first minute to before the second one, perhaps of the next day.",
    "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
    ["16:30-00:30"]
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            let expected = "a part of the day in UTC such as \"16:30-00:30\"";
            D::Error::invalid_value(Unexpected::Str(&text), &expected)
        })
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "lowercase")]
enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// The day of this time in UTC. 1970 began on a Thursday.
    fn of(at: Timestamp) -> Self {
        let days = (at.0 / 60_000).checked_div(MINUTES_OF_A_DAY).unwrap_or_default();
        match days % 7 {
            0 => Self::Thu,
            1 => Self::Fri,
            2 => Self::Sat,
            3 => Self::Sun,
            4 => Self::Mon,
            5 => Self::Tue,
            _ => Self::Wed,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_map();
        if let Some(Places::One(place)) = &self.location {
            told.entry(&"location", place);
        }
        if let Some(Places::Several(places)) = &self.location {
            told.entry(&"location", places);
        }
        if let Some(Hours { from, to }) = self.hours_utc {
            let clock = |minutes: u64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            told.entry(&"hours_utc", &format!("{}-{}", clock(from), clock(to)));
        }
        if let Some(days) = &self.weekdays {
            told.entry(&"weekdays", days);
        }
        if let Some(thinking) = self.thinking {
            told.entry(&"thinking", &thinking);
        }
        for modifier in Modifier::ALL {
            if let Some(word) = self.word(modifier) {
                told.entry(&modifier.name(), &word);
            }
        }
        told.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp(u64::try_from(time.as_millisecond()).unwrap())
    }

    fn holds(when: &str, circumstances: &Circumstances) -> bool {
        serde_json::from_str::<When>(when).unwrap().holds(circumstances)
    }

    #[test]
    fn hours_and_days_are_in_utc_and_may_pass_midnight() {
        for (when, time, expected) in [
            (r#"{"hours_utc":"16:30-00:30"}"#, "2026-11-27T16:29:59Z", false),
            (r#"{"hours_utc":"16:30-00:30"}"#, "2026-11-27T16:30:00Z", true),
            (r#"{"hours_utc":"16:30-00:30"}"#, "2026-11-28T00:29:59Z", true),
            (r#"{"hours_utc":"16:30-00:30"}"#, "2026-11-28T00:30:00Z", false),
            (r#"{"hours_utc":"01:00-04:00"}"#, "2026-11-27T00:59:59Z", false),
            (r#"{"hours_utc":"01:00-04:00"}"#, "2026-11-27T03:59:59Z", true),
            // A Friday.
            (r#"{"weekdays":["fri"]}"#, "2026-11-27T00:00:00Z", true),
            (r#"{"weekdays":["sat","sun"]}"#, "2026-11-27T23:59:59Z", false),
            (r#"{"weekdays":["sat","sun"]}"#, "2026-11-28T00:00:00Z", true),
            (r#"{"weekdays":["mon"],"hours_utc":"01:00-04:00"}"#, "2026-11-27T02:00:00Z", false),
            ("{}", "2026-11-27T02:00:00Z", true),
        ] {
            assert_eq!(holds(when, &Circumstances::from(at(time))), expected, "{when} {time}");
        }
    }

    #[test]
    fn what_is_not_told_fulfils_no_condition() {
        let mut factors = PriceFactors {
            location: Some(Word::new("europe-west4")),
            is_thinking: true,
            ..PriceFactors::default()
        };
        factors.modifiers.tell(Modifier::Speed, "fast");
        let told = Circumstances::at(Timestamp(0), factors);
        let untold = Circumstances::from(Timestamp(0));
        for (when, of_told, of_untold) in [
            (r#"{"location":"europe-*"}"#, true, false),
            (r#"{"location":["us-*","europe-west4"]}"#, true, false),
            (r#"{"location":"us-*"}"#, false, false),
            (r#"{"thinking":true}"#, true, false),
            (r#"{"thinking":false}"#, false, true),
            (r#"{"speed":"fast"}"#, true, false),
            (r#"{"speed":"fast","latency":"optimized"}"#, false, false),
        ] {
            assert_eq!((holds(when, &told), holds(when, &untold)), (of_told, of_untold), "{when}");
        }
    }

    #[test]
    fn conditions_that_mean_nothing_are_refused() {
        for when in [
            r#"{"hours_utc":"1:00-4:00"}"#,
            r#"{"hours_utc":"24:00-25:00"}"#,
            r#"{"hours_utc":"10:00-10:00"}"#,
            r#"{"hours_utc":"10:00"}"#,
            r#"{"weekdays":["friday"]}"#,
            r#"{"region":"eu"}"#,
        ] {
            assert!(serde_json::from_str::<When>(when).is_err(), "{when}");
        }
    }
}

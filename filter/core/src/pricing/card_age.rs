//! How old a card's prices were when a generation ran.

use serde::{Serialize, Serializer};

use crate::base::time::{Millis, Timestamp};

/// The age of a card's prices, in classes: who bills looks at what was priced by old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardAge {
    /// Seven days or less, or the card is younger than the generation.
    Within7Days,
    /// 30 days or less.
    Within30Days,
    /// 90 days or less.
    Within90Days,
    /// More than 90 days.
    Over90Days,
    /// The card has no date.
    Unknown,
}

impl CardAge {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Within7Days => "within_7_days",
            Self::Within30Days => "within_30_days",
            Self::Within90Days => "within_90_days",
            Self::Over90Days => "over_90_days",
            Self::Unknown => "unknown",
        }
    }

    /// The class of prices of `date` at a later time.
    pub(super) fn at(date: Option<Timestamp>, now: Timestamp) -> Self {
        const DAY_SECONDS: u64 = 24 * 60 * 60;
        const CLASSES: [(u64, CardAge); 3] =
            [(7, CardAge::Within7Days), (30, CardAge::Within30Days), (90, CardAge::Within90Days)];
        let Some(date) = date else { return Self::Unknown };
        let age = now.saturating_since(date);
        let is_within = |days: u64| age <= Millis::from_seconds(days.saturating_mul(DAY_SECONDS));
        let class = CLASSES.into_iter().find(|(days, _)| is_within(*days));
        class.map_or(Self::Over90Days, |(_, class)| class)
    }
}

impl Serialize for CardAge {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

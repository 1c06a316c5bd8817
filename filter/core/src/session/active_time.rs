//! The time during which at least one call of a session ran.

use serde::{Deserialize, Serialize};

use crate::base::limits::ACTIVE_SPANS_MAX;
use crate::base::time::{Millis, Timestamp};

/// A union of spans. Exact as long as calls that end late do not span more than
/// [`ACTIVE_SPANS_MAX`] pauses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveTime {
    /// Disjoint spans, the earliest first.
    spans: Vec<(Timestamp, Timestamp)>,
    /// The sum of the time before the first span.
    settled: Millis,
    /// Where the settled time ends: a span that starts earlier is cut there.
    settled_until: Timestamp,
}

impl ActiveTime {
    /// Adds the span of one call.
    pub fn add(&mut self, start: Timestamp, end: Timestamp) {
        let mut start = start.max(self.settled_until);
        let mut end = end;
        if end <= start {
            return;
        }
        self.spans.retain(|&(from, to)| {
            let is_apart = to < start || end < from;
            if !is_apart {
                start = start.min(from);
                end = end.max(to);
            }
            is_apart
        });
        let at = self.spans.partition_point(|&(from, _)| from < start);
        self.spans.insert(at, (start, end));
        if self.spans.len() > ACTIVE_SPANS_MAX {
            let (from, to) = self.spans.remove(0);
            self.settled.0 = self.settled.0.saturating_add(to.saturating_since(from).0);
            self.settled_until = to;
        }
    }

    /// The time covered so far.
    pub fn total(&self) -> Millis {
        let spans = self.spans.iter().map(|&(from, to)| to.saturating_since(from).0);
        Millis(spans.fold(self.settled.0, u64::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_calls_count_once_in_any_order() {
        let spans = [(10, 20), (30, 40), (35, 50), (0, 5), (50, 60), (2, 3), (70, 70)];
        for turn in 0..spans.len() {
            let mut active = ActiveTime::default();
            for (start, end) in spans[turn..].iter().chain(&spans[..turn]) {
                active.add(Timestamp(*start), Timestamp(*end));
            }
            assert_eq!(active.total(), Millis(45), "from {turn}");
            active.add(Timestamp(0), Timestamp(100));
            assert_eq!(active.total(), Millis(100), "from {turn}");
        }
    }

    #[test]
    fn many_pauses_are_bounded_and_add_up() {
        let mut active = ActiveTime::default();
        for at in 0..1000 {
            active.add(Timestamp(at * 10), Timestamp(at * 10 + 4));
        }
        assert_eq!(active.total(), Millis(4000));
        assert!(active.spans.len() <= ACTIVE_SPANS_MAX);
    }
}

//! Counts calls of the same tool with the same arguments in a window that advances in eighths: a
//! call counts for the length of the window, less up to an eighth of it.

use serde::{Deserialize, Serialize};

use crate::base::limits::REPEATS_PER_SCOPE_MAX;
use crate::base::time::Timestamp;
use crate::config::LoopRule;

/// The number of parts of a window.
const PARTS: u64 = 8;

/// The most recent different calls of one scope, the least recent first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoopWindow(Vec<Repeat>);

/// One tool with the same arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Repeat {
    tool: String,
    arguments: u64,
    /// The numbers of the window's parts in which the client called it, and the calls in each.
    parts: Vec<(u64, u32)>,
}

/// A tool, and how often the client called it with the same arguments in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated<'a> {
    /// The tool.
    pub tool: &'a str,
    /// The number of calls.
    pub calls: u64,
}

impl LoopRule {
    fn part_ms(&self) -> u64 {
        self.window.millis().0.div_ceil(PARTS).max(1)
    }

    fn part(&self, at: Timestamp) -> u64 {
        at.0.checked_div(self.part_ms()).unwrap_or_default()
    }

    /// When the window advances next.
    pub(crate) fn next_part(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.part(now).saturating_add(1).saturating_mul(self.part_ms()))
    }
}

impl LoopWindow {
    /// Counts a call of `tool`; `arguments` is a hash of its arguments.
    pub(crate) fn add(&mut self, rule: &LoopRule, tool: &str, arguments: u64, at: Timestamp) {
        let part = rule.part(at);
        let place = self.0.iter().position(|it| it.arguments == arguments && it.tool == tool);
        // A repeated call moves to the end: the window drops the least recent call first.
        let mut repeat = match place {
            Some(place) => self.0.remove(place),
            None => Repeat { tool: tool.to_owned(), arguments, parts: Vec::new() },
        };
        repeat.count(part);
        if self.0.len() >= REPEATS_PER_SCOPE_MAX {
            self.0.remove(0);
        }
        self.0.push(repeat);
    }

    /// The call that the client repeated most in the window.
    pub(crate) fn most(&self, rule: &LoopRule, now: Timestamp) -> Option<Repeated<'_>> {
        let part = rule.part(now);
        let counted = self.0.iter().map(|it| Repeated { tool: &it.tool, calls: it.calls(part) });
        counted.max_by_key(|repeated| repeated.calls)
    }
}

impl Repeat {
    fn count(&mut self, part: u64) {
        self.parts.retain(|(number, _)| is_within(*number, part));
        match self.parts.iter_mut().find(|(number, _)| *number == part) {
            Some((_, calls)) => *calls = calls.saturating_add(1),
            None => self.parts.push((part, 1)),
        }
    }

    /// The number of calls in the window that ends with `part`.
    fn calls(&self, part: u64) -> u64 {
        let within = self.parts.iter().filter(|(number, _)| is_within(*number, part));
        within.map(|(_, calls)| u64::from(*calls)).sum()
    }
}

/// Whether a part is in the window, later ones too: clocks are sometimes set back a little.
fn is_within(number: u64, part: u64) -> bool {
    number.abs_diff(part) < PARTS
}

#[cfg(test)]
mod tests {
    use super::{LoopRule, LoopWindow, Timestamp};
    use crate::base::limits::REPEATS_PER_SCOPE_MAX;

    fn rule() -> LoopRule {
        serde_json::from_str(r#"{ "calls": 3, "window": "8s" }"#).expect("a rule")
    }

    #[test]
    fn calls_count_for_a_window_less_up_to_an_eighth() {
        let mut repeats = LoopWindow::default();
        let most = |repeats: &LoopWindow, at: u64| {
            repeats.most(&rule(), Timestamp(at)).map(|it| (it.tool.to_owned(), it.calls))
        };
        assert_eq!(most(&repeats, 0), None);
        for (at, tool, arguments, expected) in [
            (100_500, "search", 1, 1),
            (101_500, "search", 1, 2),
            (101_600, "search", 2, 2),
            (101_700, "fetch", 1, 2),
            (107_999, "search", 1, 3),
            (108_000, "search", 1, 3),
            (109_000, "search", 1, 3),
            // More than a window after all others, and then back again.
            (200_000, "search", 1, 1),
            (100_000, "search", 1, 1),
            (99_000, "search", 1, 2),
        ] {
            repeats.add(&rule(), tool, arguments, Timestamp(at));
            assert_eq!(most(&repeats, at).expect("counted").1, expected, "{at}");
        }
        assert_eq!(most(&repeats, 106_999), Some(("search".to_owned(), 2)));
        assert_eq!(most(&repeats, 107_000).expect("known").1, 1);
        assert_eq!(most(&repeats, 120_000).expect("known").1, 0);
    }

    #[test]
    fn what_was_not_called_for_longest_is_forgotten() {
        let mut repeats = LoopWindow::default();
        for arguments in 0..1_000 {
            repeats.add(&rule(), "kept", 7, Timestamp(0));
            repeats.add(&rule(), "other", arguments, Timestamp(0));
        }
        assert_eq!(repeats.0.len(), REPEATS_PER_SCOPE_MAX);
        assert_eq!(repeats.most(&rule(), Timestamp(0)).expect("known").calls, 1_000);
    }
}

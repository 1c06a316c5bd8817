//! What came of a recovery.

use std::fmt;

/// The most texts that are kept of one kind; the others are counted.
const TEXTS_MAX: usize = 1000;

/// What came of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many lines the filter had spilled into the logs.
    pub lines: u64,
    /// How many events the target took, with those that it had already.
    pub taken: u64,
    /// How many of them it had already, as far as it says so.
    pub known: u64,
    /// One text for each event that the target refused for good, with its reason.
    pub refused: Texts,
    /// One text for each line, event or log that cannot be read, with its place.
    pub unreadable: Texts,
    /// One text for each line that is not signed as the secret asks for, with its place.
    pub untrusted: Texts,
    /// The places of lines with the words of a spilled line that Envoy's Wasm logger did not write.
    pub foreign: Texts,
    /// Signed lines that were taken without a check, as there was no secret.
    pub unchecked: u64,
    /// Facts that cannot become events, because nothing says what they cost.
    pub unpriced_facts: u64,
}

/// Texts, of which only the first thousand are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    first: Vec<String>,
    count: u64,
}

impl Texts {
    /// Adds a text.
    pub fn push(&mut self, text: String) {
        self.count += 1;
        if self.first.len() < TEXTS_MAX {
            self.first.push(text);
        }
    }

    fn add(&mut self, other: Self) {
        let hidden = other.count - other.first.len() as u64;
        other.first.into_iter().for_each(|text| self.push(text));
        self.count += hidden;
    }

    /// The first of them.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.first.iter()
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The first ten, and how many more there are.
impl fmt::Display for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<&str> = self.first.iter().take(10).map(String::as_str).collect();
        f.write_str(&shown.join("; "))?;
        match self.count.saturating_sub(10) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Recovered {
    /// Adds what came of further lines.
    pub(super) fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.taken += other.taken;
        self.known += other.known;
        self.refused.add(other.refused);
        self.unreadable.add(other.unreadable);
        self.untrusted.add(other.untrusted);
        self.foreign.add(other.foreign);
        self.unchecked += other.unchecked;
        self.unpriced_facts += other.unpriced_facts;
    }

    /// Whether everything that was found has arrived.
    pub fn is_complete(&self) -> bool {
        let Self { refused, unreadable, untrusted, unpriced_facts, .. } = self;
        refused.is_empty() && unreadable.is_empty() && untrusted.is_empty() && *unpriced_facts == 0
    }

    /// What could not be recovered, one line for each kind.
    pub fn losses(&self) -> Vec<String> {
        let named = [
            (&self.refused, "events not recovered, as they are refused"),
            (&self.unreadable, "not recovered, as they are not readable"),
            (&self.untrusted, "lines not taken, as the secret did not sign them"),
        ];
        let named = named.into_iter().filter(|(texts, _)| !texts.is_empty());
        let mut lines: Vec<String> =
            named.map(|(texts, what)| format!("{} {what}: {texts}", texts.count())).collect();
        if self.unpriced_facts > 0 {
            lines.push(format!(
                "{} facts not recovered: `agent-meter recover --config FILE` prices them by the plugin configuration that was in force",
                self.unpriced_facts
            ));
        }
        lines
    }

    /// What a reader should know of what was found, one line for each kind.
    pub fn notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.foreign.is_empty() {
            lines.push(format!(
                "{} lines left alone: they have the words \"agent-meter spill\", but do not begin as lines of Envoy's Wasm logger; if your Envoy has a format of its own, give it with --log-format: {}",
                self.foreign.count(),
                self.foreign
            ));
        }
        if self.unchecked > 0 {
            lines.push(format!(
                "{} lines are signed, and were taken unchecked: give --secret-file FILE to check them",
                self.unchecked
            ));
        }
        lines
    }
}

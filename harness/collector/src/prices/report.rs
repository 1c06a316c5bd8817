//! What an import made of a list, and what it left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A part of a list that is not in the card, or not as the list has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeftOut {
    /// The model, as the list has it.
    pub model: String,
    /// The member of the list with the price; none if it is the whole model.
    pub member: Option<String>,
    /// Why.
    pub reason: String,
}

/// What was mapped and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries of the card.
    pub mapped: usize,
    /// Models that were not asked for.
    pub(super) not_asked_for: BTreeSet<String>,
    /// In the order of the list, each once.
    pub(super) left_out: Vec<LeftOut>,
}

/// The reason of a model that the options exclude.
const NOT_ASKED_FOR: &str = "not asked for";

impl Report {
    /// How many models were not asked for.
    pub fn not_asked_for(&self) -> usize {
        self.not_asked_for.len()
    }

    /// Why a model is not in the card; `None` if it is.
    pub fn reason_of(&self, model: &str) -> Option<&str> {
        let is_it = |left_out: &&LeftOut| left_out.model == model && left_out.member.is_none();
        self.left_out.iter().find(is_it).map(|left_out| left_out.reason.as_str())
    }

    /// Everything that is left out, in the order of the list, without what was not asked for.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Everything that is left out: one line each, sorted, of model, member (`*` is the whole
    /// model) and reason, with tabs between them.
    pub fn to_text(&self) -> String {
        let left_out = self.left_out.iter().map(|LeftOut { model, member, reason }| {
            format!("{model}\t{}\t{reason}\n", member.as_deref().unwrap_or("*"))
        });
        let not_asked_for =
            self.not_asked_for.iter().map(|model| format!("{model}\t*\t{NOT_ASKED_FOR}\n"));
        let lines: BTreeSet<String> = left_out.chain(not_asked_for).collect();
        lines.into_iter().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rates", self.mapped)?;
        if self.not_asked_for() > 0 {
            write!(f, "; {} models {NOT_ASKED_FOR}", self.not_asked_for())?;
        }
        for what in ["models", "prices"] {
            let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for LeftOut { model, member, reason } in &self.left_out {
                let reason = match (member, what) {
                    (None, "models") => reason.clone(),
                    (Some(member), "prices") => format!("{member}: {reason}"),
                    _ => continue,
                };
                by_reason.entry(reason).or_default().push(model);
            }
            if !by_reason.is_empty() {
                let count: usize = by_reason.values().map(Vec::len).sum();
                write!(f, "\n{count} {what} left out:")?;
            }
            let mut by_count: Vec<_> = by_reason.into_iter().collect();
            by_count.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
            for (reason, names) in by_count {
                let mut examples = names.clone();
                examples.dedup();
                let more = if examples.len() > 3 { ", ..." } else { "" };
                examples.truncate(3);
                write!(f, "\n{:>6} {reason} ({}{more})", names.len(), examples.join(", "))?;
            }
        }
        Ok(())
    }
}

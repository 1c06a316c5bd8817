//! Facts that wait in a worker's memory while its journal is full, by customer.

use std::collections::VecDeque;

use crate::shared_data::shares::{Counts, Holder};

/// Facts that wait because the journal is full.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    facts: VecDeque<(Holder, Vec<u8>)>,
    counts: Counts,
}

impl Overflow {
    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    pub(super) fn first(&self) -> Option<Vec<u8>> {
        self.facts.front().map(|(_, fact)| fact.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    pub(super) fn of(&self, holder: &Holder) -> usize {
        self.counts.of(holder)
    }

    /// Who has the most facts that wait.
    pub(super) fn most(&self) -> Option<(usize, Holder)> {
        self.counts.most()
    }

    pub(super) fn push(&mut self, holder: Holder, fact: Vec<u8>) {
        self.facts.push_back((holder, fact));
        self.counts.add(holder);
    }

    /// Takes out one fact: the first, or the last of this customer.
    pub(super) fn pop(&mut self, last_of: Option<&Holder>) -> Option<Vec<u8>> {
        let at = match last_of {
            None => 0,
            Some(holder) => self.facts.iter().rposition(|(of, _)| of == holder)?,
        };
        let (holder, fact) = self.facts.remove(at)?;
        self.counts.take(&holder);
        Some(fact)
    }
}

//! Facts that wait in a worker's memory while its journal is full, by customer.

use std::collections::{HashMap, VecDeque};

use crate::base::hash::hash;
use crate::shared_data::shares::Holder;

/// Facts that wait because the journal is full.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    facts: VecDeque<(Holder, Vec<u8>)>,
    by_customer: HashMap<Holder, usize>,
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
        self.by_customer.get(holder).copied().unwrap_or_default()
    }

    /// Who has the most facts that wait.
    pub(super) fn most(&self) -> Option<(usize, Holder)> {
        self.by_customer.iter().map(|(holder, facts)| (*facts, *holder)).max()
    }

    pub(super) fn push(&mut self, holder: Holder, fact: Vec<u8>) {
        self.facts.push_back((holder, fact));
        let facts = self.by_customer.entry(holder).or_default();
        *facts = facts.saturating_add(1);
    }

    /// Takes out one fact: the first, or the last of this customer.
    pub(super) fn pop(&mut self, last_of: Option<&Holder>) -> Option<Vec<u8>> {
        let at = match last_of {
            None => 0,
            Some(holder) => self.facts.iter().rposition(|(of, _)| of == holder)?,
        };
        let (holder, fact) = self.facts.remove(at)?;
        let left = self.of(&holder).saturating_sub(1);
        if left == 0 {
            self.by_customer.remove(&holder);
        } else {
            self.by_customer.insert(holder, left);
        }
        Some(fact)
    }
}

pub(super) fn holder_of(customer: &str) -> Holder {
    hash(&[customer.as_bytes()])
}

//! How many bytes a worker decodes in a second, so that one client's compressed bodies keep nobody
//! else waiting. Bodies without a coding cost no more than their size, and are not counted.

use core::cell::RefCell;
use core::hash::{Hash, Hasher};
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::rc::Rc;

use crate::base::limits::{
    DECODED_BYTES_PER_SECOND_AND_IDENTITY_MAX, DECODED_BYTES_PER_SECOND_MAX,
    DECODING_IDENTITIES_MAX,
};
use crate::base::time::Timestamp;

/// The bytes that a worker decoded in the present second.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecodeBudget(Rc<RefCell<Second>>);

#[derive(Debug, Default)]
struct Second {
    number: u64,
    bytes: u64,
    by_identity: HashMap<u64, u64>,
}

impl DecodeBudget {
    /// Begins a new second, if it is one.
    pub(crate) fn tick(&self, now: Timestamp) {
        let mut second = self.0.borrow_mut();
        let number = now.0 / 1000;
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
    }

    /// The share of one identity, by its name.
    pub(crate) fn share(&self, identity: impl Hash) -> DecodeShare {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        DecodeShare { budget: Some(self.clone()), identity: hasher.finish() }
    }
}

/// One identity's share of a worker's budget. The default has no limit.
#[derive(Clone, Debug, Default)]
pub struct DecodeShare {
    budget: Option<DecodeBudget>,
    identity: u64,
}

impl DecodeShare {
    /// Takes so many bytes; false if the share, or the budget, does not have them.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let Some(DecodeBudget(second)) = &self.budget else { return true };
        let mut second = second.borrow_mut();
        let is_counted_apart = second.by_identity.len() < DECODING_IDENTITIES_MAX
            || second.by_identity.contains_key(&self.identity);
        let identity = if is_counted_apart { self.identity } else { 0 };
        let of_identity = second.by_identity.entry(identity).or_default();
        let after = of_identity.saturating_add(bytes);
        if after > DECODED_BYTES_PER_SECOND_AND_IDENTITY_MAX {
            return false;
        }
        *of_identity = after;
        second.bytes = second.bytes.saturating_add(bytes);
        second.bytes <= DECODED_BYTES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::DecodeBudget;
    use crate::base::time::Timestamp;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn an_identity_has_its_share_of_each_second_and_leaves_the_others_theirs() {
        let budget = DecodeBudget::default();
        budget.tick(Timestamp(1_000));
        let (one, two) = (budget.share(1), budget.share(2));
        assert!((0..16).all(|_| one.take(MIB)));
        assert!(!one.take(MIB), "its share is spent");
        assert!(two.take(MIB), "another's is not");
        budget.tick(Timestamp(1_999));
        assert!(!one.take(1));
        budget.tick(Timestamp(2_000));
        assert!(one.take(MIB), "the next second");
    }

    #[test]
    fn a_worker_has_a_budget_however_many_identities_there_are() {
        let budget = DecodeBudget::default();
        let taken = (0..100).filter(|identity| budget.share(*identity).take(MIB)).count();
        assert_eq!(taken, 64);
        let names = DecodeBudget::default();
        (0..5000).for_each(|identity| assert!(names.share(identity).take(1)));
        assert!(names.0.borrow().by_identity.len() <= 1025);
    }
}

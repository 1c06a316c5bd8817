//! Generations that were billed before everything about them was told: by an estimate, by what came
//! of a response that was cut, or as unknown. When a later response tells more, its event takes the
//! place of theirs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::accountant::attribution::Cause;
use crate::base::limits::PROVISIONAL_MAX;
use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::fact::generation::{GenerationEnded, Told};
use crate::pricing::charge::Charged;
use crate::session::Session;
use crate::shared_data::shares::{Holder, Shares, holder_of};
use crate::shared_data::slots::Slots;

/// The session in which a generation was billed, which may have been closed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BilledIn {
    pub id: [u8; 16],
    pub started_at: Timestamp,
    pub currency: String,
}

impl BilledIn {
    pub(crate) fn new(session: &Session) -> Self {
        let Session { id, started_at, currency, .. } = session;
        Self { id: *id, started_at: *started_at, currency: currency.clone() }
    }
}

/// A generation that was billed, and may be billed otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provisional {
    /// What the truth will carry.
    pub link: Link,
    /// What was billed.
    pub generation: Box<GenerationEnded>,
    /// Who bears the cost.
    pub cause: Cause,
    /// What was charged for its own run and each further one, in order.
    pub charges: Vec<Charged>,
    pub session: BilledIn,
    pub billed_at: Timestamp,
}

impl Provisional {
    fn holder(&self) -> Holder {
        holder_of(&self.cause.session.identity.customer)
    }
}

/// All of them. If there are too many, the customer with the most gives up its oldest.
#[derive(Debug, Default)]
pub(crate) struct Corrections {
    /// In slots of shared data.
    pub(super) slots: Slots<Provisional>,
    by_link: HashMap<Link, u32>,
    shares: Shares,
}

impl Corrections {
    /// Puts one back that was read from shared data.
    pub(crate) fn restore(&mut self, slot: u32, billed: Option<Provisional>) {
        self.slots.restore(slot, billed);
        self.index(slot);
    }

    /// How far what was billed under this link was told.
    pub(crate) fn told(&self, link: &Link) -> Option<Told> {
        let billed = self.by_link.get(link).and_then(|slot| self.slots.get(*slot))?;
        Some(billed.generation.told())
    }

    /// Remembers one. Returns whether that forgot one, which may be this.
    pub(crate) fn insert(&mut self, billed: Provisional) -> bool {
        // A response that stopped is rarely continued: it takes no room from what is not whole.
        let is_stopped = billed.generation.told() == Told::Stopped;
        let max = if is_stopped { PROVISIONAL_MAX / 2 } else { PROVISIONAL_MAX };
        let is_full = self.slots.len() >= max;
        if is_full && is_stopped {
            return true;
        }
        if is_full
            && let Some(holder) = self.shares.who_gives_way(&billed.holder())
            && let Some((_, slot)) = self.shares.first(&holder)
        {
            self.remove(slot);
        }
        let slot = self.slots.insert(billed);
        self.index(slot);
        is_full
    }

    /// Takes out the one under this link.
    pub(crate) fn take(&mut self, link: &Link) -> Option<Provisional> {
        self.remove(*self.by_link.get(link)?)
    }

    fn index(&mut self, slot: u32) {
        let Some(billed) = self.slots.get(slot) else { return };
        self.by_link.insert(billed.link, slot);
        self.shares.insert(billed.holder(), billed.billed_at, slot);
    }

    fn remove(&mut self, slot: u32) -> Option<Provisional> {
        let billed = self.slots.remove(slot)?;
        self.by_link.remove(&billed.link);
        self.shares.remove(&billed.holder(), billed.billed_at, slot);
        Some(billed)
    }
}
